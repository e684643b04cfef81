"""What came out of an evaluation, and the protocol that makes its numbers again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_synthqual.__about__ import __version__
from lightning_synthqual.checking import Rule, check, check_all
from lightning_synthqual.evaluation.reference import Reference
from lightning_synthqual.evaluation.sets import SHOWN, GeneratedSet
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.images.randomness import preserved_generators
from lightning_synthqual.metrics.base import SUFFIXES, Direction, Influence, Metric, Score
from lightning_synthqual.metrics.catalogue import direction
from lightning_synthqual.metrics.figures import Figure, ImageRef, NameRef, Table
from lightning_synthqual.metrics.views import SetView
from lightning_synthqual.plotting.draw import Lazy, draw, grid, pixels, with_pixels
from lightning_synthqual.reporting.numbers import with_error

SCHEMA = 1  # of the JSON
_VARYING = ("sampling", "change")  # of a protocol: what differs between the evaluations of a run
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
        influences: What each row adds to a value, by metric name, for paired differences; not part of the JSON.

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
    influences: Mapping[str, Influence] = field(default_factory=dict, compare=False, repr=False)

    @property
    def in_fit(self) -> bool:
        """Whether it is no single evaluation by ``trainer.validate`` or ``trainer.test``."""
        return "stage" not in (self.protocol.get("sampling") or {})

    @property
    def names(self) -> list[str]:
        """The values themselves, without their errors, floors, gaps and changes.

        Example:
            >>> Report({"fid": 9.0, "fid_std": 0.3, "recall": 0.5}, {}).names
            ['fid', 'recall']
        """
        return [name for name in self.scalars if not name.endswith(SUFFIXES)]

    def score(self, name: str) -> Score:
        """A value with its standard error and the influences of the rows, as far as they are known.

        Raises:
            KeyError: If there is no such value.
        """
        return Score(self.scalars[name], self.scalars.get(f"{name}_std"), self.influences.get(name))

    def only(self, name: str) -> "Report":
        """The report of one value: what a later evaluation is compared with."""
        kept = {each: self.scalars[each] for each in (name, f"{name}_std") if each in self.scalars}
        influences = {name: self.influences[name]} if name in self.influences else {}
        return Report(kept, self.protocol, self.step, self.epoch, influences=influences)

    def direction(self, name: str) -> Direction | None:
        """Whether lower (``"min"``) or higher (``"max"``) values of a scalar are better; ``None`` if neither."""
        if name.endswith(("_std", "_floor", "_change")):
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
        beside = ("_change", "_change_std", "_std")  # what stands in the line of the value
        return "\n".join(
            f"{name:<{width}}  {self._shown(name, value)}{self._change(name)}"
            for name, value in self.scalars.items()
            if not any(name.endswith(end) and name.removesuffix(end) in self.scalars for end in beside)
        )

    def _shown(self, name: str, value: float) -> str:
        """A value with its error, aligned where the error begins."""
        shown, sign, error = with_error(value, self.scalars.get(f"{name}_std")).partition(" ± ")
        return f"{shown:>12}{sign}{error}"

    def _change(self, name: str) -> str:
        """The change of a value, if it is known."""
        change = self.scalars.get(f"{name}_change")
        if change is None:
            return ""
        since = self.protocol.get("change", {}).get("since")
        when = "" if since is None else f" since step {since}"
        return f" ({with_error(change, self.scalars.get(f'{name}_change_std'), signed=True)}{when})"


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
    extracted = generated.extracted
    settings = describe_settings(workspace, reference)
    return {
        "version": __version__,
        "num_samples": extracted.count,
        **settings,
        "metrics": {
            name: {**_describe(metric, generated.view, workspace), "direction": metric.described_direction(name)}
            for metric in metrics
            for name in metric.names
        },
        "generated": {"size": extracted.size, "clamped_share": extracted.seen.clamped_share},
    }


def describe_settings(workspace: Workspace, reference: Reference) -> dict[str, Any]:
    """The part of the protocol that is known before any image is generated."""
    plan = workspace.plan
    return {
        "seed": plan.seed,
        "image_range": list(plan.image_range),
        "real_range": list(plan.real_range or plan.image_range),
        "image_size": list(plan.size) if plan.size else None,
        "quantisation": "uint8, round half to even, clamped",
        "reference": dict(reference.main.protocol) if reference.main else None,
        "other_real": dict(reference.other.protocol) if reference.other else None,
        "extractors": {name: each.identity.describe() for name, each in workspace.extractors.items()},
        "pairs": {name: each.identity.describe() for name, each in workspace.pairs.items()},
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
    sets: dict[str, Any] = {"generated": generated.images, "target": generated.view.targets, **reference.images}

    def look(ref: ImageRef) -> NDArray[np.uint8]:
        if ref.role == "generated" and ref.index in fetched:
            return pixels(fetched[ref.index])
        with preserved_generators():  # reading an image may draw augmentations
            return pixels(sets[ref.role].pick([ref.index])[0])

    def name_of(ref: ImageRef | NameRef) -> str:
        named: str = sets[ref.role].name(ref.index)
        return named

    samples = generated.extracted.shown
    pictures = {name: partial(draw, figure, look, name_of) for name, figure in figures.items()}
    if samples is not None:
        pictures = {"samples": partial(grid, samples), **pictures}
    return Lazy(pictures), Lazy({name: partial(with_pixels, table, look, name_of) for name, table in tables.items()})


def with_real_samples(report: Report, reference: Reference) -> Report:
    """The report with a picture of real images, as many as are shown of the generated ones, at even intervals.

    Of images of several sizes those of the first one's size are shown.

    Args:
        report: The report, whose figures are not drawn yet.
        reference: The real sets.
    """
    if reference.main is None or not isinstance(report.pictures, Lazy):
        return report
    images, count = reference.images[reference.role], reference.count

    def drawn() -> NDArray[np.uint8]:
        chosen = np.linspace(0, count - 1, min(SHOWN, count)).round().astype(int).tolist()
        with preserved_generators():
            found = images.pick(chosen)
        return grid(torch.stack([image for image in found if image.shape == found[0].shape]))

    return replace(report, pictures=report.pictures.after({"real_samples": drawn}))


def pack(reports: Sequence[Report]) -> dict[str, Any]:
    """Plain values for a checkpoint; what of a protocol seldom changes is stored once."""
    protocols: list[dict[str, Any]] = []
    rows = []
    for report in reports:
        row = json.loads(report.to_json())
        row["varying"] = {key: row["protocol"].pop(key) for key in _VARYING if key in row["protocol"]}
        if row["protocol"] not in protocols:
            protocols.append(row["protocol"])
        rows.append({**row, "protocol": protocols.index(row["protocol"])})
    return {"protocols": protocols, "rows": rows}


def unpack(packed: Mapping[str, Any]) -> list[Report]:
    """The reports that ``pack`` packed, without their figures and tables."""
    protocols = packed.get("protocols", [])
    reports = []
    for row in packed.get("rows", []):
        protocol = {**protocols[row["protocol"]], **row.get("varying", {})}
        reports.append(Report.from_json(json.dumps({**row, "protocol": protocol})))
    return reports
