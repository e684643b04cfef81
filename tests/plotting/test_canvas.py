"""The colours of figures, as people see them who lack one kind of cone."""

from itertools import combinations

import numpy as np
import pytest

from lightning_synthqual.plotting.canvas import COLOURS

# Viénot, Brettel and Mollon 1999: of linear RGB, for people without L cones, and without M cones.
SEEN = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
    "deuteranopia": np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
CLEAR = 30.0  # in CIELAB, where 2.3 is just seen; small markers need many times as much


def lab(linear):
    x, y, z = np.cbrt(TO_XYZ @ linear / (TO_XYZ @ np.ones(3)))  # none of the colours is as dark as the linear part
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def linear(colour):
    values = np.array(list(bytes.fromhex(colour[1:]))) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("vision", SEEN)
def test_colours_are_told_apart_with_any_vision(vision):
    seen = [lab(np.clip(SEEN[vision] @ linear(colour), 0, 1)) for colour in (*COLOURS, "#ffffff")]
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > CLEAR


def test_red_and_green_are_not_told_apart_by_the_same_measure():
    for vision in ("protanopia", "deuteranopia"):
        red, green = (lab(np.clip(SEEN[vision] @ linear(colour), 0, 1)) for colour in ("#a83c3c", "#4f6f2f"))
        assert np.linalg.norm(red - green) < CLEAR
