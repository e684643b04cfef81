"""Random numbers that depend on what is generated, not on which process generates it, and that leave no trace."""

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import IntEnum
from functools import partial

import numpy as np
import torch


class Stream(IntEnum):
    """Every stream of random numbers; a seed is derived from (seed, stream, index), so that no two share numbers."""

    SAMPLE = 1  # noise and label of a generated image
    BLOCK = 2  # a block of generated images: the sampler's generator and the global generators
    READ = 3  # the augmentations of a real item
    SELECT = 4  # which real items are used
    PATH_PAIR = 5  # the latents of a path's ends, and where between them the step begins
    PATH_BLOCK = 6  # a block of path ends: noise buffers and the global generators
    CHECK = 7  # which items of a data set stand for all


def derived_seed(*key: int) -> int:
    """A 64-bit seed from integers such as (seed, stream, index); different keys give unrelated seeds.

    Example:
        >>> derived_seed(0, 1) == derived_seed(0, 1), derived_seed(0, 1) == derived_seed(0, 1, 0)
        (True, False)
    """
    text = ",".join(str(int(number)) for number in (len(key), *key))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def seed_global_generators(seed: int) -> None:
    """Seed python's, numpy's and torch's global generators (CUDA's and MPS's where they are in use)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - what users' modules draw from
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


@contextmanager
def preserved_generators() -> Iterator[None]:
    """Restore the global generators of python, numpy, torch, CUDA and MPS, also after an exception.

    CUDA has no state before its first use: a seed waits until then. Where that first use is inside the context, its
    generators get the seed of `torch.manual_seed`, as they would have without the context; without such a seed they
    are seeded at random, as CUDA does. A seed given before the first use by `torch.cuda.manual_seed` alone is lost.
    """
    with ExitStack() as stack:
        for restore in (_python(), _numpy(), _cpu(), _cuda(), _mps()):
            stack.callback(restore)
        yield


def _python() -> Callable[[], None]:
    return partial(random.setstate, random.getstate())


def _numpy() -> Callable[[], None]:
    return partial(np.random.set_state, np.random.get_state())  # noqa: NPY002


def _cpu() -> Callable[[], None]:
    return partial(torch.set_rng_state, torch.get_rng_state())


def _cuda() -> Callable[[], None]:
    if torch.cuda.is_initialized():
        return partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
    seed = torch.initial_seed()
    if seed != torch.Generator().initial_seed():
        return partial(torch.cuda.manual_seed_all, seed)
    return _seed_cuda_at_random


def _seed_cuda_at_random() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.seed_all()


def _mps() -> Callable[[], None]:
    if not torch.backends.mps.is_available():
        return lambda: None
    return partial(torch.mps.set_rng_state, torch.mps.get_rng_state())
