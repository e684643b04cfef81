"""``synthqual benchmarks``: published values, each with its source and protocol."""

import argparse
import json
from typing import Any

from lightning_synthqual.cli.arguments import verbose, words
from lightning_synthqual.cli.output import print_table
from lightning_synthqual.reporting.benchmarks import benchmarks


def add(commands: Any) -> None:
    """Add the command to those of ``synthqual``."""
    parser = commands.add_parser(
        "benchmarks", help="published values on popular data sets, with source and protocol", parents=[verbose()]
    )
    parser.add_argument("--metrics", type=words, metavar="NAMES", help="comma-separated metrics; default: all")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> None:
    """Print the values.

    Raises:
        ValueError: If nothing is published of these metrics.
    """
    table = benchmarks(parsed.metrics)
    if not table.rows:
        raise ValueError(f"Of {', '.join(parsed.metrics)} there are no published values. `--metrics` may be left out.")
    if parsed.json:
        print(json.dumps([dict(zip(table.columns, row, strict=True)) for row in table.rows], indent=1))
    else:
        print_table([tuple(column.upper() for column in table.columns), *(tuple(map(str, row)) for row in table.rows)])
