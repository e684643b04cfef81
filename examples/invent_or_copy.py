"""Shows the values of each metric for generators that invent, copy, shrink or collapse.

Generators with known faults are made from Gaussian vectors and, with ``--train``, ``--test`` and ``--weights``, on
images, seen through a small network of one's own (a ResNet-20 in the format of
github.com/akamaster/pytorch_resnet_cifar10). The images' names up to the last dash name their scene: images of
one scene are near-duplicates, so whole scenes are held out. A second table shows how much similarities of *real* images
only reflect that the images are plain.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from lightning_synthqual import evaluate
from lightning_synthqual.metrics import density_coverage, frechet_distance, kernel_distance, memorization
from lightning_synthqual.metrics import precision_recall as manifold

COLUMNS = {
    "fd": "{:.3g}",
    "kd_gap": "{:.2g}",
    "precision": "{:.2f}",
    "recall": "{:.2f}",
    "coverage": "{:.2f}",
    "closer_to_train": "{:.2f}",
    "copy_fraction": "{:.2f}",
    "train_held_out_ratio": "{:.2f}",
    "authenticity": "{:.2f}",
    "authenticity_held_out": "{:.2f}",
    "copying_test": "{:.1f}",
}
DIMENSION, COUNT = 16, 1500
CIFAR = {"input_size": 32, "input_range": (0.0, 1.0), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def planted(
    train: Tensor, fresh: Tensor, noise: Callable[[Tensor], Tensor], mirror: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Sets (M, ...) as generators of known faults would make them, of real ones that none has seen: ``fresh``."""
    copied = len(fresh) // 10
    middle = train.mean(0)
    chosen = train[:: max(1, len(train) // len(fresh))][: len(fresh)]
    return {
        "iid": fresh,
        "10 % copies": torch.cat([chosen[:copied], fresh[copied:]]),
        "noisy copies": noise(chosen),
        "mirrored copies": mirror(chosen),
        "shrunk": middle + 0.6 * (fresh - middle),
        "collapsed": noise(fresh[:1].expand_as(fresh)),
    }


def score_vectors(train: Tensor, held_out: Tensor, fake: Tensor) -> dict[str, float]:
    """The figures of vectors (N, D): nothing but functions of features."""
    found = memorization(train, held_out, fake, distance="euclidean")
    precision, recall = manifold(train, fake)
    gap = kernel_distance(held_out, fake).value - kernel_distance(train, fake).value
    scalars = {
        "fd": frechet_distance(train, fake),
        "kd_gap": gap,
        "precision": precision,
        "recall": recall,
        "coverage": density_coverage(train, fake).coverage,
        **found._asdict(),
    }
    return {name: float(value) for name, value in scalars.items()}


def vectors(draw: torch.Generator) -> dict[str, dict[str, float]]:
    """The planted generators on Gaussian vectors; the mirror turns half of the coordinates round."""
    train, held_out, fresh = torch.randn(3, COUNT, DIMENSION, generator=draw)
    signs = torch.ones(DIMENSION)
    signs[::2] = -1
    fakes = planted(
        train, fresh, lambda rows: rows + 0.1 * torch.randn(rows.shape, generator=draw), lambda rows: rows * signs
    )
    return {name: score_vectors(train, held_out, fake) for name, fake in fakes.items()}


class Block(nn.Module):
    """Two convolutions and a shortcut; where it halves the image the shortcut is padded with empty channels."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.stride = 1 if before == after else 2
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, self.stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) to (N, after, H / stride, W / stride)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride == 2:
            pad = (y.shape[1] - x.shape[1]) // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad))
        return F.relu(x + y)


class ResNet20(nn.Module):
    """Images (N, 3, 32, 32) to features (N, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))
        self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))

    def forward(self, x: Tensor) -> Tensor:
        """The mean over the image of the last layer."""
        maps: Tensor = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return maps.mean((2, 3))


def load_resnet(path: Path) -> ResNet20:
    """The network with the weights of a file."""
    network = ResNet20()
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    state = {name.removeprefix("module."): values for name, values in state.items()}
    missing, _ = network.load_state_dict(state, strict=False)  # the file has a classifier too, and no counters
    if any(not name.endswith("num_batches_tracked") for name in missing):
        raise SystemExit(f"{path} holds no ResNet-20: {', '.join(missing)} are missing.")
    return network


def read_scenes(folder: Path) -> dict[str, list[Path]]:
    """The images of a folder by scene."""
    scenes: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".png")):
        scenes.setdefault(path.stem.rpartition("-")[0], []).append(path)
    return scenes


def read(paths: list[Path]) -> Tensor:
    """Images of one size as uint8 (N, 3, H, W)."""
    arrays = [np.array(Image.open(path).convert("RGB")) for path in paths]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def planted_images(
    train_folder: Path, test_folder: Path, weights: Path, draw: torch.Generator
) -> tuple[dict[str, dict[str, float]], list[tuple[str, ...]]]:
    """The planted generators on images, and the similarities of real images against their entropy."""
    scenes = list(read_scenes(train_folder).values())
    train = read([path for place, paths in enumerate(scenes) if place % 4 for path in paths])
    fresh = read([path for paths in scenes[::4] for path in paths])
    held_out = read([path for paths in read_scenes(test_folder).values() for path in paths])

    def noise(images: Tensor) -> Tensor:
        grains = 8 * torch.randn((len(images), 1, *images.shape[2:]), generator=draw)
        return images.float() + grains

    fakes = planted(train.float(), fresh.float(), noise, lambda images: images.flip(3))
    arguments: dict[str, Any] = {
        "held_out": TensorDataset(held_out),
        "extractors": {"resnet": {"network": load_resnet(weights), **CIFAR}},
    }
    metrics = ["fd", "kd", "precision", "recall", "coverage", "memorization"]
    found = {}
    for name, fake in fakes.items():
        generated = TensorDataset(fake.round().clamp(0, 255).to(torch.uint8))
        report = evaluate(
            TensorDataset(train), generated, metrics=[f"{metric}_resnet" for metric in metrics], **arguments
        )
        found[name] = {metric.replace("_resnet", ""): value for metric, value in report.scalars.items()}
    study = evaluate(
        TensorDataset(train),
        TensorDataset(fresh),
        metrics=["pairs_resnet"],
        options={"pairs": {"metrics": ("psnr", "ms_ssim", "resnet")}},
        **arguments,
    )
    table = study.tables["pairs_resnet_summary"]
    wanted = [table.columns.index(name) for name in ("metric", "kind", "r with entropy", "p", "n")]
    rows = [tuple(row[place] for place in wanted) for row in table.rows if str(row[1]).startswith("real")]
    return found, [(str(a), str(b), f"{c:.2f}", f"{d:.1g}", str(e)) for a, b, c, d, e in rows]


def show(title: str, rows: list[tuple[str, ...]]) -> None:
    """Print a table, its first row the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"\n{title}\n")
    for row in rows:
        print("  ".join(word.rjust(width) for word, width in zip(row, widths, strict=True)))


def cases(found: dict[str, dict[str, float]]) -> list[tuple[str, ...]]:
    """A row a planted generator."""
    rows = [("", *COLUMNS)]
    for name, scalars in found.items():
        cells = (form.format(scalars[column]) if column in scalars else "-" for column, form in COLUMNS.items())
        rows.append((name, *cells))
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, help="a folder of images, named <scene>-<number>")
    parser.add_argument("--test", type=Path, help="images of other scenes")
    parser.add_argument("--weights", type=Path, help="resnet20 of github.com/akamaster/pytorch_resnet_cifar10")
    arguments = parser.parse_args()
    folders = (arguments.train, arguments.test, arguments.weights)
    if any(folders) and not all(folders):
        parser.error("--train, --test and --weights belong together")
    draw = torch.Generator().manual_seed(0)
    show(f"Planted generators: {COUNT} Gaussian vectors of {DIMENSION} dimensions", cases(vectors(draw)))
    if all(folders):
        found, entropy = planted_images(*folders, draw)
        show("Planted generators: images as ResNet-20 sees them", cases(found))
        heads = ("similarity", "of", "r with entropy", "p", "n")
        show("Held-out images with their nearest and with random training images", [heads, *entropy])


if __name__ == "__main__":
    main()
