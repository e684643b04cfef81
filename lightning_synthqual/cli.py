"""The command ``synthqual``."""

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence

from lightning_synthqual.__about__ import __version__
from lightning_synthqual.extractors import load, load_pair
from lightning_synthqual.extractors.registry import CATALOGUE, PAIRS, required_weights
from lightning_synthqual.extractors.weights import DIRECTORY_VARIABLE

_BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Words after ``synthqual``; default: those of the process.

    Returns:
        The exit status: 0, or 2 for bad input, which also gets one line on standard error.
    """
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if parsed.verbose else logging.WARNING, format="%(message)s")
    try:
        parsed.run(parsed)
    except (OSError, TypeError, ValueError) as error:
        print(f"synthqual: {' '.join(str(error).split())}", file=sys.stderr)
        return _BAD_INPUT
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("synthqual", description="Quality of generated images.")
    parser.add_argument("--version", action="version", version=f"lightning-synthqual {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="say what is being done")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    weights = commands.add_parser("weights", help="the weights of the networks: what is there, what is missing")
    actions = weights.add_subparsers(title="actions", required=True, metavar="ACTION")
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument(
        "--weights-dir",
        metavar="DIR",
        help=f"a folder of weights by their published names; default: ${DIRECTORY_VARIABLE}, else the download folders "
        "of the libraries that the weights come from",
    )
    listing = actions.add_parser("list", parents=[folder], help="say which weights are here and which are missing")
    listing.add_argument("names", nargs="*", metavar="NAME", help="extractors or pair networks; default: all")
    listing.set_defaults(run=_list_weights)
    fetching = actions.add_parser("fetch", parents=[folder], help="download weights ahead of a run, and try them")
    fetching.add_argument("names", nargs="+", metavar="NAME", help="extractors or pair networks")
    fetching.set_defaults(run=_fetch_weights)
    return parser


def _list_weights(parsed: argparse.Namespace) -> None:
    names = parsed.names or list(dict.fromkeys([*CATALOGUE, *PAIRS]))
    rows = [("NAME", "WEIGHTS", "WHERE")]
    for name in names:
        needed = required_weights(name, parsed.weights_dir)
        rows += [(name, item.filename, str(item.path or f"missing: {item.url}")) for item in needed]
        if not needed:
            rows.append((name, "none needed", ""))
    _print_table(rows)


def _fetch_weights(parsed: argparse.Namespace) -> None:
    for name in parsed.names:
        required_weights(name)  # an unknown name, before the first of many gigabytes
    for name in parsed.names:
        network = (load if _is_extractor(name) else load_pair)(name, weights_dir=parsed.weights_dir)
        where = ", ".join(str(item.path) for item in required_weights(name, parsed.weights_dir))
        print(f"{name}: {where or 'no weights needed'} (SHA-256 {network.identity.weights}, {network.identity.origin})")


def _is_extractor(name: str) -> bool:
    return name in CATALOGUE or name not in PAIRS


def _print_table(rows: Iterable[tuple[str, ...]]) -> None:
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
