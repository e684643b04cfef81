"""Reports to experiment loggers; each logger's library is imported by the logger itself, not here."""

import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_synthqual.metrics.names import direction
from lightning_synthqual.reporting.files import append_report, save_pictures

if TYPE_CHECKING:
    from lightning_synthqual.evaluation.report import Report

_log = logging.getLogger(__name__)


def write_report(
    report: "Report", loggers: Iterable[Any], directory: Path, *, prefix: str, with_scalars: bool = True
) -> None:
    """Write a report to disk and to every logger; what fails is said and does not stop the rest.

    Call it on one process only.

    Args:
        report: The report.
        loggers: Lightning loggers.
        directory: Where ``reports.jsonl`` and the pictures go.
        prefix: Of the logged names.
        with_scalars: Whether the loggers get the scalars (not where Lightning sends them itself).
    """
    _attempt(f"{directory}", partial(append_report, directory, report))
    _attempt(f"{directory}", partial(save_pictures, directory, report))
    scalars = {f"{prefix}/{name}": value for name, value in report.scalars.items()} if with_scalars else {}
    for logger in loggers:
        send = _send_to_wandb if _is_wandb(logger) else _send_scalars
        _attempt(type(logger).__name__, partial(send, logger, report, scalars, prefix))


def _attempt(where: str, action: Callable[[], None]) -> None:
    try:
        action()
    except Exception as error:  # a broken logger or a full disk must not end a training run
        _log.warning("Writing the report to %s failed: %s: %s", where, type(error).__name__, error)


def _is_wandb(logger: Any) -> bool:
    # By name, so that wandb is not imported and both lightning.pytorch's and pytorch_lightning's class are known.
    return any(kind.__name__ == "WandbLogger" for kind in type(logger).__mro__)


def _send_scalars(logger: Any, report: "Report", scalars: dict[str, float], prefix: str) -> None:
    if scalars:
        logger.log_metrics({**scalars, "epoch": report.epoch or 0}, step=report.step)
        logger.save()


def _send_to_wandb(logger: Any, report: "Report", scalars: dict[str, float], prefix: str) -> None:
    """One row with scalars and pictures together, on the axis of Lightning's own rows."""
    import wandb

    run = logger.experiment
    for name in report.scalars:
        best = direction(name)
        run.define_metric(
            f"{prefix}/{name}", step_metric="trainer/global_step", summary=f"{best},last" if best else "last"
        )
    pictures = {f"{prefix}/{name}": wandb.Image(pixels) for name, pixels in report.pictures.items()}
    run.log({**scalars, **pictures, "epoch": report.epoch or 0, "trainer/global_step": report.step})
    run.config.update({f"{prefix}/protocol": report.protocol}, allow_val_change=True)
