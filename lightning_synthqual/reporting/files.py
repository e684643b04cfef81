"""Reports on disk: they are there whether or not any logger is up."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from lightning_synthqual.evaluation.report import Report

REPORTS = "reports.jsonl"
SUPERSEDED = "reports.superseded.jsonl"


def append_report(directory: Path, report: "Report") -> None:
    """Append the report as one line to ``reports.jsonl`` and make sure that it is on the disk."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / REPORTS
    if path.exists():
        _drop_unfinished_line(path)
    with path.open("a", encoding="utf-8") as file:
        file.write(report.to_json() + "\n")
        file.flush()
        os.fsync(file.fileno())


def rewind_reports(directory: Path, reports: Sequence["Report"]) -> None:
    """Let ``reports.jsonl`` hold these reports alone; what else it held is moved to ``reports.superseded.jsonl``."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / REPORTS
    lines = [report.to_json() + "\n" for report in reports]
    if path.exists():
        _drop_unfinished_line(path)
        dropped = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line not in lines]
        if dropped:
            with (directory / SUPERSEDED).open("a", encoding="utf-8") as file:
                file.writelines(dropped)
    temporary = path.with_name(f".{REPORTS}.partial")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_lines(path: Path) -> list[str]:
    """The whole lines of a ``reports.jsonl``; one that is still being written is left out."""
    content = path.read_text(encoding="utf-8")
    return content[: content.rfind("\n") + 1].splitlines()


def _drop_unfinished_line(path: Path) -> None:
    """Remove what a process that was killed while it wrote has left of its line."""
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


def save_tables(directory: Path, report: "Report") -> None:
    """Save each table of the report, without its pictures, as ``<name>/step=<step>.csv``."""
    for name, table in report.tables.items():
        folder = directory / name
        folder.mkdir(parents=True, exist_ok=True)
        table.write_csv(folder / f"step={report.step}.csv")


def save_pictures(directory: Path, report: "Report") -> None:
    """Save each picture of the report as ``<name>/step=<step>.png``."""
    for name, pixels in report.pictures.items():
        folder = directory / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"step={report.step}.png")
