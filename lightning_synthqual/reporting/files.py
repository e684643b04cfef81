"""Reports on disk: they are there whether or not any logger is up."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from lightning_synthqual.evaluation.report import Report

REPORTS = "reports.jsonl"


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


def _drop_unfinished_line(path: Path) -> None:
    """Remove what a process that was killed while it wrote has left of its line."""
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


def save_pictures(directory: Path, report: "Report") -> None:
    """Save each picture of the report as ``<name>/step=<step>.png``."""
    for name, pixels in report.pictures.items():
        folder = directory / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"step={report.step}.png")
