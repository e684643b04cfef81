import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_synthqual.metrics import (
    cmmd,
    density_coverage,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
)
from lightning_synthqual.metrics.base import SUFFIXES, Metric, Score, as_scores
from lightning_synthqual.metrics.catalogue import CATALOGUE, GROUPS, direction, metrics_by_name
from lightning_synthqual.metrics.frechet import distance_to_gaussian, fit_gaussian
from lightning_synthqual.metrics.inception import inception_influence

Cloud = Callable[..., Tensor]

EXTRACTORS = ("inception", "wavelet", "my_net")


def one_metric(name: str, **options: Any) -> Metric:
    """The metric of a catalogue name, on features that the test makes."""
    family = CATALOGUE[name].metric.family
    wanted = name if CATALOGUE[name].bare else f"{name}_wavelet"
    return metrics_by_name([wanted], EXTRACTORS, {family: options} if options else None)[0]


def score(name: str, real: Tensor, fake: Tensor, **options: Any) -> dict[str, Score]:
    """What a metric that needs nothing but features returns, by the names of its values."""
    metric = one_metric(name, **options)
    return dict(as_scores(metric, metric.score(metric.prepare(real), fake)).values)


def numbers(found: Score) -> tuple[float, float | None]:
    return float(found.value), None if found.error is None else float(found.error)


@pytest.mark.parametrize(
    ("name", "entry", "extractor"),
    [
        ("fid", "fid", "inception"),
        ("kid", "kid", "inception"),
        ("precision", "precision", "inception"),
        ("recall", "recall", "inception"),
        ("fd_wavelet", "fd", "wavelet"),
        ("kd_inception", "kd", "inception"),
        ("precision_wavelet", "precision", "wavelet"),
        ("recall_my_net", "recall", "my_net"),
        ("kid_rbf", "kid_rbf", "inception"),
        ("kd_rbf_wavelet", "kd_rbf", "wavelet"),
        ("kd_rbf_my_net", "kd_rbf", "my_net"),
        ("cmmd", "cmmd", "clip"),
        ("isc", "isc", "inception"),
        ("density", "density", "inception"),
        ("coverage_my_net", "coverage", "my_net"),
        ("fid50k", "fid50k", "inception"),
        ("fid50k_full", "fid50k_full", "inception"),
        ("kid50k_full", "kid50k_full", "inception"),
        ("is50k", "is50k", "inception"),
    ],
)
def test_names_are_found(name: str, entry: str, extractor: str) -> None:
    (metric,) = metrics_by_name([name], EXTRACTORS)
    assert (metric.names, type(metric), metric.extractor) == ((name,), CATALOGUE[entry].metric, extractor)


def test_order_is_kept_and_repetitions_are_dropped() -> None:
    metrics = metrics_by_name(["recall", "fd_wavelet", "recall", "fid"], EXTRACTORS)
    assert [metric.names for metric in metrics] == [("recall",), ("fd_wavelet",), ("fid",)]


def test_names_that_are_computed_together_share_a_metric() -> None:
    names = ["precision", "precision_wavelet", "fid", "recall", "recall_wavelet", "fid50k"]
    found = [metric.names for metric in metrics_by_name(names, EXTRACTORS)]
    assert found == [("precision", "recall"), ("precision_wavelet", "recall_wavelet"), ("fid",), ("fid50k",)]


@pytest.mark.parametrize("group", GROUPS)
def test_groups_stand_for_their_members_with_and_without_an_extractor(group: str) -> None:
    for ending in ("", "_wavelet"):
        found = metrics_by_name([group + ending], (*EXTRACTORS, "dreamsim"))
        assert [name for metric in found for name in metric.names] == [member + ending for member in GROUPS[group]]
        assert {metric.extractor for metric in found} == {"wavelet" if ending else "dreamsim"}


@pytest.mark.parametrize("name", ["memorization_foo", "pairs_foo"])
def test_groups_need_a_known_extractor(name: str) -> None:
    with pytest.raises(ValueError, match="needs an extractor 'foo'"):
        metrics_by_name([name], EXTRACTORS)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("fid_wavelet", "fd_wavelet"),
        ("kid_wavelet", "kd_wavelet"),
        ("fd_wavlet", "fd_wavelet"),
        ("precison", "precision"),
        ("recal_my_net", "recall_my_net"),
        ("fd", "fid"),
        ("kd_", "kid"),
        ("FID", "fid"),
        ("KD_Wavelet", "kd_wavelet"),
        ("mmd", "kid"),
        ("kd_rbf", "kid_rbf"),
    ],
)
def test_nearest_name_is_suggested(name: str, suggestion: str) -> None:
    with pytest.raises(ValueError, match=f"Unknown metric '{name}'; did you mean '{suggestion}'\\? Known names: fid, "):
        metrics_by_name(["fid", name], EXTRACTORS)


@pytest.mark.parametrize("name", ["fd_foo", "kd_foo", "recall_foo"])
def test_unknown_extractor_is_named(name: str) -> None:
    message = rf"'{name}' needs an extractor 'foo', which is not known \(known: inception, wavelet, my_net\)"
    with pytest.raises(ValueError, match=message) as caught:
        metrics_by_name([name], EXTRACTORS)
    assert "extractors={'foo': module}" in str(caught.value)
    assert metrics_by_name([name], (*EXTRACTORS, "foo"))[0].extractor == "foo"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fid", "min"),
        ("kid", "min"),
        ("fd_wavelet", "min"),
        ("kd_my_net", "min"),
        ("kid_std", None),
        ("kd_wavelet_std", None),
        ("precision", "max"),
        ("recall_wavelet", "max"),
        ("recall_wavelet_std", None),
        ("recall_my_std_net", "max"),
        ("kd_rbf_wavelet", "min"),
        ("kid_rbf_std", None),
        ("isc", "max"),
        ("isc_std", None),
        ("density_wavelet", "max"),
        ("coverage", "max"),
        ("cmmd", "min"),
        ("fid50k_full", "min"),
        ("is50k", "max"),
        ("kid_gap", "min"),
        ("kd_wavelet_gap", "min"),
        ("copy_fraction", "min"),
        ("copy_fraction_mine", "min"),
        ("closer_to_train", None),
        ("authenticity_wavelet", None),
        ("authenticity_held_out", None),
        ("train_distance", None),
        ("ppl_w_end", "min"),
        ("ppl2_w_end", "min"),
        ("feature_space", None),
        ("pairs", None),
        ("fid_floor", None),
        ("_std", None),
        ("loss", None),
        ("loss_std", None),
        ("fidelity", None),
        ("", None),
    ],
)
def test_direction(name: str, expected: str | None) -> None:
    assert direction(name) == expected


def test_options_reach_their_family_and_the_others_have_defaults() -> None:
    found = metrics_by_name(
        ["kid", "kd_rbf_wavelet", "precision", "density", "fid"],
        EXTRACTORS,
        {"kid": {"subsets": 100, "seed": 7}, "precision": {"k": 5}},
    )
    kid, rbf, precision, density, fid = (metric.options for metric in found)
    assert kid == {"degree": 3, "gamma": None, "coef0": 1.0, "subsets": 100, "subset_size": 1000, "seed": 7}
    assert rbf == {"sigma": 10.0, "subsets": None, "subset_size": 1000, "seed": 0}
    assert (precision, density, fid) == ({"k": 5}, {"k": 5}, {})


def test_options_of_one_metric_do_not_touch_the_defaults_or_the_argument() -> None:
    given: dict[str, dict[str, Any]] = {"precision": {}}
    (metric,) = metrics_by_name(["precision"], EXTRACTORS, given)
    metric.options["k"] = 99
    assert given == {"precision": {}}
    assert one_metric("precision").options == {"k": 3}


def test_unknown_family_of_options() -> None:
    with pytest.raises(ValueError, match="`options` has the key 'fd', but the metric families are fid, kid, kid_rbf, "):
        metrics_by_name(["fid"], EXTRACTORS, {"fd": {}})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kid": {"subset": 3}}, ValueError, r"`options\['kid'\]` has no option 'subset'; it takes: degree, .*seed"),
        ({"fid": {"k": 3}}, ValueError, r"`options\['fid'\]` has no option 'k'; it takes: none"),
        ({"kid": 3}, TypeError, r"`options\['kid'\]` must be a dict of options, but got 3"),
        ({"density": {"k": 0}}, ValueError, r"`options\['density'\]\['k'\]` must be an integer of at least 1"),
    ],
)
def test_options_are_checked_of_families_that_nobody_asks_for_too(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        metrics_by_name(["recall"], EXTRACTORS, options)


def test_an_option_that_only_another_metric_of_the_family_takes() -> None:
    with pytest.raises(ValueError, match=r"\['space'\]` is for the metric 'ppl', but 'ppl_z_full' says by its name"):
        metrics_by_name(["ppl_z_full"], EXTRACTORS, {"ppl": {"space": "w"}})
    free, named = metrics_by_name(["ppl", "ppl_z_full"], EXTRACTORS, {"ppl": {"space": "z"}})
    assert free.options["space"] == "z"
    assert "space" not in named.options


@pytest.mark.parametrize(
    ("name", "compute"),
    [
        ("fid", frechet_distance),
        ("fd", frechet_distance),
        ("kid", lambda real, fake: kernel_distance(real, fake).value),
        ("kd", lambda real, fake: kernel_distance(real, fake).value),
        ("precision", lambda real, fake: precision_recall(real, fake).precision),
        ("recall", lambda real, fake: precision_recall(real, fake).recall),
        ("kid_rbf", lambda real, fake: kernel_distance(real, fake, kernel="rbf").value),
        ("kd_rbf", lambda real, fake: kernel_distance(real, fake, kernel="rbf").value),
        ("cmmd", cmmd),
        ("isc", lambda real, fake: inception_score(fake).mean),
        ("density", lambda real, fake: density_coverage(real, fake).density),
        ("coverage", lambda real, fake: density_coverage(real, fake).coverage),
        ("fid50k", lambda real, fake: distance_to_gaussian(fit_gaussian(real, ddof=0), fake, ddof=0)),
        ("fid50k_full", lambda real, fake: distance_to_gaussian(fit_gaussian(real, ddof=0), fake, ddof=0)),
        ("kid50k_full", lambda real, fake: kernel_distance(real, fake, subsets=100, subset_size=20).value),
        ("is50k", lambda real, fake: inception_score(fake).mean),
    ],
)
def test_every_name_stands_for_its_number(cloud: Cloud, name: str, compute: Callable[[Tensor, Tensor], Tensor]) -> None:
    real, fake = cloud(0, 30, 5), cloud(1, 20, 5, spread=2.0)
    found = score(name, real, fake)[CATALOGUE[name].value]
    assert isinstance(found.value, Tensor)
    assert found.value.item() == pytest.approx(compute(real, fake).item(), rel=1e-9)
    assert (found.value.dtype, found.value.shape) == (torch.float64, ())


@pytest.mark.parametrize("name", ["fid", "kid", "kid_rbf", "precision", "density", "cmmd", "fid50k"])
def test_what_is_prepared_of_the_reference_is_not_computed_again(cloud: Cloud, name: str) -> None:
    """The rows of one set beside what was prepared of another give another number: the latter was used."""
    real, other, fake = cloud(0, 30, 5), cloud(1, 30, 5, spread=3.0), cloud(2, 20, 5, spread=1.5)
    metric = one_metric(name)
    own, foreign = metric.prepare(real), metric.prepare(other)
    mixed = as_scores(metric, metric.score(foreign._replace(**{foreign._fields[0]: own[0]}), fake)).values
    plain = as_scores(metric, metric.score(own, fake)).values
    assert {name: numbers(each) for name, each in mixed.items()} != {n: numbers(each) for n, each in plain.items()}


def test_metrics_give_what_the_functions_give(cloud: Cloud) -> None:
    real, fake = cloud(0, 30, 5), cloud(1, 20, 5, centre=0.5)
    assert numbers(score("fid", real, fake)[""])[0] == pytest.approx(frechet_distance(real, fake).item(), rel=1e-9)
    changes: dict[str, Any]
    for changes in ({}, {"degree": 2, "gamma": 0.1, "coef0": 0.5}, {"subsets": 4, "subset_size": 10, "seed": 5}):
        expected = kernel_distance(real, fake, **changes)
        assert numbers(score("kid", real, fake, **changes)[""]) == (expected.value, expected.std)
    for changes in ({}, {"sigma": 3.0}, {"subsets": 4, "subset_size": 10, "seed": 5}):
        expected = kernel_distance(real, fake, kernel="rbf", **changes)
        assert numbers(score("kid_rbf", real, fake, **changes)[""]) == (expected.value, expected.std)
    for changes in ({}, {"sigma": 3.0, "scale": 2.0}, {"unbiased": True}):
        assert numbers(score("cmmd", real, fake, **changes)[""])[0] == cmmd(real, fake, **changes)
    for k in (1, 3):
        found = score("precision", real, fake, k=k)
        assert (found["precision"].value, found["recall"].value) == precision_recall(real, fake, k=k)
        found = score("density", real, fake, k=k)
        values = density_coverage(real, fake, k=k)
        assert float(found["density"].value) == pytest.approx(values.density.item(), rel=1e-12)
        assert found["coverage"].value == values.coverage


@pytest.mark.parametrize("splits", [1, 6])
def test_error_of_the_inception_score_follows_from_influences(cloud: Cloud, splits: int) -> None:
    """The preset has what its publication prints beside it: the spread over the splits."""
    logits = cloud(0, 60, 9, spread=3.0)
    expected = inception_influence(logits, splits=splits, seed=1)
    assert numbers(score("isc", logits, logits, splits=splits, seed=1)[""]) == (expected.value, expected.std)
    assert score("is50k", logits, logits)[""].error == inception_score(logits).std


def test_error_of_the_inception_score_tells_the_spread_over_200_independent_draws() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = (2 * torch.randn(400, 10, generator=draw) for _ in range(200))
    scores = torch.tensor([numbers(score("isc", rows, rows)[""]) for rows in logits])
    assert scores[:, 1].mean() / scores[:, 0].std() == pytest.approx(1.0, abs=0.2)


OF_FEATURES = [
    name
    for name, entry in CATALOGUE.items()
    if entry.metric.reads_real and not (entry.metric.both_sets or entry.metric.needs_generator)
]


@pytest.mark.parametrize("name", [name for name in OF_FEATURES if "vendi" not in name])
def test_every_value_has_an_error(cloud: Cloud, name: str) -> None:
    for each in score(name, cloud(0, 30, 5), cloud(1, 20, 5)).values():
        assert isinstance(each.error, Tensor)
        assert (each.error.dtype, each.error.shape) == (torch.float64, ())
        assert each.error >= 0


@pytest.mark.parametrize("ending", SUFFIXES)
def test_an_extractor_must_not_be_called_like_what_stands_beside_a_metric(ending: str) -> None:
    with pytest.raises(ValueError, match=f"must not be called 'mine{ending}'.*Rename it"):
        metrics_by_name(["fid"], (*EXTRACTORS, f"mine{ending}"))


def test_a_name_with_two_readings_is_refused() -> None:
    assert metrics_by_name(["kd_rbf_net"], (*EXTRACTORS, "rbf_net"))[0].extractor == "rbf_net"
    with pytest.raises(ValueError, match="'kd_rbf_net' could be that of extractor 'net' or 'rbf_net'"):
        metrics_by_name(["kd_rbf_net"], (*EXTRACTORS, "net", "rbf_net"))


@pytest.mark.parametrize(
    ("name", "given", "fault"),
    [
        ("fid50k", (50_000, 50_000, "real", True), None),
        ("fid50k", (50_000, 50_000, "real", False), None),
        ("fid50k", (50_000, 2_000, "real", True), None),
        ("fid50k", (10_000, 50_000, "real", True), "generates 50000 .* 10000. Set `num_samples=50000`"),
        ("fid50k", (50_000, 70_000, "real", True), "takes 50000 real .* 70000. Set `num_real=50000`"),
        ("fid50k", (50_000, 2_000, "real", False), "takes 50000 real .* 2000. Set `num_real=50000`"),
        ("fid50k", (50_000, 2_000, "held_out", True), "training images. Set `reference='real'`"),
        ("fid50k_full", (50_000, 70_000, "real", True), None),
        ("fid50k_full", (50_000, 50_000, "real", False), "takes all real images, .* 50000 .* Set `num_real=None`"),
        ("kid50k_full", (50_000, 70_000, "real", True), None),
        ("kid50k_full", (49_999, 70_000, "real", True), "Set `num_samples=50000`"),
        ("is50k", (50_000, 16, "held_out", False), None),
        ("is50k", (1_000, 50_000, "real", True), "Set `num_samples=50000`"),
    ],
)
def test_published_protocols(name: str, given: tuple[int, int, str, bool], fault: str | None) -> None:
    published = CATALOGUE[name].metric.published
    assert published is not None
    found = published.violation(*given)
    assert (found is None) == (fault is None)
    if fault is not None:
        assert re.search(fault, str(found))


@pytest.mark.parametrize("name", CATALOGUE)
def test_metrics_pickle(name: str) -> None:
    metric = one_metric(name)
    again = pickle.loads(pickle.dumps(metric))
    assert (type(again), again.names, again.options) == (type(metric), metric.names, metric.options)


@pytest.mark.parametrize(
    ("name", "options", "compute"),
    [
        ("fid", {}, frechet_distance),
        ("kid", {}, kernel_distance),
        ("kid", {"subsets": 2, "subset_size": 6}, kernel_distance),
        ("precision", {}, precision_recall),
        ("precision", {"k": 6}, precision_recall),
        ("density", {}, density_coverage),
    ],
)
def test_fewest_rows_suffice_and_one_less_does_not(
    cloud: Cloud, name: str, options: dict[str, Any], compute: Callable[..., Any]
) -> None:
    rows = one_metric(name, **options).min_images()
    real, fake = cloud(0, rows, 3), cloud(1, rows, 3)
    assert all(torch.as_tensor(each.value).isfinite() for each in score(name, real, fake, **options).values())
    with pytest.raises(ValueError, match="row"):
        compute(real[1:], fake, **options)
    if name != "density":  # balls are around real rows alone
        with pytest.raises(ValueError, match="row"):
            compute(real, fake[1:], **options)


def test_only_frechet_distances_ask_for_more_rows_than_columns() -> None:
    asking = {name for name, entry in CATALOGUE.items() if entry.metric.more_rows_than_columns}
    assert asking == {"fid", "fd", "fid50k", "fid50k_full"}


def test_a_name_that_is_no_metric_of_other_tools_is_pointed_to_ours() -> None:
    with pytest.raises(ValueError, match="did you mean 'isc'"):
        metrics_by_name(["inception_score"], EXTRACTORS)
    with pytest.raises(ValueError, match="did you mean 'ms_ssim'"):
        metrics_by_name(["ssim"], EXTRACTORS)


def test_the_study_stands_for_its_table_in_its_order() -> None:
    metrics = metrics_by_name(["study"], ["inception", "clip", "dinov2", "dreamsim"])
    names = [name for metric in metrics for name in metric.names]
    assert names[:5] == ["isc", "fid", "kid", "kid_rbf", "cmmd"]
    assert names[7:11] == ["ppl_z_end", "ppl_w_end", "ppl_z_full", "ppl_w_full"]
    assert {metric.extractor for metric in metrics if metric.names[0].startswith("pairs")} == {
        "inception",
        "clip",
        "dinov2",
    }
