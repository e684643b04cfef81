"""A training whose checkpoints are scored by others; as a script it takes its time between batches."""

import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_synthqual import QualityMonitor, Report

METRICS = ("fd_mine", "precision_mine", "kd_mine")
NETWORK = {"network": "torch.nn.Flatten", "input_range": [0.0, 1.0]}


class Gan(pl.LightningModule):
    """Two optimizers by hand, so that ``global_step`` counts each batch twice."""

    latent_dim = 4

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.net = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3 * 16 * 16))
        self.critic = nn.Linear(3 * 16 * 16, 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.net(z)).view(-1, 3, 16, 16)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        noise = torch.randn(len(batch[0]), 4)
        losses = [lambda: (self(noise) - batch[0]).square().mean(), lambda: self.critic(batch[0].flatten(1)).mean()]
        for optimizer, loss in zip(self.optimizers(), losses, strict=True):
            optimizer.zero_grad()
            self.manual_backward(loss())
            optimizer.step()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        return None

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.net.parameters(), 1e-2), torch.optim.Adam(self.critic.parameters(), 1e-3)


def train(directory: Path, real: Path, *more: pl.Callback, **schedule: Any) -> list[Report]:
    """Train for twelve batches, and return the reports."""
    monitor = QualityMonitor(
        real=real,
        metrics=METRICS,
        extractors={"mine": NETWORK},
        num_samples=33,
        batch_size=8,
        cache_dir=str(directory / "cache"),
        **schedule,
    )
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        callbacks=[monitor, *more],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=directory,
    )
    images = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    loader = DataLoader(TensorDataset(images), batch_size=6)
    trainer.fit(Gan(), loader, loader)
    return monitor.reports


class Slow(pl.Callback):
    def on_train_batch_start(self, *_: Any) -> None:
        time.sleep(0.5)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, images = map(Path, sys.argv[1:])
    saving = pl.callbacks.ModelCheckpoint(folder / "saved", every_n_train_steps=2, save_top_k=-1, save_last=True)
    train(folder, images, Slow(), saving, every_n_train_batches=1)
