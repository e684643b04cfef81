"""The example as a user runs it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "examples" / "lunar_gan.py"


@pytest.fixture
def run(tmp_path):
    def launch(*arguments: str) -> tuple[str, str]:
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "WANDB_MODE": "offline"}
        environment.pop("WANDB_SERVICE", None)  # a service of this process would write below its own folder
        command = [sys.executable, str(SCRIPT), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout, done.stderr

    return launch


def reports(folder: Path) -> list[dict]:
    return [json.loads(line) for path in folder.rglob("reports.jsonl") for line in path.read_text().splitlines()]


def test_a_short_run_prints_its_table_and_leaves_pictures_and_a_checkpoint(run, tmp_path):
    out, log = run("--epochs", "1", "--num-samples", "250")
    assert "computed in" in log
    for name in ("fd_wavelet", "kd_wavelet", "precision_wavelet", "recall_wavelet"):
        assert name in out
    picture, checkpoint = (Path(line.split()[-1]) for line in out.splitlines() if line.startswith("best "))
    with Image.open(tmp_path / picture) as grid:
        assert grid.size == (274, 274)  # 8 x 8 pictures of 32 px, with gaps
    assert (tmp_path / checkpoint).is_file()
    assert len(list((tmp_path / "runs/lunar").rglob("*.wandb"))) == 1
    assert len(reports(tmp_path / "runs")) == 1

    _, log = run("--epochs", "1", "--num-samples", "250", "--output", "again")
    assert "found in the cache" in log
    assert reports(tmp_path / "again")[0]["scalars"] == reports(tmp_path / "runs")[0]["scalars"]


def test_any_folder_of_pictures(run, tmp_path):
    (tmp_path / "pictures").mkdir()
    draw = np.random.default_rng(0)
    for i in range(80):
        coarse = draw.integers(0, 256, (5, 6), dtype=np.uint8)
        Image.fromarray(coarse).resize((60, 50)).save(tmp_path / "pictures" / f"{i}.png")
    run("--epochs", "1", "--num-samples", "250", "--data", "pictures", "--output", "out")
    assert reports(tmp_path / "out")[0]["protocol"]["reference"]["num_images"] == 64


@pytest.mark.slow
def test_the_distance_falls_at_least_threefold_within_five_minutes(run, tmp_path):
    started = time.monotonic()
    run()
    assert time.monotonic() - started < 300
    values = [row["scalars"]["fd_wavelet"] for row in reports(tmp_path)]
    assert len(values) >= 5
    assert values[0] / min(values) >= 3
