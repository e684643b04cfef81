"""Labels: as a module takes them, and which classes data have."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

LabelFormat = Literal["index", "one_hot"]


@dataclass(frozen=True)
class Labels:
    """The classes of a set's images, and the names of classes where these have any.

    Args:
        rows: Numbers of the classes (N,), int64, on the CPU.
        names: Names by number; empty: numbers are their names.
    """

    rows: Tensor
    names: Sequence[str] = ()

    def of(self, number: int) -> Tensor:
        """Positions of the images of a class."""
        return (self.rows == number).nonzero().flatten()

    def name(self, number: int) -> str | int:
        """What a class is called."""
        return self.names[number] if self.names else number


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
