"""Shows what each metric sees and what it is blind to, on real images with known faults.

Patches of four photographs (the Moon, bricks, grass, gravel) are the real data, cut from regions that do not overlap:
one to train on, one held out, and one in place of generated images. These are blurred, made noisy, compressed
or tinted; lack two of the four photographs; repeat themselves; or are in part copies of training images. A cell shows
the value of a metric and, if it is more than three standard errors of the difference away from that of unchanged
images, whether the metric says worse (``-``) or better (``+``). No mark means that the metric does not notice. About
a minute without weights; with ``--extractors inception,clip`` and their weights the published networks are shown too.
"""

import argparse
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from invent_or_copy import CIFAR, load_resnet
from PIL import Image, ImageFilter
from skimage import data
from torch import Tensor
from torch.utils.data import TensorDataset

from lightning_synthqual import Report, evaluate

SIDE, STRIDE = 32, 16
PHOTOGRAPHS = ("moon", "brick", "grass", "gravel")
SHOWN = {  # format, and which way is worse
    "fd": ("{:.3g}", 1),
    "kd": ("{:.2g}", 1),
    "cmmd": ("{:.3g}", 1),
    "isc": ("{:.3g}", -1),
    "precision": ("{:.2f}", -1),
    "recall": ("{:.2f}", -1),
    "density": ("{:.2f}", -1),
    "coverage": ("{:.2f}", -1),
    "closer_to_train": ("{:.2f}", 1),
    "copy_fraction": ("{:.2f}", 1),
    "authenticity": ("{:.2f}", -1),
    "copying_test": ("{:.1f}", -1),
}
MEMORIZATION = ("closer_to_train", "copy_fraction", "authenticity", "copying_test")
UNHARMED, CERTAIN = "none", 3.0


def name_of(column: str, extractor: str) -> str:
    """What a report calls the value; on the published networks some have names of their own."""
    if extractor == "inception" and column not in MEMORIZATION:
        return {"fd": "fid", "kd": "kid"}.get(column, column)
    return column if column == "cmmd" else f"{column}_{extractor}"


def columns(extractor: str) -> list[str]:
    """What there is to show of an extractor."""
    only = {"cmmd": "clip", "isc": "inception"}
    return [column for column in SHOWN if only.get(column, extractor) == extractor]


def patches(photograph: str, left: int, right: int, stride: int = STRIDE) -> Tensor:
    """Patches of the columns ``left`` to ``right`` of a photograph, uint8 (N, 3, 32, 32)."""
    pixels = torch.from_numpy(np.ascontiguousarray(getattr(data, photograph)()[:, left:right]))
    grey = pixels.unfold(0, SIDE, stride).unfold(1, SIDE, stride).reshape(-1, 1, SIDE, SIDE)
    return grey.expand(-1, 3, -1, -1).contiguous()


def through_pillow(images: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Each image changed by Pillow."""
    changed = [np.array(change(Image.fromarray(image.permute(1, 2, 0).numpy()))) for image in images]
    return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2).contiguous()


def compressed(image: Image.Image, quality: int = 30) -> Image.Image:
    """An image as JPEG brings it back."""
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def as_bytes(values: Tensor) -> Tensor:
    """Grey levels as uint8."""
    return values.round().clamp(0, 255).to(torch.uint8)


def faults(train: Tensor, fresh: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Sets of about as many images as ``fresh``, by their fault."""
    draw = torch.Generator().manual_seed(seed)
    noise = 8 * torch.randn((len(fresh), 1, SIDE, SIDE), generator=draw)
    tint = torch.tensor([12.0, 0.0, -12.0]).view(3, 1, 1)
    some = torch.randperm(len(fresh), generator=draw)[: len(fresh) // 8]
    copies = train[torch.randperm(len(train), generator=draw)[: len(fresh) // 4]]
    others = fresh[torch.randperm(len(fresh), generator=draw)[len(copies) :]]
    return {
        UNHARMED: fresh,
        "blur": through_pillow(fresh, lambda image: image.filter(ImageFilter.GaussianBlur(0.8))),
        "noise": as_bytes(fresh + noise),
        "JPEG": through_pillow(fresh, compressed),
        "colour shift": as_bytes(fresh + tint),
        "mode dropping": torch.cat([patches(name, 384, 512, STRIDE // 2) for name in PHOTOGRAPHS[:2]])[::2],
        "duplication": fresh[some].repeat_interleave(8, 0),
        "copying": torch.cat([copies, others]),
    }


def measure(extractor: str, extractors: dict[str, Any] | None = None, device: str | None = None) -> dict[str, Report]:
    """A report for each fault.

    Args:
        extractor: The name of the features.
        extractors: Configuration of those with one.
        device: Where to compute.
    """
    train, held_out, fresh = (
        torch.cat([patches(name, left, right) for name in PHOTOGRAPHS])
        for left, right in ((0, 256), (256, 384), (384, 512))
    )
    metrics = [name_of(column, extractor) for column in columns(extractor) if column not in MEMORIZATION]
    return {
        fault: evaluate(
            TensorDataset(train),
            TensorDataset(fake),
            held_out=TensorDataset(held_out),
            metrics=[*metrics, f"memorization_{extractor}"],
            extractors=extractors,
            device=device,
        )
        for fault, fake in faults(train, fresh).items()
    }


def verdict(column: str, extractor: str, report: Report, unharmed: Report) -> str:
    """``-`` if a metric says that images are worse than unchanged ones, ``+`` if better, else nothing."""
    name = name_of(column, extractor)
    if name not in report.scalars or name not in unharmed.scalars:
        return ""
    error = 1.0 if column == "copying_test" else 0.0  # it is a z-score
    variance = sum(each.scalars.get(f"{name}_std", error) ** 2 for each in (report, unharmed))
    change = SHOWN[column][1] * (report.scalars[name] - unharmed.scalars[name])
    if abs(change) <= CERTAIN * variance**0.5 or change == 0:
        return ""
    return "-" if change > 0 else "+"


def table(extractor: str, reports: dict[str, Report]) -> list[str]:
    """Lines of Markdown: a row for each fault."""
    shown = columns(extractor)
    lines = [f"| {extractor} | " + " | ".join(shown) + " |", "|---" * (len(shown) + 1) + "|"]
    for fault, report in reports.items():
        cells = []
        for column in shown:
            value = report.scalars.get(name_of(column, extractor))
            cell = "undefined" if value is None else SHOWN[column][0].format(value)
            mark = verdict(column, extractor, report, reports[UNHARMED])
            cells.append(f"{cell} **{mark}**" if mark else cell)
        lines.append(f"| {fault} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Print a table for each extractor."""
    parser = argparse.ArgumentParser(description="Show what each metric is blind to.")
    parser.add_argument("--extractors", default="wavelet,pixels", help="names, with commas between them")
    parser.add_argument("--resnet", type=Path, help="weights of a ResNet-20, as for invent_or_copy.py")
    parser.add_argument("--device")
    args = parser.parse_args()
    own = {"resnet": {"network": load_resnet(args.resnet), **CIFAR}} if args.resnet else {}
    for extractor in [*filter(None, args.extractors.split(",")), *own]:
        print("\n".join(table(extractor, measure(extractor, own or None, args.device))), flush=True, end="\n\n")


if __name__ == "__main__":
    main()
