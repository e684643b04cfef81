import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import mannwhitneyu
from sklearn.cluster import KMeans
from torch import Tensor

from lightning_synthqual.metrics import authenticity, copying, data_copying_test
from lightning_synthqual.metrics.copying import Partition, WithinTraining, copying_statistic

Golden = Callable[[str], tuple[Tensor, ...]]
Cloud = Callable[..., Tensor]

# dgm-eval (commit 74c79f7), metrics.authpct.compute_authpct, in per cent; exact float64 distances give the same.
GOLDEN_AUTHENTICITY = {
    "A": 76.25,
    "B": 97.6,
    "C": 37.333333333333336,
    "D": 0.0,
    "E": 37.666666666666664,
    "F": 52.5,
}
# dgm-eval (commit 74c79f7), metrics.ct.Zu: one global cell, no principal components.
GOLDEN_ONE_CELL = {
    "A": 2.3928853249407274,
    "B": 23.055882136422532,
    "C": -15.474318074160148,
    "D": -23.70211514184448,
    "E": -13.903210784696162,
}
# dgm-eval, metrics.ct.compute_CTscore: lowest and highest of five or ten seeds of k-means.
GOLDEN_CELLS = {
    "A": (0.7917469495737648, 1.4309941027622817),
    "B": (10.08841392041249, 10.504532010056375),
    "C": (-4.442991029481903, -3.5880823424895656),
    "D": (-16.493908563350494, -15.113445793981777),
}


@pytest.mark.parametrize(("case", "expected"), GOLDEN_AUTHENTICITY.items())
def test_golden_authenticity(golden: Golden, case: str, expected: float) -> None:
    train, fake, _ = golden(case)
    assert authenticity(train, fake).item() == pytest.approx(expected / 100, abs=1e-9)


def test_copies_are_not_authentic_and_far_rows_are(cloud: Cloud) -> None:
    train = cloud(0, 40, 8)
    assert authenticity(train, train).item() == 0.0
    assert authenticity(train, train[:1].expand(9, -1)).item() == 0.0
    assert authenticity(train, train + 100.0).item() == 1.0


@pytest.mark.parametrize(("case", "expected"), GOLDEN_ONE_CELL.items())
def test_golden_one_cell(golden: Golden, case: str, expected: float) -> None:
    train, fake, held_out = golden(case)
    assert data_copying_test(train, held_out, fake, cells=1).item() == pytest.approx(expected, rel=1e-9)


def test_golden_cells_that_k_means_always_finds(golden: Golden) -> None:
    """Case E has three clear clusters."""
    train, fake, held_out = golden("E")
    for seed in range(3):
        assert data_copying_test(train, held_out, fake, seed=seed).item() == pytest.approx(-8.014206853947787, rel=1e-6)


@pytest.mark.parametrize(("case", "lowest", "highest"), [(case, *limits) for case, limits in GOLDEN_CELLS.items()])
def test_golden_cells_within_the_range_of_seeds(golden: Golden, case: str, lowest: float, highest: float) -> None:
    train, fake, held_out = golden(case)
    margin = max(highest - lowest, 0.5) / 2
    assert lowest - margin <= data_copying_test(train, held_out, fake).item() <= highest + margin


def by_definition(sets: list[Tensor], labels: list[Tensor]) -> float:
    weights, scores = [], []
    for cell in range(int(labels[0].max()) + 1):
        train, held_out, fake = (rows[label == cell] for rows, label in zip(sets, labels, strict=True))
        if len(fake) > 20:
            ours, theirs = (torch.cdist(rows, train).amin(dim=1).numpy() for rows in (fake, held_out))
            n, m = len(theirs), len(ours)
            wins = mannwhitneyu(ours, theirs).statistic
            scores.append((wins - (n * m / 2 - 0.5)) / (n * m * (n + m + 1) / 12) ** 0.5)
            weights.append(n)
    return sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights)


@pytest.mark.parametrize("case", ["A", "D", "E"])
def test_given_cells(golden: Golden, case: str) -> None:
    train, fake, held_out = golden(case)
    sets = [rows.double() for rows in (train, held_out, fake)]
    means = KMeans(3, n_init=10, random_state=5).fit(sets[0].numpy())
    labels = [torch.from_numpy(means.predict(rows.numpy())).long() for rows in sets]
    partition = Partition(sets[0], 3, labels=labels[0])
    distances = [partition.distances(rows, labels=cells) for rows, cells in zip(sets[1:], labels[1:], strict=True)]
    assert copying_statistic(*distances).item() == pytest.approx(by_definition(sets, labels), rel=1e-9)


def test_copies_fresh_rows_and_far_rows(cloud: Cloud) -> None:
    train, held_out, fresh = (cloud(seed, 200, 8) for seed in range(3))
    assert data_copying_test(train, held_out, train + 1e-3).item() < -8
    assert abs(data_copying_test(train, held_out, fresh).item()) < 3
    assert data_copying_test(train, held_out, fresh + 5.0, cells=1).item() > 8


def test_seed_decides(cloud: Cloud) -> None:
    sets = [cloud(seed, 120, 6) for seed in range(3)]
    before = torch.get_rng_state()
    assert data_copying_test(*sets, seed=1) == data_copying_test(*sets, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells": 0}, "`cells` must be from 1"),
        ({"held_out": torch.zeros(30, 3)}, "equally many columns, but got D=4 and D=3"),
        ({"fake": torch.zeros(20, 4)}, "No cell has more than 20 of the 20 `fake` rows"),
        ({"fake": torch.full((30, 4), torch.nan)}, "`fake` .*NaN or infinity, first in row 0"),
        ({"held_out": torch.zeros(1, 4)}, "`held_out` has 1 feature rows"),
        ({"train": torch.zeros(30, 4).int()}, "`train` .*got torch.int32"),
    ],
)
def test_bad_input(cloud: Cloud, changes: dict[str, Any], message: str) -> None:
    arguments = {name: cloud(seed, 30, 4) for seed, name in enumerate(("train", "held_out", "fake"))}
    with pytest.raises(ValueError, match=message):
        data_copying_test(**{**arguments, **changes})


def test_a_cell_without_held_out_rows_is_named(cloud: Cloud) -> None:
    near = cloud(0, 40, 4)
    train = torch.cat([near, near + 1000.0])
    with pytest.raises(ValueError, match=r"Cell \d has 0 held-out rows, but needs some.*fewer `cells`"):
        data_copying_test(train, near + 0.1, train, cells=2)


@pytest.mark.parametrize("role", ["train", "fake"])
def test_authenticity_names_the_role(cloud: Cloud, role: str) -> None:
    arguments: dict[str, Any] = {"train": cloud(0, 9, 3), "fake": cloud(1, 9, 3)}
    arguments[role] = arguments[role][:1]
    with pytest.raises(ValueError, match=f"`{role}` has 1 feature rows"):
        authenticity(**arguments)


def test_distances_within_training_are_sought_for_neighbours_only_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    found = copying.search

    def counting(queries: Tensor, *args: Any, **named: Any) -> Any:
        asked.append(len(queries))
        return found(queries, *args, **named)

    draw = torch.Generator().manual_seed(0)
    train, fake = torch.randn(500, 6, generator=draw), torch.randn(20, 6, generator=draw)
    train[7] = train[9]  # at no distance from each other
    fake[0] = train[7]
    within = WithinTraining(train)
    nearest = found(fake, train, 1)
    monkeypatch.setattr(copying, "search", counting)
    first = within.authentic(nearest)
    assert asked == [len(nearest.indices.unique())]
    assert torch.equal(within.authentic(nearest), first)
    assert len(asked) == 1
    distances = torch.cdist(train.double(), train.double()).fill_diagonal_(torch.inf).min(dim=1).values
    expected = nearest.distances[:, 0].sqrt() > distances[nearest.indices[:, 0]] + 1e-6
    expected[0] = False
    assert first.bool().tolist() == expected.tolist()


def nearest_in_cells(train: Tensor, queries: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Squared distances of queries to the training rows of their cells, as found and by the axes of the covariance."""
    partition = Partition(train, 2)
    found, cells = partition.distances(queries)
    axes = torch.linalg.eigh(torch.cov(train.T)).eigenvectors[:, -kept:]
    squared = torch.cdist(queries @ axes, train @ axes, compute_mode="donot_use_mm_for_euclid_dist").square()
    squared[cells[:, None] != partition.labels] = torch.inf
    return found, squared.amin(dim=1)


@pytest.mark.parametrize(("count", "columns", "kept"), [(30, 80, 29), (61, 100, 60), (70, 80, 64), (90, 80, 64)])
def test_axes_of_few_rows_are_those_of_their_covariance(cloud: Cloud, count: int, columns: int, kept: int) -> None:
    """They are found from the Gram matrix where that is the smaller one."""
    found, expected = nearest_in_cells(cloud(0, count, columns), cloud(1, 25, columns), kept)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_axes_of_few_rows_of_many_columns_take_no_time(cloud: Cloud) -> None:
    """The covariance of 3072 columns takes tens of seconds, the Gram matrix of 61 rows a few milliseconds."""
    rows = torch.randn(61, 3072, generator=torch.Generator().manual_seed(0))
    started = time.perf_counter()
    Partition(rows, 2)
    assert time.perf_counter() - started < 5


def test_axes_of_rows_that_do_not_span_them(cloud: Cloud) -> None:
    """Of 39 axes 36 are of no length: they must neither become NaN nor add anything."""
    plane = torch.randn(3, 80, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, expected = nearest_in_cells(cloud(0, 40, 3) @ plane, cloud(1, 25, 3) @ plane, 3)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
