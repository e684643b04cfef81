"""One watched run under a strategy of Lightning's; each process writes its scores to ``<output>/rank<r>.json``."""

import argparse
import json
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils.data import DataLoader, TensorDataset

from lightning_synthqual import QualityCheckpoint, QualityMonitor


class Generator(pl.LightningModule):
    """It does not learn, so that every strategy scores the same weights."""

    latent_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3 * 8 * 8))

    def configure_model(self):
        mesh = getattr(self, "device_mesh", None)
        if mesh is None:
            return
        if mesh["tensor_parallel"].size() > 1:
            plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
            parallelize_module(self.net, mesh["tensor_parallel"], plan)
        if mesh["data_parallel"].size() > 1:
            fully_shard(self.net, mesh=mesh["data_parallel"])

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.net(z)).view(-1, 3, 8, 8)

    def training_step(self, batch, batch_idx):
        return self(torch.randn(8, 4)).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


class Writer(pl.Callback):
    def __init__(self, output: Path, warnings: list[warnings.WarningMessage]) -> None:
        self.output = output
        self.warnings = warnings

    def teardown(self, trainer, pl_module, stage) -> None:
        (quality,) = (cb for cb in trainer.callbacks if isinstance(cb, QualityMonitor))
        found = {
            "scalars": [report.scalars for report in quality.reports],
            "checksums": [report.protocol["sampling"]["weights_checksum"] for report in quality.reports],
            "warnings": [str(warning.message) for warning in self.warnings],
            "num_samples": [report.protocol["num_samples"] for report in quality.reports],
            "world_size": trainer.world_size,
        }
        (self.output / f"rank{trainer.global_rank}.json").write_text(json.dumps(found))


def main(recorded: list[warnings.WarningMessage]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--data-parallel", type=int, default=1)
    parser.add_argument("--tensor-parallel", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pl.seed_everything(0, verbose=False)
    images = torch.rand(101, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    quality = QualityMonitor(
        real=TensorDataset(images),
        metrics=("fd_wavelet", "kd_pixels", "precision_wavelet", "recall_wavelet"),
        num_samples=81,  # the last block is a single image, of which one tensor-parallel peer has no part
        batch_size=16,
        cache_dir=str(args.output / "cache"),
    )
    keep = QualityCheckpoint("quality/fd_wavelet", dirpath=str(args.output / "best"), save_top_k=-1)
    model_parallel = ModelParallelStrategy(args.data_parallel, args.tensor_parallel, process_group_backend="gloo")
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=args.devices,
        num_nodes=args.nodes,
        strategy=model_parallel if args.strategy == "model_parallel" else args.strategy,
        callbacks=[quality, keep, Writer(args.output, recorded)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(args.output),
    )
    trainer.fit(Generator(), DataLoader(TensorDataset(images), 8))


if __name__ == "__main__":
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        main(recorded)
