"""Functions of the user's: what they can be called with, and how the protocol names them."""

import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

from torch import nn

from lightning_synthqual.images.holdings import counters, is_simple

_NO_CODE_OF_THE_USERS = ("builtins", "torch", "lightning", "pytorch_lightning", "lightning_fabric", "abc", "typing")


def can_be_called(function: Callable[..., Any], *arguments: str, keywords: tuple[str, ...] = ()) -> bool:
    """Whether a function takes these positional arguments and keywords; ``True`` if it does not say.

    Example:
        >>> can_be_called(lambda n, generator: None, "n", "generator"), can_be_called(lambda: None, "n")
        (True, False)
    """
    signature = signature_of(function)
    if signature is None:
        return True
    try:
        signature.bind(*arguments, **dict.fromkeys(keywords))
    except TypeError:
        return False
    return True


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """The signature of a function, or ``None`` where there is none, as for some builtins."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def describe_callable(value: Callable[..., Any]) -> dict[str, str]:
    """How the protocol names a function, a method, a partial or a callable object.

    Args:
        value: The callable.

    Returns:
        ``name``: its module and qualified name; and ``code``, where it has Python code: a short hash of the compiled
        code and of the numbers and strings that are bound to it (by `functools.partial`, a closure, defaults, or
        attributes of a callable object). Comments and formatting do not change it; another minor version of Python may.

    Example:
        >>> def sampler(module, n, generator): return module(n)
        >>> sorted(describe_callable(sampler))
        ['code', 'name']
    """
    pieces = list(_code(value))
    described = {"name": _name(value)}
    if pieces:
        described["code"] = hashlib.sha256("\n".join(pieces).encode()).hexdigest()[:12]
    return described


def label_of(value: Callable[..., Any]) -> str:
    """The description of a callable as one string: its name, and its code in brackets."""
    described = describe_callable(value)
    return described["name"] + (f" [{described['code']}]" if "code" in described else "")


def _name(value: Any) -> str:
    while isinstance(value, functools.partial):
        value = value.func
    if isinstance(value, attrgetter):
        return ".".join(value.__reduce__()[1])
    named = value if hasattr(value, "__qualname__") else type(value)
    module = getattr(named, "__module__", None)
    if module == "__main__":  # a script: the name that its functions have when it is imported
        module = Path(getattr(sys.modules[module], "__file__", module)).stem
    return ".".join(filter(None, (module, named.__qualname__)))


def _code(value: Any, depth: int = 3) -> Iterator[str]:
    """The parts of what a callable does that can be compared as text; functions in closures up to ``depth``."""
    bound = functools.partial(_bound, depth=depth - 1)
    if isinstance(value, functools.partial):
        yield from _code(value.func, depth)
        yield from map(bound, value.args)
        yield from (f"{name}={bound(each)}" for name, each in sorted(value.keywords.items()))
    elif isinstance(value, types.MethodType):
        yield from _code(value.__func__, depth)
        if not isinstance(value.__self__, nn.Module | type):
            yield from _attributes(value.__self__)
    elif isinstance(value, types.FunctionType):
        yield from _code_object(value.__code__)
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != types.CellType()]
        yield from map(bound, (*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()))
    elif not isinstance(value, types.BuiltinFunctionType):
        yield from _code_of_class(value if isinstance(value, type) else type(value))
        yield from () if isinstance(value, nn.Module | type) else _attributes(value)


def _bound(value: Any, depth: int) -> str:
    """A value that a function holds: itself where it is simple, the code of a function, else its type."""
    if is_simple(value):
        return repr(value)
    if depth > 0 and isinstance(value, types.FunctionType | types.MethodType | functools.partial):
        return "\n".join((_name(value), *_code(value, depth)))
    return type(value).__qualname__


def _attributes(value: Any) -> Iterator[str]:
    yield from (f"{name}={each!r}" for name, each in sorted(counters(value).items()))


def _code_of_class(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] in _NO_CODE_OF_THE_USERS:
            continue
        for name, member in sorted(vars(base).items()):
            function = getattr(member, "__func__", member)
            if isinstance(function, types.FunctionType):
                yield name
                yield from _code_object(function.__code__)


def _code_object(code: types.CodeType) -> Iterator[str]:
    """Instructions, names and constants, but neither file nor lines."""
    yield code.co_code.hex()
    yield repr((code.co_names, code.co_varnames, code.co_freevars))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code_object(constant)
        elif isinstance(constant, frozenset):
            yield repr(sorted(map(repr, constant)))
        else:
            yield repr(constant)
