from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_synthqual.distributed import Ranks
from lightning_synthqual.extractors import load
from lightning_synthqual.extractors.extraction import Extracted, Extraction, Wanted
from lightning_synthqual.images.blocks import Block
from lightning_synthqual.images.ranges import PixelRange
from lightning_synthqual.images.store import ImageStore

Pictures = Callable[..., Tensor]


def blocks_of(images: Tensor, size: int = 4, as_list: bool = False) -> Iterator[Block]:
    for start in range(0, len(images), size):
        part = images[start : start + size]
        yield Block(range(start, start + len(part)), list(part) if as_list else part, PixelRange())


def run(blocks: Iterator[Block], **wanted: Any) -> Extracted:
    extraction = Extraction({"pixels": load("pixels")}, Ranks(), torch.device("cpu"), Wanted(**wanted))
    return extraction.run(blocks, "reading", None, lambda stage, total: nullcontext(lambda count: None))


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize(("show", "stored", "kept"), [(6, None, 10), (6, 3, 3), (2, 7, 7), (0, 0, 0), (20, 1, 1)])
def test_the_first_images_are_shown_and_stored(
    pictures: Pictures, as_list: bool, show: int, stored: int | None, kept: int
) -> None:
    images = pictures(10, 4, 5)
    with ImageStore() as store:
        extracted = run(blocks_of(images, as_list=as_list), show=show, store=store, stored=stored)
        assert list(store) == list(range(kept))
        assert all(torch.equal(store[index], images[index]) for index in store)
    shown = extracted.shown
    assert shown is None if show == 0 else shown is not None and torch.equal(shown, images[:show])
    assert set(extracted.seconds) == {"reading", "extraction"}
    assert torch.equal(extracted.features["pixels"]["features"], load("pixels")(images)["features"])


class Copies(TorchDispatchMode):
    """Counts copies to the host."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("device") == torch.device("cpu") and args[0].is_meta:
            self.count += 1
            return torch.zeros(args[0].shape, dtype=args[0].dtype)
        return function(*args, **kwargs)


def test_a_block_is_copied_from_its_device_once_and_only_as_far_as_it_is_looked_at() -> None:
    images = torch.zeros(4, 3, 2, 2, dtype=torch.uint8, device="meta")
    for first, copies in ((0, 1), (4, 1), (8, 0)):
        block, shown = Block(range(first, first + 4), images, PixelRange()), dict[int, Tensor]()
        with ImageStore() as store, Copies() as counted:
            Wanted(3, store=store, stored=6).keep(block, shown)
            assert list(store) == list(range(first, min(first + 4, 6)))
        assert counted.count == copies
        assert list(shown) == list(range(first, 3))


@pytest.mark.parametrize("fails", [False, True])
def test_whoever_makes_the_blocks_is_ended_also_after_an_error(pictures: Pictures, fails: bool) -> None:
    ended = []

    def blocks() -> Iterator[Block]:
        try:
            yield from blocks_of(pictures(4, 2, 2) if not fails else pictures(4, 2, 2).float())
            yield from blocks_of(pictures(4, 2, 2))
        finally:
            ended.append(True)

    if fails:
        with pytest.raises(TypeError, match="uint8") as kept:
            run(_many(blocks()))
        assert kept.value is not None  # with its frames, which would keep an unended generator
    else:
        run(blocks())
    assert ended == [True]


def _many(blocks: Iterator[Block]) -> Iterator[Block]:
    """The blocks with enough images for a pass of the extractors."""
    for block in blocks:
        images = block.images
        assert isinstance(images, Tensor)
        yield Block(range(100), images.repeat(25, 1, 1, 1), block.seen)
