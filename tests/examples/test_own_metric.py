import pytest


@pytest.mark.slow
def test_metrics_of_ones_own_see_blur_and_noise(run):
    printed, _ = run("own_metric.py")
    blocks = [block.splitlines() for block in printed.strip().split("\n\n")]
    found = {name: {line.split()[0]: float(line.split()[1]) for line in lines} for name, *lines in blocks}
    assert list(found) == ["held-out", "blurred", "with noise"]
    for name in ("energy", "mean_shift"):
        assert 0 < found["held-out"][name] < min(found["blurred"][name], found["with noise"][name])
    assert found["blurred"]["sharpness"] < found["held-out"]["sharpness"] < found["with noise"]["sharpness"]
    assert "±" in next(line for line in printed.splitlines() if line.startswith("sharpness"))
