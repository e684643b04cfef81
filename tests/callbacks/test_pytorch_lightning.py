"""The callbacks in the Trainer of the other package, whose classes are not those of ``lightning.pytorch``."""

import json

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_synthqual import QualityCheckpoint, QualityStopping

pytorch_lightning = pytest.importorskip("pytorch_lightning")


class Gan(pytorch_lightning.LightningModule):
    latent_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 3 * 8 * 8)

    def forward(self, z):
        return torch.tanh(self.net(z)).view(-1, 3, 8, 8)

    def training_step(self, batch, batch_idx):
        return self(torch.randn(8, 4)).square().mean()

    def validation_step(self, batch, batch_idx):
        return None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


def make_trainer(tmp_path, *callbacks):
    return pytorch_lightning.Trainer(
        max_epochs=6,
        accelerator="cpu",
        logger=pytorch_lightning.loggers.CSVLogger(tmp_path),
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )


def test_monitor_stopping_and_checkpoint(monitor, tmp_path, images, levels):
    loader = DataLoader(TensorDataset(images), 16)
    quality = monitor()
    stop = QualityStopping("quality/fd_wavelet", patience=2)
    keep = QualityCheckpoint("quality/fd_wavelet", dirpath=str(tmp_path / "best"))
    trainer = make_trainer(tmp_path, quality, stop, keep)
    module = Gan()
    trainer.fit(module, loader, loader)
    assert len(quality.reports) == 3  # the generator does not learn
    assert stop.stopped_step == quality.reports[-1].step
    (path,) = (tmp_path / "best").iterdir()
    assert keep.best_model_score.item() == pytest.approx(quality.reports[0].scalars["fd_wavelet"])
    rows = next(tmp_path.rglob("reports.jsonl")).read_text().splitlines()
    assert [json.loads(row)["scalars"] for row in rows] == [report.scalars for report in quality.reports]
    logged = next(tmp_path.rglob("metrics.csv")).read_text()
    assert logged.splitlines()[0].split(",").count("quality/fd_wavelet") == 1
    resumed = monitor()
    again = make_trainer(tmp_path / "again", resumed, QualityStopping("quality/fd_wavelet", patience=2))
    again.fit(Gan(), loader, loader, ckpt_path=str(path))
    assert [report.step for report in resumed.reports][:2] == [3, 7]
    trainer.validate(module, loader, verbose=False)
    assert quality.reports[-1].scalars == levels(quality.reports[-2])


def test_averaged_weights(monitor, tmp_path, images):
    averaging = pytest.importorskip("pytorch_lightning.callbacks.weight_averaging")
    quality = monitor()
    loader = DataLoader(TensorDataset(images), 16)
    make_trainer(tmp_path, quality, averaging.EMAWeightAveraging(decay=0.5)).fit(Gan(), loader, loader)
    assert quality.reports[-1].protocol["sampling"]["weights"] == "averaged by EMAWeightAveraging"
