"""Metrics that users make of functions and of torchmetrics' classes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics.image import FrechetInceptionDistance, InceptionScore, PeakSignalNoiseRatio

from lightning_synthqual import evaluate
from lightning_synthqual.evaluation.plan import make_plan
from lightning_synthqual.metrics import FeatureMetric, ImageMetric, Score, TorchMetric
from lightning_synthqual.metrics.figures import ImageRef, ImageSheet
from lightning_synthqual.metrics.views import Generated, Runtime

Pictures = Callable[..., Tensor]


class Held:
    """Images in memory, of which a process works on some."""

    def __init__(self, images: list[Tensor], own: list[int] | None = None) -> None:
        self.images, self.own = images, own

    def shard(self, count: int) -> list[int]:
        return list(range(count)) if self.own is None else [index for index in self.own if index < count]

    def pick(self, indices: Any) -> list[Tensor]:
        return [self.images[index] for index in indices]

    def name(self, index: int) -> str:
        return f"item {index}"


def generated(images: Any, own: list[int] | None = None) -> Generated:
    return Generated("generated", {}, {}, Held(list(images), own), None, len(images))


def brightness(images: Tensor) -> Tensor:
    return images.double().mean(dim=(1, 2, 3))


def score(metric: Any, view: Generated) -> Any:
    return metric.score_set(metric.prepare_sets(None), view)


@pytest.mark.parametrize("count", [5, 63, 64, 65, 130])
def test_the_mean_over_images_and_its_standard_error(pictures: Pictures, count: int) -> None:
    images = pictures(count, 6, 5)
    found, values = score(ImageMetric("brightness", brightness), generated(images)), brightness(images)
    assert found.value.item() == pytest.approx(values.mean().item(), rel=1e-12)
    assert found.error.item() == pytest.approx(values.std().item() / count**0.5, rel=1e-12)
    torch.testing.assert_close(found.influence.fake, values - values.mean(), rtol=0, atol=1e-10)
    assert (found.influence.value, len(found.influence.real)) == (found.value, 0)


def test_the_sheet_shows_the_lowest_and_the_highest(pictures: Pictures) -> None:
    images = pictures(20, 6, 5)
    sheet = score(ImageMetric("brightness", brightness), generated(images)).figures["brightness"]
    assert isinstance(sheet, ImageSheet)
    order = brightness(images).argsort().tolist()
    shown = {row.label: [cell.images for cell in row.cells] for row in sheet.rows}
    assert shown == {
        "lowest": [(ImageRef("generated", index),) for index in order[:4]],
        "highest": [(ImageRef("generated", index),) for index in order[-4:]],
    }
    assert sheet.rows[0].cells[0].text == f"{brightness(images)[order[0]]:.3g}"


def test_a_sheet_of_fewer_images_than_it_could_show(pictures: Pictures) -> None:
    sheet = score(ImageMetric("brightness", brightness), generated(pictures(3, 6, 5))).figures["brightness"]
    assert [len(row.cells) for row in sheet.rows] == [3, 3]


def test_images_of_several_sizes_come_by_size(pictures: Pictures) -> None:
    shapes: list[tuple[int, ...]] = []

    def looks(images: Tensor) -> Tensor:
        shapes.append(tuple(images.shape))
        return brightness(images)

    images = [*pictures(3, 6, 5), *pictures(2, 4, 4), *pictures(1, 6, 5)]
    found = score(ImageMetric("brightness", looks), generated(images))
    expected = np.mean([image.double().mean().item() for image in images])
    assert found.value.item() == pytest.approx(expected, rel=1e-12)
    assert shapes == [(4, 3, 6, 5), (2, 3, 4, 4)]


def test_a_process_looks_at_its_own_images(pictures: Pictures) -> None:
    """The others' values come from the exchange between processes."""
    images = pictures(7, 6, 5)
    others = brightness(images)

    def gather(rows: Tensor | None, indices: Any, count: int) -> Tensor:
        assert rows is not None
        full = others.clone()
        full[list(indices)] = rows
        return full[:count]

    metric = ImageMetric("brightness", brightness).with_runtime(Runtime(gather=gather))
    assert score(metric, generated(images, own=[1, 4])).value.item() == pytest.approx(others.mean().item(), rel=1e-12)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (
            lambda images: 3.0,
            TypeError,
            r"'mine' must return a tensor of shape \(5,\) for 5 images, but returned float",
        ),
        (lambda images: images.float().mean(), TypeError, r"'mine' must return .* but returned shape \(\)"),
        (lambda images: images.float().mean((2, 3)), TypeError, r"'mine' must return .* but returned shape \(5, 3\)"),
        (
            lambda images: torch.tensor([1, 2, torch.nan, 4, 5]),
            ValueError,
            "'mine' returned NaN or infinity, .*image 2",
        ),
    ],
)
def test_functions_that_return_something_else(
    pictures: Pictures, function: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        score(ImageMetric("mine", function), generated(pictures(5, 6, 5)))


def test_an_image_metric_in_a_report(pictures: Pictures, tmp_path: Path) -> None:
    images = pictures(9, 16, 16)
    metric = ImageMetric("brightness", brightness, "max")
    report = evaluate(None, TensorDataset(images), metrics=[metric], cache_dir=tmp_path)
    values = brightness(images)
    assert report.scalars == pytest.approx(
        {"brightness": values.mean().item(), "brightness_std": values.std().item() / 3}, rel=1e-9
    )
    assert report.direction("brightness") == "max"
    assert set(report.pictures) == {"samples", "brightness"}
    assert report.protocol["metrics"]["brightness"]["family"] == "ImageMetric"
    assert not make_plan([metric]).reads_real


def test_a_feature_metric_gets_the_features_of_both_sets(pictures: Pictures, tmp_path: Path) -> None:
    real, fake = pictures(20, 32, 32), pictures(15, 32, 32, seed=1)
    seen: list[tuple[int, ...]] = []

    def shift(one: Tensor, other: Tensor) -> Score:
        seen.extend([tuple(one.shape), tuple(other.shape)])
        assert {one.dtype, other.dtype} == {torch.float32}
        return Score((one.double().mean(0) - other.double().mean(0)).norm(), std=0.5)

    metric = FeatureMetric("shift", shift, "pixels", "min")
    report = evaluate(TensorDataset(real), TensorDataset(fake), metrics=[metric], cache_dir=tmp_path)
    one, other = (images.double().flatten(1).mean(0) / 127.5 for images in (real, fake))
    assert report.scalars == pytest.approx({"shift": (one - other).norm().item(), "shift_std": 0.5}, rel=1e-6)
    assert seen == [(20, 3072), (15, 3072)]
    assert report.direction("shift") == "min"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FeatureMetric("mine", 3, "pixels"), TypeError, "The function of metric 'mine' must be callable.*int"),
        (lambda: FeatureMetric("", min, "pixels"), ValueError, "needs a name"),
        (lambda: FeatureMetric("mine", min, ""), TypeError, "`extractor` of metric 'mine'"),
        (lambda: FeatureMetric("mine", min, "pixels", "lower"), ValueError, "`direction` of metric 'mine' must be"),
        (lambda: ImageMetric("mine", None), TypeError, "The function of metric 'mine' must be callable"),
        (lambda: ImageMetric("mine", brightness, "up"), ValueError, "must be 'min', 'max' or None, but got 'up'"),
        (lambda: TorchMetric("mine", brightness), TypeError, "`metric` of 'mine' must be a torchmetrics .*function"),
        (lambda: TorchMetric("mine", torchmetrics.MeanMetric(), 1), ValueError, "`direction` of metric 'mine'"),
    ],
)
def test_bad_arguments(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


class Averages(nn.Module):
    """Features for torchmetrics: twelve box averages, as float."""

    num_features = 12

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


def frechet() -> FrechetInceptionDistance:
    return FrechetInceptionDistance(feature=Averages())


def test_a_torchmetric_of_two_sets_gives_its_own_number(pictures: Pictures, tmp_path: Path) -> None:
    real, fake = pictures(90, 16, 16), pictures(70, 16, 16, seed=1) // 2
    peer, given = frechet(), frechet()
    for images, flag in ((real, True), (fake, False)):
        for part in images.split(64):
            peer.update(part, real=flag)
    metric = TorchMetric("fid_tm", given, "min")
    report = evaluate(TensorDataset(real), TensorDataset(fake), metrics=[metric], cache_dir=tmp_path)
    assert report.scalars == pytest.approx({"fid_tm": peer.compute().item()}, rel=1e-5)
    assert report.direction("fid_tm") == "min"
    assert given.real_features_num_samples == 0  # it was copied
    again = evaluate(TensorDataset(real), TensorDataset(fake), metrics=[metric], cache_dir=tmp_path)
    assert again.scalars == report.scalars


def test_real_images_are_given_to_a_torchmetric_once(pictures: Pictures) -> None:
    class Counting(torchmetrics.Metric):
        real_images = 0

        def __init__(self) -> None:
            super().__init__()
            self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

        def update(self, images: Tensor, real: bool) -> None:
            type(self).real_images += len(images) * real
            self.total += images.double().mean(dim=(1, 2, 3)).sum() * (1 if real else -1)

        def compute(self) -> Tensor:
            return self.total

    real, fake = pictures(70, 4, 4), pictures(66, 4, 4, seed=1)
    metric, view = TorchMetric("mine", Counting()), generated(fake)
    from lightning_synthqual.metrics.views import RealSets

    state = metric.prepare_sets(RealSets(generated(real)))
    expected = brightness(real).sum() - brightness(fake).sum()
    for _ in range(2):
        assert metric.score_set(state, view) == pytest.approx(expected.item(), rel=1e-4)
    assert Counting.real_images == 70
    assert metric.reads_real


def test_a_torchmetric_of_one_set_gives_its_own_number(pictures: Pictures, tmp_path: Path) -> None:
    """Of a value with its spread the value is reported."""
    fake = pictures(70, 16, 16)
    metric = TorchMetric("isc_tm", InceptionScore(feature=Averages(), splits=1), "max")
    peer = InceptionScore(feature=Averages(), splits=1)
    peer.update(fake)
    assert not metric.reads_real
    report = evaluate(None, TensorDataset(fake), metrics=[metric], cache_dir=tmp_path)
    assert report.scalars == pytest.approx({"isc_tm": peer.compute()[0].item()}, rel=1e-4)
    assert report.protocol["reference"] is None


def test_a_torchmetric_beside_metrics_of_features(pictures: Pictures, tmp_path: Path) -> None:
    real, fake = TensorDataset(pictures(30, 16, 16)), TensorDataset(pictures(20, 16, 16, seed=1))
    metrics = ["kd_wavelet", TorchMetric("fid_tm", frechet())]
    report = evaluate(real, fake, metrics=metrics, cache_dir=tmp_path)
    assert set(report.scalars) == {"kd_wavelet", "kd_wavelet_std", "fid_tm"}
    alone = evaluate(real, fake, metrics=metrics[1:], cache_dir=tmp_path)
    assert alone.scalars["fid_tm"] == report.scalars["fid_tm"]


def test_a_metric_of_pairs_is_no_metric_of_images():
    with pytest.raises(TypeError, match=r"PeakSignalNoiseRatio.update` takes target, too"):
        TorchMetric("psnr", PeakSignalNoiseRatio(data_range=255.0))
