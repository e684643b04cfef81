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
from lightning_synthqual.metrics.families import (
    CMMD,
    DENSITY,
    FRECHET,
    INCEPTION,
    IS50K,
    KERNEL,
    MANIFOLD,
    RBF,
    Family,
)
from lightning_synthqual.metrics.frechet import distance_to_gaussian, fit_gaussian
from lightning_synthqual.metrics.names import CATALOGUE, COMPANIONS, Entry, complete_options, direction, resolve
from lightning_synthqual.metrics.share import Share

Cloud = Callable[..., Tensor]

EXTRACTORS = ("inception", "wavelet", "my_net")


def score(family: Family, real: Tensor, fake: Tensor, **changes: Any) -> dict[str, Tensor]:
    options = complete_options({family.name: changes})[family.name]
    return family.score(real, family.prepare(real, options, Share()), fake, options, Share())


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
    (metric,) = resolve([name], EXTRACTORS)
    assert (metric.name, metric.entry, metric.extractor) == (name, CATALOGUE[entry], extractor)


def test_order_is_kept_and_repetitions_are_dropped() -> None:
    metrics = resolve(["recall", "fd_wavelet", "recall", "fid"], EXTRACTORS)
    assert [metric.name for metric in metrics] == ["recall", "fd_wavelet", "fid"]


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
        ("mmd", "cmmd"),
        ("kd_rbf", "kid_rbf"),
    ],
)
def test_nearest_name_is_suggested(name: str, suggestion: str) -> None:
    with pytest.raises(ValueError, match=f"Unknown metric '{name}'; did you mean '{suggestion}'\\? Known names: fid, "):
        resolve(["fid", name], EXTRACTORS)


@pytest.mark.parametrize("name", ["fd_foo", "kd_foo", "recall_foo"])
def test_unknown_extractor_is_named(name: str) -> None:
    message = rf"'{name}' needs an extractor 'foo', which is not known \(known: inception, wavelet, my_net\)"
    with pytest.raises(ValueError, match=message) as caught:
        resolve([name], EXTRACTORS)
    assert "extractors={'foo': module}" in str(caught.value)
    assert resolve([name], (*EXTRACTORS, "foo"))[0].extractor == "foo"


def test_one_string_is_no_sequence_of_names() -> None:
    with pytest.raises(TypeError, match=r"Use `metrics=\('fid',\)`"):
        resolve("fid", EXTRACTORS)


def test_no_name_at_all() -> None:
    with pytest.raises(ValueError, match="`metrics` is empty"):
        resolve([], EXTRACTORS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fid", "min"),
        ("kid", "min"),
        ("fd_wavelet", "min"),
        ("kd_my_net", "min"),
        ("kid_std", "min"),
        ("kd_wavelet_std", "min"),
        ("precision", "max"),
        ("recall_wavelet", "max"),
        ("recall_wavelet_std", "min"),
        ("recall_my_std_net", "max"),
        ("kd_rbf_wavelet", "min"),
        ("kid_rbf_std", "min"),
        ("isc", "max"),
        ("isc_std", "min"),
        ("density_wavelet", "max"),
        ("coverage", "max"),
        ("cmmd", "min"),
        ("fid50k_full", "min"),
        ("is50k", "max"),
        ("kid_gap", "min"),
        ("kd_wavelet_gap", "min"),
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


def test_options_are_completed_with_the_defaults() -> None:
    complete = complete_options({"kid": {"subsets": 100, "seed": 7}, "precision": {"k": 5}})
    assert complete["fid"] == {}
    assert complete["kid"] == {**KERNEL.options, "subsets": 100, "seed": 7}
    assert complete["precision"] == {"k": 5}
    assert complete["density"] == {"k": 5}
    defaults = {entry.family.name: dict(entry.family.options) for entry in CATALOGUE.values()}
    assert complete_options(None) == complete_options({}) == defaults


def test_completed_options_do_not_touch_the_defaults_or_the_argument() -> None:
    given: dict[str, dict[str, Any]] = {"precision": {}}
    complete_options(given)["precision"]["k"] = 99
    assert given == {"precision": {}}
    assert MANIFOLD.options["k"] == 3


def test_unknown_family_of_options() -> None:
    with pytest.raises(ValueError, match="`options` has the key 'fd', but the metric families are fid, kid, kid_rbf, "):
        complete_options({"fd": {}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kid": {"subset": 3}}, r"`options\['kid'\]` has no option 'subset'; it takes: degree, .*subset_size, seed"),
        ({"fid": {"k": 3}}, r"`options\['fid'\]` has no option 'k'; it takes: none"),
    ],
)
def test_unknown_option(options: dict[str, dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        complete_options(options)


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
    values = score(CATALOGUE[name].family, real, fake)
    assert values[CATALOGUE[name].value].item() == pytest.approx(compute(real, fake).item(), rel=1e-9)
    assert all((value.dtype, value.shape) == (torch.float64, ()) for value in values.values())


@pytest.mark.parametrize("family", [FRECHET, KERNEL, RBF, MANIFOLD, DENSITY], ids=lambda family: family.name)
def test_what_is_prepared_of_the_reference_is_not_computed_again(cloud: Cloud, family: Family) -> None:
    real, other, fake = cloud(0, 30, 5), cloud(1, 30, 5, spread=3.0), cloud(2, 20, 5, spread=1.5)
    options = complete_options(None)[family.name]
    own, foreign = (family.prepare(reference, options, Share()) for reference in (real, other))
    found = family.score(real, foreign, fake, options, Share())
    assert found != family.score(real, own, fake, options, Share())


def test_families_give_what_the_functions_give(cloud: Cloud) -> None:
    real, fake = cloud(0, 30, 5), cloud(1, 20, 5, centre=0.5)
    assert score(FRECHET, real, fake)["distance"].item() == pytest.approx(frechet_distance(real, fake).item(), rel=1e-9)
    for changes in ({}, {"degree": 2, "gamma": 0.1, "coef0": 0.5}, {"subsets": 4, "subset_size": 10, "seed": 5}):
        value, std = kernel_distance(real, fake, **changes)
        assert score(KERNEL, real, fake, **changes) == {"distance": value, "distance_std": std}
    for changes in ({}, {"sigma": 3.0}, {"subsets": 4, "subset_size": 10, "seed": 5}):
        value, std = kernel_distance(real, fake, kernel="rbf", **changes)
        assert score(RBF, real, fake, **changes) == {"distance": value, "distance_std": std}
    for changes in ({}, {"sigma": 3.0, "scale": 2.0}, {"unbiased": True}):
        assert score(CMMD, real, fake, **changes)["distance"] == cmmd(real, fake, **changes)
    for k in (1, 3):
        found = score(MANIFOLD, real, fake, k=k)
        assert (found["precision"], found["recall"]) == precision_recall(real, fake, k=k)
        found = score(DENSITY, real, fake, k=k)
        assert found["density"].item() == pytest.approx(density_coverage(real, fake, k=k).density.item(), rel=1e-12)
        assert found["coverage"] == density_coverage(real, fake, k=k).coverage


def test_error_of_the_inception_score_is_that_of_the_mean_over_splits(cloud: Cloud) -> None:
    """The preset has what its publication prints beside it: the spread over the splits."""
    logits = cloud(0, 60, 9, spread=3.0)
    expected = inception_score(logits, splits=6, seed=1)
    found = score(INCEPTION, logits, logits, splits=6, seed=1)
    assert found == {"score": expected.mean, "score_std": expected.std / 5**0.5}
    assert set(score(INCEPTION, logits, logits, splits=1)) == {"score"}
    assert score(IS50K, logits, logits)["score_std"] == inception_score(logits).std


def test_error_of_the_inception_score_tells_the_spread_over_200_independent_draws() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = (2 * torch.randn(400, 10, generator=draw) for _ in range(200))
    scores = [score(INCEPTION, rows, rows) for rows in logits]
    spread = torch.stack([found["score"] for found in scores]).std()
    assert torch.stack([found["score_std"] for found in scores]).mean() / spread == pytest.approx(1.0, abs=0.2)


def test_every_value_but_those_of_single_splits_has_an_error(cloud: Cloud) -> None:
    real, fake = cloud(0, 30, 5), cloud(1, 20, 5)
    for entry in CATALOGUE.values():
        if not isinstance(entry.family, Family) or entry.family.needs_both:
            continue
        found = score(entry.family, real, fake)
        assert found[f"{entry.value}_std"] >= 0
        assert all((value.dtype, value.shape) == (torch.float64, ()) for value in found.values())


@pytest.mark.parametrize("ending", COMPANIONS)
def test_an_extractor_must_not_be_called_like_what_stands_beside_a_metric(ending: str) -> None:
    with pytest.raises(ValueError, match=f"must not be called 'mine{ending}'.*Rename it"):
        resolve(["fid"], (*EXTRACTORS, f"mine{ending}"))


def test_a_name_with_two_readings_is_refused() -> None:
    assert resolve(["kd_rbf_net"], (*EXTRACTORS, "rbf_net"))[0].extractor == "rbf_net"
    with pytest.raises(ValueError, match="'kd_rbf_net' could be that of extractor 'net' or 'rbf_net'"):
        resolve(["kd_rbf_net"], (*EXTRACTORS, "net", "rbf_net"))


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
    protocol = CATALOGUE[name].family.protocol
    assert protocol is not None
    found = protocol.fault(*given)
    assert (found is None) == (fault is None)
    if fault is not None:
        assert re.search(fault, str(found))


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE)
def test_metrics_pickle(entry: Entry) -> None:
    assert pickle.loads(pickle.dumps(entry)).family.name == entry.family.name


@pytest.mark.parametrize(
    ("family", "options", "compute"),
    [
        (FRECHET, {}, frechet_distance),
        (KERNEL, {}, kernel_distance),
        (KERNEL, {"subsets": 2, "subset_size": 6}, kernel_distance),
        (MANIFOLD, {}, precision_recall),
        (MANIFOLD, {"k": 6}, precision_recall),
    ],
)
def test_fewest_rows_suffice_and_one_less_does_not(
    cloud: Cloud, family: Family, options: dict[str, Any], compute: Callable[..., Any]
) -> None:
    rows = family.min_rows(complete_options({family.name: options})[family.name])
    real, fake = cloud(0, rows, 3), cloud(1, rows, 3)
    assert all(value.isfinite() for value in score(family, real, fake, **options).values())
    with pytest.raises(ValueError, match="row"):
        compute(real[1:], fake, **options)
    with pytest.raises(ValueError, match="row"):
        compute(real, fake[1:], **options)


def test_only_the_frechet_family_asks_for_more_rows_than_columns() -> None:
    families = [entry.family for entry in CATALOGUE.values() if isinstance(entry.family, Family)]
    assert {family.name for family in families if family.wants_more_rows_than_columns} == {
        "fid",
        "fid50k",
        "fid50k_full",
    }
