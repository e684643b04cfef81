import pytest


@pytest.mark.slow
def test_a_network_of_ones_own_sees_what_features_without_weights_do_not(run):
    printed, _ = run("own_extractor.py", "--steps", "150")
    lines = printed.splitlines()
    head = next(line for line in lines if "fd_digits" in line).split()
    found = {line[:18].strip(): dict(zip(head, map(float, line[18:].split()), strict=True)) for line in lines[3:]}
    plain, mirrored, half = found["held-out digits"], found["mirrored"], found["0 to 4 alone"]
    assert mirrored["fd_digits"] > 3 * plain["fd_digits"]
    assert mirrored["fd_wavelet"] == pytest.approx(plain["fd_wavelet"], rel=0.2)  # statistics do not mind mirrors
    assert half["recall_digits"] < plain["recall_digits"] / 2
    assert half["precision_digits"] > plain["precision_digits"] - 0.1
    assert found["training digits"]["precision_digits"] == 1
