"""Labels: the numbers of classes, and as a module takes them."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_synthqual.images.files import FolderDataset

LabelFormat = Literal["index", "one_hot"]
NEEDING = "`labels='data'` or `per_class=True` needs"  # the arguments that labels are read for


def label_of(dataset: Any, index: int, key: str | int | None, role: str) -> Any:
    """Label of an item: the second entry of a tuple, ``label`` of a dict, or the class folder that a file lies in.

    Args:
        dataset: The data set.
        index: Number of the item.
        key: Where the image is in items; a second entry that is the image is no label.
        role: Role of the set, for messages.

    Raises:
        ValueError: If the item has no label.
    """
    item = dataset if isinstance(dataset, FolderDataset) else dataset[index]
    label = None
    if isinstance(item, FolderDataset):
        label = item.label(index)
    elif isinstance(item, tuple | list):
        label = item[1] if len(item) > 1 and key != 1 else None
    elif isinstance(item, Mapping):
        label = item.get("label")
    if label is None:
        raise ValueError(
            f"{NEEDING} `{role}` items that are tuples (image, label) or dicts with `image` and `label`, or a folder "
            f"of class folders, but got {type(item).__name__}. Use such a dataset, or `labels='uniform'` without "
            "`per_class`."
        )
    return label


def as_class(label: Any, where: str) -> int:
    """The number of a class.

    Args:
        label: An integer, also as a tensor or array of one element.
        where: What has the label, for messages.

    Raises:
        TypeError: If it is anything else.
        ValueError: If it is negative.
    """
    try:
        number = int(label)
        whole = not isinstance(label, str) and number == float(label)
    except (TypeError, ValueError, RuntimeError):
        whole = False
    if not whole:
        raise TypeError(
            f"The label of {where} must be the number of a class, an integer, but is {label!r}. Let the dataset give "
            "such numbers as labels."
        )
    if number < 0:
        raise ValueError(f"The label of {where} is {number}, but classes are counted from 0.")
    return number


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Labels (n,) as rows (n, num_classes) with a one in the label's column.

    Raises:
        ValueError: If a label is no class.
    """
    numbers = [as_class(label, "a sample") for label in labels]
    if max(numbers) >= num_classes:
        raise ValueError(
            f"A label is {max(numbers)}, but there are {num_classes} classes, counted from 0. Correct `num_classes` of "
            "the module, or the labels."
        )
    return F.one_hot(torch.tensor(numbers), num_classes).to(dtype)
