"""Reports on disk, whether or not a logger is used."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from lightning_synthqual.metrics.base import Influence
from lightning_synthqual.metrics.influences import pack_influences, unpack_influences

if TYPE_CHECKING:
    from lightning_synthqual.evaluation.report import Report

REPORTS = "reports.jsonl"
SUPERSEDED = "reports.superseded.jsonl"
INFLUENCES = "report.influences.safetensors"  # beside a report.json
_log = logging.getLogger(__name__)


class ReportFolder:
    """Writes the reports of a run to disk; a failure is logged, and tried again with the next report.

    A full or read-only disk never ends a training: no method raises because of it.
    """

    def __init__(self) -> None:
        # Rows have to be written in their order, so that a failure holds the later ones up; files need not.
        self._rows: list[Callable[[], None]] = []
        self._files: list[Callable[[], None]] = []
        self._directory = Path()

    def rewind(self, directory: Path, reports: Sequence["Report"]) -> None:
        """Let the file hold these reports and no others, as `rewind_reports` does."""
        self._rows = [partial(rewind_reports, directory, list(reports))]
        self._directory = directory
        self.retry()

    def write(self, directory: Path, report: "Report") -> None:
        """Append a report to ``reports.jsonl`` and save its figures and tables."""
        self._rows.append(partial(append_report, directory, report))
        self._files += [partial(save, directory, report) for save in (save_influences, save_pictures, save_tables)]
        self._directory = directory
        self.retry()

    def retry(self) -> None:
        """Try everything that is not written yet."""
        failures: list[str] = []
        while self._rows and _is_done(self._rows[0], failures):
            del self._rows[0]
        self._files = [write for write in self._files if not _is_done(write, failures)]
        if failures:
            _log.warning(
                "Writing to %s failed (%s). The training goes on. Not written are %d changes of %s and %d sets of "
                "figures or tables; the next evaluation tries again.",
                self._directory,
                "; ".join(dict.fromkeys(failures)),
                len(self._rows),
                REPORTS,
                len(self._files),
            )


def _is_done(write: Callable[[], None], failures: list[str]) -> bool:
    """Whether it was written, or can never be: only what the file system refuses is worth another try."""
    try:
        write()
    except Exception as error:
        failures.append(f"{type(error).__name__}: {error}")
        return not isinstance(error, OSError)
    return True


def append_report(directory: Path, report: "Report") -> None:
    """Append the report as one line to ``reports.jsonl`` and make sure that it is on the disk, or change nothing."""
    line = report.to_json() + "\n"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / REPORTS
    if path.exists():
        _whole_lines(path)
    size = path.stat().st_size if path.exists() else 0
    try:
        _write_durably(path, "a", [line])
    except OSError:
        with suppress(OSError):
            os.truncate(path, size)
        raise


def rewind_reports(directory: Path, reports: Sequence["Report"]) -> None:
    """Let ``reports.jsonl`` hold these reports alone; what else it held is moved to ``reports.superseded.jsonl``."""
    path = directory / REPORTS
    lines = [report.to_json() + "\n" for report in reports]
    present = _whole_lines(path) if path.exists() else []
    if lines == present:
        return
    directory.mkdir(parents=True, exist_ok=True)
    dropped = [line for line in present if line not in lines]
    temporary = path.with_name(f".{REPORTS}.partial")
    try:
        _write_durably(temporary, "w", lines)
        if dropped:
            _write_durably(directory / SUPERSEDED, "a", dropped)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if dropped:
        _log.info("%d rows of %s were measured after this point and are now in %s.", len(dropped), path, SUPERSEDED)


def read_lines(path: Path) -> list[str]:
    """The complete lines of a ``reports.jsonl``; one that is still being written is left out."""
    content = path.read_text(encoding="utf-8")
    return content[: content.rfind("\n") + 1].splitlines()


def _whole_lines(path: Path) -> list[str]:
    """The complete lines with their ends; what a killed process has left of another is removed from the file."""
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
    return content[:whole].decode("utf-8", errors="replace").splitlines(keepends=True)


def _write_durably(path: Path, mode: str, lines: Sequence[str]) -> None:
    with path.open(mode, encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def save_tables(directory: Path, report: "Report") -> None:
    """Save each table of the report, without its images, as ``<name>/step=<step>.csv``."""
    for name, table in report.tables.items():
        folder = directory / name
        folder.mkdir(parents=True, exist_ok=True)
        table.write_csv(folder / f"step={report.step}.csv")


def save_influences(directory: Path, report: "Report") -> None:
    """Save the influences of the rows, if there are any."""
    if report.influences:
        write_influences(influences_path(directory, report), report.influences)


def write_influences(path: Path, influences: Mapping[str, Influence]) -> None:
    """Write influences so that no half-written file is ever read."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        save_file(pack_influences(influences), temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def influences_path(directory: Path, report: "Report") -> Path:
    """Where the influences of an evaluation of a run are: ``influences/step=<step>.safetensors``.

    Those of ``trainer.validate`` and ``trainer.test``, whose weights may be others at the same step, are in files of
    their own, ``influences/test-step=<step>.safetensors``.
    """
    stage = (report.protocol.get("sampling") or {}).get("stage")
    return directory / "influences" / f"{'' if stage is None else f'{stage}-'}step={report.step}.safetensors"


class StoredInfluences(Mapping[str, Influence]):
    """The influences of a report that are in a file, read whenever they are looked at; none if there is no such file.

    Args:
        path: The file.
        scalars: The report's values.
    """

    def __init__(self, path: Path, scalars: Mapping[str, float]) -> None:
        self._path = path
        self._scalars = scalars

    def _read(self) -> dict[str, Influence]:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return unpack_influences(load_file(self._path), self._scalars)
        except FileNotFoundError:
            return {}
        except (OSError, SafetensorError) as error:
            _log.warning("Reading %s failed (%s: %s).", self._path, type(error).__name__, error)
            return {}

    def __getitem__(self, name: str) -> Influence:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


def save_pictures(directory: Path, report: "Report") -> None:
    """Save each figure of the report as ``<name>/step=<step>.png``."""
    for name, pixels in report.pictures.items():
        folder = directory / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"step={report.step}.png")
