"""The README's code runs, and its commands are the ones that are promised."""

import importlib
import re
import shlex
from collections import OrderedDict
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_synthqual import cli
from lightning_synthqual.extractors import load

ROOT = Path(__file__).parents[1]
GUIDES = sorted((ROOT / "examples" / "guides").glob("*.md"))
DOCUMENTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "README.md", *GUIDES)}
README = DOCUMENTS["README.md"]
PYTHON = {name: re.findall(r"```python\n(.*?)```", text, re.S) for name, text in DOCUMENTS.items()}
SHELL = {name: re.findall(r"```bash\n(.*?)```", text, re.S) for name, text in DOCUMENTS.items()}


GAN = """
import lightning.pytorch as pl
import torch
from torch import nn


class Gan(pl.LightningModule):
    latent_dim = 4

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 192)

    def forward(self, z):
        return torch.tanh(self.net(z)).view(-1, 3, 8, 8)

    def training_step(self, batch, batch_idx):
        return self(torch.randn(8, 4)).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
"""


@pytest.fixture
def surroundings(tmp_path, monkeypatch):
    """What the README takes for granted: a GAN, its data, a network, two folders."""
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    exec(GAN, namespace)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_trainer = pl.Trainer
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    monkeypatch.setattr(pl, "Trainer", lambda **kwargs: make_trainer(**{**kwargs, **quiet, "max_epochs": 1}))
    for name in ("real", "generated", "train", "test"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(8):
            pixels = np.random.default_rng([i, name == "test"]).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    train_set = TensorDataset(torch.rand(64, 3, 8, 8) * 2 - 1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8))
    trunk = torchvision.models.alexnet()
    torch.save(nn.Sequential(OrderedDict(features=trunk.features)).state_dict(), tmp_path / "alexnet-owt-7be5be79.pth")
    monkeypatch.setenv("LIGHTNING_SYNTHQUAL_WEIGHTS", str(tmp_path))
    generated, nearest = torch.randint(0, 256, (2, 3, 3, 64, 64)).to(torch.uint8)
    return {
        "gan": namespace["Gan"](),
        "nn": nn,
        "train_set": train_set,
        "test_set": train_set,
        "train_loader": DataLoader(train_set, 16),
        "network": network,
        "generated": generated,
        "nearest": nearest,
    }


def test_every_python_block_runs(surroundings, capsys, tmp_path):
    assert sum(map(len, PYTHON.values())) >= 9
    for name, blocks in PYTHON.items():
        for block in blocks:
            exec(compile(block, name, "exec"), surroundings)
    assert surroundings["distances"].shape == (3,)
    own, real = surroundings["MeanColour"]("own", extractor="pixels"), surroundings["train_set"]
    assert surroundings["evaluate"](real, real, metrics=[own]).scalars == {"own": 0.0}
    assert surroundings["report"].scalars["fd_wavelet"] == pytest.approx(0, abs=1e-6)
    assert "fd_wavelet" in capsys.readouterr().out
    assert len(list(tmp_path.rglob("reports.jsonl"))) == 1


def test_the_quick_start_is_short():
    assert len([line for line in PYTHON["README.md"][0].splitlines() if line.strip()]) <= 15


def test_the_readme_is_short():
    prose = re.sub(r"```.*?```", "", README, flags=re.S)
    words = [word for line in prose.splitlines() if not line.startswith("|") for word in line.split()]
    assert len(words) <= 1900


def test_there_are_two_commands_to_set_up_and_ci_runs_the_second():
    installing = [block.strip() for block in SHELL["README.md"] if "pip install" in block]
    assert all(len(block.splitlines()) == 1 for block in installing)
    assert installing[0].endswith("examples/lunar_gan.py")
    assert installing[1].endswith("&& pytest")
    assert "grep -m 1 '&& pytest$' README.md" in (ROOT / ".ci/run").read_text()


def test_the_other_commands_run(surroundings, capsys, tmp_path, monkeypatch):
    (tmp_path / "my_package.py").write_text(GAN)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, limit_train_batches=1)
    trainer.fit(importlib.import_module("my_package").Gan(), surroundings["train_loader"])
    trainer.save_checkpoint("gan.ckpt")
    # No downloads here: a network without weights stands in for those that are fetched.
    monkeypatch.setattr(cli.weights, "load", lambda *_, **__: load("wavelet"))
    blocks = [block.strip().replace("\\\n", " ") for each in SHELL.values() for block in each]
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    lines = [line for line in lines if line and line[0] != "pip"]
    assert len(lines) >= 7
    for command, *words in lines:
        assert command == "synthqual"
        if words[0] == "plot":
            Path(words[1]).mkdir(parents=True)
            Path(words[1], "reports.jsonl").write_text(Path("report/report.json").read_text())
        assert cli.main(words) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "alexnet-owt-7be5be79.pth" in printed
    assert "copy_fraction_pixels" in printed
    assert Path("runs/mars/curves.png").is_file()


def test_links_and_pictures_are_there():
    for name in (*DOCUMENTS, "examples/README.md"):
        text, folder = (ROOT / name).read_text(), (ROOT / name).parent
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            if "://" in path:
                continue
            document = folder / path if path else ROOT / name
            assert document.exists(), target
            if anchor:
                titles = re.findall(r"^#+ (.*)$", document.read_text(), re.M)
                assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, target


def test_every_example_is_in_their_table():
    table = (ROOT / "examples/README.md").read_text()
    for path in (ROOT / "examples").iterdir():
        if path.suffix in (".py", ".sh"):
            assert f"`{path.name}`" in table
