"""What tells data sets apart without reading all of their images: class, length, transforms, and a few items."""

import functools
import inspect
import re
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from lightning_synthqual.images.files import ArrayDataset, FolderDataset
from lightning_synthqual.images.holdings import LARGEST, MODULE_INTERNALS, is_simple
from lightning_synthqual.images.randomness import Stream, derived_seed

SAMPLED = 256  # items that stand for all
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type)


def sampled(count: int) -> list[int]:
    """The positions, in order, of the items that stand for a set of ``count``; always the same ones."""
    draw = np.random.default_rng(derived_seed(0, Stream.CHECK))
    return sorted(draw.choice(count, min(count, SAMPLED), replace=False).tolist())


def own_fingerprint(dataset: Any) -> str | None:
    """The fingerprint that a Hugging Face dataset keeps of its data and of all that was done to them."""
    found = getattr(dataset, "_fingerprint", None)
    return found if isinstance(found, str) and found else None


def stamp_of(dataset: Any) -> list[Any] | None:
    """What tells a map-style data set from others without reading it, as plain values, where there is such a thing."""
    if isinstance(dataset, FolderDataset):
        return ["folder", dataset.stamp()]
    if isinstance(dataset, ArrayDataset):
        return ["array", dataset.stamp()]
    known = own_fingerprint(dataset)
    return None if known is None else ["own", known, len(dataset)]


def describe(dataset: Any) -> list[Any]:
    """Class, length and transforms of a data set and of those that it wraps, as plain values.

    Args:
        dataset: Any data set.

    Returns:
        Values for JSON, equal in every process for data sets that are made alike.

    Example:
        >>> class Photos(list):
        ...     def __init__(self, items):
        ...         super().__init__(items)
        ...         self.transform = functools.partial(round, ndigits=2)
        >>> describe(Photos([1, 2]))[1:]
        [2, [['transform', ['builtins.round', [], [['ndigits', 2]]]]]]
    """
    own = getattr(dataset, "__dict__", {})
    wrapped = [each for value in own.values() for each in _datasets(value)]
    inherited = {name: value for kind in reversed(type(dataset).__mro__) for name, value in vars(kind).items()}
    of_class = {name: value for name, value in inherited.items() if not _is_method(value)}
    transforms = [[name, _transform(value)] for name, value in {**of_class, **own}.items() if _transforms(name, value)]
    length = len(dataset) if hasattr(dataset, "__len__") else None
    return [_name(type(dataset)), length, transforms, *map(describe, wrapped)]


def _datasets(value: Any) -> Iterator[Any]:
    """The data sets in an attribute: itself, or those of a list."""
    values = value if isinstance(value, list | tuple) and len(value) <= LARGEST else [value]
    return (each for each in values if isinstance(each, Dataset))


def _is_method(value: Any) -> bool:
    return inspect.isroutine(value) or isinstance(value, type | staticmethod | classmethod)


def _transforms(name: str, value: Any) -> bool:
    return callable(value) and not name.startswith("__") and not isinstance(value, Dataset)


def _transform(value: Any, depth: int = 0) -> Any:
    """A callable by the name of its code, its parameters, and the callables that it is made of."""
    if is_simple(value):
        return value if isinstance(value, bool | int | float | str | None) else repr(value)
    if isinstance(value, functools.partial):
        keywords = [[name, _transform(each, depth + 1)] for name, each in sorted(value.keywords.items())]
        return [_transform(value.func, depth + 1), [_transform(each, depth + 1) for each in value.args], keywords]
    if isinstance(value, list | tuple):
        return [_transform(each, depth + 1) for each in value[:LARGEST]]
    if isinstance(value, _CODE):
        return _name(value)
    if depth > 5 or not callable(value):  # tensors and the like show what they hold, shortened
        return _ADDRESS.sub("", repr(value))[:LARGEST]
    own = {name: each for name, each in getattr(value, "__dict__", {}).items() if name not in MODULE_INTERNALS}
    parts = [[name, _transform(each, depth + 1)] for name, each in own.items() if _is_parameter(each)]
    return [_name(type(value)), _ADDRESS.sub("", repr(value))[:LARGEST], parts]


def _is_parameter(value: Any) -> bool:
    return not isinstance(value, Dataset) and (is_simple(value) or callable(value) or isinstance(value, list | tuple))


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
