import numpy as np
import pytest
import torch

from lightning_synthqual.metrics.figures import ImageRef, ImageSheet, SheetCell, SheetRow
from lightning_synthqual.plotting.sheets import grid, image_sheet


@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 2, 2), (4, 2, 2), (5, 2, 3), (10, 3, 4)]
)
def test_images_stand_row_by_row_in_a_square_with_white_gaps(count: int, rows: int, columns: int) -> None:
    small = torch.randint(0, 255, (count, 3, 3, 5), dtype=torch.uint8)  # no white
    sheet = grid(small)
    images = torch.from_numpy(np.kron(small.numpy(), np.ones((13, 13), np.uint8)))  # at least 64 pixels wide
    height, width = 39, 65
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 + rows * (height + 2), 2 + columns * (width + 2), 3)
    rest = sheet.copy()
    for place, image in enumerate(images):
        top, left = 2 + place // columns * (height + 2), 2 + place % columns * (width + 2)
        cell = (slice(top, top + height), slice(left, left + width))
        assert np.array_equal(sheet[cell], image.permute(1, 2, 0).numpy())
        rest[cell] = 255
    assert (rest == 255).all()


LEVELS = {"generated": 10, "real": 100, "held_out": 200}


def looking(side):
    """Plain images, held-out ones of twice the size."""

    def look(ref):
        height = 2 * side if ref.role == "held_out" else side
        return np.full((height, height, 3), LEVELS[ref.role], np.uint8)

    return look


@pytest.mark.parametrize("side", [8, 256])
def test_sheets_show_their_images(side):
    refs = [ImageRef(role, index) for index, role in enumerate(LEVELS)]
    cells = tuple(SheetCell((ref,), f"#{ref.index}") for ref in refs)
    sheet = image_sheet(ImageSheet((SheetRow("", cells),) * 3, ("generated", "training", "held-out")), looking(side))
    assert (sheet.dtype, sheet.ndim, sheet.shape[2]) == (np.uint8, 3, 3)
    for value in LEVELS.values():
        assert (sheet == value).all(axis=2).mean() > 0.1


@pytest.mark.parametrize("side", [8, 64])
def test_images_of_a_cell_stand_side_by_side(side):
    pair = SheetCell((ImageRef("generated", 0), ImageRef("held_out", 5)), "best: 9")
    sheet = image_sheet(ImageSheet((SheetRow("psnr", (pair,) * 3),), title="pairs"), looking(side))
    columns = {value: np.flatnonzero((sheet == value).all(axis=2).sum(axis=0) > 8) for value in (10, 200)}
    assert columns[10].min() < columns[200].min()
    assert columns[200].size > 1.5 * columns[10].size


def test_texts_are_drawn():
    cell = SheetCell((ImageRef("real", 0),), "")
    plain = image_sheet(ImageSheet((SheetRow("", (cell,)),)), looking(8))
    for sheet in (
        ImageSheet((SheetRow("", (cell._replace(text="#5: 0.1"),)),)),
        ImageSheet((SheetRow("", (cell,)),), columns=("generated",)),
        ImageSheet((SheetRow("", (cell,)),), title="pairs"),
        ImageSheet((SheetRow("psnr", (cell,)),)),
    ):
        drawn = image_sheet(sheet, looking(8))
        assert drawn.shape != plain.shape or not np.array_equal(drawn, plain)
