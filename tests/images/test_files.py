import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lightning_synthqual.images.files import ArrayDataset, FolderDataset, open_path


@pytest.fixture
def array() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def save(array: NDArray[np.generic], name: str = "images.npy") -> Path:
        np.save(tmp_path / name, array)
        return tmp_path / name

    return save


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_colour_arrays_are_read_in_either_layout(array: NDArray[np.uint8], saved: Callable[..., Path], layout: str):
    path = saved(array if layout == "NHWC" else array.transpose(0, 3, 1, 2))
    dataset = open_path(path)
    assert isinstance(dataset, ArrayDataset)
    assert len(dataset) == 4
    for place in range(4):
        assert torch.equal(dataset[place], torch.from_numpy(array[place]).permute(2, 0, 1))


@pytest.mark.parametrize("dress", [lambda grey: grey, lambda grey: grey[..., None], lambda grey: grey[:, None]])
def test_grey_arrays_have_a_channel_or_none(
    array: NDArray[np.uint8], saved: Callable[..., Path], dress: Callable[..., NDArray[np.uint8]]
):
    grey = array[..., 0]
    item = ArrayDataset(saved(dress(grey)))[2]
    assert torch.equal(item, torch.from_numpy(grey[2])[None])


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", ">f4", "uint16", ">u2", "int32", "int64"])
def test_other_numbers_are_left_as_they_are(saved: Callable[..., Path], kind: str) -> None:
    values = np.linspace(0, 100, 24).reshape(2, 3, 2, 2).astype(kind)
    item = ArrayDataset(saved(values))[1]
    assert item.dtype == torch.from_numpy(values.astype(np.dtype(kind).newbyteorder("="))).dtype
    assert np.array_equal(item.numpy(), values[1])


@pytest.mark.parametrize(
    ("arrays", "chosen"),
    [({"anything": 0}, "anything"), ({"images": 0, "labels": 1}, "images"), ({"arr_0": 0, "arr_1": 1}, "arr_0")],
)
def test_of_several_arrays_the_images_are_chosen(
    tmp_path: Path, array: NDArray[np.uint8], arrays: dict[str, int], chosen: str
) -> None:
    path = tmp_path / "several.npz"
    np.savez(path, **{name: array + np.uint8(offset) for name, offset in arrays.items()})
    assert torch.equal(ArrayDataset(path)[0], torch.from_numpy(array[0]).permute(2, 0, 1)), chosen


def test_arrays_without_a_name_that_says_images(tmp_path: Path, array: NDArray[np.uint8]) -> None:
    np.savez(tmp_path / "two.npz", real=array, fake=array)
    with pytest.raises(ValueError, match="holds the arrays real, fake, where one is expected, or one named `images`"):
        ArrayDataset(tmp_path / "two.npz")


@pytest.fixture(params=["png", "palette.png", "16.png", "jpg", "webp", "tif", "lzw.tif", "npy", "npz"])
def content(request: pytest.FixtureRequest, tmp_path: Path, array: NDArray[np.uint8]) -> tuple[Path, bytes]:
    """A file of images, and what is in it."""
    path, picture = tmp_path / f"x.{request.param}", Image.fromarray(array[0])
    if request.param == "npy":
        np.save(path, array)
    elif request.param == "npz":
        np.savez_compressed(path, array)
    elif request.param == "palette.png":
        picture.quantize(8).save(path)
    elif request.param == "16.png":
        Image.fromarray(array[0, ..., 0].astype(np.uint16) * 256).save(path)
    else:
        picture.save(path, **({"compression": "tiff_lzw"} if request.param == "lzw.tif" else {}))
    return path, path.read_bytes()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_file_is_read_or_named(content: tuple[Path, bytes]) -> None:
    path, original = content
    draw = random.Random(0)
    messages = []
    for _ in range(60):
        damaged = bytearray(original)
        for _ in range(draw.choice((1, 3))):
            damaged[draw.randrange(min(len(damaged), 100) if draw.random() < 0.5 else len(damaged))] ^= draw.randrange(
                256
            )
        path.write_bytes(damaged[: draw.choice((len(damaged), draw.randrange(len(damaged))))])
        try:
            open_path(path if path.suffix in (".npy", ".npz") else path.parent)[0]
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert all(f"`{path}`" in message for message in messages)


@pytest.fixture
def statistics(tmp_path: Path, array: NDArray[np.uint8]) -> Path:
    """As published for one data set: moments of features, and images beside them."""
    np.savez(tmp_path / "VIRTUAL.npz", arr_0=array, mu=np.zeros(3), sigma=np.eye(3))
    return tmp_path / "VIRTUAL.npz"


def test_images_beside_statistics_have_to_be_asked_for(statistics: Path, array: NDArray[np.uint8]) -> None:
    message = r"holds statistics of features \(mu, sigma\) beside the arrays arr_0, .*VIRTUAL\.npz#arr_0\""
    with pytest.raises(ValueError, match=message):
        open_path(statistics)
    dataset = open_path(f"{statistics}#arr_0")
    assert isinstance(dataset, ArrayDataset)
    assert torch.equal(dataset[1], torch.from_numpy(array[1]).permute(2, 0, 1))
    assert dataset.stamp()[0] == "VIRTUAL.npz#arr_0"


def test_statistics_alone_are_not_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "stats.npz", mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(ValueError, match=r"holds statistics of features \(mu, sigma\), .*give images"):
        open_path(tmp_path / "stats.npz")


def test_an_array_that_is_not_there(statistics: Path) -> None:
    with pytest.raises(ValueError, match="has no array `images`, but arr_0, mu, sigma"):
        open_path(f"{statistics}#images")


def test_a_folder_may_be_called_like_an_array(tmp_path: Path) -> None:
    folder = tmp_path / "a.npz#b"
    folder.mkdir()
    Image.new("L", (2, 2)).save(folder / "x.png")
    assert isinstance(open_path(folder), FolderDataset)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 6), r"must have the shape .* but has \(4, 6\)"),
        ((4, 6, 5, 2), "1 or 3 channels"),
        ((4, 3, 5, 3), "1 or 3 channels"),  # either side may be the channels
        ((0, 6, 5, 3), "is empty"),
    ],
)
def test_other_shapes_are_refused(saved: Callable[..., Path], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArrayDataset(saved(np.zeros(shape, np.uint8)))


@pytest.mark.parametrize("kind", [np.bool_, np.complex64])
def test_other_kinds_of_numbers_are_refused(saved: Callable[..., Path], kind: type[np.generic]) -> None:
    with pytest.raises(ValueError, match="must be integers or floats"):
        ArrayDataset(saved(np.zeros((2, 4, 4), kind)))


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "was_run",)

    np.save(tmp_path / "objects.npy", np.array([Harmful()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="could not be read"):
        ArrayDataset(tmp_path / "objects.npy")
    assert not (tmp_path / "was_run").exists()


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_path(tmp_path / "images.npz")
    (tmp_path / "images.npy").write_bytes(b"\x93NUMPY\x01")
    with pytest.raises(ValueError, match="could not be read"):
        open_path(tmp_path / "images.npy")


def test_a_large_array_is_read_as_it_is_needed(saved: Callable[..., Path], array: NDArray[np.uint8]) -> None:
    assert isinstance(ArrayDataset(saved(array)).array, np.memmap)


@pytest.fixture
def folder(tmp_path: Path, array: NDArray[np.uint8]) -> Path:
    folder = tmp_path / "folder"
    (folder / "nested").mkdir(parents=True)
    for name, pixels in zip(("a.png", "nested/b.webp", "c.tif"), array, strict=False):
        Image.fromarray(pixels).save(folder / name, lossless=True)
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:40])
    (folder / "nested" / "c.jpg").write_text("no picture")
    return folder


def test_unreadable_pictures_are_errors_unless_they_may_be_left_out(folder: Path) -> None:
    dataset = FolderDataset(folder)
    with pytest.raises(ValueError, match=r"b\.png` could not be read"):
        [dataset[place] for place in range(len(dataset))]
    dataset = FolderDataset(folder, skip_unreadable=True)
    assert [path.name for path in dataset.files] == ["a.png", "c.tif", "b.webp"]
    assert dataset.skipped == ["b.png", "nested/c.jpg"]
    assert all(isinstance(dataset[place], Tensor) for place in range(3))


def test_a_folder_of_nothing_but_unreadable_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="None of the 1 images"):
        FolderDataset(tmp_path, skip_unreadable=True)


def test_the_stamp_of_an_array_follows_its_file(saved: Callable[..., Path], array: NDArray[np.uint8]) -> None:
    before = ArrayDataset(saved(array)).stamp()
    assert ArrayDataset(saved(array[:2])).stamp() != before
    assert ArrayDataset(saved(array[:2], "other.npy")).stamp()[0] == "other.npy"
