"""Pictures in files: folders of them, and arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
ARRAYS = (".npy", ".npz")
_NAMES = ("images", "arr_0")  # of the array in an .npz file that holds several


def open_path(path: str | Path, skip_unreadable: bool = False) -> "FolderDataset | ArrayDataset":
    """Open an image folder, or an ``.npy`` or ``.npz`` file."""
    if Path(path).suffix.lower() in ARRAYS:
        return ArrayDataset(path)
    return FolderDataset(path, skip_unreadable)


class FolderDataset(Dataset[Tensor]):
    """The pictures below a folder, by name, as uint8 (C, H, W).

    Args:
        folder: Searched recursively for png, jpg, webp and tif files.
        skip_unreadable: Whether pictures that cannot be read are left out; then all are read once to find them.

    Attributes:
        files: The pictures.
        skipped: Names, relative to the folder, of those that were left out.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no pictures.
    """

    def __init__(self, folder: str | Path, skip_unreadable: bool = False) -> None:
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise FileNotFoundError(f"The image folder `{self.folder}` does not exist or is no folder.")
        found = (path for path in self.folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        self.files = sorted(found, key=lambda path: path.relative_to(self.folder).as_posix())
        if not self.files:
            raise ValueError(f"The folder `{self.folder}` holds no pictures (searched for: {', '.join(SUFFIXES)}).")
        self.skipped: list[str] = []
        if skip_unreadable:
            self._leave_unreadable_out()

    def _leave_unreadable_out(self) -> None:
        bad = set()
        for index, path in enumerate(self.files):
            try:
                self[index]
            except ValueError:
                bad.add(path)
        self.files = [path for path in self.files if path not in bad]
        self.skipped = sorted(path.relative_to(self.folder).as_posix() for path in bad)
        if not self.files:
            raise ValueError(f"None of the {len(bad)} pictures in `{self.folder}` could be read.")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        path = self.files[index]
        try:
            with Image.open(path) as picture:
                return picture_to_tensor(picture)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"The picture `{path}` could not be read ({error}). Repair or remove it.") from error

    def stamp(self) -> list[tuple[str, int, int]]:
        """Relative names, sizes and modification times."""
        stats = ((path.relative_to(self.folder).as_posix(), path.stat()) for path in self.files)
        return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


class ArrayDataset(Dataset[Tensor]):
    """The images of an ``.npy`` or ``.npz`` file, as (C, H, W): uint8, or floats as they are.

    Args:
        path: An array (N, H, W), (N, H, W, C) or (N, C, H, W) of uint8, uint16 (scaled by 65535) or floats. An ``.npz``
            file holds one array, or names it ``images`` or ``arr_0``. An ``.npy`` file is read as it is needed.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no such array.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise FileNotFoundError(f"The file of images `{self.path}` does not exist.")
        self.array = self._load()
        kind, shape = self.array.dtype, self.array.shape
        if kind not in (np.uint8, np.uint16) and not np.issubdtype(kind, np.floating):
            raise ValueError(f"The images in `{self.path}` must be uint8, uint16 or floats, but are {kind}.")
        last, first = (len(shape) == 4 and shape[place] in (1, 3) for place in (3, 1))
        if len(shape) not in (3, 4) or not len(shape) - 3 == last + first:
            raise ValueError(
                f"The array in `{self.path}` must have the shape (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 "
                f"channels C, but has {shape}."
            )
        if 0 in shape:
            raise ValueError(f"The array in `{self.path}` is empty: its shape is {shape}.")
        self._channels_last = last

    def _load(self) -> NDArray[Any]:
        try:
            found = np.load(self.path, mmap_mode="r", allow_pickle=False)
            if isinstance(found, np.ndarray):
                return found
            names = list(found)
            chosen = names if len(names) == 1 else [name for name in _NAMES if name in names]
            if len(chosen) != 1:
                raise ValueError(
                    f"it holds the arrays {', '.join(names) or '(none)'}, where one is expected, or one named `images`"
                )
            array: NDArray[Any] = found[chosen[0]]
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"The file of images `{self.path}` could not be read ({error}).") from error
        return array

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int) -> Tensor:
        image = np.array(self.array[index])
        if image.dtype == np.uint16:
            image = _eight_bits(image)
        tensor = torch.from_numpy(image)
        if tensor.ndim == 2:
            return tensor[None]
        return tensor.permute(2, 0, 1).contiguous() if self._channels_last else tensor

    def stamp(self) -> tuple[str, int, int]:
        """Name, size and modification time."""
        stat = self.path.stat()
        return self.path.name, stat.st_size, stat.st_mtime_ns


def picture_to_tensor(picture: Image.Image) -> Tensor:
    """PIL picture to uint8 (C, H, W); 16-bit pictures are scaled by 65535.

    Raises:
        ValueError: If its mode has other than 1 or 3 channels.
    """
    if picture.mode.startswith("I"):
        return torch.from_numpy(_eight_bits(np.asarray(picture)))[None]
    if picture.mode in ("1", "P"):
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    if picture.mode not in ("L", "RGB"):
        raise ValueError(f"it has the channels {picture.mode}, where grey or RGB are expected; convert it first")
    array = torch.from_numpy(np.array(picture))
    return array[None] if array.ndim == 2 else array.permute(2, 0, 1).contiguous()


def _eight_bits(levels: NDArray[Any]) -> NDArray[np.uint8]:
    return np.clip(np.round(levels.astype(np.float64) * (255.0 / 65535.0)), 0, 255).astype(np.uint8)
