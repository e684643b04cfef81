"""Trains a small GAN on patches of the Moon while its pictures are scored, kept and, once they get no better, stopped.

python examples/lunar_gan.py                   # a few minutes on a laptop, no download, no account
python examples/lunar_gan.py --data pictures/  # any folder of pictures instead of the Moon
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from PIL import Image, ImageOps
from skimage import data
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from lightning_synthqual import QualityCheckpoint, QualityMonitor, QualityStopping, Report

SIDE = 32
BATCH = 32
PICTURES_PER_EPOCH = 128 * BATCH  # whatever the size of the data
METRICS = ("fd_wavelet", "kd_wavelet", "precision_wavelet", "recall_wavelet")
HIGHER_IS_BETTER = ("precision_wavelet", "recall_wavelet")


def moon_patches() -> tuple[Tensor, Tensor]:
    """Patches of two regions of a photograph of the Moon: the left three quarters to train on, the rest held out.

    Patches overlap within a region, so a random split would put nearly the same picture on both sides.
    """
    moon = F.avg_pool2d(torch.tensor(data.moon(), dtype=torch.float32)[None], 2)[0]
    moon = torch.tanh((moon - moon.median()) / 20)  # most of the surface lies within few grey levels of the median
    border = moon.shape[1] * 3 // 4
    train, held_out = (
        region.unfold(0, SIDE, 3).unfold(1, SIDE, 3).reshape(-1, 1, SIDE, SIDE)
        for region in (moon[:, :border], moon[:, border:])
    )
    return train, held_out


def folder_pictures(folder: Path) -> tuple[Tensor, Tensor]:
    """All pictures below a folder, small and grey; the last fifth, by name, is held out."""
    suffixes = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    if len(paths) < 2 * BATCH:
        raise SystemExit(f"{folder} holds {len(paths)} pictures ({', '.join(suffixes)}); {2 * BATCH} are needed.")
    pictures = torch.stack([read_picture(path) for path in paths])
    border = len(paths) * 4 // 5
    return pictures[:border], pictures[border:]


def read_picture(path: Path) -> Tensor:
    """The middle of a picture in grey, (1, SIDE, SIDE) in [-1, 1]."""
    with Image.open(path) as picture:
        deep = picture.mode.startswith("I")  # 16 bits
        grey = (picture if deep else picture.convert("L")).convert("F")
    small = np.array(ImageOps.fit(grey, (SIDE, SIDE))) / (65535 if deep else 255)
    return torch.from_numpy(small)[None].clamp(0, 1) * 2 - 1


class Generator(nn.Sequential):
    """Noise (N, latent_dim) to pictures (N, 1, 32, 32) in [-1, 1]."""

    def __init__(self, latent_dim: int = 64, width: int = 32) -> None:
        super().__init__(
            nn.Unflatten(1, (latent_dim, 1, 1)),
            nn.ConvTranspose2d(latent_dim, 4 * width, 4),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
            *self._twice_the_side(4 * width, 2 * width),
            *self._twice_the_side(2 * width, width),
            *self._twice_the_side(width, width // 2),
            nn.Conv2d(width // 2, 1, 3, padding=1),
            nn.Tanh(),
        )
        self.latent_dim = latent_dim

    @staticmethod
    def _twice_the_side(before: int, after: int) -> list[nn.Module]:
        return [nn.Upsample(scale_factor=2), nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]


class Discriminator(nn.Sequential):
    """Pictures (N, 1, 32, 32) to scores (N,), positive for pictures taken for real."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(
            *(nn.Conv2d(1, width, 4, 2, 1), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(width, 2 * width, 4, 2, 1), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(2 * width, 4 * width, 4, 2, 1), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(4 * width, 1, 4), nn.Flatten(0)),
        )


class GAN(LightningModule):
    """A non-saturating GAN with a lazy gradient penalty (R1) and a running average of the generator.

    Args:
        learning_rate: Of both networks.
        penalty: Weight of the penalty on the discriminator's gradient at real pictures.
        penalty_every: Batches between two penalties.
        decay: Of the running average, per batch.
    """

    def __init__(
        self, learning_rate: float = 1e-3, penalty: float = 0.05, penalty_every: int = 8, decay: float = 0.99
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator = Generator()
        self.discriminator = Discriminator()
        self.average = AveragedModel(self.generator, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.average.requires_grad_(False)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One Adam for each network."""
        networks = (self.generator, self.discriminator)
        return [torch.optim.Adam(n.parameters(), self.hparams["learning_rate"], betas=(0.0, 0.99)) for n in networks]

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """One step of the discriminator, one of the generator."""
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        for_generator, for_discriminator = optimizers
        real = random_flip(batch[0])
        fake = self.generator(torch.randn(len(real), self.generator.latent_dim, device=self.device))

        penalised = batch_idx % self.hparams["penalty_every"] == 0
        score = self.discriminator(real.requires_grad_(penalised))
        loss = F.softplus(-score).mean() + F.softplus(self.discriminator(fake.detach())).mean()
        self.log("loss/discriminator", loss, prog_bar=True)
        if penalised:
            (gradient,) = torch.autograd.grad(score.sum(), real, create_graph=True)
            weight = self.hparams["penalty"] * self.hparams["penalty_every"]
            loss = loss + weight * gradient.square().sum(dim=(1, 2, 3)).mean()
        for_discriminator.zero_grad()
        self.manual_backward(loss)
        for_discriminator.step()

        loss = F.softplus(-self.discriminator(fake)).mean()
        self.log("loss/generator", loss, prog_bar=True)
        for_generator.zero_grad()
        self.manual_backward(loss)
        for_generator.step()
        self.average.update_parameters(self.generator)


def random_flip(pictures: Tensor) -> Tensor:
    """Turns half of the pictures upside down, which on the Moon leaves the light where it comes from."""
    chosen = torch.rand(len(pictures), 1, 1, 1, device=pictures.device) < 0.5
    return torch.where(chosen, pictures.flip(2), pictures)


def average_generator(gan: GAN) -> nn.Module:
    """The network to sample from."""
    return gan.average.module


def print_summary(reports: list[Report]) -> None:
    """Each metric at the first, the best and the last evaluation."""
    print(f"\n{'metric':<20}{'first':>10}{'best':>10}{'last':>10}")
    for name in METRICS:
        values = [report.scalars[name] for report in reports if name in report.scalars]
        if values:
            best = (max if name in HIGHER_IS_BETTER else min)(values)
            print(f"{name:<20}{values[0]:>10.4g}{best:>10.4g}{values[-1]:>10.4g}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train a small GAN on patches of the Moon.")
    parser.add_argument("--data", type=Path, help="folder of pictures to train on instead of the Moon")
    parser.add_argument("--output", type=Path, default=Path("runs/lunar"), help="folder of logs, samples, checkpoints")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--num-samples", type=int, default=1000, help="generated pictures per evaluation")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)  # networks this small gain nothing from more, and other programs may need the rest
    seed_everything(args.seed, workers=True)
    train, held_out = moon_patches() if args.data is None else folder_pictures(args.data)
    train_set, held_out_set = TensorDataset(train), TensorDataset(held_out)
    sampler = RandomSampler(train_set, num_samples=PICTURES_PER_EPOCH)

    quality = QualityMonitor(
        real=train_set,
        held_out=held_out_set,
        metrics=METRICS,
        num_samples=args.num_samples,
        batch_size=250,
        model=average_generator,
        image_range=(-1.0, 1.0),
    )
    stopping = QualityStopping(monitor="quality/fd_wavelet", patience=6)
    checkpoint = QualityCheckpoint(monitor="quality/fd_wavelet", save_top_k=1)
    args.output.mkdir(parents=True, exist_ok=True)
    csv_logger = CSVLogger(args.output, name="")
    wandb_logger = WandbLogger(project="lunar-gan", save_dir=args.output, offline=True)
    trainer = Trainer(
        max_epochs=args.epochs, callbacks=[quality, stopping, checkpoint], logger=[csv_logger, wandb_logger]
    )
    trainer.fit(GAN(), DataLoader(train_set, BATCH, sampler=sampler))

    print_summary(quality.reports)
    best = min(quality.reports, key=lambda report: report.scalars["fd_wavelet"])
    print(f"\nbest pictures    {Path(csv_logger.log_dir) / 'samples' / f'step={best.step}.png'}")
    print(f"best checkpoint  {checkpoint.best_model_path}")


if __name__ == "__main__":
    main()
