"""The reports of a monitor, and which of them belong to the run that goes on: in memory, in checkpoints, on disk."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lightning_synthqual.callbacks.lightning import SameTrainer, steps_before_start
from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.report import Report, pack, unpack
from lightning_synthqual.reporting.files import REPORTS, ReportFolder, read_lines

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

    def begin(self, trainer: Trainer) -> bool:
        """Take note of a trainer that is set up, and say whether it begins another run."""
        begins = not self._same_trainer(trainer)
        if begins:
            self._first = len(self.reports)
        self._steps_at_setup = steps_before_start(trainer)
        self._loaded = False
        return begins

    def state(self) -> dict[str, Any]:
        """The reports of this run as plain values."""
        return pack(self.run)

    def load(self, state: Mapping[str, Any]) -> None:
        """Take the reports of the run that is resumed."""
        self.reports, self._first, self._loaded = unpack(state), 0, True

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


def _rows_before(path: Path, steps: int) -> Sequence[str]:
    """The rows of a file that were measured within the first steps of a run."""
    try:
        lines = read_lines(path) if path.exists() else []
        return [line for line in lines if (Report.from_json(line).step or 0) < steps]
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("Reading %s failed (%s: %s); its rows are not continued.", path, type(error).__name__, error)
        return []
