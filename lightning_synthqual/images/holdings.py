"""What a module, a sampler or a data set holds: submodules, random generators, counters."""

import functools
import random
import types
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

MODULE_INTERNALS = frozenset(vars(nn.Module()))  # what every module has: parameters, buffers, hooks, ...
LARGEST = 1000  # elements of a container that is searched: not the million file names of a data set
_SIMPLE = (int, float, complex, bool, str, bytes, type(None))
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


@dataclass
class Holdings:
    """What was found.

    Args:
        modules: Modules and their submodules, parents before their children.
        generators: Random generators.
        others: Data sets, callables and objects that were searched: their numbers and strings may be counters.
    """

    modules: list[nn.Module] = field(default_factory=list)
    generators: list[Any] = field(default_factory=list)
    others: list[Any] = field(default_factory=list)


def search(objects: Iterable[Any]) -> Holdings:
    """Find what objects hold.

    Modules are searched with their submodules and attributes; data sets, data loaders and callables by their
    attributes, functions by their closures, defaults and the generators among the globals that they name; lists,
    tuples, sets and dicts of up to 1000 elements by their elements. Other objects are not looked into, unless they
    are given themselves.
    """
    objects = list(objects)
    found = Holdings()
    seen: dict[int, Any] = {}
    pending = deque([*(each for each in objects if isinstance(each, nn.Module)), *objects])
    while pending:
        value = pending.popleft()
        if id(value) in seen:
            continue
        seen[id(value)] = value  # keeps temporary objects alive, so that no other gets their id
        if isinstance(value, _GENERATORS):
            found.generators.append(value)
        elif isinstance(value, nn.Module):
            pending.extendleft(reversed([*value.children()]))  # parents before their children
            pending.extend(attributes(value).values())
            found.modules.append(value)
        else:
            if _is_searched(value) or any(value is each for each in objects):
                found.others.append(value)
                pending.extend(getattr(value, "__dict__", {}).values())
            pending.extend(_elements(value))
    return found


def attributes(module: nn.Module) -> dict[str, Any]:
    """The attributes of a module but for parameters, buffers, submodules, hooks and its mode."""
    return {name: value for name, value in vars(module).items() if name not in MODULE_INTERNALS}


def counters(value: Any) -> dict[str, Any]:
    """The attributes of an object that are numbers, strings, ``None`` or tuples of these."""
    return {name: each for name, each in getattr(value, "__dict__", {}).items() if is_simple(each)}


def is_simple(value: Any) -> bool:
    """Whether a value is a number, a string, ``None`` or a tuple of these."""
    return isinstance(value, _SIMPLE) or (type(value) is tuple and all(map(is_simple, value)))


def _is_searched(value: Any) -> bool:
    if isinstance(value, Dataset | DataLoader | Sampler):
        return True
    own = str(getattr(value, "__module__", "")).partition(".")[0] != "torch"  # torch's own state is none of ours
    return callable(value) and own and not isinstance(value, type | types.BuiltinFunctionType | types.MethodType)


def _elements(value: Any) -> Iterator[Any]:
    """What a container, a function or a method holds."""
    if isinstance(value, list | tuple | set | frozenset | deque | dict) and len(value) <= LARGEST:
        yield from value.values() if isinstance(value, dict) else value
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, types.MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, types.FunctionType):
        yield from _held_by_function(value)


def _held_by_function(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a variable that has no value yet
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for name in function.__code__.co_names:
        if isinstance(function.__globals__.get(name), _GENERATORS):
            yield function.__globals__[name]
