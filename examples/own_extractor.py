"""Scores images through a network of one's own: a classifier of digits, made in a few seconds.

For images unlike those of ImageNet, a network trained on similar ones gives the best features. Any ``nn.Module`` from
images to (N, D) can be used; you choose its name, and the metrics get it: ``fd_digits``, ``recall_digits``. The table
shows what it detects of digits with known faults, and what features without weights detect.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from lightning_synthqual import evaluate

CLASSES, SIDE, FEATURES = 10, 16, 64
METRICS = ("fd_digits", "precision_digits", "recall_digits", "coverage_digits", "fd_wavelet")


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Handwritten digits with their labels, (1, 16, 16) in [-1, 1]: to train on, and of other hands held out."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1
    images = F.interpolate(images, SIDE, mode="bicubic", antialias=True).clamp(-1, 1)
    border = len(images) * 3 // 4
    classes = torch.tensor(labels)
    return TensorDataset(images[:border], classes[:border]), TensorDataset(images[border:], classes[border:])


class DigitFeatures(nn.Module):
    """Images (N, 3, 16, 16) in [-1, 1] to features (N, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 2, 1)
        )
        self.mix = nn.Linear(4 * 64, FEATURES)

    def forward(self, images: Tensor) -> Tensor:
        """Grey, convolutions, one linear layer."""
        grey = images.mean(dim=1, keepdim=True)
        features: Tensor = self.mix(F.relu(self.layers(grey)).flatten(1))
        return features


def train_classifier(data: TensorDataset, steps: int = 400, seed: int = 0) -> nn.Sequential:
    """A classifier of digits: ``DigitFeatures``, and a layer from features to classes."""
    draw = torch.Generator().manual_seed(seed)
    images, labels = data.tensors
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(DigitFeatures(), nn.ReLU(), nn.Linear(FEATURES, CLASSES))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for _ in range(steps):
        chosen = torch.randint(len(images), (64,), generator=draw)
        shift = torch.randint(-1, 2, (2,), generator=draw).tolist()
        batch = torch.roll(images[chosen], shift, dims=(2, 3))
        loss = F.cross_entropy(network(batch), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def extractor(network: nn.Sequential) -> dict[str, object]:
    """Configuration of the extractor: the network, and the images that it expects."""
    return {"network": network[0], "input_size": SIDE, "input_range": (-1.0, 1.0)}


def main() -> None:
    """Print how the values move."""
    parser = argparse.ArgumentParser(description="Score digits with known faults through a network of one's own.")
    parser.add_argument("--steps", type=int, default=400, help="of the classifier's training")
    arguments = parser.parse_args()
    train, held_out = digits()
    network = train_classifier(train, arguments.steps)
    images, labels = held_out.tensors
    with torch.no_grad():
        right = (network(images).argmax(1) == labels).float().mean()
    print(f"The classifier knows {right:.0%} of the held-out digits.\n")

    draw = torch.Generator().manual_seed(0)
    half = labels < CLASSES // 2
    copied = torch.randperm(len(train), generator=draw)[: len(images)]
    fakes = {
        "held-out digits": images,
        "with noise": (images + 0.3 * torch.randn(images.shape, generator=draw)).clamp(-1, 1),
        "mirrored": images.flip(3),
        "0 to 4 alone": images[half].repeat_interleave(2, 0)[: len(images)],
        "training digits": train.tensors[0][copied],
    }
    print(f"{'':<18}" + "".join(f"{name:>18}" for name in METRICS))
    for name, fake in fakes.items():
        report = evaluate(train, TensorDataset(fake), metrics=METRICS, extractors={"digits": extractor(network)})
        print(f"{name:<18}" + "".join(f"{report.scalars[metric]:>18.3g}" for metric in METRICS))


if __name__ == "__main__":
    main()
