"""The reports of a run's checkpoints in a folder: each step once, whenever the process is killed."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_synthqual.cli.runs import read_reports
from lightning_synthqual.evaluation.report import Report
from lightning_synthqual.reporting.best import best_by_name, best_of
from lightning_synthqual.reporting.differences import differing, protocol_of
from lightning_synthqual.reporting.files import (
    REPORTS,
    StoredInfluences,
    append_report,
    influences_path,
    rewind_reports,
    save_influences,
    save_pictures,
    save_tables,
)
from lightning_synthqual.reporting.loggers import send_report

BEST = "best"
_SAMPLING = ("kind", "latent_shape", "labels", "label_format", "inputs", "sampler", "model", "precision")
_log = logging.getLogger(__name__)


class Results:
    """The reports in a folder.

    The row in ``reports.jsonl`` is written last of what belongs to a report, so that a step without a row is simply
    scored again.

    Args:
        directory: The folder.
        loggers: Loggers that get each report.
        prefix: Prefix of the logged names.
        monitor: Score by which the best checkpoint is chosen; ``None``: the first that can get better or worse.

    Raises:
        ValueError: If ``reports.jsonl`` in the folder holds something else.
    """

    def __init__(self, directory: Path, loggers: Sequence[Any] = (), *, prefix: str, monitor: str | None) -> None:
        self.directory = directory
        self._loggers = loggers
        self._prefix = prefix
        self._monitor = None if monitor is None else monitor.removeprefix(f"{prefix}/")
        path = directory / REPORTS
        self.reports = sorted(read_reports(path), key=_step) if path.exists() else []
        if any("checkpoint" not in (report.protocol.get("sampling") or {}) for report in self.reports):
            raise ValueError(
                f"`--output {directory}` has reports of the training itself in {REPORTS}. Give another folder."
            )

    @property
    def steps(self) -> set[int]:
        """The steps that have been scored."""
        return {_step(report) for report in self.reports}

    def before(self, step: int) -> Report | None:
        """The report of the last step before this one."""
        earlier = [report for report in self.reports if _step(report) < step]
        return earlier[-1] if earlier else None

    def difference(self, report: Report) -> str:
        """What in the protocol of another report differs from those that are here; empty if nothing does."""
        if not self.reports:
            return ""
        here = self.reports[-1]
        names = [name for name in report.names if name in here.scalars]  # undefined values are left out
        return differing([_conditions(each, names) for each in (here, report)])

    def difference_of_settings(self, settings: dict[str, Any], metrics: Sequence[str]) -> str:
        """The same of settings that are known before anything is scored."""
        if not self.reports:
            return ""
        protocol = self.reports[-1].protocol
        here = {**{key: protocol.get(key) for key in settings}, "metrics": sorted(protocol.get("metrics", {}))}
        return differing([here, {**settings, "metrics": sorted(metrics)}])

    def check_monitor(self, report: Report) -> None:
        """Raise if the report does not have the score that the best is chosen by.

        Raises:
            ValueError: It names the scores that could be.
        """
        if self._monitor is not None and report.direction(self._monitor) is None:
            known = [name for name in report.scalars if report.direction(name) is not None]
            raise ValueError(
                f"`monitor={self._monitor!r}` is no score that can get better or worse. There are: {', '.join(known)}."
            )

    def add(self, report: Report) -> None:
        """Write a report, and what is made of all of them.

        Raises:
            OSError: If the disk refuses.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        for save in (save_influences, save_pictures, save_tables):
            save(self.directory, report)
        reports = sorted([*self.reports, report], key=_step)
        best = best_by_name(reports)
        send_report(report, self._loggers, self.directory, prefix=self._prefix, best=best)
        if reports[-1] is report:
            append_report(self.directory, report)
        else:  # an earlier step than others that have been scored
            rewind_reports(self.directory, reports)
        self.reports = reports
        self._release(report)

    def newly_best(self) -> list[str]:
        """The scores in which the last report is better than all before it."""
        if len(self.reports) < 2:
            return []
        return [name for name, report in best_by_name(self.reports).items() if report is self.reports[-1]]

    def link_best(self, paths: Mapping[int, Path]) -> None:
        """Let the link ``best`` name the best checkpoint that there still is.

        Args:
            paths: Checkpoints by step.
        """
        name = self._score(self.reports[-1]) if self.reports else None
        present = [report for report in self.reports if _step(report) in paths]
        best = None if name is None else best_of(present, name)
        if best is not None:
            _link(self.directory / BEST, paths[_step(best)].resolve())

    def _score(self, report: Report) -> str | None:
        if self._monitor is not None:
            return self._monitor if self._monitor in report.scalars else None
        return next((name for name in report.names if report.direction(name) is not None), None)

    def _release(self, report: Report) -> None:
        """Let go of figures, tables and influences; the latter are read from the folder when they are needed."""
        stored = StoredInfluences(influences_path(self.directory, report), report.scalars)
        kept = replace(report, pictures={}, tables={}, influences=stored)
        self.reports = [kept if each is report else each for each in self.reports]

    def draw_curves(self) -> None:
        """Draw ``curves.png``, if there is a report."""
        from PIL import Image

        from lightning_synthqual.plotting.curves import curves

        if not self.reports:
            return
        temporary = self.directory / ".curves.partial.png"
        try:
            Image.fromarray(curves(self.reports)).save(temporary)
            temporary.replace(self.directory / "curves.png")
        except ValueError as error:  # no score of all of them is defined
            _log.info("No curves are drawn: %s", error)


@contextmanager
def only_writer(directory: Path, *, patience: float = 15.0) -> Iterator[None]:
    """Let no other process write to a folder meanwhile; the operating system ends this with the process.

    Args:
        directory: The folder.
        patience: Seconds to wait for another process, since the children of a killed one live a little longer.

    Raises:
        ValueError: If another process goes on writing there.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (directory / ".lock").open("w") as file:
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    message = f"Another process writes to `--output {directory}`. Stop it, or give another folder."
                    raise ValueError(message) from None
                time.sleep(0.1)
            except OSError:  # a file system without locks
                break
        yield


def _step(report: Report) -> int:
    return -1 if report.step is None else report.step


def _conditions(report: Report, names: Sequence[str]) -> dict[str, Any]:
    """What has to be the same in all reports of a folder, as far as it concerns these values."""
    sampling = report.protocol.get("sampling") or {}
    return {
        "num_samples": report.protocol.get("num_samples"),
        "seed": report.protocol.get("seed"),
        "sampling": {key: sampling.get(key) for key in _SAMPLING},
        "metrics": sorted(report.protocol.get("metrics", {})),
        **{name: protocol_of(name, report.protocol) for name in names},
    }


def _link(link: Path, target: Path) -> None:
    """Let a link name a file, in one step; where there are no links, nothing is done."""
    temporary = link.with_name(f".{link.name}.partial")
    with suppress(OSError):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)
