"""Memorization metrics while training."""

import json

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from lightning_synthqual import QualityMonitor, QualityStopping


class Replay(pl.LightningModule):
    """A generator that plays training images back, more of them with every epoch."""

    def __init__(self, images):
        super().__init__()
        self.images = images
        self.weight = nn.Parameter(torch.zeros(()))

    def sample_images(self, n, generator):
        fresh = torch.rand(n, 3, 8, 8, generator=generator) * 2 - 1
        copies = self.images[torch.randint(len(self.images), (n,), generator=generator)]
        chosen = torch.rand(n, 1, 1, 1, generator=generator) < 0.3 * self.current_epoch
        return torch.where(chosen, copies, fresh)

    def training_step(self, batch, batch_idx):
        return self.weight.square()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Pixels(nn.Module):
    def forward(self, images):
        return images.float().flatten(1) - 127.5


@pytest.fixture
def fit(images, loader, tmp_path):
    def run(metrics, **stopping):
        quality = QualityMonitor(
            held_out=TensorDataset(images.flip(0).roll(3, 0).flip(-1)),
            metrics=metrics,
            extractors={"mine": Pixels()},
            num_samples=100,
            cache_dir=str(tmp_path / "cache"),
        )
        stop = QualityStopping(**stopping)
        trainer = pl.Trainer(
            max_epochs=6,
            accelerator="cpu",
            devices=1,
            logger=CSVLogger(tmp_path, name="run", version=0),
            callbacks=[quality, stop],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Replay(images), loader)
        return quality.reports

    return run


def test_training_stops_when_the_generator_begins_to_copy(fit, tmp_path):
    reports = fit(["memorization_mine"], monitor="quality/copy_fraction_mine", divergence_threshold=0.5, patience=9)
    fractions = [report.scalars["copy_fraction_mine"] for report in reports]
    assert fractions[0] == 0
    assert fractions[1] == pytest.approx(0.3, abs=0.15)
    assert len(fractions) == 3
    assert fractions[-1] > 0.5
    directory = tmp_path / "run" / "version_0"
    rows = [json.loads(line)["scalars"] for line in (directory / "reports.jsonl").read_text().splitlines()]
    assert [row["copy_fraction_mine"] for row in rows] == fractions
    for name in ("neighbors_mine", "distances_mine"):
        found = sorted((directory / name).glob("step=*.png"))
        assert len(found) == 3
        assert min(Image.open(found[0]).size) > 300
    # Of copies the nearest training image is the picture itself.
    table = reports[-1].tables["neighbors_mine"]
    generated, nearest = (table.columns.index(f"{name} image") for name in ("generated", "nearest training"))
    assert all((row[generated] == row[nearest]).all() for row in table.rows)


def test_a_scalar_of_the_study_of_pairs_can_be_monitored(fit):
    monitor = "quality/pairs_mine_mine_train"
    with pytest.raises(ValueError, match="The direction of 'quality/pairs_mine_mine_train' is unknown"):
        fit(["pairs_mine"], monitor=monitor)


def test_held_out_images_are_asked_for_at_construction():
    with pytest.raises(ValueError, match=r"`held_out` is missing\. Pass real images"):
        QualityMonitor(metrics=["fd_wavelet", "memorization_wavelet"])
