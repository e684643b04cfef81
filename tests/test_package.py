"""What is released: a wheel that holds all it needs, and says what it is."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import lightning_synthqual

ROOT = Path(__file__).parents[1]


def test_the_changelog_begins_with_this_version():
    versions = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert lightning_synthqual.__version__ in versions[:2]


@pytest.mark.slow
def test_the_wheel_runs_outside_of_the_checkout(tmp_path):
    def call(*command: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    call("-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("lightning_synthqual-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "lightning_synthqual/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"lightning_synthqual"}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "lightning_synthqual").rglob("*.py")}
    assert sources <= set(names)

    call("-m", "pip", "install", "--quiet", "--no-deps", "--target", "there", str(wheel))
    quick_start = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert quick_start is not None
    script = f"""
import torch
from torch.utils.data import DataLoader, TensorDataset
import lightning.pytorch as pl
import lightning_synthqual
assert lightning_synthqual.__file__.startswith({str(tmp_path / "there")!r}), lightning_synthqual.__file__

class Gan(pl.LightningModule):
    latent_dim = 4
    automatic_optimization = False
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(4, 3 * 16 * 16)
    def forward(self, z):
        return torch.tanh(self.net(z)).view(-1, 3, 16, 16)
    def training_step(self, batch, batch_idx):
        pass
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())

gan, train_set = Gan(), TensorDataset(torch.rand(64, 3, 16, 16) * 2 - 1)
train_loader = DataLoader(train_set, 32)
{quick_start[1].replace("max_epochs=100", "max_epochs=8")}
print(len(quality.reports), stop.reason.name)
"""
    environment = {"PYTHONPATH": str(tmp_path / "there"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    printed = call("-c", script, **environment)
    assert printed.splitlines()[-1] == "6 PATIENCE"  # the weights never change: one evaluation, and five no better
    assert list(tmp_path.rglob("reports.jsonl"))
