"""``synthqual compare``: reports side by side."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_synthqual.cli.arguments import verbose
from lightning_synthqual.cli.output import print_table
from lightning_synthqual.cli.runs import find_reports, read_reports
from lightning_synthqual.evaluation.report import Report
from lightning_synthqual.reporting.compare import compare


def add(commands: Any) -> None:
    """Add the command to those of ``synthqual``."""
    parser = commands.add_parser("compare", help="reports side by side", parents=[verbose()])
    parser.add_argument(
        "reports",
        nargs="+",
        metavar="REPORT",
        help="report.json, reports.jsonl (its last row), reports.jsonl:STEP, or the folder of a run (FOLDER:STEP)",
    )
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> None:
    """Print a row per metric and protocol, and a column per report."""
    titles = _distinct_parts(parsed.reports)
    reports = {title: _read_report(text) for title, text in zip(titles, parsed.reports, strict=True)}
    table, notes = compare(reports)
    print_table([table.columns, *(tuple(map(str, row)) for row in table.rows)])
    for note in notes:
        print(note)


def _distinct_parts(paths: Sequence[str]) -> list[str]:
    """The paths without the folders that all have in common."""
    parts = [Path(path).parts for path in paths]
    if len(set(parts)) < len(parts):
        raise ValueError("A report is named twice.")
    while len(paths) > 1 and min(map(len, parts)) > 1 and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    while len(paths) > 1 and min(map(len, parts)) > 1 and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    return ["/".join(part) for part in parts]


def _read_report(text: str) -> Report:
    path, step = _path_and_step(text)
    if path.is_dir():
        path = find_reports(path)
    reports = read_reports(path)
    if step is not None:
        reports = [report for report in reports if report.step == step]
    if not reports:
        raise ValueError(f"`{path}` holds no report" + ("." if step is None else f" of step {step}."))
    return reports[-1]


def _path_and_step(text: str) -> tuple[Path, int | None]:
    path, colon, step = text.rpartition(":")
    if colon and step.isdigit() and not Path(text).exists():
        return Path(path), int(step)
    return Path(text), None
