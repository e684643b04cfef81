"""Example images of a fault beside the untouched ones."""

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_synthqual.audit.reading import Column, Reading, Readings, Words
from lightning_synthqual.reporting.thumbnails import data_uri

_SHOWN = 4  # images of a fault
_SIDE = 96  # pixels of the longer side that are kept, at most
_GAP = 2  # pixels between images
_QUALITY = 88  # so that the loss does not look like a fault
STYLE = """
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; }
.examples figure { margin: 0; break-inside: avoid; scroll-margin-top: 1rem; }
.examples img { width: 100%; max-width: 28rem; display: block; margin-bottom: 3px; image-rendering: pixelated; }
"""


def examples(pictures: Mapping[str, Any], rows: Readings, words: Words) -> dict[str, str]:
    """Figures by fault: untouched images, and below them the smallest dose that any metric tells.

    Args:
        pictures: By fault and dose, uint8 (N, 3, H, W); dose 0: the untouched images.
        rows: What the audit says.
        words: Doses in words.
    """
    figures = {}
    for at, (fault, row) in enumerate(rows.items()):
        found = {float(dose): np.asarray(images) for dose, images in (pictures.get(fault) or {}).items()}
        if 0.0 in found and any(dose > 0 for dose in found):
            figures[fault] = f'<figure id="e{at}">{_pair(fault, found, row, words)}</figure>'
    return figures


def _pair(fault: str, found: Mapping[float, NDArray[np.uint8]], row: Mapping[Column, Reading], words: Words) -> str:
    doses = sorted(dose for dose in found if dose > 0)
    told = [reading.told.dose for reading in row.values() if reading.told is not None]
    wanted = min(told, default=doses[-1])
    dose = min(doses, key=lambda one: abs(one - wanted))
    amount = f"{words.fault(fault)}, {words.dose(fault, dose)}"
    which = (
        "no metric tells it" if not told else "the smallest dose that any metric tells" if dose == wanted else "faulty"
    )
    return (
        f'<img alt="Untouched images" src="{_strip(found[0.0])}">'
        f'<img alt="{escape(f"The same with {amount}")}" src="{_strip(found[dose])}">'
        f"<figcaption><b>{escape(amount)}</b>: {which}; above, the untouched images.</figcaption>"
    )


def _strip(images: NDArray[np.uint8]) -> str:
    """Images side by side, inside a URI."""
    shown = [Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in images[:_SHOWN]]
    width, height = shown[0].size
    factor = min(1.0, _SIDE / max(width, height))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    strip = Image.new("RGB", ((size[0] + _GAP) * _SHOWN - _GAP, size[1]), "white")
    for place, image in enumerate(shown):
        strip.paste(image.resize(size, Image.Resampling.LANCZOS), (place * (size[0] + _GAP), 0))
    return data_uri(np.asarray(strip), strip.width, quality=_QUALITY)
