import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torchvision.transforms import v2

from lightning_synthqual.images.pixels import PixelRange
from lightning_synthqual.images.randomness import preserved_generators
from lightning_synthqual.images.reference import FolderDataset, ImageSet, fingerprint_of_pixels, image_of, resize

Array = NDArray[np.uint8]
Pictures = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def _own_random_numbers() -> Any:
    with preserved_generators():
        yield


class Stream(IterableDataset[Any]):
    def __init__(self, items: Any) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        yield from self.items


class ShuffledStream(Stream):
    """Shuffles by the global generators, each pass anew."""

    def __iter__(self) -> Iterator[Any]:
        rest = list(self.items)
        while rest:
            yield rest.pop(random.randrange(len(rest)))


class Augmented(Dataset[Tensor]):
    """Draws from every global generator."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Tensor:
        values = [index / 255, random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002
        return torch.tensor(values).reshape(1, 2, 2)


def images_of(source: Any, batch_size: int = 4, world_size: int = 1, **options: Any) -> list[Tensor]:
    images: dict[int, Tensor] = {}
    for rank in range(world_size):
        image_set = ImageSet(source, "real", **options)
        for number, block in enumerate(image_set.read(batch_size, rank, world_size)):
            random.random()  # as whoever uses the images may
            assert block.positions.start == (rank + number * world_size) * batch_size
            assert len(block.positions) == len(block.images)
            assert not images.keys() & set(block.positions)
            images.update(zip(block.positions, block.images, strict=True))
    assert sorted(images) == list(range(len(images)))
    assert all(image.dtype == torch.uint8 and image.shape[0] == 3 for image in images.values())
    return [images[position] for position in range(len(images))]


def stacked(source: Any, *arguments: Any, **options: Any) -> Tensor:
    return torch.stack(images_of(source, *arguments, **options))


def chw(array: Array) -> Tensor:
    return torch.from_numpy(array).permute(2, 0, 1)


def test_a_folder_is_read_in_order_of_relative_names(tmp_path: Path) -> None:
    names = ["b.png", "a/2.PNG", "a/10.png", "a.png", "c/d/e.png"]
    for level, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), level).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    files = [path.relative_to(tmp_path).as_posix() for path in FolderDataset(tmp_path).files]
    assert files == ["a.png", "a/10.png", "a/2.PNG", "b.png", "c/d/e.png"]
    assert [int(image[0, 0, 0]) for image in images_of(str(tmp_path))] == [3, 2, 1, 0, 4]
    assert len(ImageSet(tmp_path, "real")) == 5


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff", "webp", "jpg", "jpeg"])
def test_every_format_is_read_as_pil_reads_it(tmp_path: Path, array: Array, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(array).save(path, **({"lossless": True} if suffix == "webp" else {}))
    (image,) = images_of(tmp_path)
    with Image.open(path) as picture:
        assert torch.equal(image, chw(np.array(picture)))
    if not suffix.startswith("j"):
        assert torch.equal(image, chw(array))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_16_bit_picture_is_scaled_by_65535(tmp_path: Path, suffix: str) -> None:
    levels = np.array([[0, 128, 129, 257 * 100, 257 * 100 + 128, 257 * 100 + 129, 65406, 65407, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / f"x.{suffix}")
    (image,) = images_of(tmp_path)
    assert image[0, 0].tolist() == [0, 0, 1, 100, 100, 101, 254, 255, 255]
    assert torch.equal(image[0], image[2])


def test_grey_black_and_white_and_palette_pictures_are_read(tmp_path: Path, array: Array) -> None:
    grey = array[..., 0]
    Image.fromarray(grey).save(tmp_path / "1.png")
    Image.fromarray(grey > 127).save(tmp_path / "2.png")
    palette = Image.fromarray(array).quantize(8)
    palette.save(tmp_path / "3.png")
    images = images_of(tmp_path)
    assert torch.equal(images[0], torch.from_numpy(grey).expand(3, -1, -1))
    assert torch.equal(images[1], torch.from_numpy(255 * (grey > 127)).to(torch.uint8).expand(3, -1, -1))
    assert torch.equal(images[2], chw(np.array(palette.convert("RGB"))))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "CMYK"])
def test_other_channels_are_an_error_that_names_the_file(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (3, 3)).save(tmp_path / "alpha.tif")
    with pytest.raises(ValueError, match=rf"alpha\.tif` could not be read \(it has the channels {mode}, where grey"):
        images_of(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 60])
def test_a_broken_file_is_named(tmp_path: Path, array: Array, kept: int) -> None:
    Image.fromarray(array).save(tmp_path / "fine.png")
    content = (tmp_path / "fine.png").read_bytes()
    (tmp_path / "half.png").write_bytes(content[:kept])
    with pytest.raises(ValueError, match=r"The picture `.*half\.png` could not be read .* Repair or remove it"):
        images_of(tmp_path)


def test_a_picture_too_large_for_pil_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16)
    with pytest.raises(ValueError, match=r"huge\.png` could not be read"):
        images_of(tmp_path)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere` does not exist or is no folder"):
        ImageSet(tmp_path / "nowhere", "real")
    (tmp_path / "file.png").touch()
    with pytest.raises(FileNotFoundError, match=r"file.png` does not exist or is no folder"):
        ImageSet(str(tmp_path / "file.png"), "real")


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.gif").touch()
    with pytest.raises(ValueError, match=r"holds no pictures \(searched for: \.png, \.jpg"):
        ImageSet(tmp_path, "real")


@pytest.mark.parametrize(
    "dress",
    [
        chw,
        lambda array: (chw(array), 3),
        lambda array: [chw(array)],
        lambda array: {"label": 3, "image": chw(array)},
        Image.fromarray,
        lambda array: (Image.fromarray(array), 3),
        lambda array: {"image": Image.fromarray(array)},
        lambda array: array,
        lambda array: array[:, ::-1][:, ::-1],
        lambda array: chw(array).float() / 127.5 - 1,
        lambda array: array.astype(np.float64) / 127.5 - 1,
        lambda array: chw(array).double() / 127.5 - 1,
    ],
)
def test_items_may_be_images_tuples_or_dicts_of_any_kind(array: Array, dress: Callable[[Array], Any]) -> None:
    (image,) = images_of([dress(array)])
    assert torch.equal(image, chw(array))


@pytest.mark.parametrize("dress", [torch.from_numpy, Image.fromarray, np.array, lambda grey: grey[:, :, None]])
def test_items_may_be_grey(array: Array, dress: Callable[[Array], Any]) -> None:
    grey = np.ascontiguousarray(array[..., 1])
    (image,) = images_of([dress(grey)])
    assert torch.equal(image, torch.from_numpy(grey).expand(3, -1, -1))


@pytest.mark.parametrize("item", [None, 3, "x.png", {}, {"img": torch.zeros(3, 2, 2)}, (), torch.zeros(1, 3, 2, 2)])
def test_what_holds_no_image_is_an_error(item: Any) -> None:
    with pytest.raises(TypeError, match=r"^`real` \(item 1\) must be an image, a tuple .* or a dict with `image`"):
        images_of([torch.zeros(3, 2, 2), item])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (torch.zeros(4, 2, 2), "4 channels"),
        (torch.zeros(8, 8, 3), "Permute them"),
        (torch.full((3, 2, 2), float("nan")), "NaN or infinite"),
        (Image.new("RGBA", (2, 2)), "is a picture that cannot be used .*channels RGBA"),
    ],
)
def test_a_faulty_image_is_an_error_that_names_role_and_item(item: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^`held_out` \(item 1\).*{message}"):
        list(ImageSet([torch.zeros(3, 2, 2), item], "held_out").read(2))


@pytest.mark.parametrize("source", [None, 3, torch.nn.ReLU(), iter([1])])
def test_what_is_no_data_is_an_error(source: Any) -> None:
    with pytest.raises(TypeError, match=r"`real` must be a Dataset, a DataLoader or an image folder, but got"):
        ImageSet(source, "real")


def test_an_empty_dataset_is_an_error() -> None:
    with pytest.raises(ValueError, match="`held_out` is empty"):
        ImageSet([], "held_out")


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_every_image_is_read_once_by_one_process(pictures: Pictures, batch_size: int, world_size: int) -> None:
    data = pictures(23, 4, 5)
    assert torch.equal(stacked(list(data), batch_size, world_size), data)


def test_a_dataloader_is_its_dataset_in_order(pictures: Pictures) -> None:
    data = pictures(23, 4, 5)
    loader = DataLoader(TensorDataset(data), batch_size=5, shuffle=True, drop_last=True)
    assert torch.equal(stacked(loader), data)


def test_worker_processes_read_the_same() -> None:
    expected = images_of(Augmented())
    loader = DataLoader(Augmented(), batch_size=2, num_workers=1, shuffle=True)
    assert all(torch.equal(one, other) for one, other in zip(images_of(loader), expected, strict=True))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 8, 23])
@pytest.mark.parametrize("kind", [Stream, lambda items: DataLoader(Stream(items), batch_size=7, drop_last=True)])
def test_a_stream_is_shared_without_duplicates_or_gaps(
    pictures: Pictures, count: int, world_size: int, kind: Callable[[Any], Any]
) -> None:
    data = pictures(count, 4, 5)
    assert torch.equal(stacked(kind(list(data)), 4, world_size), data)


def test_a_stream_that_shuffles_is_shared_without_duplicates_or_gaps() -> None:
    levels = torch.arange(23, dtype=torch.uint8).reshape(23, 1, 1, 1)
    images = stacked(ShuffledStream(list(levels)), 4, 3)[:, 0, 0, 0]
    assert images.sort().values.tolist() == list(range(23))
    assert images.tolist() != list(range(23))
    assert torch.equal(stacked(ShuffledStream(list(levels)), 4, 1)[:, 0, 0, 0], images)


def test_of_a_stream_the_first_images_are_taken(pictures: Pictures) -> None:
    data = pictures(23, 4, 5)
    assert torch.equal(stacked(Stream(list(data)), 4, 2, num_images=10), data[:10])


def test_a_stream_has_no_length_size_stamp_or_labels(pictures: Pictures) -> None:
    stream = ImageSet(Stream(list(pictures(3, 4, 5))), "real")
    with pytest.raises(TypeError, match="iterable dataset, which has no length"):
        len(stream)
    with pytest.raises(ValueError, match="needs a map-style dataset"):
        stream.label(0)
    assert stream.first_size() is None
    assert stream.stamp() is None


def test_fewer_images_are_a_fixed_choice_by_the_seed(pictures: Pictures) -> None:
    data = torch.arange(100, dtype=torch.uint8).reshape(100, 1, 1, 1)
    chosen = stacked(list(data), num_images=10)[:, 0, 0, 0].tolist()
    assert len(set(chosen)) == 10
    assert chosen == sorted(chosen) != list(range(10))
    assert stacked(list(data), 3, 2, num_images=10)[:, 0, 0, 0].tolist() == chosen
    assert stacked(list(data), num_images=10, seed=1)[:, 0, 0, 0].tolist() != chosen
    assert len(ImageSet(list(data), "real", num_images=10)) == 10


@pytest.mark.parametrize("wanted", [None, 5, 6, 1000])
def test_more_than_there_are_is_all(pictures: Pictures, wanted: int | None) -> None:
    data = pictures(5, 2, 2)
    assert torch.equal(stacked(list(data), num_images=wanted), data)


def test_augmentations_depend_on_seed_and_index_alone() -> None:
    expected = stacked(Augmented(), image_range=(0.0, 1.0))
    random.seed(8)
    torch.rand(4)
    assert torch.equal(stacked(Augmented(), 5, 3, image_range=(0.0, 1.0)), expected)
    other = stacked(Augmented(), image_range=(0.0, 1.0), seed=1)
    assert torch.equal(other[:, 0, 0, 0], torch.arange(12))
    for place in range(1, 4):
        values = expected.flatten(2)[:, 0, place]
        assert len(values.unique()) > 8
        assert not torch.equal(values, other.flatten(2)[:, 0, place])


def test_augmentations_of_a_choice_are_those_of_the_whole() -> None:
    everything = stacked(Augmented(), image_range=(0.0, 1.0))
    chosen = stacked(Augmented(), image_range=(0.0, 1.0), num_images=5)
    assert torch.equal(chosen, everything[chosen[:, 0, 0, 0].long()])


def test_torchvision_transforms_repeat(array: Array) -> None:
    class Cropped(Dataset[Tensor]):
        crop = v2.RandomCrop(4)

        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> Tensor:
            return self.crop(chw(array))

    first = stacked(Cropped())
    assert len(first.unique(dim=0)) > 1
    assert torch.equal(stacked(Cropped(), 1, 2), first)


def test_labels_are_the_second_entry_or_the_label_of_chosen_items() -> None:
    image = torch.zeros(3, 2, 2)
    tuples = ImageSet([(image, label) for label in range(20)], "real", num_images=5)
    assert [tuples.label(index) for index in range(5)] == tuples.indices
    dicts = ImageSet([{"image": image, "label": torch.tensor(label)} for label in (4, 2)], "real")
    assert [int(dicts.label(index)) for index in range(2)] == [4, 2]


@pytest.mark.parametrize("item", [torch.zeros(3, 2, 2), (torch.zeros(3, 2, 2),), {"image": torch.zeros(3, 2, 2)}])
def test_items_without_labels_are_an_error(item: Any) -> None:
    with pytest.raises(ValueError, match=r"tuples \(image, label\) or dicts .*`labels='uniform'`"):
        ImageSet([item], "real").label(0)


@pytest.mark.parametrize("size", [(5, 11), (16, 3), (9, 7), (1, 1)])
def test_resizing_is_pils_bicubic(array: Array, size: tuple[int, int]) -> None:
    expected = Image.fromarray(array).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    (image,) = images_of([chw(array)], image_size=size)
    assert image.shape == (3, *size)
    assert torch.equal(image, chw(np.array(expected)))
    assert torch.equal(resize(chw(array), None), chw(array))


def test_unlike_sizes_stay_as_they_are(pictures: Pictures) -> None:
    data = [pictures(1, 4, 6)[0], pictures(1, 6, 4)[0]]
    images = images_of(data)
    assert all(torch.equal(one, other) for one, other in zip(images, data, strict=True))
    assert ImageSet(data, "real").first_size() == [4, 6]
    assert ImageSet(data, "real", image_size=(8, 9)).first_size() == [8, 9]


def test_blocks_say_which_floats_were_seen() -> None:
    data = [torch.full((1, 2, 2), value) for value in (-0.5, 0.25, 1.5)]
    first, second = ImageSet(data, "real").read(2)
    assert first.seen == PixelRange(-0.5, 0.25, negative=4, clamped=0, count=8)
    assert second.seen == PixelRange(1.5, 1.5, negative=0, clamped=4, count=4)


@pytest.fixture
def folder(tmp_path: Path, array: Array) -> Path:
    for name in ("a.png", "b.png"):
        Image.fromarray(array).save(tmp_path / name)
    return tmp_path


def test_the_stamp_of_an_unchanged_folder_stays(folder: Path) -> None:
    assert ImageSet(folder, "real").stamp() == ImageSet(str(folder), "held_out").stamp()


@pytest.mark.parametrize("change", ["touch", "content", "rename", "add", "remove"])
def test_a_changed_folder_has_another_stamp(folder: Path, change: str) -> None:
    before = ImageSet(folder, "real").stamp()
    file = folder / "b.png"
    status = file.stat()
    if change == "touch":
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
    elif change == "content":
        file.write_bytes(file.read_bytes() + b" ")
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "rename":
        file.rename(folder / "c.png")
    elif change == "add":
        (folder / "c.png").write_bytes(file.read_bytes())
    else:
        file.unlink()
    assert ImageSet(folder, "real").stamp() != before


def test_a_folder_that_moved_keeps_its_stamp(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = ImageSet(folder, "real").stamp()
    moved = folder.rename(tmp_path_factory.mktemp("other") / "place")
    assert ImageSet(moved, "real").stamp() == before


@pytest.mark.parametrize("options", [{"image_size": (8, 8)}, {"num_images": 1}, {"cache_key": "mine"}])
def test_options_that_change_the_images_change_the_stamp(folder: Path, options: dict[str, Any]) -> None:
    assert ImageSet(folder, "real", **options).stamp() not in (None, ImageSet(folder, "real").stamp())


def test_a_cache_key_stands_for_the_data(pictures: Pictures) -> None:
    data, others = list(pictures(3, 2, 2)), list(pictures(3, 2, 2, seed=1))
    stamp = ImageSet(data, "real", cache_key="mine").stamp()
    assert stamp == ImageSet(others, "real", cache_key="mine").stamp()
    assert ImageSet(data, "real").stamp() is None
    variants: list[dict[str, Any]] = [{"cache_key": "other"}, {"image_range": (0.0, 1.0)}, {"image_size": (4, 4)}]
    variants += [{"num_images": 2}, {"seed": 1}]
    stamps = {ImageSet(data, "real", **{"cache_key": "mine", **variant}).stamp() for variant in variants}
    stamps.add(ImageSet(data, "held_out", cache_key="mine").stamp())
    assert len(stamps | {stamp}) == 7


def test_the_fingerprint_of_pixels_depends_on_content_and_order(pictures: Pictures) -> None:
    def fingerprint(data: Tensor) -> str:
        return fingerprint_of_pixels(torch.cat([block.digests() for block in ImageSet(list(data), "real").read(2)]))

    data = pictures(5, 4, 4)
    changed = data.clone()
    changed[4, 2, 3, 3] ^= 1
    assert fingerprint(data) == fingerprint(data.clone())
    assert len({fingerprint(each) for each in (data, changed, data.flip(0), data[:4])}) == 4


def test_the_image_of_an_item_is_not_copied_needlessly(pictures: Pictures) -> None:
    image = pictures(1, 3, 3)[0]
    assert image_of((image, 1), "it") is image
