"""A training that resumes reproducibly, watched; it can be told to kill itself at a stage of its third evaluation."""

import os
import signal
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_synthqual import Metric, QualityCheckpoint, QualityMonitor, QualityStopping
from lightning_synthqual.callbacks import ReportListener
from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.reporting import files

STAGES = ("sampling", "extraction", "scoring", "half a row", "reported", "saved", "replaced")


class Generator(pl.LightningModule):
    latent_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3 * 8 * 8))

    def forward(self, z):
        return torch.tanh(self.net(z)).view(-1, 3, 8, 8)

    def training_step(self, batch, batch_idx):
        noise = torch.randn(16, 4, generator=torch.Generator().manual_seed(self.global_step))
        return (self(noise).mean(0) - batch[0].mean(0)).square().sum()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


class Pixels(nn.Module):
    def forward(self, images):
        Killer.at("extraction")
        return images.float().flatten(1)[:, ::8]


class Killer:
    """Counts evaluations and ends the process, as a machine that fails would, at a stage of the third."""

    stage: str | None = None
    evaluations = 0

    @classmethod
    def at(cls, stage: str) -> None:
        if cls.stage == stage and cls.evaluations == 3:
            os.kill(os.getpid(), signal.SIGKILL)


def sampler(module, n, generator):
    Killer.at("sampling")
    return module(torch.randn(n, 4, generator=generator))


class Listener(ReportListener, pl.Callback):
    def on_quality_report(self, *_) -> None:
        Killer.at("reported")


class KillingMetric(Metric):
    def score(self, state, fake):
        Killer.at("scoring")
        return 0.0


def install_killers() -> None:
    evaluate, append = Evaluator.evaluate, files.append_report
    remove, save = QualityCheckpoint._remove_checkpoint, QualityCheckpoint._save_if_fresh

    def counting(self, *args, **kwargs):
        Killer.evaluations += 1
        return evaluate(self, *args, **kwargs)

    def half(directory, report):
        if Killer.stage == "half a row" and Killer.evaluations == 3:
            with (directory / files.REPORTS).open("a") as file:
                file.write(report.to_json()[:200])
        Killer.at("half a row")
        append(directory, report)

    def removing(self, *args):
        Killer.at("saved")
        remove(self, *args)

    def saving(self, *args):
        save(self, *args)
        Killer.at("replaced")

    QualityCheckpoint._remove_checkpoint, QualityCheckpoint._save_if_fresh = removing, saving
    Evaluator.evaluate, files.append_report = counting, half


def run(directory: Path, checkpoint: str | None = None) -> pl.Trainer:
    """Train 24 batches with an evaluation after each third and a checkpoint after each fourth."""
    pl.seed_everything(0, verbose=False)
    images = torch.rand(96, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    loader = DataLoader(TensorDataset(images), 12)
    quality = QualityMonitor(
        real=TensorDataset(images),
        metrics=("fd_mine", KillingMetric("scored", extractor="mine"), "kd_mine"),
        extractors={"mine": Pixels()},
        sampler=sampler,
        num_samples=40,
        batch_size=16,
        every_n_train_batches=3,
        cache_dir=str(directory / "cache"),
    )
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        devices=1,
        logger=CSVLogger(directory, name="run", version=0),
        callbacks=[
            quality,
            Listener(),
            QualityStopping("quality/kd_mine", patience=6, significance=1.0),
            QualityCheckpoint("quality/fd_mine", dirpath=directory / "best", filename="{step}", significance=0.1),
            ModelCheckpoint(directory / "last", every_n_train_steps=4, save_top_k=-1, save_last=True),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Generator(), loader, ckpt_path=checkpoint)
    return trainer


if __name__ == "__main__":
    torch.set_num_threads(1)
    Killer.stage = sys.argv[2]
    install_killers()
    run(Path(sys.argv[1]))
