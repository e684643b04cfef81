"""Loggers for evaluations outside of a training; each is called as Lightning's, and `send_report` sends it the same."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

KINDS = ("wandb", "tensorboard", "csv")


class RunLogger(Protocol):
    """What every logger has."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None) -> None:
        """Log scalars."""
        ...

    def save(self) -> None:
        """Write what has been logged."""
        ...

    def finish(self) -> None:
        """Leave the run."""
        ...


def make_logger(kind: str, directory: Path, *, project: str | None = None, run_id: str | None = None) -> RunLogger:
    """Make a logger.

    Args:
        kind: One of ``KINDS``.
        directory: Directory of its files.
        project: W&B project.
        run_id: W&B run that is continued; ``None``: a new one.

    Raises:
        ValueError: If there is no such kind.
    """
    if kind == "wandb":
        return WandbLogger(directory, project, run_id)
    if kind == "tensorboard":
        return TensorBoardLogger(directory)
    if kind == "csv":
        return CSVLogger(directory)
    raise ValueError(f"`logger` must be {', '.join(KINDS)}, but got {kind!r}.")


class WandbLogger:
    """A W&B run, continued by its id, so that scores stand in the training's own run.

    Args:
        directory: Directory of its files.
        project: The project.
        run_id: The run's id; ``None``: a new run, which is continued by later ones in the same directory.
    """

    def __init__(self, directory: Path, project: str | None, run_id: str | None) -> None:
        import wandb

        kept = directory / ".wandb-run-id"
        if run_id is None and kept.exists():
            run_id = kept.read_text(encoding="utf-8").strip()
        # Beside a training that logs to the same run, the training decides on its files and on its end.
        shared = os.environ.get("WANDB_MODE") == "shared" and run_id is not None
        settings = wandb.Settings(x_label="synthqual", x_primary=False, x_update_finish_state=False) if shared else None
        self.experiment: Any = wandb.init(
            project=project, id=run_id, resume="allow", dir=str(directory), settings=settings
        )
        kept.write_text(str(self.experiment.id), encoding="utf-8")

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None) -> None:
        """Log scalars."""
        self.experiment.log({**metrics, "trainer/global_step": step})

    def save(self) -> None:
        """Nothing is held back."""

    def finish(self) -> None:
        """Leave the run."""
        self.experiment.finish()


class TensorBoardLogger:
    """An event file.

    Args:
        directory: Directory of the file.
    """

    def __init__(self, directory: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.experiment: Any = SummaryWriter(str(directory))

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None) -> None:
        """Log scalars."""
        for name, value in metrics.items():
            self.experiment.add_scalar(name, value, step)

    def save(self) -> None:
        """Write what has been logged."""
        self.experiment.flush()

    def finish(self) -> None:
        """Close the file."""
        self.experiment.close()


class CSVLogger:
    """``metrics.csv``, a row for each step; a step that is logged again replaces its row.

    Args:
        directory: Directory of the file.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "metrics.csv"
        self._rows: dict[int, dict[str, Any]] = {}
        if self._path.exists():
            with self._path.open(newline="", encoding="utf-8") as file:
                self._rows = {int(row["step"]): dict(row) for row in csv.DictReader(file) if row.get("step")}

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None) -> None:
        """Log scalars."""
        self._rows[step or 0] = {"step": step or 0, **metrics}

    def save(self) -> None:
        """Write all rows in the order of their steps, so that no half-written file is ever read."""
        columns = dict.fromkeys(name for row in self._rows.values() for name in row)
        temporary = self._path.with_name(f".{self._path.name}.partial")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            writer.writerows(row for _, row in sorted(self._rows.items()))
        temporary.replace(self._path)

    def finish(self) -> None:
        """Nothing is open."""
