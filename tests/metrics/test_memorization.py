from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from lightning_synthqual import evaluate
from lightning_synthqual.evaluation.plan import make_plan
from lightning_synthqual.metrics import Memorization, authenticity, data_copying_test, memorization, nearest_neighbors
from lightning_synthqual.metrics.catalogue import CATALOGUE, metrics_by_name
from lightning_synthqual.metrics.clusters import clustered_variance, mean_parts, median_parts
from lightning_synthqual.metrics.memorization import RealNeighbors
from lightning_synthqual.metrics.shard import Shard
from lightning_synthqual.metrics.views import Generated, RealSets, SetView

Cloud = Callable[..., Tensor]
InShards = Callable[[int, Callable[[Shard], Any]], list[Any]]


def gaussian(seed: int, count: int = 600, columns: int = 64) -> Tensor:
    return torch.randn(count, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def sets() -> tuple[Tensor, Tensor, Tensor]:
    """Training, held-out and further rows of one distribution."""
    return gaussian(0), gaussian(1), gaussian(2)


def within(value: Tensor, expected: float, tolerance: float) -> bool:
    return abs(value.item() - expected) <= tolerance


def test_fresh_rows_show_no_preference(sets: tuple[Tensor, Tensor, Tensor]) -> None:
    found = memorization(*sets)
    assert within(found.closer_to_train, 0.5, 0.08)
    assert found.copy_fraction == 0
    assert within(found.train_held_out_ratio, 1.0, 0.02)
    assert within(found.authenticity, found.authenticity_held_out.item(), 0.08)
    assert within(found.copying_test, 0.0, 3.0)


def test_a_tenth_of_copies(sets: tuple[Tensor, Tensor, Tensor]) -> None:
    train, held_out, fresh = sets
    found = memorization(train, held_out, torch.cat([train[:60], fresh[60:]]))
    assert within(found.copy_fraction, 0.1, 1e-9)
    assert within(found.closer_to_train, 0.55, 0.06)
    assert found.train_distance_q05 == 0 < found.null_distance_q05


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_noisy_copies(sets: tuple[Tensor, Tensor, Tensor], distance: Any) -> None:
    train, held_out, fresh = sets
    found = memorization(train, held_out, train + 0.2 * fresh, distance=distance)
    assert found.copy_fraction > 0.95
    assert found.closer_to_train == 1
    assert found.authenticity < 0.01
    assert found.copying_test < -10
    assert found.train_held_out_ratio < 0.3


def test_a_shrunk_generator_is_mistaken_by_two_figures_and_not_by_the_others(
    sets: tuple[Tensor, Tensor, Tensor],
) -> None:
    train, held_out, fresh = sets
    found = memorization(train, held_out, 0.5 * fresh, distance="euclidean")
    assert found.copy_fraction == 0
    assert found.copying_test < -10
    assert found.authenticity < 0.1 < found.authenticity_held_out
    assert within(found.train_held_out_ratio, 1.0, 0.05)


def test_a_collapsed_generator_gives_finite_values(sets: tuple[Tensor, Tensor, Tensor]) -> None:
    train, held_out, fresh = sets
    assert torch.isfinite(torch.stack(memorization(train, held_out, fresh[:1].expand(100, -1)))).all()


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize(("train_rows", "held_out_rows"), [(90, 60), (60, 90), (70, 70)])
def test_values_by_their_definitions(cloud: Cloud, distance: Any, train_rows: int, held_out_rows: int) -> None:
    train, held_out, fake = cloud(0, train_rows, 5), cloud(1, held_out_rows, 5), cloud(2, 150, 5)
    found = memorization(train, held_out, fake, distance=distance, seed=3)

    def distances(x: Tensor, y: Tensor) -> Any:
        if distance == "euclidean":
            return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").numpy()
        x, y = (torch.nn.functional.normalize(rows) for rows in (x, y))
        return (1 - x @ y.T).numpy()

    count = min(train_rows, held_out_rows)

    def some(rows: Tensor) -> Tensor:
        return rows[np.sort(np.random.default_rng(3).permutation(len(rows))[:count])]

    to_train, to_held_out = (distances(fake, some(rows)).min(1) for rows in (train, held_out))
    null = distances(some(held_out), some(train)).min(1)
    nearest = np.sort(distances(fake, train), axis=1)
    expected = {
        "closer_to_train": (to_train < to_held_out).mean(),
        "copy_fraction": (nearest[:, 0] < nearest[:, 1] / 3).mean(),
        "train_held_out_ratio": np.median(to_train) / np.median(to_held_out),
    }
    for name, values in {"train": to_train, "held_out": to_held_out, "null": null}.items():
        expected[f"{name}_distance"] = np.median(values)
        expected[f"{name}_distance_q01"] = np.quantile(values, 0.01)
        expected[f"{name}_distance_q05"] = np.quantile(values, 0.05)
    if distance == "euclidean":
        expected["authenticity"] = authenticity(train, fake).item()
        expected["authenticity_held_out"] = authenticity(train, held_out).item()
        expected["copying_test"] = data_copying_test(some(train), some(held_out), fake, seed=3).item()
    for name, value in expected.items():
        assert getattr(found, name).item() == pytest.approx(value, rel=1e-9, abs=1e-12), name
        assert getattr(found, name).dtype == torch.float64


def test_a_copy_does_not_hide_in_the_part_of_train_that_is_left_out(sets: tuple[Tensor, Tensor, Tensor]) -> None:
    train, held_out, fresh = sets
    assert memorization(train, held_out[:30], torch.cat([train[::10], fresh[:60]])).copy_fraction == 0.5


def test_a_copy_of_a_row_that_is_there_twice(sets: tuple[Tensor, Tensor, Tensor]) -> None:
    train, held_out, fresh = sets
    assert memorization(train.repeat(2, 1), held_out, torch.cat([train[:5], fresh[:5]])).copy_fraction == 0.5


def test_ties_count_half(sets: tuple[Tensor, Tensor, Tensor]) -> None:
    train, _, _ = sets
    assert memorization(train, train, train[:30]).closer_to_train == 0.5


def test_too_few_rows_for_the_copying_test_leave_the_other_figures(sets: tuple[Tensor, Tensor, Tensor]) -> None:
    train, held_out, fresh = sets
    found = memorization(train, held_out, fresh[:8])
    assert found.copying_test.isnan()
    assert torch.isfinite(torch.stack(found[:-1])).all()


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("columns", [8, 70])
def test_any_number_of_processes_gives_the_numbers_of_one(
    cloud: Cloud, in_shards: InShards, world_size: int, columns: int
) -> None:
    train, held_out, fake = cloud(0, 101, columns), cloud(1, 67, columns), cloud(2, 71, columns)

    def compute(shard: Shard) -> dict[str, float]:
        found = RealNeighbors(train, held_out, "cosine", 3, 0, shard).compare(fake)
        return {name: value.item() for name, value in found.scalars._asdict().items()}

    expected = compute(Shard())
    for found in in_shards(world_size, compute):
        assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("columns", [8, 64])
def test_standard_errors_stand_for_the_spread_over_draws(columns: int) -> None:
    draws = []
    for seed in range(80):
        train, held_out, fresh = (gaussian(3 * seed + place, 150, columns) for place in range(3))
        copied = torch.rand(150, 1, generator=torch.Generator().manual_seed(seed)) < 0.1
        fake = torch.where(copied, train + 0.3 * fresh, fresh)
        draws.append(RealNeighbors(train, held_out, "cosine", 1, 0).compare(fake))
    for name in draws[0].influences:
        spread = torch.stack([getattr(draw.scalars, name) for draw in draws]).std().item()
        error = torch.stack([draw.influences[name].std for draw in draws]).mean().item()
        assert error == pytest.approx(spread, rel=0.5 if "copy" in name else 0.35), name


def error(parts: Any) -> float:
    return float((parts.own.var() / len(parts.own) + parts.real.var() / len(parts.real)).sqrt())


def test_errors_of_independent_values_are_the_usual_ones() -> None:
    values = torch.rand(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    usual, places = (values.var() / 500).sqrt().item(), torch.arange(500)
    assert error(mean_parts(values, places, 500)) == pytest.approx(usual, rel=1e-12)
    assert error(mean_parts(values.repeat(2), places.repeat(2), 500)) == pytest.approx(usual, rel=1e-3)
    assert clustered_variance(values, torch.zeros(500)) is None  # one neighbour's luck says nothing of another's
    assert mean_parts(values, torch.zeros(500).long(), 500) is None
    assert median_parts(values, torch.zeros(500).long(), 500) is None
    assert error(median_parts(values, places, 500)) == pytest.approx(0.5 / 500**0.5, rel=0.3)


def test_the_median_of_rows_that_share_their_luck_is_known_less_well() -> None:
    """Each value four times tells no more than once, if it has the same nearest real row."""
    values = torch.rand(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    once = error(median_parts(values, torch.arange(500), 2000))
    together = error(median_parts(values.repeat(4), torch.arange(500).repeat(4), 2000))
    apart = error(median_parts(values.repeat(4), torch.arange(2000), 2000))
    assert together == pytest.approx(once, rel=0.1)
    assert apart == pytest.approx(once / 2, rel=0.3)


@pytest.mark.parametrize("rows", [(70, 70), (90, 60), (60, 90)])
def test_influences_are_of_every_row_and_have_mean_zero(cloud: Cloud, rows: tuple[int, int]) -> None:
    train, held_out, fake = cloud(0, rows[0], 3), cloud(1, rows[1], 3), cloud(2, 80, 3)
    found = RealNeighbors(train, held_out, "euclidean", 2, 0).compare(fake)
    without = (
        "copying_test",
        *(f"{name}_distance_{q}" for name in ("train", "held_out", "null") for q in ("q01", "q05")),
    )
    assert set(Memorization._fields) - set(found.influences) == set(without)
    for name, each in found.influences.items():
        assert each.value == getattr(found.scalars, name)
        assert (len(each.fake), len(each.real)) == (80, sum(rows))
        if "distance" not in name and "ratio" not in name:
            assert abs(each.fake.sum().item()) < 1e-9
            assert abs(each.real.sum().item()) < 1e-7
    for name in ("null_distance", "copy_fraction_held_out", "authenticity_held_out"):
        assert not found.influences[name].fake.any()  # the same for every generator, so a change is known exactly


def test_without_a_generated_row_a_share_is_less_by_its_influence(cloud: Cloud) -> None:
    train, held_out, fake = cloud(0, 90, 3), cloud(1, 60, 3), cloud(2, 80, 3)
    fake[:9] = train[:9] + 1e-3
    real = RealNeighbors(train, held_out, "euclidean", 2, 0)
    whole = real.compare(fake)
    for row in (0, 20, 41, 79):
        without = real.compare(torch.cat([fake[:row], fake[row + 1 :]])).scalars
        for name in ("copy_fraction", "copy_excess", "authenticity", "closer_to_train"):
            moved = getattr(without, name) - getattr(whole.scalars, name)
            assert moved.item() == pytest.approx(-whole.influences[name].fake[row].item() / 79, abs=1e-12), name


def lower_bound(train: Tensor, held_out: Tensor, fake: Tensor) -> float:
    found = RealNeighbors(train, held_out, "euclidean", 1, 0).compare(fake)
    excess = found.influences["copy_excess"]
    assert excess.value == found.scalars.copy_fraction - found.scalars.copy_fraction_held_out
    return float(excess.value - 2 * excess.std)


def test_copy_excess_tells_planted_copies_from_an_honest_generator() -> None:
    """With its error: a tenth of slightly noisy copies is seen, new rows are not."""
    fired = []
    for seed in range(20):
        train, held_out, fresh = (gaussian(3 * seed + place, 200, 4) for place in range(3))
        fired.append(lower_bound(train, held_out, fresh) > 0)
        if seed < 4:
            assert lower_bound(train, held_out, torch.cat([train[:20] + 0.02 * fresh[:20], fresh[20:]])) > 0
    assert sum(fired) <= 1


def test_copy_excess_is_an_alarm_above_zero() -> None:
    (metric,) = metrics_by_name(["copy_excess_wavelet"], ["wavelet"])
    assert metric.alarms == {"copy_excess": 0.0}
    assert metric.described_direction("copy_excess_wavelet") == "min"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distance": "manhattan"}, "`distance` must be 'euclidean' or 'cosine', but got 'manhattan'"),
        ({"held_out": torch.zeros(30, 3)}, "equally many columns, but got D=4 and D=3"),
        ({"held_out": torch.zeros(1, 4)}, "`held_out` has 1 feature rows"),
        ({"fake": torch.full((30, 4), torch.nan)}, "`fake` .*NaN or infinity, first in row 0"),
        ({"fake": torch.zeros(30, 4)}, "is zero, so it has no direction"),
        ({"train": torch.zeros(30, 4).int()}, "`train` .*got torch.int32"),
    ],
)
def test_bad_input(cloud: Cloud, changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {name: cloud(seed, 30, 4) for seed, name in enumerate(("train", "held_out", "fake"))}
    with pytest.raises(ValueError, match=message):
        memorization(**{**arguments, **changes})


def test_every_scalar_has_a_name_in_the_catalogue() -> None:
    assert set(Memorization._fields) < set(CATALOGUE)
    (metric,) = metrics_by_name(["memorization_wavelet"], ["wavelet"])
    assert metric.names == tuple(f"{name}_wavelet" for name in Memorization._fields)


def test_directions_are_of_what_has_one() -> None:
    """The target of closer_to_train is one half, that of authenticity the value of held-out images."""
    (metric,) = metrics_by_name(["memorization_wavelet"], ["wavelet"])
    directions = {name: metric.described_direction(name) for name in metric.names}
    ranked = {name: each for name, each in directions.items() if each is not None}
    assert ranked == {"copy_fraction_wavelet": "min", "copy_excess_wavelet": "min"}


def test_the_histogram_shows_the_distances_whose_medians_are_reported(cloud: Cloud) -> None:
    """Between sets of equal size, though there are more training than held-out rows."""
    rows = {"real": cloud(0, 90, 5), "held_out": cloud(1, 40, 5), "generated": cloud(2, 61, 5, spread=1.2)}

    def view(kind: Any, role: Any) -> Any:
        return kind(role, {"wavelet": {"x": rows[role]}}, {"wavelet": "x"}, None, None, len(rows[role]))

    (metric,) = metrics_by_name(["memorization_wavelet"], ["wavelet"], {"memorization": {"distance": "euclidean"}})
    train, held_out = view(SetView, "real"), view(SetView, "held_out")
    state = metric.prepare_sets(RealSets(train, train, held_out))
    found: Any = metric.score_set(state, view(Generated, "generated"))
    shown = found.figures["distances_wavelet"].values
    assert {name: len(values) for name, values in shown.items()} == {
        "generated to training": 61,
        "generated to held-out": 61,
        "held-out to training": 40,
    }
    scalars = {name: float(each.value) for name, each in found.values.items()}
    names = ("train_distance", "held_out_distance", "null_distance")
    for name, values in zip(names, shown.values(), strict=True):
        assert np.median(values) == pytest.approx(scalars[name], rel=1e-12)
        assert np.quantile(values, 0.05) == pytest.approx(scalars[f"{name}_q05"], rel=1e-12)
    chosen = torch.from_numpy(np.sort(np.random.default_rng(0).permutation(90)[:40]))
    to_training = torch.cdist(rows["generated"], rows["real"][chosen]).amin(dim=1)
    assert np.allclose(shown["generated to training"], to_training, rtol=1e-9)


def test_the_scalars_are_the_function_of_the_features(three_sets: Any, tmp_path: Path) -> None:
    report = evaluate(**three_sets.arguments(tmp_path, metrics=["memorization_mine", "fd_mine"]))
    expected = memorization(*map(three_sets.embed, three_sets.tensors))
    for name in Memorization._fields:
        assert report.scalars[f"{name}_mine"] == pytest.approx(getattr(expected, name).item(), rel=1e-6, abs=1e-9)
    assert report.scalars["copy_fraction_mine"] == pytest.approx(5 / 45)
    assert report.scalars["copy_fraction_mine_std"] > 0
    assert report.protocol["metrics"]["copying_test_mine"]["distance"] == "cosine"
    swapped = evaluate(**three_sets.arguments(tmp_path, metrics=["memorization_mine"], reference="held_out"))
    memorized = {name: value for name, value in report.scalars.items() if not name.startswith("fd")}
    assert swapped.scalars == memorized


def test_the_worst_pairs_are_shown_with_their_neighbours(three_sets: Any, tmp_path: Path) -> None:
    train, held_out, fake = three_sets.tensors
    embed, options = three_sets.embed, {"memorization": {"shown": 6}}
    report = evaluate(**three_sets.arguments(tmp_path, metrics=["copy_fraction_mine"], options=options))
    table = report.tables["neighbors_mine"]
    assert len(table.rows) == 6
    found = nearest_neighbors(embed(fake), embed(train), k=2, distance="cosine")
    far = nearest_neighbors(embed(fake), embed(held_out), distance="cosine")
    for place, row in enumerate(table.rows):
        cells = dict(zip(table.columns, row, strict=True))
        if place < 5:
            assert cells["generated"] == place  # the copies come first
            assert cells["training"] == 10 + place
            assert cells["distance to training"] == 0
        at = cells["generated"]
        assert cells["held-out"] == far.indices[at, 0]
        assert cells["distance to training"] == pytest.approx(found.distances[at, 0].item(), abs=1e-12)
        assert cells["to second nearest training"] == pytest.approx(found.distances[at, 1].item())
        assert cells["distance to held-out"] == pytest.approx(far.distances[at, 0].item())
        for name, images, index in (("generated", fake, at), ("nearest training", train, cells["training"])):
            assert np.array_equal(cells[f"{name} image"], images[index].permute(1, 2, 0).numpy())
    assert {"neighbors_mine", "distances_mine", "samples", "real_samples"} == set(report.pictures)


def test_all_copies_are_listed_by_name(three_sets: Any, tmp_path: Path) -> None:
    report = evaluate(**three_sets.arguments(tmp_path, metrics=["copy_fraction_mine"]))
    table = report.tables["copies_mine"]
    assert {row[2:4] for row in table.rows} == {(f"item {index}", f"item {10 + index}") for index in range(5)}
    assert table.to_csv().startswith("generated,nearest training,distance to training,to second nearest training,")


def test_a_stream_of_real_images_shows_the_same(three_sets: Any, tmp_path: Path) -> None:
    class Stream(IterableDataset[Tensor]):
        def __init__(self, images: Tensor) -> None:
            self.images = images

        def __iter__(self) -> Any:
            return iter(self.images)

    metrics = ["copy_fraction_mine"]
    expected = evaluate(**three_sets.arguments(tmp_path, metrics=metrics))
    streams = dict(zip(("real", "held_out", "fake"), map(Stream, three_sets.tensors), strict=True))
    found = evaluate(**three_sets.arguments(tmp_path, metrics=metrics, **streams))
    assert set(found.pictures) == set(expected.pictures)
    for name, pixels in expected.pictures.items():
        assert np.array_equal(found.pictures[name], pixels), name


def test_held_out_images_are_needed() -> None:
    plan = make_plan(["memorization_wavelet", "pairs_wavelet"])
    with pytest.raises(ValueError, match=r"closer_to_train_wavelet and 18 more.*`held_out` is missing"):
        plan.check_held_out(None)
