"""From arguments to a plan: nothing is opened, and what is wrong is said at once."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_synthqual import FeatureMetric, Metric
from lightning_synthqual.evaluation.plan import make_plan


class Shift(Metric):
    def __init__(self, name: str = "shift", extractor: str | None = "pixels") -> None:
        super().__init__(name, extractor=extractor)


class NeedsAName(Metric):
    pass


NOT_A_METRIC = 3


def distance(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one - other).flatten(1).norm(dim=1)


def test_names_stand_in_the_order_in_which_they_were_asked_for() -> None:
    plan = make_plan(["recall", "fd_wavelet", Shift(), "precision", "memorization_wavelet", "fid", "recall"])
    assert plan.names[:4] == ("recall", "fd_wavelet", "shift", "precision")
    assert plan.names[4] == "closer_to_train_wavelet"
    assert plan.names[-1] == "fid"
    assert len(plan.names) == len(set(plan.names))
    assert plan.extractor_names == ["inception", "wavelet", "pixels"]


@pytest.mark.parametrize(
    ("given", "names", "worst"),
    [
        (["fd_wavelet", "fd_wavelet_worst"], ("fd_wavelet",), ("fd_wavelet",)),
        (["fd_wavelet_worst", "recall"], ("fd_wavelet", "recall"), ("fd_wavelet",)),
        ([Shift(), "shift_worst"], ("shift",), ("shift",)),
        ([Shift(), "shift_red_worst"], ("shift",), ("shift_red",)),
        (["fid"], ("fid",), ()),
    ],
)
def test_the_worst_images_of_a_score_are_asked_for_by_name(
    given: Any, names: tuple[str, ...], worst: tuple[str, ...]
) -> None:
    plan = make_plan(given)
    assert (plan.names, plan.worst) == (names, worst)


def test_the_worst_images_of_an_unknown_score_are_an_error() -> None:
    with pytest.raises(ValueError, match="Unknown metric 'fod_wavelet'; did you mean 'fd_wavelet'"):
        make_plan(["fod_wavelet_worst"])


def test_an_extractor_may_be_called_worst() -> None:
    plan = make_plan(["fd_worst", "fd_worst_worst"], extractors={"worst": nn.Flatten()})
    assert (plan.names, plan.worst) == (("fd_worst",), ("fd_worst",))
    assert make_plan(["fd_worst"], extractors={"worst": nn.Flatten()}).worst == ()
    assert plan.extractor_names == ["worst"]


def test_what_the_metrics_need() -> None:
    plan = make_plan(["fid", "precision"], options={"precision": {"k": 7}})
    assert (plan.min_images, plan.reads_real, plan.needs_both) == (8, True, False)
    plan.check_held_out(None)
    assert make_plan(["memorization_wavelet"]).needs_both
    assert not make_plan(["ppl"]).reads_real
    with pytest.raises(ValueError, match=r"closer_to_train_wavelet and 16 more.*`held_out` is missing"):
        make_plan(["memorization_wavelet"]).check_held_out(None)


@pytest.mark.parametrize(
    "given", [Shift(), Shift, f"{__name__}:Shift", f"{__name__}.Shift", FeatureMetric("shift", distance, "pixels")]
)
def test_metrics_are_objects_classes_or_import_paths(given: Any) -> None:
    (metric,) = make_plan([given]).metrics
    assert (metric.names, metric.extractor) == (("shift",), "pixels")


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        ("fid", TypeError, r"got one string. Use `metrics=\('fid',\)`"),
        ([], ValueError, "`metrics` is empty. Name at least one"),
        ({"fid"}, TypeError, "`metrics` must be a list or tuple of metrics, but got {'fid'}"),
        (None, TypeError, "`metrics` must be a list or tuple"),
        ([3], TypeError, r"`metrics\[0\]` must be a metric's name or a Metric, but got 3"),
        ([distance], TypeError, "but got function.*Wrap functions in `FeatureMetric` or `ImageMetric`"),
        ([nn.Identity()], TypeError, "but got Identity"),
        ([NeedsAName], TypeError, "The metric class NeedsAName cannot be made without arguments.*or pass an object"),
        ([f"{__name__}:NOT_A_METRIC"], TypeError, "their import paths, but got int: .*NOT_A_METRIC"),
        ([f"{__name__}:NOWHERE"], ValueError, "NOWHERE"),
        (["nowhere.Metric"], ValueError, "nowhere"),
        ([Shift(), Shift()], ValueError, "Two metrics are called 'shift'. Give each metric a name of its own"),
        (["fid", Shift("fid")], ValueError, "Two metrics are called 'fid'"),
        ([Shift(extractor="mine")], ValueError, "Metric 'shift' reads extractor 'mine', which is not known"),
        (["fd_mine"], ValueError, "needs an extractor 'mine', which is not known"),
    ],
)
def test_what_is_no_metric(metrics: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_plan(metrics)


@pytest.mark.parametrize("ending", ["_std", "_floor", "_gap"])
def test_a_name_that_belongs_to_another_scalar(ending: str) -> None:
    """It would be taken for the error, floor or gap of a metric ``mine``."""
    with pytest.raises(ValueError, match=f"mine{ending}"):
        make_plan([Shift(f"mine{ending}")])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"reference": "train"}, ValueError, "`reference` must be 'real' or 'held_out', but got 'train'"),
        ({"num_real": 1}, ValueError, "`num_real` must be an integer of at least 2, or None, but got 1"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be an integer of at least 1, but got 0"),
        ({"batch_size": "64"}, TypeError, "`batch_size` must be an integer of at least 1, but got '64'"),
        ({"image_range": (1.0, -1.0)}, ValueError, "`image_range` must be finite and have low < high"),
        ({"image_range": (0.0, float("nan"))}, ValueError, r"`image_range\[1\]` must be a finite number"),
        ({"image_range": (0, 1, 2)}, ValueError, r"`image_range` must be two numbers \(low, high\)"),
        ({"real_range": "01"}, TypeError, "`real_range`"),
        ({"image_size": 0}, ValueError, "`image_size`"),
        ({"image_size": (8, 8, 8)}, ValueError, "`image_size`"),
        ({"image_size": (8, 0)}, ValueError, r"`image_size\[1\]`"),
        ({"image_size": 8.0}, TypeError, "`image_size`"),
        ({"extractors": ["inception"]}, TypeError, "`extractors` must be a mapping"),
        ({"options": [("kid", {})]}, TypeError, "`options` must be a mapping"),
        ({"options": {"kid": {"subsets": "9"}}}, TypeError, r"options\['kid'\]\['subsets'\]"),
        ({"weights_dir": 3}, TypeError, "`weights_dir` must be a path"),
        ({"cache_dir": ""}, ValueError, "`cache_dir`"),
        ({"cache_key": ""}, ValueError, "`cache_key`"),
        ({"seed": -1}, ValueError, "`seed` must be an integer of at least 0, but got -1"),
        ({"seed": 1.5}, TypeError, "`seed`"),
        ({"extractors": {"mine_std": nn.Identity()}}, ValueError, "must not be called 'mine_std'"),
    ],
)
def test_bad_arguments(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_plan(["fid", "kid"], **changes)


def test_arguments_become_plain_values() -> None:
    plan = make_plan(
        ("fid",), seed=np.int64(3), image_range=[0, 1], image_size=np.int32(8), batch_size=np.uint8(2), cache_dir="x"
    )
    assert (plan.seed, tuple(plan.image_range), plan.size, plan.batch_size) == (3, (0.0, 1.0), (8, 8), 2)
    assert [type(value) for value in (plan.seed, plan.batch_size, *plan.size)] == [int] * 4
    assert make_plan(("fid",), image_size=(6, 9)).size == (6, 9)
    assert make_plan(("fid",)).size is None


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("lpips", ValueError, "'ppl_z_full' needs the similarity 'lpips', but known are lpips_alex"),
        ("nowhere.distance", ValueError, "nowhere"),
        (f"{__name__}:NOT_A_METRIC", TypeError, "The distance of metric 'ppl_z_full' must be a name or a callable"),
    ],
)
def test_distances_that_nobody_knows(given: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_plan(["ppl_z_full"], options={"ppl": {"distance": given}})


@pytest.mark.parametrize("given", ["lpips_vgg", f"{__name__}:distance", f"{__name__}.distance", distance])
def test_distances_by_name_path_or_themselves(given: str | Callable[..., Any]) -> None:
    (metric,) = make_plan(["ppl_z_full"], options={"ppl": {"distance": given}}).metrics
    assert metric.networks() == {"distance": given}


def test_plans_pickle() -> None:
    plan = make_plan(["fid", "memorization", "pairs", "ppl", Shift()], extractors={"mine": "a.b"}, cache_dir=Path("x"))
    again = pickle.loads(pickle.dumps(plan))
    assert again.names == plan.names
    assert [type(metric) for metric in again.metrics] == [type(metric) for metric in plan.metrics]


@pytest.mark.slow
def test_a_plan_of_known_names_asks_no_other_package() -> None:
    code = """
import sys
from lightning_synthqual.evaluation.plan import make_plan
make_plan(["fid", "kd_wavelet", "memorization"])
print(sorted({"open_clip", "timm", "torchmetrics", "sklearn"} & {*sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
