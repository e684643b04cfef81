"""``synthqual plot``: learning curves of one or several runs."""

import argparse
from pathlib import Path
from typing import Any

from lightning_synthqual.cli.arguments import verbose, words
from lightning_synthqual.cli.runs import find_reports, read_reports
from lightning_synthqual.reporting.files import REPORTS


def add(commands: Any) -> None:
    """Add the command to those of ``synthqual``."""
    parser = commands.add_parser("plot", help="learning curves of one or several runs", parents=[verbose()])
    parser.add_argument(
        "run_dirs", metavar="RUN_DIR", type=Path, nargs="+", help=f"folders with {REPORTS}, at any depth"
    )
    parser.add_argument("--metrics", type=words, help="comma-separated metrics; default: all")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="image to write; default: curves.png in the first RUN_DIR"
    )
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> None:
    """Draw the curves to a file."""
    from PIL import Image

    from lightning_synthqual.plotting.curves import curves_of_runs, points

    reports = [read_reports(find_reports(path, (REPORTS,))) for path in parsed.run_dirs]
    runs = dict(zip(_names(parsed.run_dirs), reports, strict=True))
    output = parsed.output or parsed.run_dirs[0] / "curves.png"
    Image.fromarray(curves_of_runs(runs, parsed.metrics)).save(output)
    print(f"{sum(len(points(each)) for each in reports)} evaluations drawn to {output}")


def _names(paths: list[Path]) -> list[str]:
    """What tells runs apart, none for a single one: names of their folders, or paths where these are the same."""
    if len(paths) == 1:
        return [""]
    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError("`RUN_DIR` names the same folder twice. Name each run once.")
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]
