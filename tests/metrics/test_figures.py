import csv

import numpy as np

from lightning_synthqual.metrics.figures import ImageRef, ImageSheet, SheetCell, SheetRow, Table


def test_csv_has_everything_but_images(tmp_path):
    image = np.zeros((2, 2, 3), np.uint8)
    table = Table(
        ("name", "image", "ref", "distance"), [("a, b", image, None, 0.5), ("c", None, ImageRef("real", 1), None)]
    )
    assert table.without_images().columns == ("name", "distance")
    table.write_csv(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["name", "distance"], ["a, b", "0.5"], ["c", ""]]


def test_tables_and_sheets_say_which_images_they_show():
    one, two, three = ImageRef("generated", 0), ImageRef("real", 5), ImageRef("held_out", 5)
    assert Table(("a", "b"), [(1, one), (two, "text")]).images == [one, two]
    sheet = ImageSheet((SheetRow("", (SheetCell((one, two), ""), SheetCell((three,), ""))), SheetRow("", ())))
    assert sheet.images == [one, two, three]
