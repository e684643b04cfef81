"""Pictures that the image tests share."""

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture
def array() -> NDArray[np.uint8]:
    """One random picture, uint8 (9, 7, 3)."""
    return np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
