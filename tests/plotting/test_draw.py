import numpy as np
import pytest
import torch

from lightning_synthqual.metrics.figures import (
    Histograms,
    ImageRef,
    ImageSheet,
    Points,
    Scatters,
    SheetCell,
    SheetRow,
    Table,
)
from lightning_synthqual.plotting.charts import histograms, scatters
from lightning_synthqual.plotting.draw import Lazy, draw, pixels, with_pixels
from lightning_synthqual.plotting.sheets import image_sheet


def look(ref):
    return np.full((4, 4, 3), ref.index, np.uint8)


def test_values_are_made_at_the_first_look_and_once():
    made = []

    def make(value):
        made.append(value)
        return value

    lazy = Lazy({"one": lambda: make(1), "two": lambda: make(2)})
    assert made == []
    assert lazy["two"] == 2
    assert dict(lazy) == {"one": 1, "two": 2}
    assert (len(lazy), list(lazy), "one" in lazy, lazy.get("three")) == (2, ["one", "two"], True, None)
    assert sorted(made) == [1, 2]


def test_what_cannot_be_made_is_left_out_with_a_warning(caplog):
    def fails():
        raise FileNotFoundError("image.png is gone")

    lazy = Lazy({"one": lambda: 1, "neighbors": fails})
    assert dict(lazy) == {"one": 1}
    assert len(lazy) == 1
    assert "neighbors could not be drawn: FileNotFoundError: image.png is gone" in caplog.text
    assert caplog.text.count("could not be drawn") == 1
    with pytest.raises(KeyError):
        lazy["neighbors"]


def test_an_empty_mapping_is_false():
    assert not Lazy({})
    assert Lazy({"one": lambda: 1})


def test_every_kind_of_figure_is_drawn_by_its_own_function():
    sheet = ImageSheet((SheetRow("", (SheetCell((ImageRef("real", 9),), "x"),)),))
    values = Histograms({"a": np.arange(5.0)}, "x")
    points = Scatters({"a": {"b": Points(np.arange(3.0), np.arange(3.0))}}, "x")
    assert np.array_equal(draw(sheet, look), image_sheet(sheet, look))
    assert np.array_equal(draw(values, look), histograms(values))
    assert np.array_equal(draw(points, look), scatters(points))


def test_tables_get_images_in_place_of_references():
    table = with_pixels(Table(("a", "b", "c"), [("x", ImageRef("real", 3), 1.5), (None, ImageRef("real", 4), 2)]), look)
    assert table.columns == ("a", "b", "c")
    assert [row[0] for row in table.rows] == ["x", None]
    assert [row[1][0, 0, 0] for row in table.rows] == [3, 4]
    assert table.images == []


def test_pixels_of_an_image():
    image = torch.arange(2 * 3 * 5).view(3, 2, 5).to(torch.uint8)
    found = pixels(image)
    assert found.shape == (2, 5, 3)
    assert found.flags["C_CONTIGUOUS"]
    assert found[1, 4].tolist() == image[:, 1, 4].tolist()
