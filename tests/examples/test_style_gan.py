import time

import pytest

LENGTHS = ("ppl_z_full", "ppl_w_full", "ppl_w_end", "ppl2_w_end")


@pytest.mark.slow
def test_a_short_run_measures_its_path_lengths(run, reports):
    printed, _ = run("style_gan.py", "--epochs", "1", "--batches", "10", "--num-samples", "250", "--num-pairs", "20")
    (report,) = reports()
    for name in LENGTHS:
        assert report["scalars"][name] > 0
        assert report["scalars"][f"{name}_std"] > 0
        assert name in printed
    assert report["protocol"]["metrics"]["ppl_w_end"]["distance"] == "contrast_distance"
    assert report["protocol"]["sampling"]["weights"] == "of model=averaged_generator"


@pytest.mark.slow
def test_the_distance_falls_within_five_minutes(run, reports):
    started = time.monotonic()
    run("style_gan.py")
    assert time.monotonic() - started < 300
    values = [report["scalars"]["fd_wavelet"] for report in reports()]
    assert values[0] / min(values) >= 2
