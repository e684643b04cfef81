"""Held-out images that are training images."""

from collections.abc import Callable

from torch import Tensor

_NAMED = 5  # duplicates that a warning names


def duplicates(train: Tensor, held_out: Tensor, name: Callable[[int], str]) -> str | None:
    """A warning about held-out images that are training images, pixel by pixel.

    Args:
        train: Digests of training images, uint8 (N, 32).
        held_out: Digests of held-out images, uint8 (M, 32).
        name: Function that names a held-out image by its number.

    Raises:
        ValueError: If all of them are.
    """
    known = {bytes(row) for row in train.numpy()}
    same = [index for index, row in enumerate(held_out.numpy()) if bytes(row) in known]
    if not same:
        return None
    if len(same) == len(held_out):
        raise ValueError(
            f"All {len(same)} images of `held_out` are also in `real`, so nothing can be learned about copies. Pass "
            "real images that the generator is not trained on, split by scene."
        )
    names = ", ".join(map(name, same[:_NAMED]))
    more = f" and {len(same) - _NAMED} more" if len(same) > _NAMED else ""
    return (
        f"{len(same)} of {len(held_out)} images of `held_out` are also in `real` ({names}{more}): copies of them look "
        "normal. Remove them from one of the two."
    )
