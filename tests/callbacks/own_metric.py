"""A training on several processes with a metric of a module elsewhere, from Python or from a YAML file.

The levels of the generated images are known: the metric's best value comes in the third of the evaluations.
"""

import argparse
import json
import os
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import LightningCLI
from torch.utils.data import DataLoader, TensorDataset

from lightning_synthqual import QualityCheckpoint, QualityMonitor, QualityStopping

LEVELS = (0.8, 0.4, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9)


class Levels(pl.LightningModule):
    """A generator of grey images whose level the epoch says."""

    latent_dim = 3 * 8 * 8

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("level", torch.zeros(()))
        self.critic = torch.nn.Linear(3 * 8 * 8, 1)

    def forward(self, z):
        return (self.level + 0.02 * z).view(-1, 3, 8, 8)

    def training_step(self, batch, batch_idx):
        self.level.fill_(LEVELS[self.current_epoch])
        return self.critic(batch[0].flatten(1)).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.critic.parameters(), 0.1)


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        images = torch.randn(61, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 0.3
        return DataLoader(TensorDataset(images), 16)


def trainer_from_python(args: argparse.Namespace) -> pl.Trainer:
    from stranger.colours import MeanColour

    trainer = pl.Trainer(
        max_epochs=len(LEVELS),
        accelerator="cpu",
        devices=args.devices,
        strategy="ddp" if args.devices > 1 else "auto",
        logger=False,
        default_root_dir=args.output,
        callbacks=[
            QualityMonitor(metrics=(MeanColour(), "kd_pixels"), num_samples=50, cache_dir=str(args.output / "cache")),
            QualityStopping("quality/mean_colour", patience=2),
            QualityCheckpoint("quality/mean_colour", dirpath=args.output / "best", filename="{epoch}"),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Levels(), datamodule=Data())
    return trainer


YAML = """
trainer:
  max_epochs: {epochs}
  accelerator: cpu
  devices: {devices}
  strategy: {strategy}
  logger: false
  default_root_dir: {output}
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: lightning_synthqual.QualityMonitor
      init_args:
        metrics: [stranger.colours.MeanColour, kd_pixels]
        num_samples: 50
        cache_dir: {output}/cache
    - class_path: lightning_synthqual.QualityStopping
      init_args: {{monitor: quality/mean_colour, patience: 2}}
    - class_path: lightning_synthqual.QualityCheckpoint
      init_args: {{monitor: quality/mean_colour, dirpath: {output}/best, filename: "{{epoch}}"}}
"""


def trainer_from_yaml(args: argparse.Namespace) -> pl.Trainer:
    strategy = "ddp" if args.devices > 1 else "auto"
    config = args.output / f"config{os.environ.get('LOCAL_RANK', 0)}.yaml"
    config.write_text(YAML.format(epochs=len(LEVELS), devices=args.devices, strategy=strategy, output=args.output))
    return LightningCLI(Levels, Data, args=["fit", "--config", str(config)], save_config_callback=None).trainer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cache")
    parser.add_argument("--yaml", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    trainer = trainer_from_yaml(args) if args.yaml else trainer_from_python(args)
    quality, stop = (
        next(cb for cb in trainer.callbacks if type(cb) is kind) for kind in (QualityMonitor, QualityStopping)
    )
    found = {
        "scalars": [report.scalars for report in quality.reports],
        "direction": quality.reports[0].direction("mean_colour"),
        "reason": stop.reason.name,
        "mode": stop.mode,
        "kept": [path.name for path in (args.output / "best").glob("*.ckpt")],
    }
    (args.output / f"rank{trainer.global_rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
