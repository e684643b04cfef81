import math

import pytest
import torch

from lightning_synthqual.audit.scoring import Change, joined_error
from lightning_synthqual.metrics.base import Influence


def of_mean(fake, real):
    """The influences on mean(fake) - mean(real)."""
    return Influence(fake.mean() - real.mean(), fake - fake.mean(), real.mean() - real)


@pytest.mark.parametrize(
    ("value", "change", "std", "direction", "told"),
    [
        (1.0, 3.1, 1.0, "min", "worse"),
        (1.0, 3.1, 1.0, "max", "better"),
        (1.0, -3.1, 1.0, "min", "better"),
        (1.0, 3.0, 1.0, "min", None),
        (1.0, 0.0, 0.0, "min", None),
        (1.0, 1e-9, 0.0, "min", "worse"),
        (1.0, 3.1, None, "min", None),
        (1.0, 3.1, math.nan, "min", None),
        (1.0, 3.1, math.inf, "min", None),
        (math.nan, math.nan, 1.0, "min", None),
        (math.inf, math.inf, 1.0, "min", None),
        (1.0, -math.inf, 1.0, "min", None),
    ],
)
def test_a_change_is_told_beyond_three_errors_if_it_is_a_number(value, change, std, direction, told):
    assert Change(value, change, std).told(direction) == told


def draws(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_error_of_dropped_rows_is_the_spread_of_the_difference():
    kept = torch.arange(300)[torch.arange(300) % 3 > 0]
    other = torch.arange(300)[100:]  # as many, of which a part is the same
    fakes, reals = draws(2000, 300), draws(2000, 80, seed=1)
    errors = [
        joined_error(of_mean(fake[kept], real), of_mean(fake[other], real), kept, other, 300)
        for fake, real in zip(fakes[:50], reals[:50], strict=True)
    ]
    spread = (fakes[:, kept].mean(1) - fakes[:, other].mean(1)).std()
    shared = len(set(kept.tolist()) & set(other.tolist()))
    assert sum(errors) / 50 == pytest.approx(float(spread), rel=0.05)
    assert sum(errors) / 50 == pytest.approx(math.sqrt(2 * (200 - shared)) / 200, rel=0.05)


def test_repeated_rows_and_copies_of_real_rows_add_up_by_image():
    fake, real = draws(200), draws(100, seed=1)
    everything = torch.arange(200)
    repeated = torch.cat([everything[:100], everything[:100]])
    found = joined_error(of_mean(fake[repeated], real), of_mean(fake, real), repeated, everything, 200)
    assert found == pytest.approx(math.sqrt(200) / 200, rel=0.1)  # each image counts by 1/200 more, or less
    copied = torch.cat([everything[:150], 200 + torch.arange(50)])
    rows = torch.cat([fake, real])[copied]
    found = joined_error(of_mean(rows, real), of_mean(fake, real), copied, everything, 200)
    assert found == pytest.approx(math.sqrt(2 * 50) / 200, rel=0.15)


def test_a_set_against_itself_has_no_error():
    fake, real = draws(30), draws(20, seed=1)
    both = of_mean(fake, real)
    assert joined_error(both, both, torch.arange(30), torch.arange(30), 30) == 0
