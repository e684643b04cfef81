"""What came out of an evaluation, and the protocol that makes its numbers again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_synthqual.__about__ import __version__
from lightning_synthqual.checking import Rule, check, check_all
from lightning_synthqual.evaluation.reference import Reference
from lightning_synthqual.evaluation.sets import GeneratedSet
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.images.randomness import preserved_generators
from lightning_synthqual.metrics.base import Direction, Metric
from lightning_synthqual.metrics.catalogue import direction
from lightning_synthqual.metrics.figures import Figure, ImageRef, Table
from lightning_synthqual.metrics.views import SetView
from lightning_synthqual.plotting.draw import Lazy, draw, grid, pixels, with_pixels

SCHEMA = 1  # of the JSON
_ROW = {
    "scalars": Rule(Mapping, items=Rule(float)),
    "protocol": Rule(Mapping),
    "step": Rule(int, optional=True),
    "epoch": Rule(int, optional=True),
    "timings": Rule(Mapping, items=Rule(float)),
}


@dataclass(frozen=True)
class Report:
    """The outcome of one evaluation; the same on every process.

    Args:
        scalars: Values by metric name, standard errors as ``<metric>_std``; undefined values are left out.
        protocol: Plain values that reproduce them: extractors, their weights, sample counts, seed, ranges, reference.
        step: Step of the loggers, or ``None`` outside training.
        epoch: Epoch, or ``None`` outside training.
        timings: Seconds by stage.
        pictures: Figures by name, uint8 (H, W, 3), drawn when they are first looked at; not part of the JSON.
        tables: Tables by name; not part of the JSON.

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

    def direction(self, name: str) -> Direction | None:
        """Whether lower (``"min"``) or higher (``"max"``) values of a scalar are better; ``None`` if neither."""
        if name.endswith(("_std", "_floor")):
            return None
        stem, metrics = name.removesuffix("_gap"), self.protocol.get("metrics", {})
        owners = [owner for owner in metrics if stem == owner or stem.startswith(f"{owner}_")]
        described = metrics[max(owners, key=len)] if owners else {}
        if "direction" not in described:
            return direction(name)
        found: Any = described["direction"]
        if isinstance(found, Mapping):
            found = found.get(stem[len(max(owners, key=len)) + 1 :])
        direction_found: Direction | None = found
        return direction_found

    def to_json(self) -> str:
        """One line of JSON: everything but the figures and tables."""
        row = {
            "schema": SCHEMA,
            "step": self.step,
            "epoch": self.epoch,
            "scalars": self.scalars,
            "protocol": self.protocol,
            "timings": self.timings,
        }
        return json.dumps(row, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Read what ``to_json`` wrote.

        Raises:
            KeyError: If something is missing.
            TypeError: If it is no report.
            ValueError: If it is no JSON, or was written by a later version, in a form that is not known here.
        """
        row = check("report", json.loads(text), Mapping)
        if row.get("schema", SCHEMA) > SCHEMA:
            raise ValueError(
                f"The report has the schema {row['schema']}, but lightning-synthqual {__version__} knows schemas up to "
                f"{SCHEMA}. Update the package."
            )
        row = check_all(row, _ROW)
        check("protocol['metrics']", row["protocol"].get("metrics", {}), Mapping, items=Rule(Mapping))
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


def describe(
    workspace: Workspace, metrics: Sequence[Metric], reference: Reference, generated: GeneratedSet
) -> dict[str, Any]:
    """The protocol of an evaluation as plain values.

    Args:
        workspace: Settings and networks.
        metrics: The metrics.
        reference: The real sets.
        generated: The generated images.
    """
    plan, extracted = workspace.plan, generated.extracted
    return {
        "version": __version__,
        "num_samples": extracted.count,
        "seed": plan.seed,
        "image_range": list(plan.image_range),
        "real_range": list(plan.real_range or plan.image_range),
        "image_size": list(plan.size) if plan.size else None,
        "quantisation": "uint8, round half to even, clamped",
        "reference": dict(reference.main.protocol) if reference.main else None,
        "other_real": dict(reference.other.protocol) if reference.other else None,
        "extractors": {name: each.identity.describe() for name, each in workspace.extractors.items()},
        "pairs": {name: each.identity.describe() for name, each in workspace.pairs.items()},
        "metrics": {
            name: {**_describe(metric, generated.view, workspace), "direction": metric.described_direction(name)}
            for metric in metrics
            for name in metric.names
        },
        "generated": {"size": extracted.size, "clamped_share": extracted.seen.clamped_share},
    }


def _describe(metric: Metric, view: SetView, workspace: Workspace) -> dict[str, Any]:
    """What makes a metric's values, and which parts of the protocol they depend on besides."""
    networks = [name for name in metric.networks().values() if name in workspace.pairs]
    return {
        **metric.describe(view),
        **({"both_sets": True} if metric.both_sets else {}),
        **({"networks": networks} if networks else {}),
    }


def drawings(
    reference: Reference, generated: GeneratedSet, figures: Mapping[str, Figure], tables: Mapping[str, Table]
) -> tuple[Lazy[NDArray[np.uint8]], Lazy[Table]]:
    """Figures and tables that are drawn when they are first looked at; every process calls this.

    Args:
        reference: The real sets.
        generated: The generated images, of which those that are shown are brought here.
        figures: Figures by name.
        tables: Tables by name.
    """
    shown = {ref for each in (*figures.values(), *tables.values()) for ref in each.images}
    wanted = sorted(ref.index for ref in shown if ref.role == "generated")
    fetched = generated.images.fetch(wanted, generated.extracted.size)
    # Sets without their features, so that a report that nobody looks at holds none.
    sets = {"generated": generated.images, **reference.images}

    def look(ref: ImageRef) -> NDArray[np.uint8]:
        if ref.role == "generated" and ref.index in fetched:
            return pixels(fetched[ref.index])
        with preserved_generators():  # reading an image may draw augmentations
            return pixels(sets[ref.role].pick([ref.index])[0])

    samples = generated.extracted.shown
    pictures = {name: partial(draw, figure, look) for name, figure in figures.items()}
    if samples is not None:
        pictures = {"samples": partial(grid, samples), **pictures}
    return Lazy(pictures), Lazy({name: partial(with_pixels, table, look) for name, table in tables.items()})


def pack(reports: Sequence[Report]) -> dict[str, Any]:
    """Plain values for a checkpoint; what of a protocol seldom changes is stored once."""
    protocols: list[dict[str, Any]] = []
    rows = []
    for report in reports:
        row = json.loads(report.to_json())
        if "sampling" in row["protocol"]:  # it names the weights, which are others each time
            row["sampling"], row["protocol"]["sampling"] = row["protocol"]["sampling"], None
        if row["protocol"] not in protocols:
            protocols.append(row["protocol"])
        rows.append({**row, "protocol": protocols.index(row["protocol"])})
    return {"protocols": protocols, "rows": rows}


def unpack(packed: Mapping[str, Any]) -> list[Report]:
    """The reports that ``pack`` packed, without their figures and tables."""
    protocols = packed.get("protocols", [])
    reports = []
    for row in packed.get("rows", []):
        protocol = dict(protocols[row["protocol"]])
        if "sampling" in row:
            protocol["sampling"] = row["sampling"]
        reports.append(Report.from_json(json.dumps({**row, "protocol": protocol})))
    return reports
