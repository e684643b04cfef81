"""Pictures made of pictures."""

from math import ceil, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_GAP, _WHITE = 2, 255


def grid(images: Tensor) -> NDArray[np.uint8]:
    """Lay images out in a square grid with a thin white gap.

    Args:
        images: uint8 (N, 3, H, W), N >= 1.

    Returns:
        uint8 (height, width, 3), read row by row.
    """
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
