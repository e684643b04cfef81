"""What an object computes, as a digest: its code, its plain values and tensors, and what its functions refer to.

Weights alone do not tell networks apart: an attribute, a closure or a line of code changes the features as well. Two
objects of equal digest may still differ: in compiled code, in the code of libraries, and in lists, dicts and objects
that functions refer to, which often only count or collect. ``Extractor.probe`` is there for those.
"""

import argparse
import enum
import functools
import hashlib
import inspect
import sys
import textwrap
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_synthqual.extractors.weights import sha256_of_state

_LIBRARIES = {"torch", "numpy", "lightning", "lightning_fabric", "pytorch_lightning", *sys.stdlib_module_names}
_PLAIN = (bool, int, float, complex, str, bytes, range, slice, torch.dtype, np.dtype, np.generic)
_VALUES = (*_PLAIN, tuple, frozenset, Tensor, np.ndarray, nn.Module)  # what functions refer to and do not collect into
_CODE = (types.FunctionType, types.MethodType, functools.partial, type)
_NAMESPACES = (types.SimpleNamespace, argparse.Namespace)
# Of a module: what training and torch's own bookkeeping change, and where it is at the moment.
_BOOKKEEPING = {
    "training",
    "_parameters",
    "_buffers",
    "_modules",
    "_non_persistent_buffers_set",
    "_is_full_backward_hook",
    "_device",
    "_dtype",
}
_FORWARD_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_NOTHING = ""  # what has no influence, or none that could be told


def fingerprint(value: Any) -> str:
    """Hex digest of what an object computes.

    Args:
        value: A module, a function, a class, or any other object.

    Returns:
        The digest; equal in every process for objects made by the same code from the same values.

    Example:
        >>> def scaled(factor):
        ...     return lambda images: images * factor
        >>> fingerprint(scaled(2)) == fingerprint(scaled(2)), fingerprint(scaled(2)) == fingerprint(scaled(3))
        (True, False)
    """
    return _digest([_Reader().read(value)])


class _Reader:
    """Reads one object with all that it refers to, each part once."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Any, str]] = {}  # the object too: its number is free again once it is gone

    def read(self, value: Any) -> str:
        """A text that differs where the object does."""
        if value is None or isinstance(value, torch.device):
            return _NOTHING
        if isinstance(value, enum.Enum):
            return f"{type(value).__qualname__}.{value.name}"
        if isinstance(value, _PLAIN):
            return f"{type(value).__name__} {value!r}"
        if isinstance(value, PurePath):
            return f"path {value}"
        if id(value) not in self._seen:
            self._seen[id(value)] = value, "a part of itself"
            parts = self._read_parts(value)
            self._seen[id(value)] = value, _digest([type(value).__qualname__, parts]) if parts else _NOTHING
        return self._seen[id(value)][1]

    def _read_parts(self, value: Any) -> str:
        for kind, reader in self._readers():
            if isinstance(value, kind):
                return reader(value)
        return _NOTHING if _is_library(type(value)) else self._read_object(value)

    def _readers(self) -> Iterable[tuple[Any, Callable[[Any], str]]]:
        """How to read each kind of object, the special kinds first."""
        return (
            (Tensor, _read_tensor),
            (np.ndarray, self._read_array),
            (torch.jit.ScriptModule, self._read_script),
            (nn.Module, self._read_module),
            (Mapping, self._read_mapping),
            ((list, tuple), lambda value: _digest(map(self.read, value))),
            ((set, frozenset), lambda value: _digest(sorted(map(self.read, value)))),
            (functools.partial, lambda value: _digest(map(self.read, (value.func, value.args, value.keywords)))),
            (functools._lru_cache_wrapper, lambda value: self.read(value.__wrapped__)),
            (types.MethodType, lambda value: _digest(map(self.read, (value.__func__, value.__self__)))),
            (types.FunctionType, self._read_function),
            (type, self._read_class),
            ((types.BuiltinFunctionType, types.ModuleType), lambda value: value.__name__),
            (_NAMESPACES, lambda value: self._read_mapping(vars(value))),
        )

    def _read_module(self, module: nn.Module) -> str:
        parts = [sha256_of_state(module)]
        for name, part in module.named_modules():
            hooks = [hook for key in _FORWARD_HOOKS for hook in vars(part).get(key, {}).values()]
            buffers = {key: vars(part)["_buffers"][key] for key in sorted(part._non_persistent_buffers_set)}
            parts += [name, *map(self.read, (type(part), _attributes(part), hooks, buffers))]
        return _digest(parts)

    def _read_script(self, module: torch.jit.ScriptModule) -> str:
        parts = [sha256_of_state(module)]
        part: Any  # of a class that torch makes at run time
        for part in module.modules():
            code, constants = part.code_with_constants if part._c._has_method("forward") else ("", None)
            parts += [code, self.read(getattr(constants, "const_mapping", None))]
        return _digest(parts)

    def _read_mapping(self, mapping: Mapping[Any, Any]) -> str:
        entries = ((self.read(key), self.read(value)) for key, value in mapping.items())
        return _digest(sorted(f"{key}: {value}" for key, value in entries if value != _NOTHING))

    def _read_array(self, array: np.ndarray[Any, Any]) -> str:
        if array.dtype == object:
            return self.read(array.tolist())
        return _digest([str(array.dtype), str(array.shape), hashlib.sha256(array.tobytes()).hexdigest()])

    def _read_object(self, value: Any) -> str:
        slots = [name for kind in type(value).__mro__ for name in _slots(kind)]
        in_slots = {name: getattr(value, name) for name in slots if hasattr(value, name)}
        attributes = {**_class_attributes(type(value)), **in_slots, **getattr(value, "__dict__", {})}
        return _digest(map(self.read, (type(value), attributes)))

    def _read_class(self, kind: type) -> str:
        """Its code; the values of a class count with its instances, since a class that is only mentioned may count."""
        if _is_library(kind):
            return f"{kind.__module__}.{kind.__qualname__}"
        members = {name: _unwrapped(member) for name, member in vars(kind).items()}
        functions = {name: member for name, member in members.items() if isinstance(member, types.FunctionType)}
        return _digest([kind.__qualname__, self._read_mapping(functions), *map(self.read, kind.__bases__)])

    def _read_function(self, function: types.FunctionType) -> str:
        if _is_library(function):
            return f"{function.__module__}.{function.__qualname__}"
        contents = (_content(cell) for cell in function.__closure__ or ())
        cells = [value for value in contents if isinstance(value, (*_VALUES, *_CODE))]
        named = [self._read_global(function, name) for name in _names(function.__code__)]
        values = (function.__defaults__, function.__kwdefaults__, cells)
        return _digest([function.__qualname__, self._source(function), *map(self.read, values), *named])

    def _read_global(self, function: types.FunctionType, name: str) -> str:
        """The value of a global name: plain values, tensors, modules, and what the function's own file defines."""
        value = function.__globals__.get(name)
        own = isinstance(value, types.FunctionType | type) and value.__module__ == function.__module__
        return self.read(value) if own or isinstance(value, _VALUES) else _NOTHING

    def _source(self, function: types.FunctionType) -> str:
        """The source code; of lambdas, which may share a line, and where there is none, the byte code."""
        try:
            if function.__name__ != "<lambda>":
                return textwrap.dedent(inspect.getsource(function))
        except (OSError, TypeError):
            pass
        return self._byte_code(function.__code__)

    def _byte_code(self, code: types.CodeType) -> str:
        constants = [
            self._byte_code(constant) if isinstance(constant, types.CodeType) else self.read(constant)
            for constant in code.co_consts
        ]
        return _digest([code.co_code.hex(), *code.co_names, *constants])


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)} {part}".encode(errors="surrogatepass"))
    return digest.hexdigest()


def _read_tensor(tensor: Tensor) -> str:
    what = f"{tensor.dtype} {tuple(tensor.shape)}"
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        return what
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return _digest([what, hashlib.sha256(content).hexdigest()])


def _is_library(value: type | types.FunctionType) -> bool:
    """Whether a class or function comes from a library whose code is taken as known."""
    return (value.__module__ or "").partition(".")[0] in _LIBRARIES


def _attributes(module: nn.Module) -> dict[str, Any]:
    """A module's own attributes, without torch's bookkeeping, over those of its class."""
    if "_orig_mod" in vars(module)["_modules"]:
        return {}  # made by torch.compile, with other attributes each time
    own = {name: value for name, value in vars(module).items() if not _is_bookkeeping(name)}
    return _class_attributes(type(module)) | own


def _class_attributes(kind: type) -> dict[str, Any]:
    """The values that a class and its bases define, without those of libraries."""
    defining = [each for each in reversed(kind.__mro__) if not _is_library(each)]
    members = {name: _unwrapped(member) for each in defining for name, member in vars(each).items()}
    return {
        name: member
        for name, member in members.items()
        if not name.startswith("__") and not isinstance(member, types.FunctionType)
    }


def _is_bookkeeping(name: str) -> bool:
    return name in _BOOKKEEPING or (name.startswith("_") and (name.endswith("_hooks") or "_hooks_" in name))


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _unwrapped(member: Any) -> Any:
    """The function behind a property, a static method or a class method."""
    if isinstance(member, functools.cached_property):
        return member.func
    return getattr(member, "fget", None) or getattr(member, "__func__", None) or member


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that has no value yet
        return None


def _names(code: types.CodeType) -> list[str]:
    """The global names and attributes that a function and those inside it mention."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return sorted({*code.co_names, *(name for each in inner for name in _names(each))})
