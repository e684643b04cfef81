"""Callbacks that act on evaluations."""

from typing import Any

from lightning.pytorch import Trainer

from lightning_synthqual.callbacks.lightning import callbacks_of
from lightning_synthqual.evaluation.report import Report


class ReportListener:
    """Base class of callbacks that act on evaluations, combined with the ``Callback`` of either Lightning package.

    In a fit a `QualityMonitor` calls these methods after each of its evaluations, on every process, in the order of
    the trainer's callbacks. The report is the same on every process.

    Example:
        >>> from lightning.pytorch import Callback
        >>> class Printer(ReportListener, Callback):
        ...     def on_quality_report(self, trainer, prefix, report):
        ...         print(prefix, report.step, report.scalars)
    """

    def on_quality_report(self, trainer: Trainer, prefix: str, report: Report) -> None:
        """Act on a new report.

        Args:
            trainer: The trainer.
            prefix: Prefix of the monitor's logged names.
            report: The report.
        """

    def on_quality_failure(self, trainer: Trainer, prefix: str, error: Exception) -> None:
        """Act on an evaluation that failed, where the monitor's ``on_error`` is ``"warn"``.

        Args:
            trainer: The trainer.
            prefix: Prefix of the monitor's logged names.
            error: What went wrong; the same on every process.
        """


def listeners(trainer: Trainer) -> list[Any]:
    """The trainer's callbacks that are listeners, in their order."""
    return [callback for callback in callbacks_of(trainer) if isinstance(callback, ReportListener)]
