"""Prepared states of users' metrics as tensors, and what they depend on."""

import hashlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from lightning_synthqual.metrics.base import Metric


def state_key(metric: Metric, features: str) -> str | None:
    """What the prepared state of a user's metric depends on, as a digest.

    Args:
        metric: The metric.
        features: Digest of what made the features that it reads.

    Returns:
        The digest, or ``None`` if the state is not worth storing, or not all that it depends on can be read.
    """
    if metric.family or type(metric).prepare is Metric.prepare or type(metric).prepare_sets is not Metric.prepare_sets:
        return None
    own = [kind for kind in type(metric).__mro__ if issubclass(kind, Metric) and kind is not Metric]
    try:
        code = [inspect.getsource(kind) for kind in own]
        plain = [[name, _plain(value)] for name, value in sorted(vars(metric).items()) if name != "runtime"]
    except (OSError, TypeError):
        return None
    return hashlib.sha256(json.dumps([code, plain, features]).encode()).hexdigest()


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


def pack_state(state: Any) -> dict[str, Tensor] | None:
    """The tensors of a prepared state, by which ``unpack_state`` makes it again.

    Returns:
        Tensors by key, or ``None`` if the state is no tensor, no dict of tensors and no tuple of tensors.
    """
    if isinstance(state, Tensor):
        return {"tensor": state[None].clone()}
    if type(state) is dict and all(isinstance(key, str) for key in state):
        items = {f"dict.{key}": part for key, part in state.items()}
    elif type(state) is tuple:
        items = {f"tuple.{index}": part for index, part in enumerate(state)}
    else:
        return None
    if not items or not all(isinstance(part, Tensor) for part in items.values()):
        return None
    # One row each, as all tensors of a file have equally many; and no two that share memory.
    return {key: part[None].clone() for key, part in items.items()}


def unpack_state(tensors: Mapping[str, Tensor]) -> Any:
    """The state that ``pack_state`` packed."""
    if "tensor" in tensors:
        return tensors["tensor"][0]
    kinds = {key.partition(".")[0] for key in tensors}
    if kinds == {"dict"}:
        return {key.partition(".")[2]: part[0] for key, part in tensors.items()}
    return tuple(tensors[f"tuple.{index}"][0] for index in range(len(tensors)))
