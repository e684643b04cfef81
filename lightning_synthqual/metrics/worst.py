"""The generated images that harm a score most, by the influence of each on it."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from lightning_synthqual.metrics.base import Direction, Influence, Metric
from lightning_synthqual.metrics.catalogue import direction_of, owner
from lightning_synthqual.metrics.figures import ImageRef, ImageSheet, SheetCell, SheetRow

SHOWN = 16  # images
_COLUMNS = 4


def worst_images(
    names: Iterable[str],
    influences: Mapping[str, Influence],
    metrics: Sequence[Metric],
    warn: Callable[[str], None],
) -> dict[str, ImageSheet]:
    """A sheet ``<name>_worst`` of each score with the images that harm it most; none where no image harms it.

    Args:
        names: Names of the scores.
        influences: Influences of the images by the name of the score, the same on every process.
        metrics: The metrics, which say what is better.
        warn: Function that gives a warning once.
    """
    sheets: dict[str, ImageSheet] = {}
    for name in names:
        metric = owner(metrics, name)
        direction = None if metric is None else direction_of(metric, name)
        if direction is None or name not in influences:
            reason = "neither low nor high values are better" if direction is None else "their influence is not known"
            warn(f"The images that harm {name} most are not shown: {reason}.")
        elif (sheet := _sheet(name, influences[name], direction)) is not None:
            sheets[f"{name}_worst"] = sheet
    return sheets


def _sheet(name: str, influence: Influence, direction: Direction) -> ImageSheet | None:
    harm = influence.fake if direction == "min" else -influence.fake
    order = harm.argsort(descending=True, stable=True)[:SHOWN].tolist()
    # By as much the value would be better without the image.
    shares = harm / (len(harm) - 1) / (abs(float(influence.value)) or 1.0)
    cells = [SheetCell((ImageRef("generated", i),), f"{float(shares[i]):.2%}") for i in order if harm[i] > 0]
    if not cells:
        return None
    rows = [SheetRow("", tuple(cells[start : start + _COLUMNS])) for start in range(0, len(cells), _COLUMNS)]
    return ImageSheet(tuple(rows), title=f"{name}: the most harmful images, and their shares of its value")
