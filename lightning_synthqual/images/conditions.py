"""What an item that a generator is conditioned on consists of: its target, its text, and what tells it from others."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_synthqual.images.items import KEYS

TARGET = "target"  # key of a dict
TEXTS = ("text", "caption", "prompt")  # keys of a dict, in the order in which they are looked for


def target_key(item: Any) -> str | int | None:
    """Where the target is in an item; ``None`` where the item is its own target, or has none.

    The second entry of a tuple is a target if it is an image. A class label or a text is none.

    Example:
        >>> photo, label = torch.zeros(3, 8, 8), 7
        >>> target_key((photo, photo)), target_key((photo, label)), target_key({"image": photo, "target": photo})
        (1, None, 'target')
    """
    if isinstance(item, Mapping):
        return TARGET if TARGET in item else None
    if isinstance(item, tuple | list) and len(item) > 1 and _is_image(item[1], beside=item[0]):
        return 1
    return None


def has_target(item: Any, key: str | int | None) -> bool:
    """Whether an item has an image to compare a generated one with: at ``key``, or else itself."""
    if key is not None:
        return True
    if isinstance(item, Mapping):
        return any(name in item for name in KEYS)
    return _is_image(item[0] if isinstance(item, tuple | list) and item else item)


def text_of(item: Any) -> str | None:
    """The text of an item: itself, the first string of a tuple, or ``text``, ``caption`` or ``prompt`` of a dict."""
    if isinstance(item, str):
        return item
    if isinstance(item, Mapping):
        entries = [item[name] for name in TEXTS if name in item]
    else:
        entries = list(item) if isinstance(item, tuple | list) else []
    return next((entry for entry in entries if isinstance(entry, str)), None)


def input_of(batch: Any, item: Any) -> Tensor | None:
    """The tensor in a batch that a network of one argument is called with; ``None`` where that is not clear.

    Args:
        batch: Collated items.
        item: One of them.
    """
    if isinstance(item, Mapping) and isinstance(batch, Mapping):
        batch = next((batch[name] for name in KEYS if name in batch), None)
    elif isinstance(item, tuple | list) and isinstance(batch, tuple | list) and batch:
        batch = batch[0]
    return batch if isinstance(batch, Tensor) else None


def expression_of_input(item: Any) -> str:
    """How Python code takes the input out of a batch of such items."""
    if isinstance(item, Mapping):
        return f"batch[{next((name for name in KEYS if name in item), next(iter(item), 'image'))!r}]"
    return "batch[0]" if isinstance(item, tuple | list) else "batch"


def digest(item: Any) -> bytes:
    """SHA-256 of an item's content."""
    found = hashlib.sha256()
    for part in _parts(item):
        found.update(len(part).to_bytes(8, "little") + part)
    return found.digest()


def moved(batch: Any, move: Any) -> Any:
    """A batch whose tensors, in dicts, lists and tuples too, are moved by a function; all else stays as it is."""
    if isinstance(batch, Tensor):
        return move(batch)
    if isinstance(batch, Mapping) and hasattr(batch, "copy"):
        return type(batch)({name: moved(each, move) for name, each in batch.items()})  # type: ignore[call-arg]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved(each, move) for each in batch))
    if type(batch) in (list, tuple):
        return type(batch)(moved(each, move) for each in batch)
    return batch


def _parts(item: Any) -> Iterator[bytes]:
    """An item's content in bytes, entry by entry."""
    if isinstance(item, Mapping):
        for name, each in item.items():
            yield str(name).encode()
            yield from _parts(each)
    elif isinstance(item, tuple | list):
        yield f"{len(item)} entries".encode()
        for each in item:
            yield from _parts(each)
    elif isinstance(item, Tensor | np.ndarray | Image.Image):
        array = item.detach().cpu().float().numpy() if isinstance(item, Tensor) else np.asarray(item)
        yield f"{getattr(item, 'dtype', 'image')} {array.shape}".encode()
        yield np.ascontiguousarray(array).tobytes()
    else:  # other objects may show where they are in memory
        plain = isinstance(item, str | int | float | bool | type(None))
        yield (repr(item) if plain else type(item).__name__).encode()


def _is_image(value: Any, beside: Any = None) -> bool:
    """Whether a value is an image; a matrix is one beside an image of the same height and width."""
    if isinstance(value, Image.Image):
        return True
    if not isinstance(value, Tensor | np.ndarray):
        return False
    if value.ndim == 2 and beside is not None:
        sides = [beside.height, beside.width] if isinstance(beside, Image.Image) else [*getattr(beside, "shape", ())]
        return list(value.shape) in (sides[-2:], sides[:2])
    return value.ndim in (2, 3)


def as_input(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Floats in the type of a network that is kept in another one than float32, as a trainer converts its batches."""
    return tensor.to(dtype) if tensor.is_floating_point() and dtype != torch.float32 else tensor
