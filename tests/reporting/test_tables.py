"""Tables."""

import csv

import numpy as np

from lightning_synthqual.reporting.tables import Table


def test_csv_has_everything_but_pictures(tmp_path):
    picture = np.zeros((2, 2, 3), np.uint8)
    table = Table(("name", "picture", "distance"), [("a, b", picture, 0.5), ("c", None, None)])
    assert table.without_pictures().columns == ("name", "distance")
    table.write_csv(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["name", "distance"], ["a, b", "0.5"], ["c", ""]]
