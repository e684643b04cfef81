"""Evaluations of data that are divided among processes; each writes what it found to ``<output>/rank<r>.json``."""

from pathlib import Path

import torch
from process import main
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


def find(rank: int, world_size: int, output: Path) -> dict:
    real, fake = images(97, 0), images(60, 1)

    def part(data: Dataset) -> Dataset:
        return Subset(data, range(rank, len(data), world_size))

    tries = {
        "whole": (real, fake),
        "parts": (part(real), fake),
        "streams": (Stream(part(real)), Stream(fake)),
        "parts of both": (part(real), part(fake)),
    }
    found = {}
    for name, (source, generated) in tries.items():
        report = evaluate(source, generated, metrics=("fd_wavelet", "kd_pixels"), batch_size=8, cache_dir=output)
        found[name] = {"scalars": report.scalars, "reference": report.protocol["reference"]}
        found[name]["num_samples"] = report.protocol["num_samples"]
    try:
        psnr = {"pairs": {"metrics": ("psnr",), "num_images": 4}}
        evaluate(part(real), fake, metrics=("pairs_pixels",), held_out=fake, options=psnr, cache_dir=output)
    except ValueError as error:
        found["error"] = str(error)
    labelled = [(image, 1) for (image,) in part(real)]
    try:
        evaluate(labelled, Conditional(), labels="data", num_samples=9, metrics=("fd_wavelet",), cache_dir=output)
    except ValueError as error:
        found["labels"] = str(error)
    return found


if __name__ == "__main__":
    main(find)
