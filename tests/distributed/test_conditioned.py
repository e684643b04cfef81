"""Generators that are conditioned on items, on real processes."""

import pytest


@pytest.mark.slow
def test_two_processes_score_conditioned_images_as_one_does(run, tmp_path):
    [alone] = run(tmp_path / "one", 1)
    pair = run(tmp_path / "two", 2)
    assert {"fd_pixels", "psnr", "psnr_std", "ms_ssim", "clip_score_TinyOfRanks"} <= set(alone["scalars"])
    assert {"fd_pixels_per_class", "recall_pixels_per_class_std"} <= set(alone["by class"])
    assert "error" not in alone
    for found in pair:
        assert found["scalars"] == pytest.approx(alone["scalars"], rel=1e-6)
        assert found["scalars"] == pair[0]["scalars"]
        assert found["by class"] == pytest.approx(alone["by class"], rel=1e-6)
        assert found["inputs"] == alone["inputs"]
        assert found["pictures"] == alone["pictures"]
        assert "Processes have different data as `inputs`" in found["error"]
