import time

import numpy as np
import pytest
from PIL import Image


def test_a_short_run_prints_its_table_and_leaves_images_and_a_checkpoint(run, reports, tmp_path):
    out, log = run("lunar_gan.py", "--epochs", "1", "--batches", "10", "--num-samples", "250")
    assert "computed in" in log
    for name in ("fd_wavelet", "kd_wavelet", "precision_wavelet", "recall_wavelet"):
        assert name in out
    files = {line[:15].strip(): tmp_path / line.split()[-1] for line in out.splitlines() if "runs/lunar" in line}
    with Image.open(files["best images"]) as grid:
        assert grid.size == (530, 530)  # 8 x 8 images of 32 px, enlarged twice, with gaps
    with Image.open(files["all in one"]) as summary:
        assert summary.size == (1000, 580)
    assert files["best checkpoint"].is_file()
    assert len(list((tmp_path / "runs/lunar").rglob("*.wandb"))) == 1
    assert len(reports()) == 1


@pytest.mark.slow
def test_any_folder_of_images(run, reports, tmp_path):
    (tmp_path / "images").mkdir()
    draw = np.random.default_rng(0)
    for i in range(80):
        coarse = draw.integers(0, 256, (5, 6), dtype=np.uint8)
        Image.fromarray(coarse).resize((60, 50)).save(tmp_path / "images" / f"{i}.png")
    short = ["--epochs", "1", "--batches", "10", "--num-samples", "250", "--data", "images"]
    run("lunar_gan.py", *short, "--output", "out")
    assert reports("out")[0]["protocol"]["reference"]["num_images"] == 64

    _, log = run("lunar_gan.py", *short, "--output", "again")
    assert "found in the cache" in log
    assert reports("again")[0]["scalars"] == reports("out")[0]["scalars"]


@pytest.mark.slow
def test_the_distance_falls_at_least_threefold_within_five_minutes(run, reports):
    started = time.monotonic()
    run("lunar_gan.py")
    assert time.monotonic() - started < 300
    values = [row["scalars"]["fd_wavelet"] for row in reports()]
    assert len(values) >= 5
    assert values[0] / min(values) >= 3
