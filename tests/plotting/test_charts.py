import numpy as np
import pytest

from lightning_synthqual.metrics.figures import Histograms, Points, Scatters
from lightning_synthqual.plotting.charts import histograms, scatters


def random_points(draw, note=""):
    return Points(*draw.random((2, 20)), note)


def test_drawings_do_not_depend_on_what_was_drawn_before():
    draw = np.random.default_rng(0)
    distances = Histograms({name: draw.random(50) for name in ("generated to training", "null")}, "cosine")
    one = histograms(distances)
    assert (one.dtype, one.ndim, one.shape[2]) == (np.uint8, 3, 3)
    kinds = ("training", "held-out", "generated")
    space = scatters(Scatters({"t-SNE": {kind: random_points(draw) for kind in kinds}}, title="features"))
    panels = {
        name: {kind: random_points(draw, "r = 0.1") for kind in ("train", "held_out", "random", "real", "real_random")}
        for name in ("psnr", "lpips", "mine")
    }
    assert scatters(Scatters(panels, "entropy")).shape[0] > space.shape[0]  # a row of panels for each name
    assert np.array_equal(one, histograms(distances))


def test_what_is_shown_is_seen():
    draw = np.random.default_rng(0)
    values = draw.random(50)
    both = histograms(Histograms({"a": values, "b": values + 0.5}, "x"))
    assert not np.array_equal(both, histograms(Histograms({"a": values, "b": values + 0.2}, "x")))
    assert not np.array_equal(both, histograms(Histograms({"a": values, "b": values + 0.5}, "y")))
    points = random_points(draw)
    plain = scatters(Scatters({"psnr": {"train": points}}, "entropy"))
    assert not np.array_equal(plain, scatters(Scatters({"psnr": {"train": points._replace(note="r = 1")}}, "entropy")))
    assert not np.array_equal(plain, scatters(Scatters({"psnr": {"held_out": points}}, "entropy")))


@pytest.mark.parametrize("value", [0.0, 1e-9, 3.0])
def test_equal_distances_are_drawn_too(value):
    assert (histograms(Histograms({"generated to training": np.full(5, value)}, "cosine")) < 255).any()
