"""Data that differ between processes are parts of one set."""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_synthqual.images.parts import Parts, check_disjoint
from lightning_synthqual.images.reference import ImageSet


def test_without_parts_nothing_changes() -> None:
    parts = Parts()
    assert not parts.divided
    assert parts.turn(2, 5) == (2, 5)
    assert parts.offset([3, 4, 5]) == 0
    assert parts.counted([3, 4, 5]) == parts
    assert parts.quota(7) == 7
    assert parts.describe() == {}
    assert not Parts.of(["a", "a", "a"], 2).divided


def test_each_process_has_its_turn_in_its_part() -> None:
    contents = ["a", "b", "a", "c", "b", "a"]
    parts = [Parts.of(contents, rank) for rank in range(6)]
    assert [part.turn(rank, 6) for rank, part in enumerate(parts)] == [(0, 3), (0, 2), (1, 3), (0, 1), (1, 2), (2, 3)]
    assert [part.offset([1, 2, 3, 4, 5, 6]) for part in parts] == [0, 10, 0, 17, 10, 0]
    assert parts[4].counted([1, 2, 3, 4, 5, 6]).items == (10, 7, 4)
    assert [parts[rank].quota(8) for rank in (0, 1, 3)] == [3, 3, 2]


def test_the_same_images_in_another_order_are_not_parts() -> None:
    digests = torch.randint(0, 256, (50, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    check_disjoint(torch.cat([digests, digests[:10]]), "`real`")
    with pytest.raises(ValueError, match="of 100 images only 50 are different"):
        check_disjoint(torch.cat([digests, digests.flip(0)]), "`real`")


class Stream(IterableDataset[Any]):
    def __init__(self, items: Any) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        yield from self.items


def gathered(sources: list[Any], **options: Any) -> list[ImageSet]:
    """The sets of processes that have these data, after they were compared."""
    sets = [ImageSet(source, "real", **options) for source in sources]
    facts: list[Any] = []
    for image_set in sets:
        image_set.compare(lambda own: facts.append(own) or [own], 0)
    for rank, image_set in enumerate(sets):
        image_set.compare(lambda _: facts, rank)
    return sets


def levels_of(image_set: ImageSet, rank: int, world_size: int) -> list[int]:
    blocks = image_set.read(4, rank, world_size)
    return [int(image[0, 0, 0]) for block in blocks for image in block.images]


LEVELS = torch.arange(101, dtype=torch.uint8).reshape(101, 1, 1, 1)


@pytest.mark.parametrize("kind", [list, Stream, lambda items: DataLoader(items, batch_size=3)])
def test_equal_data_are_shared_and_parts_are_read_whole(kind: Callable[[Any], Any]) -> None:
    same = gathered([kind(list(LEVELS)) for _ in range(3)])
    assert not any(image_set.parts.divided for image_set in same)
    assert sorted(level for rank, each in enumerate(same) for level in levels_of(each, rank, 3)) == list(range(101))
    parts = gathered([kind(list(LEVELS[rank::3])) for rank in range(3)])
    read = [levels_of(each, rank, 3) for rank, each in enumerate(parts)]
    assert read == [list(range(rank, 101, 3)) for rank in range(3)]
    counts = [len(each) for each in read]
    assert [each.parts.offset(counts) for each in parts] == [0, 34, 68]
    assert parts[1].parts.counted(counts).describe() == {"parts": {"of_rank": [0, 1, 2], "items": [34, 34, 33]}}


def test_processes_of_one_machine_share_its_part() -> None:
    halves = [list(LEVELS[:51]), list(LEVELS[51:])]
    sets = gathered([halves[0], halves[0], halves[1], halves[1]])
    read = [levels_of(each, rank, 4) for rank, each in enumerate(sets)]
    assert sorted(chain(*read)) == list(range(101))
    assert sorted(read[0] + read[1]) == list(range(51))
    assert len(sets[3]) == 101
    assert sets[3].describe() == {"parts": {"of_rank": [0, 0, 1, 1], "items": [51, 50]}}


@pytest.mark.parametrize("kind", [list, Stream])
def test_of_parts_as_many_images_are_taken_as_were_asked_for(kind: Callable[[Any], Any]) -> None:
    sets = gathered([kind(list(LEVELS[rank::3])) for rank in range(3)], num_images=20)
    read = [level for rank, each in enumerate(sets) for level in levels_of(each, rank, 3)]
    assert len(set(read)) == len(read) == 20
    assert not sets[0].holds_all(20)
    assert gathered([kind(list(LEVELS[rank::3])) for rank in range(3)])[0].holds_all(101)


def test_augmentations_with_random_numbers_of_their_own_are_no_parts() -> None:
    class Jittered(Dataset[Tensor]):
        def __init__(self, seed: int) -> None:
            self.generator = np.random.default_rng(seed)

        def __len__(self) -> int:
            return 30

        def __getitem__(self, index: int) -> Tensor:
            return torch.from_numpy(self.generator.integers(0, 256, (3, 2, 2), np.uint8))

    assert not gathered([Jittered(0), Jittered(1)])[0].parts.divided


def test_parts_have_one_stamp_size_and_list_of_skipped_images(tmp_path: Path, array: NDArray[np.uint8]) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.fromarray(array if name == "a" else array[:5]).save(tmp_path / name / "x.png")
        (tmp_path / name / f"{name}.png").touch()
    sets = gathered([tmp_path / "a", tmp_path / "b"], skip_unreadable=True)
    assert sets[0].stamp() == sets[1].stamp() != ImageSet(tmp_path / "a", "real", skip_unreadable=True).stamp()
    assert [each.first_size() for each in sets] == [[9, 7], [9, 7]]
    assert [each.skipped for each in sets] == [["a.png", "b.png"]] * 2


def test_parts_give_no_single_images_or_labels() -> None:
    image_set = gathered([[(level, 3) for level in LEVELS[rank::2]] for rank in range(2)])[0]
    for call in (lambda: image_set.pick([0]), lambda: image_set.label(0), image_set.check_whole):
        with pytest.raises(ValueError, match="processes have different parts of it"):
            call()
    assert ImageSet([(LEVELS[0], 3)], "real").parts == Parts()
