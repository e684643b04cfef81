"""Evaluations of data that are divided among processes; each writes what it found to ``<output>/rank<r>.json``."""

import argparse
import json
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from lightning_synthqual import evaluate


class Stream(IterableDataset):
    def __init__(self, items: Dataset) -> None:
        self.items = items

    def __iter__(self):
        return (self.items[index] for index in range(len(self.items)))


class Conditional(nn.Module):
    latent_dim = 3 * 8 * 8

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.tanh(z).view(-1, 3, 8, 8) * labels.view(-1, 1, 1, 1)


def images(count: int, seed: int) -> TensorDataset:
    return TensorDataset(torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--world-size", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.world_size > 1:
        dist.init_process_group("gloo", rank=args.rank, world_size=args.world_size)
    real, fake = images(97, 0), images(60, 1)

    def part(data: Dataset) -> Dataset:
        return Subset(data, range(args.rank, len(data), args.world_size))

    tries = {
        "whole": (real, fake),
        "parts": (part(real), fake),
        "streams": (Stream(part(real)), Stream(fake)),
        "parts of both": (part(real), part(fake)),
    }
    found = {}
    for name, (source, generated) in tries.items():
        report = evaluate(source, generated, metrics=("fd_wavelet", "kd_pixels"), batch_size=8, cache_dir=args.output)
        found[name] = {"scalars": report.scalars, "reference": report.protocol["reference"]}
        found[name]["num_samples"] = report.protocol["num_samples"]
    try:
        psnr = {"pairs": {"metrics": ("psnr",), "num_images": 4}}
        evaluate(part(real), fake, metrics=("pairs_pixels",), held_out=fake, options=psnr, cache_dir=args.output)
    except ValueError as error:
        found["error"] = str(error)
    labelled = [(image, 1) for (image,) in part(real)]
    try:
        evaluate(labelled, Conditional(), labels="data", num_samples=9, metrics=("fd_wavelet",), cache_dir=args.output)
    except ValueError as error:
        found["labels"] = str(error)
    (args.output / f"rank{args.rank}.json").write_text(json.dumps(found))
    if args.world_size > 1:  # a process whose peer has gone may be aborted while it ends
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
