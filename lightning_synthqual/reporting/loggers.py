"""Reports to experiment loggers; a logger's library is imported by the logger itself, or when it is used."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_synthqual.metrics.figures import Cell, Table
from lightning_synthqual.reporting.files import ReportFolder
from lightning_synthqual.reporting.findings import findings

if TYPE_CHECKING:
    from lightning_synthqual.evaluation.report import Report

_log = logging.getLogger(__name__)
MOST_ROWS = 1000  # of a table that is sent to a logger; the file on disk has all rows
MOST_PICTURES = 108  # of a table that is sent to a logger: W&B shows no more of a list
_TEXT_ROWS = 50  # of a table that is shown as text
_announced: set[str] = set()  # classes of loggers that take scalars only

Scalars = Mapping[str, float]


@dataclass(frozen=True)
class Sent:
    """What a logger gets.

    Args:
        report: The report.
        prefix: Prefix of the logged names.
        scalars: Scalars by their logged names; none where Lightning sends them itself.
        best: Best values so far, and their steps, by their logged names.
    """

    report: "Report"
    prefix: str
    scalars: Scalars = field(default_factory=dict)
    best: Mapping[str, float | None] = field(default_factory=dict)


def write_report(
    report: "Report",
    loggers: Iterable[Any],
    directory: Path,
    *,
    prefix: str,
    with_scalars: bool = True,
    folder: ReportFolder | None = None,
    best: Mapping[str, "Report"] | None = None,
) -> None:
    """Write a report to disk and to every logger; a failure is logged and does not stop the rest.

    Call it on one process only.

    Args:
        report: The report.
        loggers: Lightning loggers.
        directory: Directory of ``reports.jsonl``, figures and tables.
        prefix: Prefix of the logged names.
        with_scalars: Whether the loggers get the scalars (not where Lightning sends them itself).
        folder: Writer that remembers what could not be written; ``None``: nothing is tried again.
        best: By metric, the report of the run in which it is best, for loggers that keep a summary of a run.
    """
    (folder or ReportFolder()).write(directory, report)
    send_report(report, loggers, directory, prefix=prefix, with_scalars=with_scalars, best=best)


def send_report(
    report: "Report",
    loggers: Iterable[Any],
    directory: Path,
    *,
    prefix: str,
    with_scalars: bool = True,
    best: Mapping[str, "Report"] | None = None,
) -> None:
    """Send a report to every logger, as `write_report` does, but write nothing to disk."""
    scalars = {f"{prefix}/{name}": value for name, value in report.scalars.items()} if with_scalars else {}
    sent = Sent(report, prefix, scalars, _summary(prefix, best or {}))
    for logger in loggers:
        _attempt(type(logger).__name__, partial(_sender(logger, directory), logger, sent))


def _summary(prefix: str, best: Mapping[str, "Report"]) -> dict[str, float | None]:
    """The best value of each metric and the step at which it was measured."""
    found: dict[str, float | None] = {}
    for name, report in best.items():
        found |= {f"{prefix}/best/{name}": report.scalars[name], f"{prefix}/best/{name}_step": report.step}
    return found


def _attempt(where: str, action: Callable[[], None]) -> None:
    try:
        action()
    except Exception as error:  # a broken logger must not end a training
        _log.warning("Sending the report to %s failed: %s: %s", where, type(error).__name__, error)


def _sender(logger: Any, directory: Path) -> Callable[[Any, Sent], None]:
    # By name, so that nothing is imported and both lightning.pytorch's and pytorch_lightning's classes are known.
    for kind in type(logger).__mro__:
        if kind.__name__ in _SENDERS:
            return _SENDERS[kind.__name__]
    name = type(logger).__name__
    if name not in _announced:
        _announced.add(name)
        _log.info("%s takes scalars only; figures and tables are in %s.", name, directory)
    return _send_scalars


def _send_scalars(logger: Any, sent: Sent) -> None:
    if sent.scalars:
        logger.log_metrics({**sent.scalars, "epoch": sent.report.epoch or 0}, step=sent.report.step)
        logger.save()


def _send_to_wandb(logger: Any, sent: Sent) -> None:
    """Send one row of scalars, figures and tables, on the axis of Lightning's own rows, and the best so far."""
    import wandb

    run, report, prefix = logger.experiment, sent.report, sent.prefix
    for name in report.scalars:
        best = report.direction(name)
        run.define_metric(
            f"{prefix}/{name}", step_metric="trainer/global_step", summary=f"{best},last" if best else "last"
        )
    row: dict[str, Any] = {**sent.scalars, "epoch": report.epoch or 0, "trainer/global_step": report.step}
    row |= {f"{prefix}/{name}": wandb.Image(pixels) for name, pixels in report.pictures.items()}
    for name, table in report.tables.items():
        shown = capped(table)
        cells = [[_wandb_cell(cell) for cell in line] for line in shown.rows]
        row[f"{prefix}/{name}_table"] = wandb.Table(columns=list(shown.columns), data=cells)
    run.log(row)
    said = {f"{prefix}/findings": _text(report)} if _text(report) else {}
    run.summary.update({**sent.best, **said})
    run.config.update({f"{prefix}/protocol": report.protocol}, allow_val_change=True)


def _text(report: "Report") -> str:
    """The findings, one in a paragraph."""
    return "\n\n".join(finding.text for finding in findings(report))


def _wandb_cell(cell: Cell) -> Any:
    """A cell of a W&B table, which is JSON and has no infinity."""
    import wandb

    if isinstance(cell, np.ndarray):
        return wandb.Image(cell)
    return None if isinstance(cell, float) and not isfinite(cell) else cell


def _send_to_tensorboard(logger: Any, sent: Sent) -> None:
    _send_scalars(logger, sent)
    writer, report, prefix = logger.experiment, sent.report, sent.prefix
    for name, pixels in report.pictures.items():
        writer.add_image(f"{prefix}/{name}", pixels, report.step, dataformats="HWC")
    for name, table in report.tables.items():
        writer.add_text(f"{prefix}/{name}", _markdown(table.without_images()), report.step)
    if _text(report):
        writer.add_text(f"{prefix}/findings", _text(report), report.step)
    writer.add_text(f"{prefix}/protocol", _indented(json.dumps(report.protocol, indent=2)), report.step)
    writer.flush()


def _send_to_mlflow(logger: Any, sent: Sent) -> None:
    _send_scalars(logger, sent)
    client, run, report, prefix = logger.experiment, logger.run_id, sent.report, sent.prefix
    for name, pixels in report.pictures.items():
        client.log_image(run, pixels, key=f"{prefix}/{name}", step=report.step)
    for name, table in report.tables.items():
        client.log_text(run, capped(table).without_images().to_csv(), f"{prefix}/{name}/step={report.step}.csv")
    if _text(report):
        client.log_text(run, _text(report), f"{prefix}/findings/step={report.step}.txt")
    client.log_dict(run, report.protocol, f"{prefix}/protocol.json")


_SENDERS: dict[str, Callable[[Any, Sent], None]] = {
    "WandbLogger": _send_to_wandb,
    "TensorBoardLogger": _send_to_tensorboard,
    "MLFlowLogger": _send_to_mlflow,
}


def capped(table: Table) -> Table:
    """The first rows of a table, as many as are sent to a logger."""
    pictures = max((sum(isinstance(cell, np.ndarray) for cell in row) for row in table.rows), default=0)
    limit = min(MOST_ROWS, MOST_PICTURES // pictures) if pictures else MOST_ROWS
    return Table(table.columns, table.rows[:limit])


def _markdown(table: Table) -> str:
    lines = [table.columns, ("---",) * len(table.columns), *table.rows[:_TEXT_ROWS]]
    text = "\n".join("| " + " | ".join(map(_word, line)) + " |" for line in lines)
    more = len(table.rows) - _TEXT_ROWS
    return text + (f"\n\nand {more} more rows, which are in the CSV file." if more > 0 else "")


def _word(cell: Any) -> str:
    if cell is None:
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _indented(text: str) -> str:
    """A block of code in Markdown."""
    return "\n".join(f"    {line}" for line in text.splitlines())
