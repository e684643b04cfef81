from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_synthqual import QualityCheckpoint, QualityMonitor, QualityStopping

FOLDER = Path(__file__).parents[2] / "examples" / "lightning_cli"


class Gan(pl.LightningModule):
    latent_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 3 * 8 * 8)

    def forward(self, z):
        return torch.tanh(self.net(z)).view(-1, 3, 8, 8)

    def training_step(self, batch, batch_idx):
        return self(torch.randn(8, 4)).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.rand(64, 3, 8, 8) * 2 - 1), 16)


def test_lightning_cli_configures_all_three_callbacks(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.logger=false"]
    arguments = ["fit", "--config", str(FOLDER / "callbacks.yaml"), *quiet, "--trainer.max_epochs=2"]
    arguments += [f"--trainer.default_root_dir={tmp_path}"]
    cli = LightningCLI(Gan, Data, args=arguments, save_config_callback=None)
    ours = [cb for cb in cli.trainer.callbacks if type(cb) in (QualityMonitor, QualityStopping, QualityCheckpoint)]
    assert [type(cb) for cb in ours] == [QualityMonitor, QualityStopping, QualityCheckpoint]
    quality, stop, keep = ours
    assert [report.protocol["num_samples"] for report in quality.reports] == [2000, 2000]
    assert quality.reports[0].protocol["metrics"]["precision_wavelet"]["k"] == 5
    assert (stop.mode, stop.patience, stop.stopping_threshold) == ("min", 10, 0.5)
    assert 1 <= len(keep.best_k_models) <= 2


@pytest.mark.slow
def test_the_autoencoder_trains_from_its_configuration(run, reports):
    config = ("--config", str(FOLDER / "digits.yaml"))
    _, log = run("lightning_cli/train.py", "fit", *config, "--trainer.max_epochs=10", "--model.width=64")
    first, last = reports("runs/digits")
    assert last["scalars"]["fd_wavelet"] < first["scalars"]["fd_wavelet"]
    assert last["protocol"]["sampling"]["latent_shape"] == [8]
    assert last["protocol"]["reference"]["num_images"] == 1797
    assert "of the time of training so far" in log


class Generator(nn.Module):
    latent_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 3 * 8 * 8)

    def forward(self, z):
        return torch.tanh(self.net(z)).view(-1, 3, 8, 8)


class Parts(Gan):
    """A module that keeps its generator, and averages of it, as parts."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.generator_ema = Generator(), Generator()


YAML = """
trainer:
  callbacks:
    - class_path: lightning_synthqual.QualityMonitor
      init_args:
        {model: generator_ema, held_out: val, metrics: [kd_pixels], num_samples: 20, image_range: [-1.0, 1.0]}
"""


class Split(Data):
    def val_dataloader(self):
        return DataLoader(TensorDataset(torch.rand(32, 3, 8, 8) * 2 - 1), 16)


def test_a_part_of_the_module_and_data_of_a_stage_are_named_in_yaml(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts.yaml").write_text(YAML)
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.logger=false"]
    arguments = ["fit", "--config", "parts.yaml", *quiet, "--trainer.max_epochs=1"]
    cli = LightningCLI(Parts, Split, args=arguments, save_config_callback=None)
    monitor = next(each for each in cli.trainer.callbacks if isinstance(each, QualityMonitor))
    assert monitor.reports[0].protocol["sampling"]["weights"] == "of model=generator_ema"
    assert "kd_pixels_gap" in monitor.reports[0].scalars
