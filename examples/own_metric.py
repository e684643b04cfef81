"""Scores patches of the Moon by three metrics of one's own, in one evaluation.

``Metric`` prepares the real images once and then scores generated features; ``FeatureMetric`` takes a function of two
feature sets; ``ImageMetric`` takes a function of images and adds a standard error and a sheet with the lowest and the
highest values. The same objects go to ``QualityMonitor(metrics=...)``. Takes a few seconds, without weights.
"""

import torch
from lunar_gan import moon_patches
from torch import Tensor
from torch.utils.data import TensorDataset
from torchvision.transforms.functional import gaussian_blur

from lightning_synthqual import FeatureMetric, ImageMetric, Metric, evaluate


class EnergyDistance(Metric):
    """Energy distance (Székely and Rizzo 2013): 0 if both sets have the same distribution."""

    direction = "min"

    def prepare(self, real: Tensor) -> tuple[Tensor, Tensor]:
        """Once: the real features (N, D), and the mean distance of two of them."""
        return real, torch.pdist(real.double()).mean()

    def score(self, state: tuple[Tensor, Tensor], fake: Tensor) -> Tensor:
        """The distance of generated features (M, D)."""
        real, within_real = state
        between = torch.cdist(real.double(), fake.double()).mean()
        return 2 * between - within_real - torch.pdist(fake.double()).mean()


def mean_shift(real: Tensor, fake: Tensor) -> Tensor:
    """Distance of the means of features (N, D) and (M, D)."""
    shift = real.double().mean(0) - fake.double().mean(0)
    return shift.square().sum().sqrt()


def sharpness(images: Tensor) -> Tensor:
    """Mean difference of neighbouring pixels, for each of the images (N, 3, H, W)."""
    return images.float().diff(dim=3).abs().mean(dim=(1, 2, 3))


METRICS = (
    "fd_wavelet",
    EnergyDistance("energy", extractor="wavelet"),
    FeatureMetric("mean_shift", mean_shift, extractor="wavelet", direction="min"),
    ImageMetric("sharpness", sharpness),
)


def main() -> None:
    """Print the values of held-out patches, unchanged, blurred and with noise."""
    train, held_out = moon_patches(stride=6)
    noise = 0.2 * torch.randn(held_out.shape, generator=torch.Generator().manual_seed(0))
    fakes = {
        "held-out": held_out,
        "blurred": gaussian_blur(held_out, 5, 1.0),
        "with noise": (held_out + noise).clamp(-1, 1),
    }
    for name, fake in fakes.items():
        report = evaluate(TensorDataset(train), TensorDataset(fake), metrics=METRICS)
        print(f"{name}\n{report}\n")


if __name__ == "__main__":
    main()
