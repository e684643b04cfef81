"""What the commands' arguments have in common."""

import argparse
import json
from collections.abc import Iterable
from typing import Any

from lightning_synthqual.extractors.registry import CATALOGUE, PAIRS
from lightning_synthqual.extractors.weights import DIRECTORY_VARIABLE


def verbose(default: Any = argparse.SUPPRESS) -> argparse.ArgumentParser:
    """A parent parser with ``-v``, which every command takes too; suppressed, it keeps what was said before it."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "-v", "--verbose", action="store_true", default=default, help="say what is being done, and where an error arose"
    )
    return parser


def add_weights_dir(parser: argparse.ArgumentParser) -> None:
    """Add ``--weights-dir``."""
    parser.add_argument(
        "--weights-dir",
        metavar="DIR",
        help=f"folder of weights under their published names; default: ${DIRECTORY_VARIABLE}, else the download "
        "folders of the libraries that the weights come from",
    )


def words(text: str) -> tuple[str, ...]:
    """A comma-separated list."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def size(text: str) -> int | tuple[int, int]:
    """``SIDE`` or ``HEIGHTxWIDTH``."""
    sides = [int(side) for side in text.lower().split("x")]
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def extractor(text: str) -> tuple[str, Any]:
    """``NAME=VALUE``: a weights file of a known network, an import path, or a configuration as JSON.

    Raises:
        ValueError: If the text is none of these.
    """
    name, equals, value = text.partition("=")
    if not equals or not value:
        raise ValueError(f"`--extractor` takes NAME=VALUE, but got {text!r}.")
    if value.startswith("{"):
        return name, _json(value, "--extractor")
    return name, {"weights": value} if name in CATALOGUE or name in PAIRS else value


def options(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Several ``FAMILY.KEY=JSON``.

    Raises:
        ValueError: If a text is not of this form.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        family, dot, option = key.partition(".")
        if not equals or not dot:
            raise ValueError(f"`--option` takes FAMILY.KEY=JSON, for example precision.k=5, but got {text!r}.")
        found.setdefault(family, {})[option] = _json(value, "--option")
    return found


def _json(text: str, argument: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"`{argument}` takes JSON (text in double quotes), but got {text!r}: {error}.") from error
