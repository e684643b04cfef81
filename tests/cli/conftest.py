"""Folders of images, a user's network and a generator that the tests of the commands share."""

import json
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from lightning_synthqual import Report
from lightning_synthqual.extractors import weights

ALEXNET = "alexnet-owt-7be5be79.pth"


class Mean(nn.Module):
    """A user's network: box averages."""

    def forward(self, images):
        return nn.functional.avg_pool2d(images.float() / 255, 4).flatten(1)


class Painter(pl.LightningModule):
    """A generator that learns a little."""

    latent_dim = 4

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3 * 16 * 16))

    def forward(self, z):
        return torch.tanh(self.net(z)).view(-1, 3, 16, 16)

    def training_step(self, batch, batch_idx):
        return (self(torch.randn(len(batch[0]), 4)) - batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


@pytest.fixture
def painter() -> type[Painter]:
    """The class of a generator, which ``painter_path`` names."""
    return Painter


@pytest.fixture
def painter_path() -> str:
    return f"{__name__}.Painter"


@pytest.fixture
def network() -> dict[str, str]:
    """The configuration of a user's extractor."""
    return {"network": f"{__name__}.Mean"}


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights have been downloaded."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.delenv(weights.DIRECTORY_VARIABLE, raising=False)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be downloaded."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("Name or service\nnot known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


@pytest.fixture(scope="session")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / ALEXNET
    torch.save(torchvision.models.alexnet().state_dict(), path)
    return path


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of smooth images of 16x16, the generated ones partly copies; arrays of them beside the folders."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (90, 3, 4, 4), generator=draw).float()
    images = nn.functional.interpolate(coarse, size=16, mode="bicubic").clamp(0, 255).to(torch.uint8)
    sets = {"train": images[:40], "held_out": images[40:60], "fake": torch.cat([images[60:85], images[:5]])}
    root = tmp_path_factory.mktemp("images")
    for name, each in sets.items():
        (root / name).mkdir()
        for index, image in enumerate(each):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / name / f"{index:02}.png")
        np.save(root / f"{name}.npy", each.numpy())
    return {name: root / name for name in sets}


@pytest.fixture
def words(folders: dict[str, Path], tmp_path: Path, network: dict[str, str]) -> list[str]:
    """The words of a whole ``synthqual evaluate``, but for the metrics."""
    sets = ["--real", str(folders["train"]), "--held-out", str(folders["held_out"]), "--fake", str(folders["fake"])]
    places = ["--output", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache"), "--device", "cpu"]
    return ["evaluate", *sets, *places, "--extractor", f"mine={json.dumps(network)}"]


@pytest.fixture
def replaced() -> Callable[..., list[str]]:
    """``replaced(words, fake=path)``: the words with another value of an option."""

    def replace(words: list[str], **values: object) -> list[str]:
        words = list(words)
        for name, value in values.items():
            words[words.index(f"--{name}") + 1] = str(value)
        return words

    return replace


@pytest.fixture
def written(tmp_path: Path) -> Callable[[], Report]:
    """Reads the report that ``words`` make ``synthqual evaluate`` write."""
    return lambda: Report.from_json((tmp_path / "out" / "report.json").read_text())


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run of three evaluations."""
    folder = tmp_path / "run" / "version_0"
    folder.mkdir(parents=True)
    reports = [
        Report(scalars={"fid": 30.0 - step, "fid_std": 1.0}, protocol={"num_samples": 9}, timings={}, step=step)
        for step in (0, 10, 20)
    ]
    (folder / "reports.jsonl").write_text("".join(report.to_json() + "\n" for report in reports))
    return tmp_path / "run"
