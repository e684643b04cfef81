import re
import time

import pytest


@pytest.mark.slow
def test_a_short_run_draws_labels_from_the_data(run, reports):
    printed, _ = run("conditional_gan.py", "--epochs", "1", "--batches", "10", "--num-samples", "250")
    (report,) = reports()
    assert report["protocol"]["sampling"]["labels"] == "data"
    assert report["protocol"]["metrics"]["fd_digits"]["extractor"] == "digits"
    assert report["protocol"]["extractors"]["digits"]["weights"] == "custom"
    assert {"fd_digits", "kd_digits_floor", "recall_digits_std"} < set(report["scalars"])
    assert re.search(r"digits as asked  \d+%", printed)


@pytest.mark.slow
def test_digits_are_those_asked_for_within_five_minutes(run, reports):
    started = time.monotonic()
    printed, _ = run("conditional_gan.py")
    assert time.monotonic() - started < 300
    values = [report["scalars"]["fd_digits"] for report in reports()]
    assert values[0] / min(values) >= 10
    assert int(re.search(r"digits as asked  (\d+)%", printed)[1]) >= 90
