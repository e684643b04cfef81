"""Pictures inside a page: small files, so that a page of many images stays below two megabytes."""

import base64
import io
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE = 192  # pixels of the longer side of an image of a set
_FIGURE_SIDE = 1400
_QUALITY = 78  # of WebP: no loss is seen beside the original at the sizes of a report
_METHOD = 6  # the slowest, smallest files


def data_uri(pixels: NDArray[np.uint8], side: int, quality: int = _QUALITY) -> str:
    """Pixels uint8 (H, W, 3) as a WebP image of at most this side, inside a URI."""
    image = Image.fromarray(pixels)
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=quality, method=_METHOD)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def figure_image(pixels: NDArray[np.uint8], alt: str) -> str:
    """A figure as HTML: a button that enlarges it."""
    return _button(data_uri(pixels, _FIGURE_SIDE), alt)


def thumbnail(pixels: NDArray[np.uint8], alt: str) -> str:
    """An image of a set as HTML: a button that enlarges it."""
    return _button(data_uri(pixels, _SIDE), alt)


def _button(source: str, alt: str) -> str:
    return f'<button type="button" class="zoom"><img alt="{escape(alt)}" src="{source}"></button>'
