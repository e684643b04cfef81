import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from lightning_synthqual.images import reader
from lightning_synthqual.images.items import Items
from lightning_synthqual.images.randomness import preserved_generators
from lightning_synthqual.images.reader import Reader, default_workers, not_shared
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.images.source import Images

Pictures = Callable[..., Tensor]


class Told(Dataset[Tensor]):
    """Says in its pixels which process read them."""

    def __init__(self, count: int, seconds: float = 0.0) -> None:
        self.count = count
        self.seconds = seconds

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        time.sleep(self.seconds)
        return torch.tensor([index, os.getpid() == PARENT], dtype=torch.uint8).reshape(1, 1, 2)


PARENT = os.getpid()


def reader_of(dataset: Any, **options: Any) -> Reader:
    image_set = ImageSet(dataset, "real", declared=(0.0, 1.0))
    return Reader(image_set.items, **options)


def read(dataset: Any, **options: Any) -> list[Tensor]:
    with preserved_generators():
        return [item.image for item in reader_of(dataset, **options).read(range(len(dataset)))]


def in_workers(images: list[Tensor]) -> int:
    return sum(int(image[0, 0, 1]) == 0 for image in images)


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Any:
    yield
    assert multiprocessing.active_children() == []


def test_the_order_stays_and_workers_read_all_but_the_first_items() -> None:
    images = read(Told(200), workers=2)
    assert [int(image[0, 0, 0]) for image in images] == list(range(200))
    assert in_workers(images) == 200 - 16


@pytest.mark.parametrize(("count", "workers"), [(31, 2), (200, 0)])
def test_few_items_and_no_workers_are_read_here(count: int, workers: int) -> None:
    assert in_workers(read(Told(count), workers=workers)) == 0


def test_without_a_number_only_slow_data_get_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_WORTHWHILE", 0.25)
    monkeypatch.setattr(reader, "default_workers", lambda processes: 2)
    assert in_workers(read(Told(48, seconds=0.015))) == 32
    assert in_workers(read(Told(48))) == 0


def test_processes_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(24))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert [default_workers(processes) for processes in (1, 4, 48)] == [8, 6, 0]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "12")
    assert default_workers(96) == 2


class Noisy(Dataset[Tensor]):
    """Draws from every global generator; of no fixed size; floats; cannot be pickled."""

    def __init__(self) -> None:
        self.transform = lambda value: value / 2

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int) -> Tensor:
        values = torch.tensor([random.random(), np.random.rand(), float(torch.rand(()))])  # noqa: NPY002
        return self.transform(values.float()).reshape(1, 1, 3).expand(1, 1 + index % 3, 3)


def test_augmentations_and_values_seen_are_the_same_as_without_workers() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate()
    sets = [ImageSet(Noisy(), "real", declared=(0.0, 1.0), num_workers=workers) for workers in (0, 2)]
    with preserved_generators():
        here, there = (list(each.read(7)) for each in sets)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    for one, other in zip(here, there, strict=True):
        assert one.positions == other.positions
        assert one.seen == other.seen
        assert all(torch.equal(a, b) for a, b in zip(one.images, other.images, strict=True))


def test_reading_ahead_leaves_the_generators_alone() -> None:
    images = reader_of(Told(64), workers=2).read(range(64))
    for _ in range(16):
        next(images)
    before = torch.get_rng_state()
    assert len(list(images)) == 48
    assert torch.equal(torch.get_rng_state(), before)


def test_a_broken_file_is_named_as_without_workers(tmp_path: Path, pictures: Pictures) -> None:
    for number, image in enumerate(pictures(60, 3, 3)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{number:02}.png")
    (tmp_path / "40.png").write_bytes(b"")
    messages = []
    for workers in (0, 2):
        with pytest.raises(ValueError, match=r"The image `.*40\.png` could not be read .* Repair or remove it") as info:
            list(ImageSet(tmp_path, "real", num_workers=workers).read(8))
        messages.append(str(info.value))
    assert messages[0] == messages[1]


class OnlyHere(Told):
    """What a worker cannot read, as what needs a GPU."""

    def __getitem__(self, index: int) -> Tensor:
        if index >= 40 and os.getpid() != PARENT:
            raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")
        return super().__getitem__(index)


class Fatal(Told):
    """Kills the worker that reads it."""

    def __getitem__(self, index: int) -> Tensor:
        if index == 150 and os.getpid() != PARENT:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


@pytest.mark.parametrize("kind", [OnlyHere, Fatal])
def test_what_workers_cannot_read_is_read_here(kind: type[Told], caplog: pytest.LogCaptureFixture) -> None:
    images = read(kind(200), workers=2)
    assert [int(image[0, 0, 0]) for image in images] == list(range(200))
    assert [record.message for record in caplog.records] == [
        "`real` is read without worker processes from now on: one has failed."
    ]


class Holder(Told):
    """Holds something."""

    def __init__(self, held: Any) -> None:
        super().__init__(64)
        self.held = held


@pytest.mark.parametrize(
    ("held", "why"),
    [
        (open, None),
        (lambda value: value, None),
        ([torch.zeros(3), np.zeros(3)], None),
        (torch.Generator(), "a random generator"),
        (np.random.default_rng(0), "a random generator"),
        (threading.Lock(), "cannot share"),
    ],
)
def test_what_processes_cannot_share_is_told(held: Any, why: str | None) -> None:
    found = not_shared(Subset(Holder(held), range(3)))
    assert found is None if why is None else why in str(found)


def test_an_open_file_is_not_shared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (tmp_path / "data").open("wb") as file:
        assert in_workers(read(Holder(file), workers=2)) == 0
    assert "read without worker processes: it holds what processes cannot share" in caplog.text


class Archive(Dataset[Tensor]):
    """Reads one file, which it opens once in each process that unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> Tensor:
        self._file = self._file or self.path.open("rb", buffering=0)
        self._file.seek(index)
        time.sleep(0.0005)
        return torch.tensor(list(self._file.read(1)), dtype=torch.uint8).reshape(1, 1, 1)


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: ConcatDataset([Subset(data, range(400))])])
def test_workers_open_files_of_their_own(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    (tmp_path / "data").write_bytes(bytes(index % 251 for index in range(400)))
    images = read(wrap(Archive(tmp_path / "data")), workers=2)
    assert [int(image[0, 0, 0]) for image in images] == [index % 251 for index in range(400)]


def test_messages_fit_into_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader.shutil, "disk_usage", lambda _: SimpleNamespace(free=64 * 2**20))
    assert 8 * 3 * reader._chunk_bytes(8) <= 32 * 2**20
    monkeypatch.setattr(reader, "_SHARED_MEMORY", tmp_path / "none")
    assert reader._chunk_bytes(2) <= 2**23


def test_where_processes_cannot_start_it_is_read_here(caplog: pytest.LogCaptureFixture) -> None:
    class Local(Told):
        """A class that a new interpreter does not find."""

    images = read(Local(64), workers=2, context="spawn")
    assert in_workers(images) == 0
    assert len(images) == 64
    assert "they cannot start" in caplog.text


def test_a_reader_that_is_given_up_ends_its_workers() -> None:
    images = reader_of(Told(400), workers=2).read(range(400))
    for _ in range(20):
        next(images)
    assert multiprocessing.active_children()
    images.close()  # type: ignore[attr-defined]


def test_items_may_be_read_in_any_order_and_of_any_images() -> None:
    items = Items(Told(64), "`real`", Images(None), ImageSet([torch.zeros(3, 1, 1)], "real").declaration, None, 0)
    order = [*range(63, -1, -1)]
    assert [int(item.image[0, 0, 0]) for item in Reader(items, 2).read(order)] == order
