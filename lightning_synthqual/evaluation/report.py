"""What an evaluation found, and everything that is needed to find it again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_synthqual.reporting.tables import Table


@dataclass(frozen=True)
class Report:
    """The outcome of one evaluation; the same on every process.

    Args:
        scalars: Values by metric name, standard errors as ``<metric>_std``; undefined values are left out.
        protocol: What made them: extractors and their weights, sample counts, seed, ranges, reference.
        step: The loggers' step, or ``None`` outside training.
        epoch: The epoch, or ``None`` outside training.
        timings: Seconds by stage.
        pictures: uint8 arrays (H, W, 3) by name; not part of the JSON.
        tables: What there is to say of single pictures, by name; not part of the JSON.

    Example:
        >>> report = Report({"kd_wavelet": 0.25}, {"seed": 0}, step=7, epoch=1)
        >>> Report.from_json(report.to_json()) == report
        True
    """

    scalars: dict[str, float]
    protocol: dict[str, Any]
    step: int | None = None
    epoch: int | None = None
    timings: dict[str, float] = field(default_factory=dict)
    pictures: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict, compare=False, repr=False)
    tables: Mapping[str, Table] = field(default_factory=dict, compare=False, repr=False)

    def to_json(self) -> str:
        """One line of JSON: everything but the pictures and tables."""
        row = {
            "step": self.step,
            "epoch": self.epoch,
            "scalars": self.scalars,
            "protocol": self.protocol,
            "timings": self.timings,
        }
        return json.dumps(row, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Read what ``to_json`` wrote."""
        row = json.loads(text)
        return cls(row["scalars"], row["protocol"], row["step"], row["epoch"], row["timings"])

    def __str__(self) -> str:
        width = max(map(len, self.scalars), default=0)
        rows = [
            f"{name:<{width}}  {value:12.6g}" + (f" ± {self.scalars[error]:.2g}" if error in self.scalars else "")
            for name, value in self.scalars.items()
            if not (name.endswith("_std") and name.removesuffix("_std") in self.scalars)
            for error in [f"{name}_std"]
        ]
        return "\n".join(rows)


def pack(reports: Sequence[Report]) -> dict[str, Any]:
    """Plain values for a checkpoint; protocols, which seldom change, are kept once."""
    protocols: list[dict[str, Any]] = []
    rows = []
    for report in reports:
        row = json.loads(report.to_json())
        if row["protocol"] not in protocols:
            protocols.append(row["protocol"])
        rows.append({**row, "protocol": protocols.index(row["protocol"])})
    return {"protocols": protocols, "rows": rows}


def unpack(packed: Mapping[str, Any]) -> list[Report]:
    """The reports that ``pack`` packed, without their pictures and tables."""
    protocols = packed.get("protocols", [])
    return [Report(**{**row, "protocol": protocols[row["protocol"]]}) for row in packed.get("rows", [])]
