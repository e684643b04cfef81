"""Sheets of images: a plain grid, and rows of images with text."""

from collections.abc import Callable
from math import ceil, sqrt

import numpy as np
import torch
from torch import Tensor

from lightning_synthqual.metrics.figures import ImageRef, ImageSheet, NameRef, SheetCell
from lightning_synthqual.plotting.canvas import Pixels, blank, render

Look = Callable[[ImageRef], Pixels]
NameOf = Callable[[ImageRef | NameRef], str]
_GAP, _WHITE = 2, 255
_LETTERS = 24  # of a name below an image
_SIDE = 64  # pixels below which the images of a grid are enlarged


def grid(images: Tensor) -> Pixels:
    """Lay images out in a square grid with a thin white gap; small ones enlarged by a whole factor.

    Args:
        images: uint8 (N, 3, H, W), N >= 1.

    Returns:
        uint8 (height, width, 3), read row by row.
    """
    images = enlarged(images)
    count, channels, height, width = images.shape
    columns = ceil(sqrt(count))
    rows = ceil(count / columns)
    sheet = torch.full(
        (rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, channels), _WHITE, dtype=torch.uint8
    )
    for place, image in enumerate(images.cpu().permute(0, 2, 3, 1)):
        top = _GAP + place // columns * (height + _GAP)
        left = _GAP + place % columns * (width + _GAP)
        sheet[top : top + height, left : left + width] = image
    return sheet.numpy()


def enlarged(images: Tensor) -> Tensor:
    """Images (N, C, H, W) whose longer side is at least 64 pixels, each pixel repeated a whole number of times."""
    factor = ceil(_SIDE / max(images.shape[2:]))
    return images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)


def number(ref: ImageRef | NameRef) -> str:
    """The name of an image whose file is not known."""
    return f"item {ref.index}"


def image_sheet(sheet: ImageSheet, look: Look, name_of: NameOf = number) -> Pixels:
    """Draw a sheet: images with their names and texts below them.

    Args:
        sheet: The sheet.
        look: Function that gives the pixels of an image, uint8 (H, W, 3).
        name_of: Function that gives the name of an image.
    """
    columns = max(len(row.cells) for row in sheet.rows)
    widest = max(len(cell.images) for row in sheet.rows for cell in row.cells)
    labels = any(row.label for row in sheet.rows)
    figure = blank(columns * (1.1 + 0.9 * widest) + 0.9 * labels, 2.0 * len(sheet.rows) + 0.4)
    axes = figure.subplots(len(sheet.rows), columns, squeeze=False)
    for cell in axes.flat:
        cell.set_xticks([])
        cell.set_yticks([])
        for side in cell.spines.values():
            side.set_visible(False)
    if sheet.title:
        figure.suptitle(sheet.title, fontsize=11)
    for column, title in enumerate(sheet.columns):
        axes[0, column].set_title(title, fontsize=10)
    for place, row in enumerate(sheet.rows):
        if row.label:
            axes[place, 0].set_ylabel(row.label, fontsize=10, rotation=0, ha="right", va="center", labelpad=8)
        for column, shown in enumerate(row.cells):
            axes[place, column].imshow(_side_by_side(shown, look), interpolation="nearest")
            names = [_short(name_of(ref), _LETTERS) for ref in shown.images]
            lines = [*(names if len(names) > 1 else names[:1]), shown.text]
            axes[place, column].set_xlabel("\n".join(filter(None, lines)), fontsize=8)
    return render(figure)


def _short(name: str, letters: int) -> str:
    """The end of a long name: it tells files of a folder apart."""
    return name if len(name) <= letters else f"…{name[1 - letters :]}"


def _side_by_side(cell: SheetCell, look: Look) -> Pixels:
    images = [look(image) for image in cell.images]
    height = max(map(len, images))
    gap = np.full((height, max(2, height // 32), 3), _WHITE, np.uint8)
    parts = [gap] * (2 * len(images) - 1)
    parts[::2] = [np.pad(image, ((0, height - len(image)), (0, 0), (0, 0))) for image in images]
    return np.concatenate(parts, axis=1)
