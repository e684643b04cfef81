"""``synthqual plot``: learning curves of a run."""

import argparse
from pathlib import Path
from typing import Any

from lightning_synthqual.cli.arguments import verbose, words
from lightning_synthqual.cli.runs import find_reports, read_reports
from lightning_synthqual.reporting.files import REPORTS


def add(commands: Any) -> None:
    """Add the command to those of ``synthqual``."""
    parser = commands.add_parser("plot", help="learning curves of a run", parents=[verbose()])
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help=f"folder with {REPORTS}, at any depth")
    parser.add_argument("--metrics", type=words, help="comma-separated metrics; default: all")
    parser.add_argument("--output", type=Path, metavar="FILE", help="image to write; default: RUN_DIR/curves.png")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> None:
    """Draw the curves to a file."""
    from PIL import Image

    from lightning_synthqual.plotting.curves import curves, points

    reports = read_reports(find_reports(parsed.run_dir, (REPORTS,)))
    output = parsed.output or parsed.run_dir / "curves.png"
    Image.fromarray(curves(reports, parsed.metrics)).save(output)
    print(f"{len(points(reports))} evaluations drawn to {output}")
