"""Published values on popular data sets, each with its source and protocol, to hold beside one's own."""

import json
from collections.abc import Collection
from functools import cache
from importlib.resources import files
from typing import Any

from lightning_synthqual.metrics.figures import Table

COLUMNS = ("model", "data", "metric", "value", "protocol", "source")


def benchmarks(metrics: Collection[str] | None = None) -> Table:
    """Published values, one a row.

    They were measured by their authors' code on other data: a table of their own, never a column beside measured ones.

    Args:
        metrics: Names of metrics to show, with those that measure the same in another protocol (``fid`` with
            ``fid50k_full``); ``None``: all.

    Returns:
        Model, data, metric, value, protocol and source.

    Example:
        >>> benchmarks(["kid"]).columns[:4], len(benchmarks(["precision"]).rows)
        (('model', 'data', 'metric', 'value'), 0)
    """
    stems = None if metrics is None else {_stem(name) for name in metrics}
    kept = [row for row in _rows() if stems is None or _stem(row["metric"]) in stems]
    return Table(COLUMNS, [tuple(row[column] for column in COLUMNS) for row in kept])


def _stem(name: str) -> str:
    return name.partition("50k")[0]


@cache
def _rows() -> list[dict[str, Any]]:
    text = files("lightning_synthqual.reporting").joinpath("benchmarks.json").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = json.loads(text)
    return rows
