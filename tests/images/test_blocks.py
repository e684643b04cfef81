from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_synthqual.images.blocks import Block, blocks, own_turns
from lightning_synthqual.images.pixels import PixelRange

Pictures = Callable[..., Tensor]
counts, sizes = st.integers(0, 50), st.integers(1, 20)


@given(count=counts, size=sizes)
def test_blocks_cut_the_range_in_order(count: int, size: int) -> None:
    cut = blocks(count, size)
    assert [position for block in cut for position in block] == list(range(count))
    assert all(len(block) == size for block in cut[:-1])
    assert all(len(block) > 0 for block in cut)


@given(count=counts, size=sizes, world_size=st.integers(1, 7))
def test_turns_of_all_processes_are_every_block_once(count: int, size: int, world_size: int) -> None:
    turns = [list(own_turns(count, size, rank, world_size)) for rank in range(world_size)]
    counted = sorted((number, block) for own in turns for number, block, counts in own if counts)
    assert counted == list(enumerate(blocks(count, size)))
    assert len({len(own) for own in turns}) == 1
    assert all((number, block) == (0, blocks(count, size)[0]) for own in turns for number, block, c in own if not c)


def test_a_tensor_is_one_stack(pictures: Pictures) -> None:
    images = pictures(4, 5, 6)
    ((places, stack),) = Block(range(4), images, PixelRange()).stacks()
    assert places == [0, 1, 2, 3]
    assert stack is images


def test_unlike_sizes_are_stacked_apart_with_their_places(pictures: Pictures) -> None:
    wide, tall = pictures(3, 4, 8), pictures(2, 8, 4)
    images = [wide[0], tall[0], wide[1], wide[2], tall[1]]
    stacks = list(Block(range(10, 15), images, PixelRange()).stacks())
    assert [places for places, _ in stacks] == [[0, 2, 3], [1, 4]]
    assert torch.equal(stacks[0][1], wide)
    assert torch.equal(stacks[1][1], tall)


def test_digests_tell_pixels_and_shapes_apart(pictures: Pictures) -> None:
    image = pictures(1, 4, 6)[0]
    changed = image.clone()
    changed[2, 3, 5] ^= 1
    images = [image, image.clone(), changed, image.reshape(3, 6, 4)]
    rows = Block(range(4), images, PixelRange()).digests()
    assert (rows.shape, rows.dtype) == ((4, 32), torch.uint8)
    assert torch.equal(rows[0], rows[1])
    assert len({tuple(row.tolist()) for row in rows}) == 3


@pytest.mark.parametrize("as_list", [True, False])
def test_digests_do_not_depend_on_memory_layout(pictures: Pictures, as_list: bool) -> None:
    images = pictures(2, 4, 6)
    strided = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    expected = Block(range(2), images, PixelRange()).digests()
    assert torch.equal(Block(range(2), list(strided) if as_list else strided, PixelRange()).digests(), expected)
