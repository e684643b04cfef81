"""How fast images are read, and how soon a training begins; two sections of ``bench.py``."""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from metrics import rotate
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch_fidelity.datasets import ImagesPathDataset

from lightning_synthqual import QualityMonitor
from lightning_synthqual.images.reference import ImageSet

_ITEMS, _SECONDS = 20_000, 0.001  # of the data set of the start


def write_folder(folder: Path, count: int, side: int) -> None:
    """Colour pictures as PNG files: smooth, with some grain."""
    draw = torch.Generator().manual_seed(0)
    for number in range(count):
        smooth = nn.functional.interpolate(torch.rand(1, 3, 8, 8, generator=draw), size=side, mode="bicubic")[0]
        pixels = (smooth + 0.03 * torch.randn(3, side, side, generator=draw)).clamp(0, 1) * 255
        Image.fromarray(pixels.byte().permute(1, 2, 0).numpy()).save(folder / f"{number:05}.png")


def readers(args: argparse.Namespace) -> None:
    """A folder of PNG, by this process and by workers, and by torch-fidelity's own folder input."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folder(folder, args.pictures, args.side)
        files = [str(path) for path in sorted(folder.iterdir())]

        def ours(workers: int | None) -> None:
            for block in ImageSet(folder, "real", num_workers=workers).read(64):
                list(block.stacks())

        def fidelity(workers: int) -> None:
            for _ in DataLoader(ImagesPathDataset(files), batch_size=64, num_workers=workers):
                pass

        works = {"in this process": lambda: ours(0), "without a number": lambda: ours(None)}
        for count in args.workers:
            works[f"{count} workers"] = lambda n=count: ours(n)  # type: ignore[misc]
            works[f"torch-fidelity's folder input, {count} workers"] = lambda n=count: fidelity(n)  # type: ignore[misc]
        found = rotate(works, args.turns)
    print(
        f"\n{args.pictures} PNG files of {args.side} px\n{'':<48}{'seconds':>9}{'images/s':>10}{'x this process':>16}"
    )
    alone = found["in this process"][0]
    for what, (seconds, _) in found.items():
        print(f"{what:<48}{seconds:9.2f}{args.pictures / seconds:10.1f}{alone / seconds:16.2f}", flush=True)


class Slow(Dataset[Tensor]):
    """Items that take a millisecond each."""

    def __len__(self) -> int:
        return _ITEMS

    def __getitem__(self, index: int) -> Tensor:
        time.sleep(_SECONDS)
        return torch.full((3, 32, 32), index % 251, dtype=torch.uint8)


class Tiny(lightning.LightningModule):
    """A generator whose training does nothing."""

    latent_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3 * 32 * 32)

    def forward(self, z: Tensor) -> Tensor:
        """Latents (n, 4) to images (n, 3, 32, 32)."""
        images: Tensor = self.layer(z).tanh().view(-1, 3, 32, 32)
        return images

    def training_step(self, batch: Tensor, number: int) -> Tensor:
        """Nothing to learn."""
        return self(torch.zeros(1, 4)).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Any."""
        return torch.optim.SGD(self.parameters(), 0.1)


class FirstBatch(lightning.Callback):
    """Notes when the first batch begins."""

    seconds = 0.0

    def __init__(self) -> None:
        self.started = time.perf_counter()

    def on_train_batch_start(self, *_: Any) -> None:
        """The first batch."""
        self.seconds = time.perf_counter() - self.started


def first_batch(folder: str, data: Dataset[Tensor], **monitor: Any) -> float:
    """Seconds from ``fit`` to the first batch."""
    first = FirstBatch()
    own = [QualityMonitor(real=data, metrics=("fd_wavelet",), **monitor)] if monitor else []
    trainer = lightning.Trainer(
        max_steps=1,
        callbacks=[*own, first],
        logger=False,
        default_root_dir=folder,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(torch.zeros(4, 3, 32, 32))  # type: ignore[arg-type]
    first.started = time.perf_counter()
    trainer.fit(Tiny(), loader)
    return first.seconds


def start(args: argparse.Namespace) -> None:
    """From ``fit`` to the first batch: the first time that a data set is met, and later."""
    print(f"\n{_ITEMS} items of {_SECONDS * 1000:.0f} ms each: seconds from `fit` to the first batch")
    with tempfile.TemporaryDirectory() as folder:
        first_batch(folder, Slow())
        alone = first_batch(folder, Slow())
        print(f"{'without the callback':<34}{alone:8.2f}", flush=True)
        for check in ("sample", "full"):
            monitor = {"cache_dir": f"{folder}/{check}", "cache_check": check, "every_n_epochs": 1000}
            for what in ("first start", "later start"):
                seconds = first_batch(folder, Slow(), **monitor)
                print(f"{what + f', cache_check={check!r}':<34}{seconds:8.2f}{seconds - alone:+8.2f}", flush=True)
