import numpy as np
import pytest

from lightning_synthqual.reporting import plots


def picture(value, side=16):
    return np.full((side, side, 3), value, np.uint8)


@pytest.mark.parametrize("side", [8, 256])
def test_sheets_show_their_pictures(side):
    rows = [((picture(10, side), picture(100, side), picture(200, 2 * side)), ("#0", "#5: 0.1", "#7: 0.2"))] * 3
    sheet = plots.neighbors_sheet(rows, ("generated", "nearest training", "nearest held-out"))
    assert (sheet.dtype, sheet.ndim, sheet.shape[2]) == (np.uint8, 3, 3)
    for value in (10, 100, 200):
        assert (sheet == value).all(axis=2).mean() > 0.1
    pairs = {"psnr": [("best: 9", picture(10, side), picture(100, side))] * 3}
    assert (plots.pairs_sheet(pairs, "pairs") == 100).all(axis=2).mean() > 0.1


def test_drawings_do_not_depend_on_what_was_drawn_before():
    draw = np.random.default_rng(0)
    distances = {name: draw.random(50) for name in ("generated to training", "generated to held-out", "null")}
    one = plots.distance_histograms(distances, "cosine")
    points = {name: draw.random((20, 2)) for name in ("training", "held-out", "generated")}
    plots.feature_spaces({"t-SNE": points}, "features")
    panel = {kind: (draw.random(9), draw.random(9), "r = 0.1") for kind in ("train", "held_out", "random", "real")}
    plots.scatters({"psnr": panel, "lpips": panel, "mine": panel}, "entropy")
    assert np.array_equal(one, plots.distance_histograms(distances, "cosine"))


def test_equal_distances_are_drawn_too():
    assert plots.distance_histograms({"generated to training": np.zeros(5)}, "cosine").ndim == 3
