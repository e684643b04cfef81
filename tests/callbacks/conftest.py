import random

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset


class TinyGan(pl.LightningModule):
    """A generator with everything that an evaluation could disturb: BatchNorm, dropout, noise, two optimizers."""

    latent_dim = 4
    num_classes = 3

    def __init__(self, validates: bool = False, conditional: bool = False) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(16, 3 * 8 * 8)
        self.critic = nn.Linear(3 * 8 * 8, 1)
        self.conditional = conditional
        self.seen_labels: list[int] = []
        if not validates:
            self.validation_step = None  # type: ignore[assignment]

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        if self.conditional:
            self.seen_labels += labels.tolist()
        return torch.tanh(self.head(self.generator(z))).view(-1, 3, 8, 8)

    def training_step(self, batch, batch_idx):
        images = batch[0]
        first, second = self.optimizers()
        noise = torch.randn(len(images), 4) * random.random() * np.random.rand()  # noqa: NPY002
        labels = torch.zeros(len(images)) if self.conditional else None
        loss = self.critic(self(noise, labels).flatten(1)).mean()
        first.zero_grad()
        self.manual_backward(loss)
        first.step()
        critic_loss = -self.critic(images.flatten(1)).mean()
        second.zero_grad()
        self.manual_backward(critic_loss)
        second.step()
        self.log("loss", loss)

    def validation_step(self, batch, batch_idx):
        return None

    def test_step(self, batch, batch_idx):
        return None

    def configure_optimizers(self):
        generator = [*self.generator.parameters(), *self.head.parameters()]
        return torch.optim.Adam(generator, 1e-2), torch.optim.Adam(self.critic.parameters(), 1e-3)


class Labelled(Dataset):
    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        return self.images[index], index % 3


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(61, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def loader(images) -> DataLoader:
    return DataLoader(TensorDataset(images), batch_size=16, shuffle=True)


@pytest.fixture
def labelled(images) -> Labelled:
    return Labelled(images)


@pytest.fixture
def tiny_gan():
    def make(**kwargs) -> TinyGan:
        pl.seed_everything(3, verbose=False)
        return TinyGan(**kwargs)

    return make


@pytest.fixture
def monitor(tmp_path):
    """Make a QualityMonitor that is quick and needs no weights."""
    from lightning_synthqual import QualityMonitor

    def make(**kwargs) -> QualityMonitor:
        defaults = {
            "metrics": ("fd_wavelet", "kd_pixels", "recall_wavelet"),
            "num_samples": 50,
            "batch_size": 16,
            "cache_dir": str(tmp_path / "cache"),
        }
        return QualityMonitor(**{**defaults, **kwargs})

    return make


@pytest.fixture
def levels():
    """``levels(report)``: the values themselves, without their changes since the evaluation before."""

    def of(report) -> dict[str, float]:
        return {name: value for name, value in report.scalars.items() if not name.endswith(("_change", "_change_std"))}

    return of


@pytest.fixture
def trainer(tmp_path):
    def make(*callbacks, **kwargs) -> pl.Trainer:
        defaults = {
            "max_epochs": 2,
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            "default_root_dir": str(tmp_path),
        }
        return pl.Trainer(callbacks=list(callbacks), **{**defaults, **kwargs})

    return make
