"""Audits on several processes; each writes what it found to ``<output>/rank<r>.json``."""

import json
from pathlib import Path

import torch
from process import main
from torch.utils.data import TensorDataset

from lightning_synthqual import audit


def images(count: int, seed: int) -> TensorDataset:
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, 3, 4, 4), generator=draw) * torch.tensor([1.0, 0.7, 0.4])[:, None, None]
    return TensorDataset((255 * coarse).repeat_interleave(4, 2).repeat_interleave(4, 3).to(torch.uint8))


def find(rank: int, world_size: int, output: Path) -> dict:
    found = audit(
        images(40, 0),
        held_out=images(30, 1),
        extractors=["pixels"],
        metrics=["fd", "recall"],
        faults=["contrast", "hue", "blend", "mode_drop"],
        cache_dir=output,
    )
    return json.loads(found.to_json())


if __name__ == "__main__":
    main(find)
