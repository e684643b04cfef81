"""Generated images beside their nearest real ones: those that look like copies, and those nearest to training."""

from typing import TYPE_CHECKING

from torch import Tensor

from lightning_synthqual.metrics.figures import Cell, ImageRef, ImageSheet, NameRef, SheetCell, SheetRow, Table

if TYPE_CHECKING:
    from lightning_synthqual.metrics.memorization import Comparison

_COPY = 1 / 3  # of the distance to the second nearest training image
_PICTURED = 48  # copies whose pixels are shown; all are listed
_COLUMNS = ("distance to training", "to second nearest training", "distance to held-out")
_TITLES = ("generated", "nearest training", "nearest held-out")


def is_copy(nearest: Tensor, second: Tensor) -> Tensor:
    """Which rows are copies by their distances to the two nearest training rows: bool (M,)."""
    # A copy of an image that is there twice has no distance to either.
    return (nearest < _COPY * second) | (nearest == 0)


def copies_table(found: "Comparison") -> Table:
    """Every generated image that looks like a copy, the most obvious first, with the training image it is of."""
    near, second = found.train.distances.double().cpu().unbind(dim=1)
    far, indices = found.held_out.distances[:, 0].cpu(), found.train.indices[:, 0].cpu()
    flagged = is_copy(near, second).nonzero()[:, 0]
    order = flagged[(near[flagged] / second[flagged].clamp(min=1e-12)).argsort(stable=True)]
    rows: list[tuple[Cell, ...]] = []
    for place, index in enumerate(order.tolist()):
        train, pictured = int(indices[index]), place < _PICTURED
        images = (ImageRef("generated", index), ImageRef("real", train)) if pictured else (None, None)
        names = NameRef("generated", index), NameRef("real", train)
        rows.append((*images, *names, *(float(each[index]) for each in (near, second, far))))
    columns = ("generated image", "nearest training image", "generated", "nearest training", *_COLUMNS)
    return Table(columns, rows, "generated images that look like copies of training images")


def nearest_to_training(found: "Comparison", count: int) -> tuple[ImageSheet, Table]:
    """The generated images that are nearest to training compared with held-out images, with both neighbours."""
    to_train, to_held_out = found.train.distances.cpu(), found.held_out.distances[:, 0].cpu()
    train_indices, held_out_indices = found.train.indices[:, 0].cpu(), found.held_out.indices[:, 0].cpu()
    nearness = to_train[:, 0] / to_held_out.clamp(min=1e-12)
    sheet, rows = [], []
    for index in nearness.argsort(stable=True)[:count].tolist():
        train, held_out = int(train_indices[index]), int(held_out_indices[index])
        near, second, far = float(to_train[index, 0]), float(to_train[index, 1]), float(to_held_out[index])
        images = ImageRef("generated", index), ImageRef("real", train), ImageRef("held_out", held_out)
        texts = "", f"distance {near:.3g}", f"distance {far:.3g}"
        sheet.append(SheetRow("", tuple(SheetCell((image,), text) for image, text in zip(images, texts, strict=True))))
        rows.append((index, train, held_out, *images, near, second, far))
    columns = ("generated", "training", "held-out", *(f"{title} image" for title in _TITLES))
    title = "generated images nearest to training compared with held-out images"
    return ImageSheet(tuple(sheet), _TITLES), Table((*columns, *_COLUMNS), rows, title)
