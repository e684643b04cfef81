"""Prepared states of metrics as tensors, and what they depend on."""

import dataclasses
import hashlib
import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_synthqual.metrics.base import Metric

_VERSION = 1  # of what metrics of this package prepare, and of how states are packed
_TEMPLATE = "template"
_OURS = __name__.partition(".")[0] + "."


def state_key(metric: Metric, features: str) -> str | None:
    """What the prepared state of a metric depends on, as a digest.

    Args:
        metric: The metric.
        features: Digest of the features that it reads.

    Returns:
        The digest, or ``None`` if the state is not worth storing, or not all that it depends on can be read.
    """
    if type(metric).prepare is Metric.prepare or type(metric).prepare_sets is not Metric.prepare_sets:
        return None
    own = [kind for kind in type(metric).__mro__ if issubclass(kind, Metric) and kind is not Metric]
    attributes = vars(metric) if not metric.family else {"options": metric.options}
    try:
        code = [inspect.getsource(kind) for kind in own]
        plain = [[name, _plain(value)] for name, value in sorted(attributes.items()) if name != "runtime"]
    except (OSError, TypeError):
        return None
    return hashlib.sha256(json.dumps([_VERSION, metric.family, code, plain, features]).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """A value as JSON that differs whenever the value does.

    Raises:
        TypeError: If it is neither plain nor an array.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return [[_plain(key), _plain(part)] for key, part in value.items()]
    raise TypeError(f"{type(value).__name__} is no plain value.")


def pack_state(state: Any, rows: Sequence[Tensor] = ()) -> dict[str, Tensor] | None:
    """The tensors of a prepared state, by which ``unpack_state`` makes it again.

    A state is made of tensors and plain values in tuples, lists and dicts, and in this package's named tuples and
    dataclasses.

    Args:
        state: The state.
        rows: Features that the state may hold; they are stored elsewhere.

    Returns:
        Tensors by key, with one row each, or ``None`` if the state is another one, or has no tensors.
    """
    packed: dict[str, Tensor] = {}
    try:
        template = _pack(state, rows, packed)
    except TypeError:
        return None
    if not packed:
        return None
    content = bytearray(json.dumps(template).encode())
    return {**packed, _TEMPLATE: torch.frombuffer(content, dtype=torch.uint8)[None]}


def unpack_state(tensors: Mapping[str, Tensor], rows: Sequence[Tensor] = (), device: torch.device | str = "cpu") -> Any:
    """The state that ``pack_state`` packed.

    Args:
        tensors: What it returned.
        rows: The same features.
        device: Device of the state.

    Raises:
        ValueError: If it was packed by another version, whose classes are not those of this one.
    """
    try:
        template = json.loads(bytes(tensors[_TEMPLATE][0].cpu().numpy()))
        return _unpack(template, rows, {name: tensor[0].to(device) for name, tensor in tensors.items()})
    except (AttributeError, ImportError, LookupError, TypeError) as error:
        raise ValueError(f"A prepared state cannot be read: {error}") from error


def _pack(part: Any, rows: Sequence[Tensor], packed: dict[str, Tensor]) -> Any:
    """The template of a part of a state: ``[kind, content]``."""
    if isinstance(part, Tensor):
        for index, known in enumerate(rows):
            if part is known:
                return "rows", index
        name = str(len(packed))
        packed[name] = part.detach()[None].clone()  # of no two that share memory
        return "tensor", name
    if part is None or type(part) in (bool, int, float, str):
        return "plain", part
    if type(part) in (tuple, list):
        return type(part).__name__, [_pack(each, rows, packed) for each in part]
    if type(part) is dict and all(type(key) in (str, int) for key in part):
        return "dict", [[key, _pack(each, rows, packed)] for key, each in part.items()]
    fields = _fields(part)
    name = f"{type(part).__module__}:{type(part).__qualname__}"
    return name, {key: _pack(each, rows, packed) for key, each in fields.items()}


def _fields(part: Any) -> dict[str, Any]:
    """The fields of a named tuple or dataclass of this package.

    Raises:
        TypeError: If it is neither.
    """
    if type(part).__module__.startswith(_OURS):
        if isinstance(part, tuple) and hasattr(part, "_asdict"):
            return dict(part._asdict())
        if dataclasses.is_dataclass(part):
            return {field.name: getattr(part, field.name) for field in dataclasses.fields(part) if field.init}
    raise TypeError(f"{type(part).__name__} cannot be stored.")


def _unpack(template: Any, rows: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Any:
    kind, content = template
    if kind == "rows":
        return rows[content]
    if kind == "tensor":
        return tensors[content]
    if kind == "plain":
        return content
    if kind in ("tuple", "list"):
        parts = [_unpack(each, rows, tensors) for each in content]
        return tuple(parts) if kind == "tuple" else parts
    if kind == "dict":
        return {key: _unpack(each, rows, tensors) for key, each in content}
    fields = {key: _unpack(each, rows, tensors) for key, each in content.items()}
    module, _, name = kind.partition(":")
    if not module.startswith(_OURS):
        raise TypeError(f"{kind} is of no use here.")
    return getattr(importlib.import_module(module), name)(**fields)
