import pytest
from PIL import Image


@pytest.mark.slow
def test_a_short_run_scores_reconstructions_of_the_validation_data(run, reports, tmp_path):
    printed, _ = run("autoencoder.py", "--epochs", "2", "--batches", "20", "--num-samples", "200")
    first, second = reports()
    assert second["protocol"]["sampling"]["inputs"]["given"] == "the trainer's val data"
    assert second["protocol"]["num_samples"] == 200
    assert second["scalars"]["psnr"] > first["scalars"]["psnr"] > 5
    assert {"fd_wavelet", "psnr_std", "psnr_change", "ms_ssim"} < set(second["scalars"])
    with Image.open(tmp_path / "runs/autoencoder/pairs.png") as sheet:
        assert sheet.width > 300
    assert "best checkpoint" in printed
