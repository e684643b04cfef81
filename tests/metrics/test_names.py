from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_synthqual.metrics import frechet_distance, kernel_distance, precision_recall
from lightning_synthqual.metrics.names import (
    CATALOGUE,
    FRECHET,
    KERNEL,
    MANIFOLD,
    Family,
    complete_options,
    direction,
    resolve,
)
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
        ("mmd", "kid"),
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
    defaults = {"fid": {}, "kid": dict(KERNEL.options), "precision": {"k": 3}}
    assert complete_options(None) == complete_options({}) == defaults


def test_completed_options_do_not_touch_the_defaults_or_the_argument() -> None:
    given: dict[str, dict[str, Any]] = {"precision": {}}
    complete_options(given)["precision"]["k"] = 99
    assert given == {"precision": {}}
    assert MANIFOLD.options["k"] == 3


def test_unknown_family_of_options() -> None:
    with pytest.raises(ValueError, match="`options` has the key 'fd', but the metric families are fid, kid, precision"):
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
    ],
)
def test_every_name_stands_for_its_number(cloud: Cloud, name: str, compute: Callable[[Tensor, Tensor], Tensor]) -> None:
    real, fake = cloud(0, 30, 5), cloud(1, 20, 5, spread=2.0)
    values = score(CATALOGUE[name].family, real, fake)
    assert values[CATALOGUE[name].value] == compute(real, fake)
    assert all((value.dtype, value.shape) == (torch.float64, ()) for value in values.values())


@pytest.mark.parametrize("family", [FRECHET, KERNEL, MANIFOLD], ids=lambda family: family.name)
def test_what_is_prepared_of_the_reference_is_not_computed_again(cloud: Cloud, family: Family) -> None:
    real, other, fake = cloud(0, 30, 5), cloud(1, 30, 5, spread=3.0), cloud(2, 20, 5, spread=1.5)
    options = complete_options(None)[family.name]
    own, foreign = (family.prepare(reference, options, Share()) for reference in (real, other))
    found = family.score(real, foreign, fake, options, Share())
    assert found != family.score(real, own, fake, options, Share())


def test_families_give_what_the_functions_give(cloud: Cloud) -> None:
    real, fake = cloud(0, 30, 5), cloud(1, 20, 5, centre=0.5)
    assert score(FRECHET, real, fake) == {"distance": frechet_distance(real, fake)}
    for changes in ({}, {"degree": 2, "gamma": 0.1, "coef0": 0.5}, {"subsets": 4, "subset_size": 10, "seed": 5}):
        value, std = kernel_distance(real, fake, **changes)
        assert score(KERNEL, real, fake, **changes) == {"distance": value, "distance_std": std}
    for k in (1, 3):
        assert score(MANIFOLD, real, fake, k=k) == precision_recall(real, fake, k=k)._asdict()


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
    assert {entry.family.name for entry in CATALOGUE.values() if entry.family.wants_more_rows_than_columns} == {"fid"}
