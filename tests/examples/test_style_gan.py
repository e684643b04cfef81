"""The example as a user runs it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "style_gan.py"
LENGTHS = ("ppl_z_full", "ppl_w_full", "ppl_w_end", "ppl2_w_end")


def run(tmp_path: Path, *arguments: str) -> tuple[str, list[dict]]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, str(SCRIPT), "--output", "out", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for path in (tmp_path / "out").rglob("reports.jsonl") for line in path.read_text().splitlines()]
    return done.stdout, [json.loads(line) for line in lines]


def test_a_short_run_measures_its_path_lengths(tmp_path):
    printed, (report,) = run(tmp_path, "--epochs", "1", "--num-samples", "250", "--num-pairs", "20")
    for name in LENGTHS:
        assert report["scalars"][name] > 0
        assert report["scalars"][f"{name}_std"] > 0
        assert name in printed
    assert report["protocol"]["metrics"]["ppl_w_end"]["distance"] == "contrast_distance"
    assert report["protocol"]["sampling"]["weights"] == "of model=averaged_generator"


@pytest.mark.slow
def test_the_distance_falls_within_five_minutes(tmp_path):
    started = time.monotonic()
    _, reports = run(tmp_path)
    assert time.monotonic() - started < 300
    values = [report["scalars"]["fd_wavelet"] for report in reports]
    assert values[0] / min(values) >= 2
