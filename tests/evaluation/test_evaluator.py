"""One evaluation: what is checked first, what a failing metric costs, and what a report says."""

import gc
import pickle
import shutil
import time
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from lightning_synthqual import FeatureMetric, ImageMetric, Metric, Score, evaluate
from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.evaluation.plan import make_plan
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.extractors import load
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.images.sampling import Sampler
from lightning_synthqual.metrics import frechet_distance, inception_score
from lightning_synthqual.metrics.inception import inception_influence

METRICS = ("fd_pixels", "kd_pixels", "precision_pixels", "recall_pixels")

LOOKED_AT = 17  # items of a set whose size and range are checked when it is opened


class TwoOutputs(nn.Module):
    """Like the Inception network a pool and logits."""

    def forward(self, images):
        pool = images.float().flatten(1)[:, :30] / 255
        return {"pool": pool, "logits": 5 * pool[:, :12]}


def test_the_inception_score_reads_the_logits(clouds, tmp_path, with_networks):
    train, _, fake = clouds
    plan = make_plan(["isc", "fid"], cache_dir=str(tmp_path))
    scalars = with_networks(plan, train, fake, {"inception": TwoOutputs()}, "pool").scalars
    outputs = [TwoOutputs()(dataset.tensors[0]) for dataset in (train, fake)]
    expected = inception_score(outputs[1]["logits"])
    assert scalars["isc"] == pytest.approx(expected.mean.item(), rel=1e-9)
    error = inception_influence(outputs[1]["logits"]).std.item()
    assert scalars["isc_std"] == pytest.approx(error, rel=1e-9)
    assert scalars["fid"] == pytest.approx(frechet_distance(*(o["pool"] for o in outputs)).item(), rel=1e-9)


def test_an_output_that_the_extractor_does_not_give(clouds, tmp_path, with_networks, flat):
    plan = make_plan(["isc"], cache_dir=str(tmp_path))
    with pytest.raises(ValueError, match="Extractor 'inception' has no output 'logits'; it gives features"):
        with_networks(plan, clouds[0], clouds[2], {"inception": flat}, "features")


@pytest.mark.parametrize("name", ["fid50k", "fid50k_full", "kid50k_full", "is50k"])
def test_published_names_are_for_published_numbers_of_images(clouds, tmp_path, with_networks, name):
    message = f"{name} is a published protocol, which generates 50000 images, but got 40. Set `num_samples=50000`"
    plan = make_plan([name], cache_dir=str(tmp_path))
    with pytest.raises(ValueError, match=message):
        with_networks(plan, clouds[0], clouds[2], {"inception": TwoOutputs()}, "pool")


def test_a_smoke_test_does_not_insist_on_published_numbers(clouds, tmp_path, with_networks):
    plan = replace(make_plan(["fid50k"], cache_dir=str(tmp_path)), smoke_test=True)
    report = with_networks(plan, clouds[0], clouds[2], {"inception": TwoOutputs()}, "pool")
    assert report.scalars["fid50k"] > 0


class Breaks(nn.Module):
    """NaN where the first byte of an image is this one."""

    def __init__(self, byte):
        super().__init__()
        self.byte = byte

    def forward(self, images):
        features = images.float().flatten(1)[:, :5].clone()
        features[images[:, 0, 0, 0] == self.byte] = torch.nan
        return features


def test_nan_features_name_the_row_and_the_metric(clouds, tmp_path):
    fake = clouds[2].tensors[0][:6].clone()
    fake[:, 0, 0, 0] = torch.arange(6)
    extractors = {"mine": Breaks(3)}
    with pytest.raises(ValueError, match=r"fd_mine.*`generated` features contain NaN or infinity, first in row 3"):
        evaluate(clouds[0], TensorDataset(fake), metrics=["fd_mine"], extractors=extractors, cache_dir=str(tmp_path))


def test_fewer_images_than_features_get_a_warning(clouds, tmp_path, caplog):
    evaluate(clouds[0], clouds[2], metrics=METRICS, cache_dir=str(tmp_path))
    assert "fd_pixels: only 40 generated images for 3072 features" in caplog.text
    assert "kd_pixels" not in caplog.text
    few = TensorDataset(clouds[0].tensors[0][:30])
    evaluate(few, clouds[2], metrics=METRICS, cache_dir=str(tmp_path))
    assert "fd_pixels: only 30 real images for 3072 features" in caplog.text


def test_too_few_images(clouds, tmp_path):
    fake = TensorDataset(clouds[2].tensors[0][:3])
    with pytest.raises(ValueError, match="precision_pixels, recall_pixels needs at least 4 images, but `fake` has 3"):
        evaluate(clouds[0], fake, metrics=METRICS, cache_dir=str(tmp_path))
    few = TensorDataset(clouds[0].tensors[0][:3])
    with pytest.raises(ValueError, match="precision_pixels, recall_pixels needs at least 4 images, but `real` has 3"):
        evaluate(few, clouds[2], metrics=METRICS, cache_dir=str(tmp_path))


# What is cheap is tried before what is dear.


class Wrong(nn.Module):
    """A generator that returns something else than images."""

    latent_dim = 4

    def __init__(self, returned):
        super().__init__()
        self.returned = returned

    def forward(self, z):
        return self.returned(z)


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        (lambda z: z, ValueError),
        (lambda z: None, TypeError),
        (lambda z: torch.full((len(z), 3, 16, 16), torch.nan), ValueError),
        (lambda z: torch.zeros(len(z) + 1, 3, 16, 16), ValueError),
        (lambda z: z @ torch.zeros(5, 5), RuntimeError),
    ],
)
def test_a_sampler_is_tried_before_the_real_images_are_read(clouds, counted, tmp_path, returned, error):
    real = counted(clouds[0].tensors[0])
    with pytest.raises(error):
        evaluate(real, Wrong(returned), metrics=["kd_pixels"], num_samples=8, cache_dir=str(tmp_path))
    assert real.reads <= LOOKED_AT


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"metrics": ["fid"], "extractors": {"inception": {"weights": "/nowhere.pth"}}}, FileNotFoundError),
        ({"metrics": ["kd_pixels"], "options": {"kid": {"subsets": 0}}}, ValueError),
        ({"metrics": ["closer_to_train_pixels"]}, ValueError),
        ({"metrics": ["kd_mine"], "extractors": {"mine": 3}}, TypeError),
    ],
)
def test_what_needs_no_images_is_checked_before_one_is_read(clouds, counted, tmp_path, arguments, error):
    real, fake = counted(clouds[0].tensors[0]), counted(clouds[2].tensors[0])
    with pytest.raises(error):
        evaluate(real, fake, cache_dir=str(tmp_path), **arguments)
    assert max(real.reads, fake.reads) <= LOOKED_AT


def test_the_order_of_a_good_evaluation(clouds, counted, tmp_path):
    """Each real image is read for its digest and its features, and the first one for its size."""
    real = counted(clouds[0].tensors[0])
    module = Wrong(lambda z: torch.zeros(len(z), 3, 16, 16))
    plan = make_plan(["kd_pixels"], cache_dir=str(tmp_path))
    sampler = Sampler(module, owner=module)
    evaluator = Evaluator(Workspace(plan, Ranks()), ImageSet(real, "real"), sampler=sampler, num_samples=8)
    reads = real.reads
    assert reads <= 2 * 60 + 3
    evaluator.evaluate(sampler, 8)
    assert real.reads == reads


# A metric that fails does not lose the others.


class Fails(Metric):
    """A user's metric with a mistake."""

    def __init__(self, error, where="score"):
        super().__init__("mine", extractor="pixels")
        self.error, self.where = error, where

    def prepare(self, real):
        if self.where == "prepare":
            raise self.error
        return real

    def score(self, state, fake):
        raise self.error


@pytest.mark.parametrize("error", [ValueError("no such thing"), KeyError("colour"), ZeroDivisionError("by zero")])
def test_the_other_scores_are_reported(clouds, tmp_path, caplog, error):
    metrics = ["kd_pixels", Fails(error), "recall_pixels"]
    report = evaluate(clouds[0], clouds[2], metrics=metrics, cache_dir=str(tmp_path))
    assert list(report.scalars) == ["kd_pixels", "kd_pixels_std", "recall_pixels", "recall_pixels_std"]
    assert list(report.protocol["failed"]) == ["mine"]
    assert str(error) in report.protocol["failed"]["mine"]
    assert "mine failed and is not reported" in caplog.text
    assert "samples" in report.pictures
    assert "failed" not in evaluate(clouds[0], clouds[2], metrics=["kd_pixels"], cache_dir=str(tmp_path)).protocol


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("no such thing"), ValueError),
        (ZeroDivisionError("by zero"), ZeroDivisionError),
        (KeyError("colour"), RuntimeError),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "odd"), RuntimeError),
        (torch.OutOfMemoryError("too large"), RuntimeError),
    ],
)
def test_an_error_is_raised_with_the_metrics_name_if_nothing_could_be_scored(clouds, tmp_path, error, kind):
    with pytest.raises(kind, match="Metric 'mine': ") as caught:
        evaluate(clouds[0], clouds[2], metrics=[Fails(error)], cache_dir=str(tmp_path))
    assert caught.value.__cause__ is error


def test_a_metric_that_cannot_be_prepared_is_named_at_once(clouds, counted, tmp_path):
    fake = counted(clouds[2].tensors[0])
    with pytest.raises(ZeroDivisionError, match="mine"):
        evaluate(clouds[0], fake, metrics=[Fails(ZeroDivisionError("by zero"), "prepare")], cache_dir=str(tmp_path))
    assert fake.reads <= LOOKED_AT


@pytest.mark.parametrize("metrics", [["closer_to_train_pixels", "kd_pixels"], ["kd_pixels", "closer_to_train_pixels"]])
def test_images_that_are_gone_cost_their_figures_alone(clouds, tmp_path, caplog, metrics):
    folders = {}
    for name, data in zip(("real", "held_out", "fake"), clouds, strict=True):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        for index, image in enumerate(data.tensors[0][:30]):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folders[name] / f"{index:02}.png")
    report = evaluate(**folders, metrics=metrics, cache_dir=str(tmp_path / "cache"))
    for folder in folders.values():
        shutil.rmtree(folder)
    assert {"closer_to_train_pixels", "kd_pixels", "kd_pixels_gap"} <= set(report.scalars)
    assert set(report.pictures) == {"samples", "distances_pixels"}
    assert [len(table.rows) for table in report.tables.values()] == [0]  # no copies
    assert "neighbors_pixels could not be drawn" in caplog.text


# Metrics of the user's.


class Shift(Metric):
    """Distance of the means."""

    direction = "min"
    floor = "all"

    def __init__(self, name="shift", extractor="pixels"):
        super().__init__(name, extractor=extractor)

    def score(self, state, fake):
        return (fake.double().mean(0) - state.double().mean(0)).norm()


NAMED = Shift("named")


@pytest.mark.parametrize("given", [Shift("shift"), Shift, f"{__name__}:Shift", f"{__name__}.Shift"])
def test_objects_classes_and_import_paths_give_the_same(clouds, tmp_path, given):
    report = evaluate(clouds[0], clouds[2], held_out=clouds[1], metrics=["kd_pixels", given], cache_dir=str(tmp_path))
    pixels = load("pixels")
    real, other, fake = (pixels(each.tensors[0])["features"].double().mean(0) for each in clouds)
    assert report.scalars["shift"] == pytest.approx((fake - real).norm().item(), rel=1e-5)
    assert report.scalars["shift_floor"] == pytest.approx((other - real).norm().item(), rel=1e-5)
    assert report.protocol["metrics"]["shift"] == {"family": "Shift", "extractor": "pixels", "direction": "min"}
    assert report.direction("shift") == "min"
    assert report.direction("shift_floor") is None


def test_an_object_by_its_import_path(clouds, tmp_path):
    report = evaluate(clouds[0], clouds[2], metrics=[f"{__name__}:NAMED"], cache_dir=str(tmp_path))
    assert set(report.scalars) == {"named"}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (2.0, {"mine": 2.0}),
        (Score(2.0, std=0.5), {"mine": 2.0, "mine_std": 0.5}),
        ({"red": 1.0, "blue": Score(2.0, std=0.5)}, {"mine_red": 1.0, "mine_blue": 2.0, "mine_blue_std": 0.5}),
        (Score(float("nan")), {}),
    ],
)
def test_whatever_it_returns_is_reported_under_its_name(clouds, tmp_path, result, expected):
    metric = FeatureMetric("mine", lambda real, fake: result, "pixels")
    report = evaluate(clouds[0], clouds[2], metrics=[metric, "kd_pixels"], cache_dir=str(tmp_path))
    assert {name: value for name, value in report.scalars.items() if "mine" in name} == expected


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (torch.zeros(3), r"`score` of metric 'mine' must return .*a tensor of shape \(3,\)"),
        (float("nan"), "Metric 'mine' returned nan"),
        (None, "metric 'mine' must return .*NoneType"),
    ],
)
def test_what_it_must_not_return_is_an_error_that_names_it(clouds, tmp_path, result, message):
    metric = FeatureMetric("mine", lambda real, fake: result, "pixels")
    with pytest.raises((TypeError, ValueError), match=message):
        evaluate(clouds[0], clouds[2], metrics=[metric], cache_dir=str(tmp_path))


def test_names_that_two_metrics_report_are_an_error(clouds, tmp_path):
    """The names of a dict's values are not known before it is there."""
    metric = FeatureMetric("kd", lambda real, fake: {"pixels": 1.0}, "pixels")
    report = evaluate(clouds[0], clouds[2], metrics=["kd_pixels", metric], cache_dir=str(tmp_path))
    assert "'kd' and 'kd_pixels' both report 'kd_pixels'" in report.protocol["failed"]["kd"].replace("Metrics ", "")
    assert report.scalars["kd_pixels"] != 1.0


def test_directions_of_several_values(clouds, tmp_path):
    metric = FeatureMetric("mine", lambda real, fake: {"good": 1.0, "bad": 2.0}, "pixels")
    metric.direction = {"good": "max", "bad": "min"}
    report = evaluate(clouds[0], clouds[2], metrics=[metric], cache_dir=str(tmp_path))
    assert [report.direction(name) for name in ("mine_good", "mine_bad")] == ["max", "min"]


def test_a_metric_that_reads_no_features_says_so(clouds, tmp_path):
    """It has a `score`, but nobody said of which extractor."""
    with pytest.raises((ValueError, TypeError), match="`extractor="):
        evaluate(clouds[0], clouds[2], metrics=[Shift("shift", extractor=None)], cache_dir=str(tmp_path))


class Disagreeing(Ranks):
    """Processes of which the other one has found something else for one metric."""

    def __init__(self, name, change):
        super().__init__()
        self.name, self.change = name, change

    def gather_objects(self, value):
        if isinstance(value, dict) and self.name in value:
            return [value, {**value, self.name: value[self.name] * self.change}]
        return super().gather_objects(value)


@pytest.mark.parametrize(("change", "agrees"), [(1.0, True), (1.0 + 1e-7, True), (1.01, False), (-1.0, False)])
def test_values_that_differ_between_processes_are_an_error(clouds, tmp_path, change, agrees):
    plan = make_plan(["kd_pixels", Shift], cache_dir=str(tmp_path))
    workspace = Workspace(plan, Disagreeing("shift", change))
    evaluator = Evaluator(workspace, ImageSet(clouds[0], "real"))
    if agrees:
        assert "shift" in evaluator.evaluate_images(ImageSet(clouds[2], "fake")).scalars
        return
    with pytest.raises(ValueError, match="Metric 'shift' has other values on other processes"):
        evaluator.evaluate_images(ImageSet(clouds[2], "fake"))


def test_metrics_that_read_no_real_images_need_none(tmp_path):
    module = Wrong(lambda z: z.mean(dim=1).tanh()[:, None, None, None].expand(-1, 3, 16, 16))
    metric = ImageMetric("brightness", lambda images: images.double().mean(dim=(1, 2, 3)), "max")
    report = evaluate(None, module, metrics=[metric], num_samples=9, cache_dir=str(tmp_path))
    assert report.protocol["reference"] is None
    assert report.protocol["num_samples"] == 9
    assert 0 < report.scalars["brightness"] < 255
    assert set(report.pictures) == {"samples", "brightness"}


def features_alive(count):
    """How many tensors of so many rows of pixel features there are."""
    gc.collect()
    return sum(type(each) is torch.Tensor and tuple(each.shape) == (count, 3072) for each in gc.get_objects())


def test_a_report_that_nobody_looks_at_holds_no_features(clouds, tmp_path):
    """Processes but the first keep their reports and never draw them."""
    fake = TensorDataset(clouds[2].tensors[0][:37])
    arguments = {"held_out": clouds[1], "metrics": ["closer_to_train_pixels"], "cache_dir": str(tmp_path)}
    report = evaluate(clouds[0], fake, **arguments)
    assert features_alive(37) == 0
    assert "neighbors_pixels" in report.pictures


def test_reports_pickle(clouds, tmp_path):
    arguments = {"held_out": clouds[1], "metrics": ["closer_to_train_pixels"], "cache_dir": str(tmp_path)}
    report = evaluate(*clouds[::2], **arguments)
    again = pickle.loads(pickle.dumps(report))
    assert again == report
    assert set(again.scalars) == {"closer_to_train_pixels", "closer_to_train_pixels_std"}


def test_a_figure_that_is_none_costs_its_metric_alone(clouds, tmp_path):
    metric = FeatureMetric("mine", lambda real, fake: Score(1.0, figures={"mine": None}), "pixels")
    report = evaluate(clouds[0], clouds[2], metrics=["kd_pixels", metric], cache_dir=str(tmp_path))
    assert "kd_pixels" in report.scalars
    assert "mine" not in report.pictures


def test_the_dry_run_says_how_long_an_evaluation_takes(clouds, tmp_path, caplog):
    class Slow(nn.Module):
        latent_dim = 5

        def forward(self, z):
            calls.append(len(z))
            time.sleep(0.002 * len(z))
            return torch.zeros(len(z), 3, 16, 16) + z.mean(dim=1)[:, None, None, None]

    calls: list[int] = []
    with caplog.at_level("INFO"):
        evaluate(clouds[0], Slow(), metrics=["kd_pixels"], num_samples=100, batch_size=20, cache_dir=str(tmp_path))
    [line] = [record.message for record in caplog.records if "takes about" in record.message]
    seconds = float(line.partition("takes about ")[2].partition(" s")[0])
    assert line.startswith("Sampling and extracting 100 images")
    assert 0.2 <= seconds < 5
    assert calls == [2, 20, 2, 20, 20, 20, 20, 20]  # two images, twice, and one block are tried
