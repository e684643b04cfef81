"""Loggers outside of a training get what a training's loggers get."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lightning_synthqual import Report
from lightning_synthqual.metrics.figures import Table
from lightning_synthqual.reporting.loggers import send_report
from lightning_synthqual.reporting.run_loggers import make_logger


def report(step: int, value: float) -> Report:
    pictures = {"samples": np.zeros((4, 5, 3), np.uint8)}
    tables = {"pairs": Table(("a", "b"), (("x", 1.0),))}
    return Report({"fid": value, "fid_std": 0.5}, {"seed": 0}, step, 2, pictures=pictures, tables=tables)


def test_wandb_goes_on_with_the_run_that_is_named(
    tmp_path: Path, read_wandb: Callable[[Path], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = make_logger("wandb", tmp_path, project="moon", run_id="abc123")
    for each in (report(3, 9.0), report(7, 8.0)):
        send_report(each, [logger], tmp_path, prefix="quality", best={"fid": each})
    logger.finish()
    assert (tmp_path / ".wandb-run-id").read_text() == "abc123"
    records = read_wandb(tmp_path)
    (run,) = [record.run for record in records if record.HasField("run")]
    assert (run.run_id, run.project) == ("abc123", "moon")
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    assert [(row["trainer/global_step"], row["quality/fid"]) for row in rows] == [(3, 9.0), (7, 8.0)]
    assert "quality/samples" in rows[0] or any(name.startswith("quality/samples") for name in rows[0])


def test_wandb_goes_on_with_the_run_of_an_earlier_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    calls: list[dict[str, Any]] = []

    def init(**arguments: Any) -> Any:
        calls.append(arguments)
        return SimpleNamespace(id=arguments["id"] or "fresh", finish=lambda: None)

    monkeypatch.setattr(wandb, "init", init)
    for run_id in (None, None, "given", None):
        make_logger("wandb", tmp_path, run_id=run_id).finish()
    assert [call["id"] for call in calls] == [None, "fresh", "given", "given"]
    assert all(call["resume"] == "allow" and call["settings"] is None for call in calls)
    monkeypatch.setenv("WANDB_MODE", "shared")
    make_logger("wandb", tmp_path, run_id="given")
    assert calls[-1]["settings"].x_primary is False


def test_tensorboard_gets_scalars_and_figures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = make_logger("tensorboard", tmp_path)
    send_report(report(3, 9.0), [logger], tmp_path, prefix="quality")
    logger.finish()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("quality/fid")] == [(3, 9.0)]
    assert events.Tags()["images"] == ["quality/samples"]


def test_csv_has_a_row_for_each_step_also_after_a_restart(tmp_path: Path) -> None:
    for reports in ([report(3, 9.0), report(11, 7.0)], [report(7, 8.0), report(11, 7.5)]):
        logger = make_logger("csv", tmp_path)
        for each in reports:
            send_report(each, [logger], tmp_path, prefix="quality")
        logger.finish()
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["epoch"], row["quality/fid"]) for row in rows] == [
        ("3", "2", "9.0"),
        ("7", "2", "8.0"),
        ("11", "2", "7.5"),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_other_loggers_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`logger` must be wandb, tensorboard, csv, but got 'neptune'"):
        make_logger("neptune", tmp_path)
