import numpy as np
import pytest
import torch

from lightning_synthqual.reporting.pictures import grid


@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 2, 2), (4, 2, 2), (5, 2, 3), (10, 3, 4)]
)
def test_images_stand_row_by_row_in_a_square_with_white_gaps(count: int, rows: int, columns: int) -> None:
    height, width = 3, 5
    images = torch.randint(0, 255, (count, 3, height, width), dtype=torch.uint8)  # no white
    sheet = grid(images)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 + rows * (height + 2), 2 + columns * (width + 2), 3)
    rest = sheet.copy()
    for place, image in enumerate(images):
        top, left = 2 + place // columns * (height + 2), 2 + place % columns * (width + 2)
        cell = (slice(top, top + height), slice(left, left + width))
        assert np.array_equal(sheet[cell], image.permute(1, 2, 0).numpy())
        rest[cell] = 255
    assert (rest == 255).all()
