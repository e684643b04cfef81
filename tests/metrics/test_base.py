"""Metrics of a stranger: what they are made of, what they may return, and how that is reported."""

import json
import pickle
from collections import Counter
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_synthqual.metrics import Influence, Metric, Score, Scores
from lightning_synthqual.metrics.base import as_scores
from lightning_synthqual.metrics.catalogue import metrics_by_name
from lightning_synthqual.metrics.figures import Histograms, Table
from lightning_synthqual.metrics.options import option
from lightning_synthqual.metrics.published import Published
from lightning_synthqual.metrics.states import pack_state, state_key, unpack_state
from lightning_synthqual.metrics.views import Runtime, SetView


class MeanColour(Metric):
    direction = "min"
    OPTIONS = {"power": option(2.0, above=0), "squares": option(True)}

    def prepare(self, real: Tensor) -> Tensor:
        return real.double().mean(0)

    def score(self, state: Tensor, fake: Tensor) -> Tensor:
        return (fake.double().mean(0) - state).abs().pow(self.options["power"]).sum()


def plain(result: Any) -> dict[str, tuple[float, float | None]]:
    """Value and standard error by name, of whatever a metric returns."""
    found = as_scores(MeanColour("mine"), result).values
    return {n: (float(s.value), None if s.error is None else float(s.error)) for n, s in found.items()}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (2, {"": (2.0, None)}),
        (2.5, {"": (2.5, None)}),
        (np.float32(2.5), {"": (2.5, None)}),
        (torch.tensor(2.5), {"": (2.5, None)}),
        (torch.tensor([[2.5]]), {"": (2.5, None)}),
        (Score(2.5, std=0.5), {"": (2.5, 0.5)}),
        (Score(torch.tensor(2.5), std=torch.tensor(0.5)), {"": (2.5, 0.5)}),
        ({"a": 1, "b": Score(2.0, std=0.5)}, {"a": (1.0, None), "b": (2.0, 0.5)}),
        (MappingProxyType({"a": torch.tensor(1)}), {"a": (1.0, None)}),
        (Scores({"a": Score(1.0)}), {"a": (1.0, None)}),
    ],
)
def test_a_score_is_a_number_a_score_or_several(result: Any, expected: dict[str, tuple[float, float | None]]) -> None:
    assert plain(result) == expected


def test_a_score_that_says_it_is_undefined_is_let_through() -> None:
    assert np.isnan(plain(Score(float("nan")))[""][0])


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (None, TypeError, "`score` of metric 'mine' must return a number, a Score or a dict .*returned NoneType"),
        ("2", TypeError, "metric 'mine' .*returned str"),
        ([1.0, 2.0], TypeError, "metric 'mine' .*returned list"),
        (torch.zeros(3), TypeError, r"metric 'mine' .*a tensor of shape \(3,\). Reduce it to one value"),
        (torch.zeros(2, 0), TypeError, r"metric 'mine' .*a tensor of shape \(2, 0\)"),
        (float("nan"), ValueError, r"Metric 'mine' returned nan. Return a finite number, or `Score\(float\('nan'\)\)`"),
        (torch.tensor(float("inf")), ValueError, "Metric 'mine' returned inf"),
        ({"a": 1.0, "b": float("-inf")}, ValueError, "Metric 'mine' returned -inf"),
        ({"a": torch.zeros(2)}, TypeError, r"metric 'mine' .*a tensor of shape \(2,\)"),
        ({"a": {"b": 1.0}}, TypeError, "metric 'mine'"),
        ({"a": Scores({"b": Score(1.0)})}, TypeError, "metric 'mine'"),
    ],
)
def test_what_no_score_is(result: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plain(result)


def test_figures_and_tables_of_several_scores_are_brought_together() -> None:
    histogram, table = Histograms({"x": np.zeros(3)}, "x"), Table(("a",), [(1,)])
    found = as_scores(
        MeanColour("mine"),
        {"a": Score(1.0, figures={"one": histogram}), "b": Score(2.0, tables={"two": table}), "c": 3.0},
    )
    assert (dict(found.figures), dict(found.tables)) == ({"one": histogram}, {"two": table})


def test_the_standard_error_follows_from_the_influence_of_the_rows() -> None:
    """That of a difference of means."""
    real, fake = torch.randn(2, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    real = real[:30]
    influence = Influence(fake.mean() - real.mean(), fake - fake.mean(), -(real - real.mean()))
    expected = (fake.var() / 40 + real.var() / 30).sqrt()
    error = Score(influence.value, influence=influence).error
    assert float(error or 0) == pytest.approx(expected.item(), rel=1e-12)
    assert Score(influence.value, std=0.25, influence=influence).error == 0.25
    alone = Influence(fake.mean(), fake - fake.mean(), torch.empty(0, dtype=torch.float64))
    assert alone.std.item() == pytest.approx((fake.var() / 40).sqrt().item(), rel=1e-12)


def test_options_have_defaults_and_become_plain_numbers() -> None:
    assert MeanColour("mine").options == {"power": 2.0, "squares": True}
    options = MeanColour("mine", power=np.int64(3)).options
    assert options == {"power": 3.0, "squares": True}
    assert type(options["power"]) is float


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": ""}, ValueError, "needs a name, a string that is not empty, but MeanColour got ''"),
        ({"name": None}, ValueError, "needs a name, a string that is not empty, but MeanColour got None"),
        ({"extractor": ""}, TypeError, "`extractor` of metric 'mine' must be an extractor's name, but got ''"),
        ({"extractor": 3}, TypeError, "`extractor` of metric 'mine' must be an extractor's name, but got 3"),
        ({"powr": 2.0}, ValueError, "`MeanColour.OPTIONS` has no option 'powr'; it takes: power, squares"),
        ({"power": "2"}, TypeError, r"`MeanColour.OPTIONS\['power'\]` must be a finite number above 0, but got '2'"),
        ({"power": 0.0}, ValueError, r"`MeanColour.OPTIONS\['power'\]` must be a finite number above 0, but got 0.0"),
        ({"squares": 1}, TypeError, r"`MeanColour.OPTIONS\['squares'\]` must be True or False, but got 1"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MeanColour(**{"name": "mine", **arguments})


def test_names_and_directions_of_one_value() -> None:
    metric = MeanColour("mine", extractor="pixels")
    assert (metric.names, metric.described_direction("mine")) == (("mine",), "min")
    assert metric.extractors() == ("pixels",)
    assert list(metric.reported(Scores({"": Score(1.0), "red": Score(2.0)}))) == ["mine", "mine_red"]


def test_names_and_directions_of_several_values() -> None:
    class Both(Metric):
        direction = {"good": "max", "bad": "min"}

    metric = Both("good_x", reports={"good_x": "good"})
    metric.add_report("bad_x", "bad")
    metric.add_report("neither_x", "neither")
    assert metric.names == ("good_x", "bad_x", "neither_x")
    assert {name: metric.described_direction(name) for name in metric.names} == {
        "good_x": "max",
        "bad_x": "min",
        "neither_x": None,
    }
    found = metric.reported(Scores({"bad": Score(1.0), "good": Score(2.0), "unasked": Score(3.0)}))
    assert {name: each.value for name, each in found.items()} == {"good_x": 2.0, "bad_x": 1.0}


def test_a_metric_with_a_runtime_is_a_copy() -> None:
    metric, runtime = MeanColour("mine"), Runtime(smoke_test=True)
    bound = metric.with_runtime(runtime)
    assert (bound.runtime, type(bound), bound.options) == (runtime, MeanColour, metric.options)
    assert not metric.runtime.smoke_test


def test_metrics_pickle() -> None:
    again = pickle.loads(pickle.dumps(MeanColour("mine", power=1.0)))
    assert (again.name, again.options) == ("mine", {"power": 1.0, "squares": True})


def test_features_are_checked_before_a_metric_gets_them() -> None:
    rows = torch.ones(5, 3)
    rows[2, 1] = torch.nan
    view = SetView("generated", {"pixels": {"features": rows}}, {"pixels": "features"}, None, None, 5)
    with pytest.raises(ValueError, match="`generated` features contain NaN or infinity, first in row 2"):
        MeanColour("mine", extractor="pixels").rows(view)
    with pytest.raises(ValueError, match="Extractor 'pixels' has no output 'logits'; it gives features"):
        view.rows("pixels", "logits")


def test_a_metric_without_a_score_says_so() -> None:
    with pytest.raises(TypeError, match=r"Metric has no `score\(self, state, fake\)`"):
        Metric("mine").score(None, torch.zeros(2, 2))


@pytest.mark.parametrize(
    "state",
    [
        torch.arange(3.0),
        {"mean": torch.zeros(2), "dict.key": torch.ones(1)},
        (torch.zeros(2), torch.ones(3), torch.zeros(())),
        tuple(torch.full((1,), i) for i in range(12)),
        [torch.zeros(1), None, 3, (torch.ones(2), 2.5)],
    ],
)
def test_states_of_tensors_come_back_as_they_were(state: Any) -> None:
    tensors = pack_state(state)
    assert tensors is not None
    again = unpack_state(dict(sorted(tensors.items())))
    assert type(again) is type(state)
    torch.testing.assert_close(again, state, rtol=0.0, atol=0.0)


@pytest.mark.parametrize(
    "state",
    [None, 3.0, {}, (), {"a": 1.0}, {1.5: torch.zeros(1)}, (torch.zeros(1), object()), Counter(a=torch.zeros(1))],
)
def test_other_states_are_not_packed(state: Any) -> None:
    assert pack_state(state) is None


class Prepares(Metric):
    def prepare(self, real: Tensor) -> Tensor:
        return real.mean(0)


class PreparesOtherwise(Metric):
    def prepare(self, real: Tensor) -> Tensor:
        return real.mean(1)


def child_of(parent: type[Metric]) -> Metric:
    class Child(parent):
        pass

    return Child("mine", extractor="pixels")


class Weighted(Prepares):
    def __init__(self, weights: Any) -> None:
        super().__init__("mine", extractor="pixels")
        self.weights = weights


def test_the_key_of_a_state_knows_features_code_and_attributes() -> None:
    metric = Prepares("mine", extractor="pixels")
    assert state_key(metric, "a") == state_key(Prepares("mine", extractor="pixels"), "a")
    assert state_key(metric.with_runtime(Runtime(smoke_test=True)), "a") == state_key(metric, "a")
    others = [
        state_key(metric, "b"),
        state_key(Prepares("yours", extractor="pixels"), "a"),
        state_key(PreparesOtherwise("mine", extractor="pixels"), "a"),
        state_key(Weighted(1), "a"),
        state_key(Weighted(2), "a"),
    ]
    assert None not in others
    assert len({state_key(metric, "a"), *others}) == 6


def test_the_key_of_a_state_knows_the_code_of_the_classes_above() -> None:
    """What a parent class prepares may change while the code of the class stays as it was."""
    one, other = child_of(Prepares), child_of(PreparesOtherwise)
    assert state_key(one, "a") is None or state_key(one, "a") != state_key(other, "a")


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_the_key_of_a_state_knows_all_of_a_long_attribute(kind: Any) -> None:
    values = [0.0] * 5000
    changed = [*values[:2500], 1.0, *values[2501:]]
    one, other = state_key(Weighted(kind(values)), "a"), state_key(Weighted(kind(changed)), "a")
    assert one is None or one != other


def test_states_that_cost_nothing_have_no_key() -> None:
    assert state_key(Metric("mine", extractor="pixels"), "a") is None


@pytest.mark.parametrize("name", ["fd_pixels", "kd_pixels", "cmmd", "recall_pixels", "density_pixels"])
def test_our_own_states_come_back_without_the_features_they_hold(name: str) -> None:
    (metric,) = metrics_by_name([name], ["pixels", "clip"], {})
    rows = torch.rand(40, 5, generator=torch.Generator().manual_seed(0))
    state = metric.prepare(rows)
    tensors = pack_state(state, [rows])
    assert tensors is not None
    assert not any(each.shape[1:] == rows.shape for each in tensors.values())
    again = unpack_state(tensors, [rows])
    assert type(again) is type(state)
    assert again.rows is rows
    fake = rows[:20] + 0.1
    one, other = (as_scores(metric, metric.score(each, fake)).values for each in (again, state))
    assert {name: each.value for name, each in one.items()} == {name: each.value for name, each in other.items()}


def test_the_key_of_our_own_states_knows_options_but_not_names() -> None:
    def key(name: str, **options: Any) -> str | None:
        (metric,) = metrics_by_name([name], ["pixels"], options)
        return state_key(metric, "a")

    assert key("precision_pixels") == key("recall_pixels")
    keys = [key("precision_pixels"), key("precision_pixels", precision={"k": 4}), key("density_pixels")]
    assert len({None, *keys, key("fd_pixels"), key("kd_pixels")}) == 6


def test_a_state_of_another_version_is_refused() -> None:
    tensors = pack_state({"a": torch.zeros(1)})
    assert tensors is not None
    for kind in ("lightning_synthqual.metrics.frechet:NoSuchState", "lightning_synthqual.nothing:A", "os:system"):
        template = torch.frombuffer(bytearray(json.dumps([kind, {}]).encode()), dtype=torch.uint8)
        with pytest.raises(ValueError, match="cannot be read"):
            unpack_state({**tensors, "template": template[None]})


def test_published_numbers_of_images() -> None:
    published = Published(10, max_real=5)
    assert published.violation(10, 5, "real", complete=False) is None
    assert published.violation(10, 4, "real", complete=True) is None
    for count, real, role, complete in ((9, 5, "real", True), (10, 4, "real", False), (10, 6, "real", True)):
        assert published.violation(count, real, role, complete)
    assert published.violation(10, 5, "held_out", complete=True)
    assert Published(10).violation(10, 4, "real", complete=False)
    assert Published(10, reads_real=False).violation(10, 0, "held_out", complete=False) is None
