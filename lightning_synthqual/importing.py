"""Objects named by import path, so that a YAML file can name them."""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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
