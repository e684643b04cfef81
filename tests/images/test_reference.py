import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, Subset, TensorDataset
from torchvision.transforms import v2

from lightning_synthqual.images.files import FolderDataset
from lightning_synthqual.images.items import resize
from lightning_synthqual.images.pixels import PixelRange
from lightning_synthqual.images.randomness import preserved_generators
from lightning_synthqual.images.reference import ImageSet, fingerprint_of_pixels
from lightning_synthqual.images.source import Images

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

    def __init__(self, count: int = 12) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

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
def test_a_16_bit_image_is_scaled_by_65535(tmp_path: Path, suffix: str) -> None:
    levels = np.array([[0, 128, 129, 257 * 100, 257 * 100 + 128, 257 * 100 + 129, 65406, 65407, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / f"x.{suffix}")
    (image,) = images_of(tmp_path)
    assert image[0, 0].tolist() == [0, 0, 1, 100, 100, 101, 254, 255, 255]
    assert torch.equal(image[0], image[2])


TEN_BITS = np.array([[0, 4, 511, 1023]], np.uint16)


@pytest.fixture(params=["png", "tif", "npy", "array", "tensor", "PIL", "mode I"])
def ten_bits(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A set of one image of 10 bits in 16, by every way in."""
    if request.param in ("png", "tif"):
        Image.fromarray(TEN_BITS).save(tmp_path / f"x.{request.param}")
        return tmp_path
    if request.param == "npy":
        np.save(tmp_path / "x.npy", TEN_BITS[None])
        return tmp_path / "x.npy"
    ways: dict[str, Callable[[], Any]] = {
        "array": lambda: TEN_BITS,
        "tensor": lambda: torch.from_numpy(TEN_BITS),
        "PIL": lambda: Image.fromarray(TEN_BITS),
        "mode I": lambda: Image.fromarray(TEN_BITS.astype(np.int32)),
    }
    return [ways[request.param]()]


@pytest.mark.parametrize("role", ["real", "fake"])
def test_integers_of_few_bits_in_many_need_their_range(ten_bits: Any, role: str) -> None:
    image_set = ImageSet(ten_bits, role, fallback=(-1.0, 1.0))
    with pytest.raises(ValueError, match=r"integers from 0 to 1023, .* `(real|image)_range=\(0, 1023\)`"):
        image_set.inspect()
    declared = {"declared": (0, 1023)} if role == "real" else {"fallback": (0, 1023)}
    image_set = ImageSet(ten_bits, role, **declared)
    image_set.inspect()
    assert image_set.pick([0])[0][0, 0].tolist() == [0, 1, 127, 255]


def test_integers_do_not_inherit_the_range_of_generated_floats() -> None:
    levels = np.array([[0, 32768, 65535]], np.uint16)
    (image,) = images_of([levels], fallback=(0.0, 255.0))
    assert image[0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("kind", [np.int32, np.uint32])
def test_integers_of_32_bits_do_not_saturate(kind: type[np.integer[Any]]) -> None:
    top = np.iinfo(kind).max
    levels = np.array([[0, top // 4 + 1, top]], kind)
    (image,) = images_of([levels])
    assert image[0, 0].tolist() == [0, 64, 255]


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


@pytest.mark.parametrize("mode", ["F", "CMYK", "HSV"])
def test_other_channels_are_an_error(mode: str) -> None:
    with pytest.raises(ValueError, match=rf"^`real` \(item 0\) .* it has the channels {mode}, where grey"):
        images_of([Image.new(mode, (3, 3))])


@pytest.mark.parametrize("kept", [0, 5, 60])
def test_a_broken_file_is_named(tmp_path: Path, array: Array, kept: int) -> None:
    Image.fromarray(array).save(tmp_path / "fine.png")
    content = (tmp_path / "fine.png").read_bytes()
    (tmp_path / "half.png").write_bytes(content[:kept])
    with pytest.raises(ValueError, match=r"The image `.*half\.png` could not be read .* Repair or remove it"):
        images_of(tmp_path)


def transparent(mode: str, alpha: int) -> Image.Image:
    """An image whose lower row is as opaque as ``alpha`` says."""
    image = Image.new("RGBA" if mode != "LA" else "LA", (2, 2), (9, 255) if mode == "LA" else (9, 8, 7, 255))
    image.putalpha(Image.fromarray(np.array([[255, 255], [alpha, alpha]], np.uint8)))
    return image


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_images_are_refused_and_opaque_ones_lose_their_alpha(tmp_path: Path, mode: str) -> None:
    transparent(mode, 255).save(tmp_path / "x.png")
    (image,) = images_of(tmp_path)
    assert image[:, 0, 0].tolist() == ([9, 8, 7] if mode == "RGBA" else [9, 9, 9])
    transparent(mode, 254).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match=rf"x\.png` could not be read \(it has transparent pixels \(channels {mode}\)"):
        images_of(tmp_path)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_is_refused_where_it_occurs(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.array([[0, 0], [200, 200]], np.uint8)).convert(mode)
    used, unused = {"P": (200, 7), "L": (200, 7), "RGB": ((200,) * 3, (7,) * 3)}[mode]
    image.save(tmp_path / "x.png", transparency=unused)
    (read,) = images_of(tmp_path)
    assert read[:, 1, 1].tolist() == [200, 200, 200]
    image.save(tmp_path / "x.png", transparency=used)
    with pytest.raises(ValueError, match=r"it has transparent pixels"):
        images_of(tmp_path)


@pytest.mark.parametrize("suffix", ["tif", "png", "webp"])
def test_images_of_several_frames_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=rf"x\.{suffix}` could not be read \(it has 3 frames or pages"):
        images_of(tmp_path)


def test_a_photograph_with_previews_behind_it_is_read(tmp_path: Path, array: Array) -> None:
    photograph = Image.fromarray(array)
    photograph.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[photograph.resize((3, 3))])
    (image,) = images_of(tmp_path)
    assert image.shape == (3, *array.shape[:2])


def test_colours_of_16_bits_are_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + struct.pack(">HHH", 4095, 2000, 17))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ValueError, match="16 bits per colour channel"):
        images_of(tmp_path)


def test_masked_pixels_are_refused(array: Array) -> None:
    masked = np.ma.masked_array(array, mask=np.zeros(array.shape, bool))
    assert torch.equal(images_of([masked])[0], chw(array))
    masked[2, 3] = np.ma.masked
    with pytest.raises(ValueError, match=r"^`real` \(item 0\) is an image that cannot be used: .* masked pixels"):
        images_of([masked])


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "data" / "below").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for level, name in enumerate(["data/a.png", "data/below/b.png", "elsewhere/c.png"]):
        Image.new("L", (2, 2), level).save(tmp_path / name)
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "below" / "circle").symlink_to(tmp_path / "data")
    (tmp_path / "elsewhere" / "itself").symlink_to(tmp_path / "elsewhere")
    folder = FolderDataset(tmp_path / "data")
    assert [path.relative_to(folder.folder).as_posix() for path in folder.files] == [
        "a.png",
        "below/b.png",
        "link/c.png",
    ]


def test_an_image_too_large_for_pil_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16)
    with pytest.raises(ValueError, match=r"huge\.png` could not be read"):
        images_of(tmp_path)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere` does not exist or is not a folder"):
        ImageSet(tmp_path / "nowhere", "real")
    (tmp_path / "file.png").touch()
    with pytest.raises(FileNotFoundError, match=r"file.png` does not exist or is not a folder"):
        ImageSet(str(tmp_path / "file.png"), "real")


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.gif").touch()
    with pytest.raises(ValueError, match=r"holds no images \(searched for: \.png, \.jpg"):
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
        lambda array: {"jpg": Image.fromarray(array), "cls": 3},
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


@pytest.mark.parametrize("item", [None, 3, "x.png", (), torch.zeros(1, 3, 2, 2)])
def test_what_holds_no_image_is_an_error(item: Any) -> None:
    with pytest.raises(TypeError, match=r"^`real` \(item 1\) must be an image, a tuple .* or a dict with `image`"):
        images_of([torch.zeros(3, 2, 2), item])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (torch.zeros(4, 2, 2), "4 channels"),
        (torch.zeros(8, 8, 3), "Permute them"),
        (torch.full((3, 2, 2), float("nan")), "NaN or infinite"),
        (Image.new("RGBA", (2, 2)), "is an image that cannot be used.*channels RGBA"),
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
    sampler = DistributedSampler(TensorDataset(data), num_replicas=2, rank=1)
    assert torch.equal(stacked(DataLoader(TensorDataset(data), sampler=sampler)), data)


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_read_the_same(workers: int) -> None:
    data = Augmented(40)
    expected = images_of(data)
    loader = DataLoader(data, batch_size=2, num_workers=workers, shuffle=True)
    for found in (images_of(loader), images_of(data, num_workers=workers), images_of(loader, num_workers=0)):
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


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
    expected = stacked(Augmented(), declared=(0.0, 1.0))
    random.seed(8)
    torch.rand(4)
    assert torch.equal(stacked(Augmented(), 5, 3, declared=(0.0, 1.0)), expected)
    other = stacked(Augmented(), declared=(0.0, 1.0), seed=1)
    assert torch.equal(other[:, 0, 0, 0], torch.arange(12))
    for place in range(1, 4):
        values = expected.flatten(2)[:, 0, place]
        assert len(values.unique()) > 8
        assert not torch.equal(values, other.flatten(2)[:, 0, place])


def test_augmentations_of_a_choice_are_those_of_the_whole() -> None:
    everything = stacked(Augmented(), declared=(0.0, 1.0))
    chosen = stacked(Augmented(), declared=(0.0, 1.0), num_images=5)
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
    assert first.seen == PixelRange(-0.5, 0.25, count=8, outside_unit=4)
    assert second.seen == PixelRange(1.5, 1.5, count=4, clamped=4, beyond=4, outside_unit=4, outside_signed=4)


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
    assert ImageSet(data, "real").stamp() != stamp
    variants: list[dict[str, Any]] = [{"cache_key": "other"}, {"declared": (0.0, 1.0)}, {"image_size": (4, 4)}]
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


def test_images_say_where_in_an_item_the_image_is_and_what_it_spans(array: Array) -> None:
    data = [{"scan": chw(array).float() / 255, "image": torch.zeros(3, 2, 2)}]
    assert torch.equal(images_of(Images(data, key="scan", range=(0, 1)))[0], chw(array))
    pairs = DataLoader([(3, chw(array))])
    assert torch.equal(images_of(Images(pairs, key=1))[0], chw(array))
    assert torch.equal(images_of(Images(pairs, key=-1))[0], chw(array))


@pytest.mark.parametrize("role", ["real", "held_out", "fake"])
def test_a_normalisation_is_undone(array: Array, role: str) -> None:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    floats = chw(array).float() / 255
    data = [v2.functional.normalize(floats, mean, std)]
    image_set = ImageSet(Images(data, mean=mean, std=std), role, fallback=(-1.0, 1.0))
    image_set.inspect()
    assert torch.equal(image_set.pick([0])[0], chw(array))
    (block,) = ImageSet(Images([2 * floats - 1], range=(0, 1), mean=0.5, std=0.5), role).read(1)
    assert torch.equal(block.images[0], chw(array))
    assert block.seen.clamped == 0


def test_what_was_stated_of_images_is_part_of_their_stamp_and_described(folder: Path) -> None:
    stated: list[dict[str, Any]] = [
        {},
        {"range": (0, 1)},
        {"range": (0, 2)},
        {"key": "a"},
        {"key": 0},
        {"mean": 0.5, "std": 0.5},
        {"mean": 0.5, "std": [0.5, 0.5, 0.25]},
    ]
    sets = [ImageSet(Images(folder, **each), "real") for each in stated]
    assert len({image_set.stamp() for image_set in sets}) == len(stated)
    assert sets[0].stamp() == ImageSet(folder, "real").stamp()
    assert sets[1].describe() == {"range": [0.0, 1.0]}
    assert sets[6].describe() == {"mean": [0.5], "std": [0.5, 0.5, 0.25]}


def test_a_range_of_integers_changes_the_stamp_of_a_folder(folder: Path) -> None:
    stamps = {ImageSet(folder, "real", declared=declared).stamp() for declared in (None, (0, 1023), (0, 4095))}
    assert len(stamps) == 3


class Counted(Dataset[Tensor]):
    """Counts how often its items are read."""

    def __init__(self, items: Tensor) -> None:
        self.items = items
        self.log: list[int] = []  # a number would be restored after the images were looked at

    @property
    def reads(self) -> int:
        return len(self.log)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor:
        self.log.append(index)
        return self.items[index]


class Photos(Dataset[Any]):
    """A data set of many items, as users write them."""

    def __init__(self, items: Tensor, transform: Callable[[Tensor], Tensor] | None = None) -> None:
        self.items = items
        self.transform = transform

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor:
        return self.items[index] if self.transform is None else self.transform(self.items[index])


class OtherPhotos(Photos):
    """The same with another name."""


def test_a_data_set_is_recognised_by_256_items(pictures: Pictures) -> None:
    data = Counted(pictures(600, 2, 2))
    stamp = ImageSet(data, "real").stamp()
    assert stamp is not None
    assert len(set(data.log)) == len(data.log) == 256
    assert stamp == ImageSet(Counted(data.items), "held_out").stamp()
    before = torch.get_rng_state()
    assert ImageSet(Augmented(), "real").stamp() == ImageSet(Augmented(), "real").stamp()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_changed_item_length_class_transform_or_choice_changes_the_stamp(pictures: Pictures) -> None:
    data = pictures(300, 4, 4)
    few, changed = data[:200], data[:200].clone()
    changed[7, 1, 2, 3] ^= 1
    crop = v2.CenterCrop(4)
    sets: list[tuple[Any, dict[str, Any]]] = [
        (Photos(few), {}),
        (Photos(changed), {}),
        (Photos(data), {}),
        (Photos(data), {"num_images": 200}),
        (Photos(data), {"num_images": 200, "seed": 1}),
        (OtherPhotos(few), {}),
        (Photos(few, v2.Identity()), {}),
        (Photos(few, crop), {}),
        (Photos(few, v2.RandomCrop(4)), {}),
        (Photos(few, v2.Compose([crop])), {}),
        (Photos(few, v2.RandomErasing(p=1e-9)), {}),
        (Photos(few, v2.RandomErasing(p=1e-8)), {}),
        (Subset(Photos(few), range(200)), {}),
        (Subset(Photos(few, crop), range(200)), {}),
        (few, {}),
        (Photos(few), {"image_size": (4, 5)}),
        (Photos(few), {"cache_key": "mine"}),
    ]
    stamps = [ImageSet(source, "real", **options).stamp() for source, options in sets]
    assert len(set(stamps)) == len(sets)
    crop.eval()  # transforms have a mode, which says nothing
    assert stamps == [ImageSet(source, "real", **options).stamp() for source, options in sets]


def test_all_pixels_are_compared_if_this_is_wanted(pictures: Pictures, folder: Path) -> None:
    data = list(pictures(3, 2, 2))
    assert ImageSet(data, "real", cache_check="full").stamp() is None
    for source, options in ((folder, {}), (data, {"cache_key": "mine"})):
        stamp = ImageSet(source, "real", **options).stamp()
        assert ImageSet(source, "real", cache_check="full", **options).stamp() == stamp != None  # noqa: E711


class HuggingFace(Counted):
    """What a Hugging Face dataset shows of itself."""

    def __init__(self, items: Tensor, fingerprint: str) -> None:
        super().__init__(items)
        self._fingerprint = fingerprint


def test_the_fingerprint_of_a_hugging_face_dataset_is_its_own(pictures: Pictures) -> None:
    one, other = (HuggingFace(pictures(40, 2, 2), name) for name in ("a1", "b2"))
    stamps = [
        ImageSet(each, "real", cache_check=check).stamp() for each in (one, other) for check in ("sample", "full")
    ]
    assert stamps[0] == stamps[1] != stamps[2] == stamps[3]
    assert stamps[0] != ImageSet(one, "real", declared=(0.0, 1.0)).stamp()
    assert one.reads == other.reads == 0


def test_a_wrong_range_shows_before_all_is_read() -> None:
    data = Counted(torch.rand(5000, 1, 2, 2))
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"`real_range=\(0\.0, 1\.0\)`"):
        ImageSet(data, "real").inspect()
    assert data.reads == 16 + 1024
    assert torch.equal(torch.get_rng_state(), before)
    data.log.clear()
    ImageSet(data, "real", declared=(0.0, 1.0)).inspect()
    assert data.reads == 16


def test_a_few_bright_images_are_no_evidence() -> None:
    levels = 0.5 + 0.5 * torch.rand(1000, 1, 2, 2)
    levels[::50] *= -1  # one in fifty is dark, and none of those that are looked at first
    data = Counted(levels.roll(7, 0))
    ImageSet(data, "real").inspect()
    assert data.reads == 16 + 1000


class Batches(IterableDataset):
    """Items that are (batch of images, labels), as of a loader that makes them itself."""

    def __init__(self, images, sizes):
        self.parts = images.split(sizes)

    def __iter__(self):
        return iter([(part, torch.zeros(len(part))) for part in self.parts])


def test_items_of_a_stream_may_be_batches():
    images = torch.randint(0, 256, (11, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    for source in (Batches(images, [4, 4, 3]), DataLoader(Batches(images, [5, 6]), batch_size=None)):
        image_set = ImageSet(source, "real")
        image_set.inspect()
        read = [image for block in image_set.read(4) for image in block.images]
        assert torch.equal(torch.stack(read), images)
    alone = ImageSet(Batches(images, [1] * 11), "real", num_images=5)
    assert sum(len(block.positions) for block in alone.read(4)) == 5


def test_items_of_a_map_style_dataset_are_no_batches():
    batches = [torch.zeros(4, 3, 8, 8, dtype=torch.uint8)] * 2
    with pytest.raises(TypeError, match="items that are batches are read from iterable data sets"):
        ImageSet(batches, "real").inspect()
