"""``synthqual weights``: the weights of the networks, listed and fetched."""

import argparse
from typing import Any

from lightning_synthqual.cli.arguments import add_weights_dir, verbose
from lightning_synthqual.cli.output import print_table
from lightning_synthqual.extractors import load, load_pair
from lightning_synthqual.extractors.registry import CATALOGUE, PAIRS, required_weights


def add(commands: Any) -> None:
    """Add the command to those of ``synthqual``."""
    parser = commands.add_parser(
        "weights", help="the weights of the networks: list and fetch them", parents=[verbose()]
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="say which weights are here and which are missing", parents=[verbose()])
    listing.add_argument("names", nargs="*", metavar="NAME", help="extractors or pair networks; default: all")
    add_weights_dir(listing)
    listing.set_defaults(run=run_list)
    fetching = actions.add_parser("fetch", help="download weights ahead of a run, and try them", parents=[verbose()])
    fetching.add_argument("names", nargs="+", metavar="NAME", help="extractors or pair networks")
    add_weights_dir(fetching)
    fetching.set_defaults(run=run_fetch)


def run_list(parsed: argparse.Namespace) -> None:
    """Print where the weights are, or where they are published."""
    names = parsed.names or list(dict.fromkeys([*CATALOGUE, *PAIRS]))
    rows = [("NAME", "WEIGHTS", "WHERE")]
    for name in names:
        needed = required_weights(name, parsed.weights_dir)
        rows += [(name, item.filename, str(item.path or f"missing: {item.url}")) for item in needed]
        if not needed:
            rows.append((name, "none needed", ""))
    print_table(rows)


def run_fetch(parsed: argparse.Namespace) -> None:
    """Download what is missing, and load each network once."""
    for name in parsed.names:
        required_weights(name)  # an unknown name, before the first of many gigabytes
    for name in parsed.names:
        network = (load if _is_extractor(name) else load_pair)(name, weights_dir=parsed.weights_dir)
        where = ", ".join(str(item.path) for item in required_weights(name, parsed.weights_dir))
        print(f"{name}: {where or 'no weights needed'} (SHA-256 {network.identity.weights}, {network.identity.origin})")


def _is_extractor(name: str) -> bool:
    return name in CATALOGUE or name not in PAIRS
