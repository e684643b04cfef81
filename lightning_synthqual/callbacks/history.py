"""The reports of a monitor, and which of them belong to the run that goes on: in memory, in checkpoints, on disk."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lightning_synthqual.callbacks.lightning import SameTrainer, steps_before_start
from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.report import Report, pack, unpack
from lightning_synthqual.metrics.influences import pack_influences, unpack_influences
from lightning_synthqual.reporting.best import best_by_name
from lightning_synthqual.reporting.files import REPORTS, ReportFolder, StoredInfluences, influences_path, read_lines
from lightning_synthqual.reporting.loggers import write_report

_log = logging.getLogger(__name__)


class History:
    """The reports of a monitor.

    A run is what one trainer does, and what it resumes. Its reports are saved in checkpoints, and ``reports.jsonl``
    holds them and no others: neither those of a run that was killed, nor any twice.

    Attributes:
        reports: All reports, those of earlier trainers included.
        folder: Writer of the reports.
    """

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.folder = ReportFolder()
        self._first = 0  # report of this run
        self._steps_at_setup = 0
        self._loaded = False
        self._same_trainer = SameTrainer()

    @property
    def run(self) -> list[Report]:
        """The reports of this run."""
        return self.reports[self._first :]

    @property
    def fitted(self) -> list[Report]:
        """The reports of this run but for those of ``trainer.validate`` and ``trainer.test``."""
        return [report for report in self.run if report.in_fit]

    @property
    def newest(self) -> Report | None:
        """The last of these."""
        return next(iter(self.fitted[-1:]), None)

    @property
    def best(self) -> dict[str, Report]:
        """By metric with a direction, the report of this run in which it is best."""
        return best_by_name(self.fitted)

    @property
    def newly_best(self) -> list[str]:
        """The metrics in which the newest report is better than all before it."""
        if len(self.fitted) < 2:
            return []
        return [name for name, report in self.best.items() if report is self.reports[-1]]

    def begin(self, trainer: Trainer) -> bool:
        """Take note of a trainer that is set up, and say whether it begins another run."""
        begins = not self._same_trainer(trainer)
        if begins:
            self._first = len(self.reports)
        self._steps_at_setup = steps_before_start(trainer)
        self._loaded = False
        return begins

    def add(self, report: Report, directory: Path | None) -> None:
        """Take a new report.

        Only the newest one keeps its influences in memory; those of the others are read from disk if they are needed.

        Args:
            report: The report.
            directory: Directory of the files; ``None`` if there are none.
        """
        if self.run and directory is not None:
            self.reports[-1] = _with_stored(self.reports[-1], directory)
        self.reports.append(report)

    def write(
        self, report: Report, loggers: Iterable[Any], directory: Path, *, prefix: str, with_scalars: bool
    ) -> None:
        """Write a report to disk and to loggers, as `write_report` does, with the best of the run so far."""
        write_report(
            report,
            loggers,
            directory,
            prefix=prefix,
            with_scalars=with_scalars,
            folder=self.folder,
            best=self.best,
        )

    def state(self) -> dict[str, Any]:
        """The reports of this run as plain values, and the newest one's influences, 4 bytes a row and metric."""
        newest = pack_influences(self.run[-1].influences) if self.run else {}
        return {**pack(self.run), "influences": newest}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take the reports of the run that is resumed."""
        self.reports, self._first, self._loaded = unpack(state), 0, True
        if self.reports:
            newest = self.reports[-1]
            influences = unpack_influences(state.get("influences", {}), newest.scalars)
            self.reports[-1] = replace(newest, influences=influences)

    def restore(self, directory: Path, ranks: Ranks, trainer: Trainer) -> bool:
        """Let the file hold what was measured up to this point of the run, before the training goes on.

        What was measured later will be measured again. A checkpoint without reports of this monitor does not say what
        was measured before it: then the file itself does, by its steps.

        Args:
            directory: Directory of the file.
            ranks: The processes, each of which calls this.
            trainer: The trainer, at the start of a fit.

        Returns:
            Whether the point where the training goes on is known, from the file alone, to be measured already.
        """
        if self._loaded:
            self.reports[:-1] = [_with_stored(report, directory) for report in self.reports[:-1]]
        steps = steps_before_start(trainer)
        resumed = steps > self._steps_at_setup == 0
        adopted: list[Report] = []
        if resumed and not self._loaded:
            lines = _rows_before(directory / REPORTS, steps) if ranks.rank == 0 else []
            known = [report.to_json() for report in self.run]
            adopted = [Report.from_json(line) for line in ranks.gather_objects(lines)[0] if line not in known]
            self.reports[self._first : self._first] = adopted
        if ranks.rank == 0:
            self.folder.rewind(directory, self.run)
        return any(report.step == steps - 1 for report in adopted)


def _with_stored(report: Report, directory: Path) -> Report:
    path = influences_path(directory, report)
    return replace(report, influences=StoredInfluences(path, report.scalars))


def _rows_before(path: Path, steps: int) -> Sequence[str]:
    """The rows of a file that were measured within the first steps of a run."""
    try:
        lines = read_lines(path) if path.exists() else []
        return [line for line in lines if (Report.from_json(line).step or 0) < steps]
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("Reading %s failed (%s: %s); its rows are not continued.", path, type(error).__name__, error)
        return []
