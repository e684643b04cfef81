import random
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_synthqual.images.randomness import Stream, derived_seed, preserved_generators, seed_global_generators

keys = st.lists(st.integers(0, 2**63), min_size=1, max_size=4)


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


@given(key=keys)
def test_a_seed_is_a_function_of_its_key_and_fits_64_bits(key: list[int]) -> None:
    assert derived_seed(*key) == derived_seed(*key)
    assert 0 <= derived_seed(*key) < 2**64


def test_keys_of_other_lengths_have_other_seeds() -> None:
    assert derived_seed(0, 4) != derived_seed(0, 4, 0)
    assert derived_seed(1, 2**32) != derived_seed(1, 0, 1)
    assert derived_seed(2**32 + 5) != derived_seed(5, 1)


def test_no_two_streams_share_a_number() -> None:
    assert len({int(stream) for stream in Stream.__members__.values()}) == len(Stream.__members__) == 7
    assert derived_seed(0, Stream.READ, 5) == derived_seed(0, int(Stream.READ), 5)


def test_neighbouring_keys_have_different_seeds() -> None:
    seeds = {derived_seed(a, b, c) for a in range(10) for b in range(10) for c in range(10)}
    assert len(seeds) == 1000


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**64 - 1])
def test_seeding_covers_every_global_generator(seed: int) -> None:
    with preserved_generators():
        seed_global_generators(seed)
        first = draws()
        seed_global_generators(seed)
        assert draws() == first
        seed_global_generators(seed ^ 5)
        assert all(one != other for one, other in zip(draws(), first, strict=True))


@pytest.mark.parametrize("fails", [False, True])
def test_generators_are_put_back_also_after_an_exception(fails: bool) -> None:
    with preserved_generators():
        expected = draws(), random.gauss(0, 1)
    random.seed(3)
    random.gauss(0, 1)  # leaves its twin in the state
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    with suppress(KeyError), preserved_generators():
        seed_global_generators(9)
        assert draws() != expected
        if fails:
            raise KeyError
    assert random.getstate() == python
    assert all(np.array_equal(one, other) for one, other in zip(np.random.get_state(), numpy, strict=True))  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), cpu)


def test_exceptions_pass_through() -> None:
    with pytest.raises(KeyError, match="mine"), preserved_generators():
        raise KeyError("mine")


def test_metal_is_seeded_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "manual_seed", seeds.append)
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    seed_global_generators(7)
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.set_rng_state(cpu)
    assert seeds == [7]


class Cuda:
    """Stands for a GPU's generators: seeds wait until the first use."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used, self.seed = False, None
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: self.used)
        monkeypatch.setattr(torch.cuda, "manual_seed_all", self.set)
        monkeypatch.setattr(torch.cuda, "seed_all", lambda: self.set("random"))
        monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: self.seed)
        monkeypatch.setattr(torch.cuda, "set_rng_state_all", self.set)

    def set(self, seed: object) -> None:
        self.seed = seed


@pytest.mark.parametrize("first_use", ["before", "inside", "afterwards"])
def test_cuda_keeps_the_seed_of_the_run_whenever_it_is_first_used(
    first_use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = Cuda(monkeypatch)
    with preserved_generators():
        torch.manual_seed(7)
        cuda.used = first_use == "before"
        with preserved_generators():
            cuda.used |= first_use == "inside"
            seed_global_generators(9)
            torch.manual_seed(11)  # a sampler that seeds by itself
            assert cuda.seed == 11
        assert cuda.seed == 7


@pytest.mark.parametrize(("used", "seed"), [(True, "random"), (False, None)])
def test_cuda_without_a_seed_is_not_given_one(used: bool, seed: object, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(monkeypatch)
    unseeded = torch.Generator().get_state()
    with preserved_generators():
        torch.set_rng_state(unseeded)
        with preserved_generators():
            cuda.used = used
            seed_global_generators(9)
        assert cuda.seed == seed
