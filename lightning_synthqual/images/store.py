"""Images that may be asked for again: in memory while they are few, in a temporary file when they are many."""

from collections.abc import Iterator
from math import prod
from tempfile import SpooledTemporaryFile

import torch
from torch import Tensor

_MEMORY = 256 * 2**20  # bytes


class ImageStore:
    """uint8 images by position; a context manager that closes its file.

    Args:
        memory: Bytes from which on they lie in a file of the system's folder for temporary files (``$TMPDIR``), which
            is removed when the store is closed.
    """

    def __init__(self, memory: int = _MEMORY) -> None:
        self._file = SpooledTemporaryFile(max_size=memory)  # noqa: SIM115 - it lives as long as the object
        self._entries: dict[int, tuple[int, tuple[int, ...]]] = {}

    def __enter__(self) -> "ImageStore":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._entries))

    def add(self, position: int, image: Tensor) -> None:
        """Keep an image, uint8 (C, H, W)."""
        self._entries[position] = self._file.seek(0, 2), tuple(image.shape)
        self._file.write(image.cpu().contiguous().numpy().tobytes())

    def __getitem__(self, position: int) -> Tensor:
        start, shape = self._entries[position]
        self._file.seek(start)
        content = bytearray(self._file.read(prod(shape)))
        return torch.frombuffer(content, dtype=torch.uint8).view(shape)
