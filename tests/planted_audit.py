"""An audit whose outcome is known."""

from types import SimpleNamespace

import numpy as np

from lightning_synthqual.audit.faults import FAULTS


def cell(extractor, metric, fault, dose, change, std=1.0, psnr=30.0, value=None, certain=3.0):
    """A cell; `change` above 0 is worse."""
    told = None if abs(change) <= certain * std else "worse" if change > 0 else "better"
    return SimpleNamespace(
        extractor=extractor,
        metric=metric,
        fault=fault,
        dose=dose,
        value=10.0 + change if value is None else value,
        change=change,
        change_std=std,
        psnr=psnr,
        told=told,
    )


def planted(changes, psnr=30.0, **given):
    """An audit of `{(extractor, metric): {fault: changes by dose}}`, with the first doses of the known faults."""
    cells = [
        cell(extractor, metric, fault, dose, change, psnr=psnr)
        for (extractor, metric), row in changes.items()
        for fault, by_dose in row.items()
        for dose, change in zip(FAULTS[fault].doses if fault in FAULTS else (0.25, 0.5, 1.0), by_dose)  # noqa: B905
    ]
    rest = {
        "protocol": {"num_images": 400},
        "colour_share": {},
        "matches": [],
        "preferences": [],
        "plainness": [],
        "examples": {},
    }
    return SimpleNamespace(cells=cells, **{**rest, **given})


def pictures(side=16, count=4, seed=0):
    """Examples of one fault by dose."""
    draw = np.random.default_rng(seed)
    return {dose: draw.integers(0, 256, (count, 3, side, side), dtype=np.uint8) for dose in (0.0, 0.4, 0.5)}
