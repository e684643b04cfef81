import time

import pytest


@pytest.mark.slow
def test_a_short_run_scores_averaged_weights_on_the_same_latents(run, reports):
    printed, _ = run("flow_matching.py", "--epochs", "2", "--batches", "4", "--num-samples", "32")
    first, last = reports()
    for report in (first, last):
        assert report["protocol"]["sampling"]["latent_shape"] == [1, 32, 32]
        assert "EMAWeightAveraging" in report["protocol"]["sampling"]["weights"]
        assert {"kd_wavelet", "kd_wavelet_std", "kd_wavelet_floor", "recall_wavelet"} < set(report["scalars"])
        assert str(report["step"]) in printed
    for report in (first, last):  # the weights are others, and so are the images; all else is the same
        del report["protocol"]["sampling"]["weights_checksum"], report["protocol"]["generated"]
        assert report["protocol"].pop("change", {"since": 3})["since"] == 3
    assert first["protocol"] == last["protocol"]


@pytest.mark.slow
def test_the_distance_falls_below_that_of_held_out_images_within_five_minutes(run, reports):
    started = time.monotonic()
    run("flow_matching.py")
    assert time.monotonic() - started < 300
    scalars = [report["scalars"] for report in reports()]
    assert scalars[0]["kd_wavelet"] > 5 * scalars[0]["kd_wavelet_floor"]
    assert min(found["kd_wavelet"] for found in scalars) < scalars[0]["kd_wavelet_floor"]
    assert max(found["recall_wavelet"] for found in scalars) > 0.3
