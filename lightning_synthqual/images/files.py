"""Images in files: folders of them, and arrays."""

import os
import re
from collections.abc import Iterator
from functools import cached_property
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
_STATISTICS = {"mu", "sigma", "mu_s", "sigma_s"}  # in an .npz file: moments of features


def open_path(path: str | Path, skip_unreadable: bool = False) -> "FolderDataset | ArrayDataset":
    """Open an image folder, or an ``.npy`` or ``.npz`` file; ``file.npz#name`` is one array of it."""
    if Path(path).suffix.lower() in ARRAYS:
        return ArrayDataset(path)
    named = re.fullmatch(r"(.+\.npz)#(.+)", str(path), re.IGNORECASE)
    if named is not None and not Path(path).exists():
        return ArrayDataset(named[1], named[2])
    return FolderDataset(path, skip_unreadable)


class FolderDataset(Dataset[Tensor]):
    """The images below a folder, by name, as (C, H, W): uint8, or 16-bit integers as they are.

    Args:
        folder: Searched recursively for png, jpg, webp and tif files; links to folders are followed.
        skip_unreadable: Whether images that cannot be read are left out; then all are read once to find them.

    Attributes:
        files: The images.
        skipped: Names, relative to the folder, of those that were left out.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no images.
    """

    def __init__(self, folder: str | Path, skip_unreadable: bool = False) -> None:
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise FileNotFoundError(f"The image folder `{self.folder}` does not exist or is not a folder.")
        self.files = sorted(_images_below(self.folder), key=lambda path: path.relative_to(self.folder).as_posix())
        if not self.files:
            raise ValueError(f"The folder `{self.folder}` holds no images (searched for: {', '.join(SUFFIXES)}).")
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
            raise ValueError(f"None of the {len(bad)} images in `{self.folder}` could be read.")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        path = self.files[index]
        try:
            with Image.open(path) as image:
                return image_to_tensor(image)
        except Exception as error:  # decoders of damaged files raise errors of any kind
            raise ValueError(f"The image `{path}` could not be read ({error}). Repair or remove it.") from error

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the folders that images lie in, sorted: classes; empty unless every image lies in one."""
        first = {path.relative_to(self.folder).parts[0] for path in self.files if path.parent != self.folder}
        return () if any(path.parent == self.folder for path in self.files) else tuple(sorted(first))

    def label(self, index: int) -> int | None:
        """The number of a file's class, in the order of the names; ``None`` where there are no classes."""
        return self.classes.index(self.files[index].relative_to(self.folder).parts[0]) if self.classes else None

    def name(self, index: int) -> str:
        """Name of a file, relative to the folder."""
        return self.files[index].relative_to(self.folder).as_posix()

    def stamp(self) -> list[tuple[str, int, int]]:
        """Relative names, sizes and modification times."""
        stats = ((path.relative_to(self.folder).as_posix(), path.stat()) for path in self.files)
        return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _images_below(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Image files below a folder; a link to a folder that contains it is not followed."""
    real = folder.resolve()
    if real in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            if entry.is_dir():
                yield from _images_below(path, above | {real})
            elif path.suffix.lower() in SUFFIXES and entry.is_file():
                yield path


class ArrayDataset(Dataset[Tensor]):
    """The images of an ``.npy`` or ``.npz`` file, as (C, H, W) of the array's type.

    Args:
        path: An array (N, H, W), (N, H, W, C) or (N, C, H, W) of integers or floats. An ``.npy`` file is read as it is
            needed.
        name: Which array of an ``.npz`` file holds the images. ``None``: the only one, or ``images`` or ``arr_0``,
            unless statistics (``mu``, ``sigma``) lie beside it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no such array.
    """

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        self.path = Path(path).expanduser()
        self.name = name
        if not self.path.is_file():
            raise FileNotFoundError(f"The file of images `{self.path}` does not exist.")
        self.array = self._load()
        kind, shape = self.array.dtype, self.array.shape
        if kind.kind not in "uif":
            raise ValueError(f"The images in `{self.path}` must be integers or floats, but are {kind}.")
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
            with found:
                array: NDArray[Any] = found[self._choose(list(found))]
        except Exception as error:  # damaged files cause errors of any kind, deep in zip, zlib or the header's parser
            raise ValueError(f"The file of images `{self.path}` could not be read ({error}).") from error
        return array

    def _choose(self, names: list[str]) -> str:
        """Which array of an ``.npz`` file holds the images."""
        listed = ", ".join(names) or "(none)"
        if self.name is not None:
            if self.name not in names:
                raise ValueError(f"it has no array `{self.name}`, but {listed}")
            return self.name
        statistics = [name for name in names if name in _STATISTICS]
        others = [name for name in names if name not in _STATISTICS]
        if statistics:
            way = f'name the array that holds images, as in "{self.path}#{others[0]}"' if others else "give images"
            raise ValueError(
                f"it holds statistics of features ({', '.join(statistics)})"
                + (f" beside the arrays {', '.join(others)}" if others else "")
                + f", which cannot be compared with; {way}"
            )
        chosen = names if len(names) == 1 else [name for name in _NAMES if name in names]
        if len(chosen) != 1:
            raise ValueError(
                f"it holds the arrays {listed}, where one is expected, or one named `images`; choose one by "
                f'"{self.path}#NAME"'
            )
        return chosen[0]

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int) -> Tensor:
        tensor = array_to_tensor(np.array(self.array[index]))
        if tensor.ndim == 2:
            return tensor[None]
        return tensor.permute(2, 0, 1).contiguous() if self._channels_last else tensor

    def stamp(self) -> tuple[str, int, int]:
        """Name (with that of the array, if it was chosen), size and modification time."""
        stat = self.path.stat()
        return self.path.name + (f"#{self.name}" if self.name else ""), stat.st_size, stat.st_mtime_ns


def image_to_tensor(image: Image.Image) -> Tensor:
    """PIL image to (C, H, W): uint8, or integers of more bits as they are.

    Raises:
        ValueError: If it has several frames, transparent pixels, or other than 1 or 3 channels.
    """
    _check_single(image)
    if image.mode.startswith("I"):
        return array_to_tensor(_wide(image))[None]
    if image.mode in ("1", "P", "RGBA", "LA", "PA") or "transparency" in image.info:
        image = _opaque(image)
    if image.mode not in ("L", "RGB"):
        raise ValueError(f"it has the channels {image.mode}, where grey or RGB are expected; convert it first")
    levels = np.asarray(image)
    return torch.from_numpy(np.array(levels[None] if levels.ndim == 2 else levels.transpose(2, 0, 1), order="C"))


def _check_single(image: Image.Image) -> None:
    """Raise if there is more in an image than PIL's array of it shows."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # of a camera: a JPEG with previews behind the image
        raise ValueError(f"it has {frames} frames or pages, where one is expected; write each to a file of its own")
    if any(";16" in str(tile) for tile in getattr(image, "tile", ())) and image.mode == "RGB":
        raise ValueError("it has 16 bits per colour channel, of which only 8 could be read; use an .npy file")


def _wide(image: Image.Image) -> NDArray[Any]:
    levels = np.asarray(image)
    if np.any(levels == image.info.get("transparency", -1)):
        raise ValueError("it has transparent pixels; composite it onto a background first")
    return levels.astype(np.uint16) if image.format == "PNG" else levels  # some versions of Pillow give them as int32


def _opaque(image: Image.Image) -> Image.Image:
    """A grey or RGB image of one with a palette or an alpha channel that hides nothing."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        least, _ = image.convert("RGBA").getchannel("A").getextrema()
        if least != 255:
            raise ValueError(f"it has transparent pixels (channels {image.mode}); composite it onto a background first")
    return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")


def array_to_tensor(array: NDArray[Any]) -> Tensor:
    """An array as a tensor of the same shape and type, in the machine's byte order.

    Raises:
        ValueError: If it is a masked array with masked pixels.
    """
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.getmaskarray(array).any():
            raise ValueError("it is an array with masked pixels; fill them first (`array.filled(value)`)")
        array = array.data
    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return torch.from_numpy(native if native.flags.writeable else native.copy())
