"""Trains a small flow-matching model on patches of the Moon: a generator that is expensive to sample from.

Every image takes a dozen passes of the network, so few are sampled, and the metric is the kernel distance: unbiased for
any number of samples, with a standard error, and with a floor, the value of held-out real images. Below the floor it
says nothing more, while recall still rises; so recall decides which checkpoint is saved. Weights averaged by
Lightning's ``EMAWeightAveraging`` are the ones that are scored. Noise is the same at every evaluation, so checkpoints
are compared on the same latents, image by image. Less than five minutes on two CPU cores; no network, no account.
"""

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from lunar_gan import BATCH, SIDE, moon_patches
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from lightning_synthqual import QualityCheckpoint, QualityMonitor, QualityStopping

METRICS = ("kd_wavelet", "precision_wavelet", "recall_wavelet")
WIDTH = 32


class Layer(nn.Module):
    """A convolution that knows the time."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, after, 3, 1, 1)
        self.normalise = nn.GroupNorm(8, after)
        self.time = nn.Linear(WIDTH, 2 * after)

    def forward(self, maps: Tensor, time: Tensor) -> Tensor:
        """Scale and shift come from the embedded time (N, WIDTH)."""
        scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
        return F.silu(self.normalise(self.convolution(maps)) * (1 + scale) + shift)


class Velocity(nn.Module):
    """Images (N, 1, 32, 32) and times (N,) in [0, 1] to velocities of the same shape: a U-Net of three sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU())
        self.down = nn.ModuleList([Layer(1, WIDTH), Layer(WIDTH, 2 * WIDTH), Layer(2 * WIDTH, 2 * WIDTH)])
        self.middle = Layer(2 * WIDTH, 2 * WIDTH)
        self.up = nn.ModuleList([Layer(4 * WIDTH, 2 * WIDTH), Layer(3 * WIDTH, WIDTH)])
        self.velocity = nn.Conv2d(WIDTH, 1, 3, 1, 1)

    def forward(self, images: Tensor, times: Tensor) -> Tensor:
        """Down by averages, up by nearest neighbours, with skip connections."""
        phases = times[:, None] * torch.arange(1, WIDTH // 2 + 1, device=times.device) * torch.pi
        time = self.embed(torch.cat([phases.sin(), phases.cos()], dim=1))
        maps, skipped = self.down[0](images, time), []
        for layer in self.down[1:]:
            skipped.append(maps)
            maps = layer(F.avg_pool2d(maps, 2), time)
        maps = self.middle(maps, time)
        for layer, skip in zip(self.up, reversed(skipped), strict=True):
            maps = layer(torch.cat([F.interpolate(maps, scale_factor=2.0), skip], dim=1), time)
        velocities: Tensor = self.velocity(maps)
        return velocities


class FlowMatching(LightningModule):
    """Straight paths from noise to images (Lipman et al. 2023), integrated by the midpoint rule."""

    latent_dim = (1, SIDE, SIDE)  # of one image's noise; the monitor needs no more

    def __init__(self, steps: int = 6) -> None:
        super().__init__()
        self.velocity = Velocity()
        self.steps = steps

    def forward(self, z: Tensor) -> Tensor:
        """Noise (N, 1, 32, 32) to images that may overshoot [-1, 1] a little."""
        times = torch.linspace(0, 1, self.steps + 1, device=z.device).tolist()
        for now, then in pairwise(times):
            half = z + (then - now) / 2 * self._velocity(z, now)
            z = z + (then - now) * self._velocity(half, (now + then) / 2)
        return z

    def _velocity(self, images: Tensor, time: float) -> Tensor:
        velocities: Tensor = self.velocity(images, images.new_full((len(images),), time))
        return velocities

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Regress the velocity of the straight path at a random time."""
        (images,) = batch
        noise, times = torch.randn_like(images), torch.rand(len(images), device=self.device)
        here = torch.lerp(noise, images, times[:, None, None, None])
        loss = F.mse_loss(self.velocity(here, times), images - noise)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        """Adam, ever slower towards the end of the training."""
        optimizer = torch.optim.Adam(self.parameters(), lr=2e-3)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a small flow-matching model on patches of the Moon.")
    parser.add_argument("--output", type=Path, default=Path("runs/flow"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batches", type=int, default=128, help="of an epoch; an evaluation follows each")
    parser.add_argument("--num-samples", type=int, default=256, help="generated images per evaluation")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    seed_everything(args.seed, workers=True)
    train_set, held_out_set = map(TensorDataset, moon_patches())
    quality = QualityMonitor(
        real=train_set,
        held_out=held_out_set,
        num_real=2000,
        metrics=METRICS,
        num_samples=args.num_samples,
        batch_size=64,
        image_range=(-1.0, 1.0),
    )
    stopping = QualityStopping(monitor="quality/recall_wavelet", patience=3)
    checkpoint = QualityCheckpoint(monitor="quality/recall_wavelet", save_top_k=1)
    callbacks = [EMAWeightAveraging(decay=0.99), quality, stopping, checkpoint]
    trainer = Trainer(max_epochs=args.epochs, logger=CSVLogger(args.output, name=""), callbacks=callbacks)
    sampler = RandomSampler(train_set, num_samples=args.batches * BATCH)
    trainer.fit(FlowMatching(), DataLoader(train_set, BATCH, sampler=sampler))

    print(f"\n{'step':>6}{'kd_wavelet':>14}{'error':>10}{'real':>10}{'recall':>10}{'clamped':>10}")
    for report in quality.reports:
        value, error, floor = (report.scalars[f"kd_wavelet{ending}"] for ending in ("", "_std", "_floor"))
        recall, clamped = report.scalars["recall_wavelet"], report.protocol["generated"]["clamped_share"]
        print(f"{report.step:>6}{value:>14.3g}{error:>10.2g}{floor:>10.2g}{recall:>10.2f}{clamped:>10.1%}")
    print(f"\nbest checkpoint  {checkpoint.best_model_path}")


if __name__ == "__main__":
    main()
