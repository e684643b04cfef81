"""Generators that are conditioned on items: which item belongs to which image, and what items consist of."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lightning_synthqual.images.inputs import Inputs
from lightning_synthqual.images.randomness import preserved_generators
from lightning_synthqual.images.sampling import Sampler
from lightning_synthqual.images.source import Images


@pytest.fixture(autouse=True)
def _own_random_numbers() -> Any:
    with preserved_generators():
        yield


PHOTOS = torch.rand(20, 3, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1


class Plain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Augmented(Dataset[tuple[Tensor, int]]):
    """Items that draw from every generator that there is, its own too."""

    def __init__(self) -> None:
        self.generators = [torch.Generator().manual_seed(3), np.random.default_rng(3), random.Random(3)]

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        own = [torch.rand(1, generator=self.generators[0]).item(), self.generators[1].random()]
        numbers = [torch.rand(1).item(), np.random.rand(), random.random(), *own, self.generators[2].random()]  # noqa: NPY002
        return torch.tensor(numbers).repeat(2).view(3, 2, 2) * 2 - 1, index


def images_of(sampler: Sampler, count: int = 20, batch_size: int = 7, world_size: int = 1) -> Tensor:
    images: dict[int, Tensor] = {}
    for rank in range(world_size):
        with sampler.undisturbed():
            for block in sampler.blocks(count, batch_size, rank, world_size):
                images.update(zip(block.positions, block.images, strict=True))
    return torch.stack([images[position] for position in range(count)])


def uint8(images: Tensor) -> Tensor:
    return ((images + 1) * 127.5).round().to(torch.uint8)


@pytest.mark.parametrize("data", [TensorDataset(PHOTOS), Augmented()], ids=["plain", "augmented"])
def test_image_i_is_made_of_item_i_whatever_the_blocks_and_processes(data: Any) -> None:
    expected = images_of(Sampler(Plain(), inputs=Inputs(data)), batch_size=20)
    if isinstance(data, TensorDataset):
        assert torch.equal(expected, uint8(PHOTOS))
    assert len(expected.unique(dim=0)) == 20
    for batch_size, world_size in ((1, 1), (7, 2), (3, 3)):
        torch.rand(3)
        found = images_of(Sampler(Plain(), inputs=Inputs(data)), 20, batch_size, world_size)
        assert torch.equal(found, expected)
    assert torch.equal(images_of(Sampler(Plain(), inputs=Inputs(data)), 9), expected[:9])


def test_reading_leaves_the_training_s_random_numbers_alone() -> None:
    data = Augmented()
    before = torch.get_rng_state(), random.getstate(), data.generators[0].get_state(), data.generators[2].getstate()
    sampler = Sampler(Plain(), inputs=Inputs(data))
    with preserved_generators():
        images_of(sampler)
    after = torch.get_rng_state(), random.getstate(), data.generators[0].get_state(), data.generators[2].getstate()
    assert all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(before, after, strict=True))


def test_a_module_that_draws_noise_draws_the_same_while_items_are_read_ahead() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.rand_like(x) * 2 - 1

    found = [images_of(Sampler(Noisy(), inputs=Inputs(TensorDataset(PHOTOS)))) for _ in range(2)]
    assert torch.equal(*found)


def test_the_sampler_gets_the_batch_as_the_loader_collates_it() -> None:
    seen: list[Any] = []

    def sampler(module: Any, batch: Any, generator: torch.Generator) -> Tensor:
        seen.append((batch, generator.initial_seed()))
        return batch["image"]

    items = [{"image": photo, "label": i, "text": f"photo {i}"} for i, photo in enumerate(PHOTOS)]
    images = images_of(Sampler(None, function=sampler, inputs=Inputs(items)), batch_size=8)
    assert torch.equal(images, uint8(PHOTOS))
    assert [batch["label"].tolist() for batch, _ in seen] == [[*range(8)], [*range(8, 16)], [*range(16, 20)]]
    assert seen[2][0]["text"] == [f"photo {i}" for i in range(16, 20)]
    assert len({seed for _, seed in seen}) == 3

    def collate(items: list[Any]) -> Any:
        return {"image": torch.stack([image for image, _ in items]).flip(0)}

    loader = DataLoader(TensorDataset(PHOTOS, PHOTOS), 4, shuffle=True, collate_fn=collate)
    own = Inputs(loader, given="the trainer's val data")
    assert torch.equal(images_of(Sampler(None, function=sampler, inputs=own), batch_size=20), uint8(PHOTOS.flip(0)))
    assert own.protocol["given"] == "the trainer's val data"


def test_batches_are_in_the_type_of_a_half_precision_module() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones((), dtype=torch.bfloat16))

        def forward(self, x: Tensor) -> Tensor:
            assert x.dtype == torch.bfloat16
            return x * self.weight

    assert images_of(Sampler(Half(), inputs=Inputs(TensorDataset(PHOTOS)))).shape == (20, 3, 2, 2)


def test_folders_and_prompts(tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(np.full((2, 2, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
    folder = Inputs(tmp_path)
    assert folder.batch([2, 0])[:, 0, 0, 0].tolist() == [2, 0]
    assert (folder.num_samples, folder.has_texts, folder.protocol["given"]) == (3, False, "folder")
    prompts = Inputs(["a cat", "a dog"])
    assert prompts.batch([1, 0]) == ["a dog", "a cat"]
    assert (prompts.targets, prompts.texts()) == (None, ["a cat", "a dog"])
    assert prompts.fingerprint != Inputs(["a cat", "a dot"]).fingerprint


@pytest.mark.parametrize(
    ("make", "target"),
    [
        (lambda photo, other: photo, "photo"),
        (lambda photo, other: (photo, 3), "photo"),
        (lambda photo, other: (photo, torch.tensor([0.0, 1.0])), "photo"),
        (lambda photo, other: (photo, "words"), "photo"),
        (lambda photo, other: (photo, other), "other"),
        (lambda photo, other: (photo[0], other[0]), "other"),
        (lambda photo, other: ("words", other), "other"),
        (lambda photo, other: {"image": photo, "label": 2}, "photo"),
        (lambda photo, other: {"image": photo, "target": other}, "other"),
        (lambda photo, other: {"edges": photo, "target": other}, "other"),
        (lambda photo, other: (Image.fromarray(photo.permute(1, 2, 0).numpy()), 1), "photo"),
        (lambda photo, other: "words", None),
        (lambda photo, other: {"prompt": "words"}, None),
    ],
)
def test_what_the_target_is(make: Any, target: str | None) -> None:
    photos = {"photo": uint8(PHOTOS), "other": uint8(PHOTOS.flip(0))}
    inputs = Inputs([make(*pair) for pair in zip(*photos.values(), strict=True)])
    assert (inputs.targets is None) == (target is None)
    if target is not None:
        expected = photos[target][[5, 0]]
        assert (torch.stack(inputs.pick([5, 0])) == expected).all() or target == "other"  # one channel becomes three
        assert torch.equal(torch.stack(inputs.pick([5, 0]))[:, 0], expected[:, 0])


def test_images_says_which_entry_is_the_target_and_what_it_spans() -> None:
    items = [(photo, 0, (photo + 1) / 2) for photo in PHOTOS]
    inputs = Inputs(Images(items, key=2, range=(0, 1)))
    inputs.keep_targets()
    inputs.batch([3])
    assert torch.equal(torch.stack(inputs.pick([3, 4])), uint8(PHOTOS[3:5]))
    assert inputs.protocol["target"] == 2


def test_targets_are_read_once_and_resized_as_real_images_are() -> None:
    reads: list[int] = []

    class Counted(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            reads.append(index)
            return super().__getitem__(index)

    inputs = Inputs(Counted(PHOTOS), image_size=(4, 4))
    inputs.keep_targets()
    inputs.batch(range(20))
    reads.clear()
    assert torch.stack(inputs.pick(range(20))).shape == (20, 3, 4, 4)
    assert reads == []


def test_fewer_items_than_samples() -> None:
    data = TensorDataset(PHOTOS[:5])
    assert Inputs(data).num_samples == 5
    with pytest.raises(ValueError, match=r"`num_samples=8`, but `inputs` has 5 items. Pass `num_samples=5`, or"):
        Inputs(data, num_samples=8)
    repeated = Inputs(data, num_samples=8, repeat=True)
    assert torch.equal(images_of(Sampler(Plain(), inputs=repeated), 8, 3), uint8(PHOTOS[:5])[[0, 1, 2, 3, 4, 0, 1, 2]])
    assert repeated.protocol["repeated"]
    assert torch.equal(torch.stack(repeated.pick([6])), uint8(PHOTOS[1:2]))


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter([1])


class TwoArguments(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x


class Vae(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x, x.mean(), x.std()


class ByNumber(nn.Module):
    def sample_images(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(n, 3, 2, 2)


@pytest.mark.parametrize(
    ("module", "function", "items", "error", "message"),
    [
        (Plain(), None, Stream(), TypeError, "`inputs` must be a map-style Dataset.* but got Stream"),
        (Plain(), None, [], ValueError, "`inputs` is empty"),
        (TwoArguments(), None, [(PHOTOS[0], 1)], ValueError, r"takes \(x: .*generator: module\(batch\[0\]\)` with the"),
        (
            nn.Module(),
            None,
            [{"image": PHOTOS[0]}],
            ValueError,
            r"no `forward` of its own.*module\(batch\['image'\]\)`",
        ),
        (Plain(), None, ["a cat"], ValueError, "what it makes of texts is not known"),
        (Vae(), None, [PHOTOS[0]], TypeError, r"returned tuple, not images. Pass .*: module\(batch\)\[0\]`"),
        (nn.Conv2d(1, 1, 1), None, [uint8(PHOTOS[0])], RuntimeError, r"shape \(1, 3, 2, 2\) and type uint8 it raised"),
        (ByNumber(), None, [PHOTOS[0]], TypeError, r"it gets the batch in place of a number.* rename `n`"),
        (Plain(), lambda module, n, generator: n, [PHOTOS[0]], TypeError, "rename `n`"),
        (Plain(), lambda module: module, [PHOTOS[0]], TypeError, r"callable as sampler\(module, batch, generator\)"),
        (Plain(), None, [PHOTOS[0], PHOTOS[0, :, :1]], TypeError, "items 0 to 1 of `inputs` cannot be made a batch"),
    ],
)
def test_what_cannot_be_sampled(module: Any, function: Any, items: Any, error: type[Exception], message: str) -> None:
    def draw() -> None:
        inputs = Inputs(items)
        Sampler(module, function=function, inputs=inputs).draw(0, range(len(inputs)))

    with pytest.raises(error, match=message):
        draw()


def test_labels_are_those_of_the_batch() -> None:
    with pytest.raises(ValueError, match="`labels='uniform'` and `inputs` do not go together"):
        Sampler(Plain(), labels="uniform", inputs=Inputs([PHOTOS[0]]))
