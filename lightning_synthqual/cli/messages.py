"""Errors as the command prints them: one line, which speaks of options and not of Python's arguments."""

import ast
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

_LONGEST = 1000
_SAY_ENOUGH = (ImportError, OSError, RuntimeError, TypeError, ValueError)  # the messages of others need their type
# `name`, `name=`, `name=value`, `name['key']`
_ARGUMENT = re.compile(r"`(?P<name>[a-z_]+)(?:\[(?P<key>[^`\]]*)\])?(?P<equals>=(?P<value>[^`]*))?`")
_SINGULAR = {"extractors": "--extractor", "options": "--option"}  # given once per entry


def describe(error: Exception, arguments: Iterable[str]) -> str:
    """An error as one line.

    Args:
        error: The error.
        arguments: Names of the Python arguments that are options of the command.
    """
    message = " ".join(str(error).split())
    if not isinstance(error, _SAY_ENOUGH) or not message:
        message = f"{type(error).__name__}: {message}".removesuffix(": ")
    message = in_options(message, arguments)
    return message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…"


def in_options(message: str, arguments: Iterable[str]) -> str:
    """Write the Python arguments of a message, marked by backticks, as options.

    Args:
        message: An error's text.
        arguments: Names of the Python arguments that are options of the command.

    Example:
        >>> in_options("Pass `real_range=(0.0, 1.0)` to `QualityMonitor`.", ["real_range"])
        'Pass `--real-range 0.0 1.0`.'
    """
    known = set(arguments)

    def option(match: re.Match[str]) -> str:
        return f"`{_option(match)}`" if match["name"] in known else match[0]

    return _ARGUMENT.sub(option, message).replace(" to `QualityMonitor`", "")


def _option(match: re.Match[str]) -> str:
    option = _SINGULAR.get(match["name"], "--" + match["name"].replace("_", "-"))
    if match["key"]:
        return f"{option} {match['key'].strip(chr(39))}"
    return f"{option} {_value(match['name'], match['value'])}" if match["value"] else option


def _value(name: str, text: str) -> str:
    """A Python value as it is written on a command line."""
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
    if name == "options" and isinstance(value, Mapping):
        return " ".join(
            f"{family}.{key}={json.dumps(each)}" for family, keys in value.items() for key, each in keys.items()
        )
    if name == "extractors" and isinstance(value, Mapping):
        return " ".join(f"{key}={_configuration(each)}" for key, each in value.items())
    if isinstance(value, tuple | list):
        return ("," if name == "metrics" else " ").join(map(str, value))
    return str(value)


def _configuration(spec: Any) -> str:
    only_weights = isinstance(spec, Mapping) and set(spec) == {"weights"}
    return str(spec["weights"]) if only_weights else json.dumps(spec)
