"""What an audit found: a metric passport."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

By = Mapping[str, Mapping[str, Mapping[str, float | None]]]  # extractor, metric, fault


@dataclass(frozen=True)
class Cell:
    """One metric under one dose of one fault.

    Args:
        extractor: Extractor of the features.
        metric: Metric, without the extractor's name.
        fault: Name of the fault.
        dose: Dose of the fault.
        value: Value of the metric.
        change: The value minus that of untouched images.
        change_std: Standard error of the change, paired by image; ``None`` if the metric has none.
        psnr: PSNR of the faulty images in dB, that of the squared error of all pixels of all images together (not the
            mean over images); infinite if they are unchanged; ``None`` where images are exchanged.
        told: ``"worse"`` or ``"better"`` if the change is larger than three standard errors.
    """

    extractor: str
    metric: str
    fault: str
    dose: float
    value: float
    change: float
    change_std: float | None
    psnr: float | None
    told: Literal["worse", "better"] | None


@dataclass(frozen=True)
class Audit:
    """Which metric sees which fault, from which dose on, on the user's own images.

    Args:
        cells: All doses of all faults, for each metric; without those whose value or change is not finite.
        colour_share: Part of the change that is gone when all images are greyed, by extractor and metric; ``None``
            where the metric tells nothing, and where all images are grey (see `colour_shares`).
        matches: How often two extractors find the same nearest reference image, as rows.
        preferences: Whose matches each similarity of two images prefers, as rows.
        plainness: Correlation of each similarity with the entropy of the pair, as rows.
        protocol: What made the numbers. ``undefined_cells`` counts the cells that are left out; ``seconds`` is the time
            that each extractor took for the tested images, without those whose features were in the cache.
        examples: Some images by fault and dose, uint8 (n, 3, H, W); dose 0 is untouched. They are not in the JSON.

    Example:
        >>> audit = Audit((Cell("pixels", "fd", "blur", 1.0, 5.0, 3.0, 0.5, 30.0, "worse"),))
        >>> audit.smallest["pixels"]["fd"]["blur"]
        1.0
    """

    cells: tuple[Cell, ...]
    colour_share: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    matches: Sequence[Mapping[str, Any]] = ()
    preferences: Sequence[Mapping[str, Any]] = ()
    plainness: Sequence[Mapping[str, Any]] = ()
    protocol: Mapping[str, Any] = field(default_factory=dict)
    examples: Mapping[str, Mapping[float, NDArray[np.uint8]]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def smallest(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """The smallest dose that is told, by extractor, metric and fault; ``None``: none is."""
        return self._by(lambda cells: min((cell.dose for cell in cells if cell.told), default=None))

    @property
    def monotony(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """Spearman's rank correlation of dose and value; ``None`` if the value does not change."""
        return self._by(_monotony)

    def to_json(self) -> str:
        """All but the examples; an infinite PSNR is the string ``"inf"``."""
        content = {
            "cells": [asdict(cell) | ({"psnr": "inf"} if cell.psnr == math.inf else {}) for cell in self.cells],
            "smallest": self.smallest,
            "monotony": self.monotony,
            **{name: getattr(self, name) for name in _PLAIN},
        }
        return json.dumps(content, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Audit":
        """The audit that ``to_json`` wrote.

        Raises:
            ValueError: If the text is something else.
        """
        try:
            content = json.loads(text)
            cells = tuple(
                Cell(**{**cell, "psnr": math.inf if cell["psnr"] == "inf" else cell["psnr"]})
                for cell in content["cells"]
            )
            return cls(cells, **{name: content[name] for name in _PLAIN})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"The text is no audit as `Audit.to_json` writes it ({error!r}).") from error

    def save(self, folder: str | Path) -> None:
        """Write ``audit.json`` and ``audit.html`` into a folder, which is made if needed."""
        from lightning_synthqual.audit.page import audit_page

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "audit.json").write_text(self.to_json(), encoding="utf-8")
        (folder / "audit.html").write_text(audit_page(self), encoding="utf-8")

    def _by(self, summary: Any) -> dict[str, dict[str, dict[str, float | None]]]:
        groups: dict[str, dict[str, dict[str, list[Cell]]]] = {}
        for cell in self.cells:
            faults = groups.setdefault(cell.extractor, {}).setdefault(cell.metric, {})
            faults.setdefault(cell.fault, []).append(cell)
        return {
            extractor: {metric: {fault: summary(cells) for fault, cells in row.items()} for metric, row in rows.items()}
            for extractor, rows in groups.items()
        }


_PLAIN = ("colour_share", "matches", "preferences", "plainness", "protocol")


def _monotony(cells: Sequence[Cell]) -> float | None:
    from scipy.stats import spearmanr

    doses, changes = [0.0, *(cell.dose for cell in cells)], [0.0, *(cell.change for cell in cells)]
    if len(set(changes)) == 1:
        return None
    return float(spearmanr(doses, changes).statistic)
