"""Trains a small GAN on patches of the Moon, scores it, saves the best weights, and stops when it no longer improves.

Takes less than four minutes on two CPU cores, needs no download and no account. With ``--data FOLDER`` it trains on
any folder of images instead.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from skimage import data
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset
from torchvision.utils import make_grid

from lightning_synthqual import QualityCheckpoint, QualityMonitor, QualityStopping, Report

SIDE, BATCH, LATENT_DIM, WIDTH = 32, 32, 64, 32
PENALTY, PENALTY_EVERY = 0.05, 8
METRICS = ("fd_wavelet", "kd_wavelet", "precision_wavelet", "recall_wavelet")
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")


def moon_patches(stride: int = 3) -> tuple[Tensor, Tensor]:
    """Patches of a photograph of the Moon: those of its left three quarters to train on, the others held out.

    The split is by region: neighbouring patches overlap, and a random split would put near-duplicates on both sides.
    """
    moon = F.avg_pool2d(torch.tensor(data.moon(), dtype=torch.float32)[None], 2)[0]
    moon = torch.tanh((moon - moon.median()) / 20)  # most of the surface lies within few grey levels of the median
    border = moon.shape[1] * 3 // 4
    left, right = (
        region.unfold(0, SIDE, stride).unfold(1, SIDE, stride).reshape(-1, 1, SIDE, SIDE)
        for region in (moon[:, :border], moon[:, border:])
    )
    return left, right


def folder_images(folder: Path) -> tuple[Tensor, Tensor]:
    """The images of a folder, small and grey: the first four fifths by name to train on, the others held out."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if len(paths) < 2 * BATCH:
        raise SystemExit(f"{folder}: {2 * BATCH} images ({' '.join(SUFFIXES)}) are needed, {len(paths)} were found.")
    images = torch.stack([read_image(path) for path in paths])
    border = len(paths) * 4 // 5
    return images[:border], images[border:]


def read_image(path: Path) -> Tensor:
    """The middle square of an image as grey floats (1, SIDE, SIDE) in [-1, 1]."""
    with Image.open(path) as image:
        deep = image.mode.startswith("I")  # 16 bits
        grey = (image if deep else image.convert("L")).convert("F")
    pixels = torch.from_numpy(np.array(ImageOps.fit(grey, (SIDE, SIDE))))
    return (pixels / (65535 if deep else 255)).clamp(0, 1)[None] * 2 - 1


class Generator(nn.Sequential):
    """Noise (N, latent_dim) to images (N, 1, 32, 32) in [-1, 1]."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [nn.Unflatten(1, (LATENT_DIM, 1, 1)), nn.ConvTranspose2d(LATENT_DIM, 4 * WIDTH, 4)]
        for before, after in ((4 * WIDTH, 2 * WIDTH), (2 * WIDTH, WIDTH), (WIDTH, WIDTH // 2)):
            layers += [nn.BatchNorm2d(before), nn.ReLU(), nn.Upsample(scale_factor=2)]
            layers += [nn.Conv2d(before, after, 3, 1, 1)]
        layers += [nn.BatchNorm2d(WIDTH // 2), nn.ReLU(), nn.Conv2d(WIDTH // 2, 1, 3, 1, 1), nn.Tanh()]
        super().__init__(*layers)
        self.latent_dim = LATENT_DIM  # tells the monitor what to sample from


class Discriminator(nn.Sequential):
    """Images (N, 1, 32, 32) to scores (N,): positive for images that are taken for real."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for before, after in ((1, WIDTH), (WIDTH, 2 * WIDTH), (2 * WIDTH, 4 * WIDTH)):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Conv2d(4 * WIDTH, 1, 4), nn.Flatten(0))


class GAN(LightningModule):
    """A GAN with the non-saturating loss, a gradient penalty (R1) and a running average of its generator."""

    def __init__(self, generator: nn.Module | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = Generator() if generator is None else generator
        self.discriminator = Discriminator()
        self.average = AveragedModel(self.generator, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)
        self.average.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # faster on CPUs

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One for each network."""
        networks = (self.generator, self.discriminator)
        return [torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.0, 0.99)) for network in networks]

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """A step of the discriminator, then one of the generator."""
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        generator_optimizer, discriminator_optimizer = optimizers
        upside_down = torch.rand(len(batch[0]), 1, 1, 1, device=self.device) < 0.5  # leaves the light where it is
        real = torch.where(upside_down, batch[0].flip(2), batch[0])
        fake = self.generator(torch.randn(len(real), LATENT_DIM, device=self.device))

        penalised = batch_idx % PENALTY_EVERY == 0
        score = self.discriminator(real.requires_grad_(penalised))
        loss = F.softplus(-score).mean() + F.softplus(self.discriminator(fake.detach())).mean()
        self.log("loss/discriminator", loss, prog_bar=True)
        if penalised:
            (gradient,) = torch.autograd.grad(score.sum(), real, create_graph=True)
            loss = loss + PENALTY * PENALTY_EVERY * gradient.square().sum(dim=(1, 2, 3)).mean()
        discriminator_optimizer.zero_grad()
        self.manual_backward(loss)
        discriminator_optimizer.step()

        loss = F.softplus(-self.discriminator(fake)).mean()
        self.log("loss/generator", loss, prog_bar=True)
        generator_optimizer.zero_grad()
        self.manual_backward(loss)
        generator_optimizer.step()
        self.average.update_parameters(self.generator)


def averaged_generator(gan: GAN) -> nn.Module:
    """The network that the monitor samples from."""
    return gan.average.module


def print_scores(reports: list[Report], metrics: Sequence[str] = METRICS) -> None:
    """Each metric at the first, the best and the last evaluation."""
    print(f"\n{'metric':<20}{'first':>10}{'best':>10}{'last':>10}")
    for name in metrics:
        values = [report.scalars[name] for report in reports if name in report.scalars]
        if values:
            best = min(values) if name.startswith(("fd", "kd", "ppl")) else max(values)
            print(f"{name:<20}{values[0]:>10.4g}{best:>10.4g}{values[-1]:>10.4g}")


def draw_summary(reports: list[Report], samples: Path, real: Tensor, path: Path) -> None:
    """One figure of the run: scores over steps; what was generated first, what at best, and what is real.

    Args:
        reports: Reports of the run, in order.
        samples: The folder with the images that the monitor wrote.
        real: Training images (N, 1, SIDE, SIDE) in [-1, 1].
        path: File to write.
    """
    best = min(reports, key=lambda report: report.scalars["fd_wavelet"])
    figure = Figure(figsize=(10, 5.8), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(2, 3), squeeze=False)[:, 0]
    steps = [report.step or 0 for report in reports]
    for axes, names in zip(above.subplots(1, 2), (METRICS[:1], METRICS[2:]), strict=True):
        for name in names:
            values, errors = (np.array([report.scalars[key] for report in reports]) for key in (name, f"{name}_std"))
            axes.plot(steps, values, marker="o", markersize=3, label=name)
            axes.fill_between(steps, values - errors, values + errors, alpha=0.2, linewidth=0)
            if f"{name}_floor" in best.scalars:
                axes.axhline(best.scalars[f"{name}_floor"], color="#555555", linestyle="--", label="held-out images")
        axes.set_xlabel("step")
        axes.legend(frameon=False)
    above.axes[0].set_yscale("log")
    chosen = real[torch.randperm(len(real), generator=torch.Generator().manual_seed(0))[:64]]
    grids = {
        f"step {reports[0].step}": np.array(Image.open(samples / f"step={reports[0].step}.png")),
        f"step {best.step}, the best": np.array(Image.open(samples / f"step={best.step}.png")),
        "real": ((make_grid(chosen, pad_value=1)[0] + 1) * 127.5).numpy(),
    }
    for axes, (title, grid) in zip(below.subplots(1, 3), grids.items(), strict=True):
        axes.imshow(grid, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=11)
        axes.axis("off")
    figure.savefig(path, dpi=100)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a small GAN on patches of the Moon.")
    parser.add_argument("--data", type=Path, help="folder of images to train on instead of the Moon")
    parser.add_argument("--output", type=Path, default=Path("runs/lunar"), help="for scores, samples and checkpoints")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--batches", type=int, default=128, help="of an epoch; an evaluation follows each")
    parser.add_argument("--num-samples", type=int, default=800, help="generated images per evaluation")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)  # a second one helps little, and slows down where other programs run
    seed_everything(args.seed, workers=True)
    train_set, held_out_set = map(TensorDataset, folder_images(args.data) if args.data else moon_patches())
    sampler = RandomSampler(train_set, num_samples=args.batches * BATCH)

    quality = QualityMonitor(
        real=train_set,
        held_out=held_out_set,
        metrics=METRICS,
        num_samples=args.num_samples,
        batch_size=250,
        image_range=(-1.0, 1.0),
        model=averaged_generator,
    )
    # Beyond two standard errors of its paired difference a score is better; of those that tie the earliest is kept.
    stopping = QualityStopping(monitor="quality/fd_wavelet", patience=6, significance=2.0)
    checkpoint = QualityCheckpoint(monitor="quality/fd_wavelet", save_top_k=1, significance=2.0)
    args.output.mkdir(parents=True, exist_ok=True)
    table = CSVLogger(args.output, name="")
    wandb = WandbLogger(project="lunar-gan", save_dir=args.output, offline=True)
    trainer = Trainer(max_epochs=args.epochs, logger=[table, wandb], callbacks=[quality, stopping, checkpoint])
    trainer.fit(GAN(), DataLoader(train_set, BATCH, sampler=sampler))

    print_scores(quality.reports)
    best = min(quality.reports, key=lambda report: report.scalars["fd_wavelet"])
    samples, summary = Path(table.log_dir) / "samples", Path(table.log_dir) / "summary.png"
    draw_summary(quality.reports, samples, train_set.tensors[0], summary)
    print(f"\nbest images      {samples / f'step={best.step}.png'}")
    print(f"all in one       {summary}")
    print(f"best checkpoint  {checkpoint.best_model_path}")


if __name__ == "__main__":
    main()
