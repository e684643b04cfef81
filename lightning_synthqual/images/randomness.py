"""Random numbers that depend on what is drawn, not on who draws it, and that leave no trace."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(*key: int) -> int:
    """A 64-bit seed from non-negative integers such as (seed, index); unlike keys give unrelated seeds.

    Example:
        >>> derived_seed(0, 1) == derived_seed(0, 1), derived_seed(0, 1) == derived_seed(1, 0)
        (True, False)
    """
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


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
    """Put every global generator back as it was, also after an exception."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)
