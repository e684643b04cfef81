"""Objects named by import path, and parts of a module named by attribute path, so that a YAML file can name them."""

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from operator import attrgetter
from typing import Any

_PATH = re.compile(r"[^\W\d]\w*(\.\w+)*")  # of attributes; an item of a list of modules is a number
_SHOWN = 20  # parts of a module that an error lists


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Let modules in the current folder be imported, as ``python -m`` does."""
    folder = os.getcwd()  # noqa: PTH109 - sys.path takes strings
    added = folder not in sys.path
    if added:
        sys.path.insert(0, folder)
    try:
        yield
    finally:
        if added:
            sys.path.remove(folder)


def resolve_object(value: Any, argument: str) -> Any:
    """Return ``value``, or what it names if it is an import path such as ``"package.module.name"``.

    Args:
        value: Anything, or an import path (``package.module.name`` or ``package.module:name``).
        argument: The argument it was given as, for the message.

    Raises:
        ValueError: If the path cannot be imported.

    Example:
        >>> resolve_object("math.pi", "number")
        3.141592653589793
    """
    if not isinstance(value, str):
        return value
    module, _, name = value.replace(":", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"`{argument}={value!r}` names nothing that can be imported ({error}). "
            "Give the object itself or a path such as 'package.module.name'."
        ) from error


def model_argument(value: Any, argument: str = "model") -> Any:
    """Check a ``model=`` when it is given: what a path with a colon names is imported at once, other paths are kept.

    Whether a path with dots alone is an attribute path or an import path is known when the module is there, see
    `find_model`.

    Args:
        value: Function, import path, attribute path, or anything else.
        argument: The argument it was given as, for the message.

    Raises:
        ValueError: If it is a string and no path, or names nothing that can be imported.

    Example:
        >>> model_argument("ema.ema_model"), model_argument("math:sqrt")
        ('ema.ema_model', <built-in function sqrt>)
    """
    if isinstance(value, str) and not _PATH.fullmatch(value):
        return resolve_object(value, argument)
    return value


def find_model(model: Any, module: Any, argument: str = "model") -> Callable[[Any], Any] | None:
    """The function that finds, in a module, the one to sample from.

    A string is tried as an attribute path on the module first, and as an import path only where the module has no such
    attribute.

    Args:
        model: Function, attribute path, import path of a function, or ``None``.
        module: The module.
        argument: The argument it was given as, for the message.

    Returns:
        The function: `operator.attrgetter` for an attribute path.

    Raises:
        TypeError: If an import path names no function.
        ValueError: If a string is neither; it lists the parts that the module has.

    Example:
        >>> find_model("numerator", 3)(3), find_model("math.sqrt", 3)(4)
        (3, 2.0)
    """
    if not isinstance(model, str):
        given: Callable[[Any], Any] | None = model
        return given
    owner, missing = _follow(module, model)
    if missing is None:
        return attrgetter(model)
    try:
        found = resolve_object(model, argument)
    except ValueError as error:
        raise ValueError(
            f"`{argument}={model!r}` is neither an attribute of {type(module).__name__} nor a function that can be "
            f"imported ({error.__cause__}). {_there(owner, model, missing)}"
        ) from error
    if not callable(found):
        raise TypeError(
            f"`{argument}={model!r}` must be an attribute path such as 'generator', or name a function "
            f"`model(module) -> module to sample from`, but names {type(found).__name__}."
        )
    function: Callable[[Any], Any] = found
    return function


def part_of(model: Any, module: Any) -> Any:
    """What ``model=`` names in a module, as `find_model` finds it; the module itself for ``None``."""
    function = find_model(model, module)
    return module if function is None else function(module)


def name_of_model(model: Any) -> str:
    """How a ``model=`` is called in a protocol: its path, or the function's name."""
    return model if isinstance(model, str) else str(getattr(model, "__qualname__", type(model).__name__))


def _follow(module: Any, path: str) -> tuple[Any, int | None]:
    """The last object on an attribute path, and the number of the name that it lacks; ``None`` if it lacks none."""
    for place, name in enumerate(path.split(".")):
        try:
            module, owner = getattr(module, name), module
        except (AttributeError, RuntimeError):  # Lightning's `trainer` of a module that has none raises the latter
            return module, place
        if module is None:
            return owner, place
    return module, None


def _there(owner: Any, path: str, missing: int) -> str:
    """What there is at the place where an attribute path ends too early."""
    names = path.split(".")
    parts = [name for name, _ in getattr(owner, "named_children", tuple)()]
    where = f"`{'.'.join(names[:missing])}`" if missing else type(owner).__name__
    if not parts:
        return f"{where} ({type(owner).__name__}) has no parts." if missing else f"{where} has no parts."
    close = get_close_matches(names[missing], parts, 1)
    more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    suggestion = f" Did you mean {'.'.join([*names[:missing], *close])!r}?" if close else ""
    return f"{where} has the parts {', '.join(parts[:_SHOWN])}{more}.{suggestion}"
