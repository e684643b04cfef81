"""Metrics for loops without the callback: numbers of the pure functions, in parts, copies and processes."""

import copy
import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchmetrics
from torch import Tensor, nn

from lightning_synthqual.extractors import load
from lightning_synthqual.metrics import (
    FeatureMetric,
    cmmd,
    density_coverage,
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from lightning_synthqual.metrics.kernel import ClipDiscrepancy
from lightning_synthqual.torchmetrics import QualityMetric

SCRIPT = Path(__file__).with_name("torchmetrics_ranks.py")


class Averages(nn.Module):
    """Features: twelve box averages in [0, 1]."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)


FUNCTIONS = {
    "fd": frechet_distance,
    "kd": lambda real, fake: kernel_distance(real, fake).value,
    "kd_rbf": lambda real, fake: kernel_distance(real, fake, kernel="rbf").value,
    "precision": lambda real, fake: precision_recall(real, fake).precision,
    "recall": lambda real, fake: precision_recall(real, fake).recall,
    "density": lambda real, fake: density_coverage(real, fake).density,
    "coverage": lambda real, fake: density_coverage(real, fake).coverage,
}


@pytest.fixture
def sets(pictures) -> tuple[Tensor, Tensor]:
    """Real and generated images that overlap, of unequal number."""
    return pictures(70, 32, 32), torch.cat([pictures(20, 32, 32), pictures(33, 32, 32, seed=1) // 8 * 7])


def fill(metric: QualityMetric, real: Tensor, fake: Tensor, size: int = 16) -> QualityMetric:
    for images, is_real in ((fake, False), (real, True)):
        for part in images.split(size):
            metric.update(part, real=is_real)
    return metric


def features(extractor: str, images: Tensor) -> Tensor:
    if extractor == "mine":
        return Averages()(images)
    loaded = load(extractor)
    return loaded(images)[loaded.embedding]


@pytest.mark.parametrize("extractor", ["pixels", "wavelet", "mine"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_gives_the_number_of_the_function(sets, name, extractor):
    metric = fill(QualityMetric(f"{name}_{extractor}", extractors={"mine": Averages()}), *sets)
    expected = FUNCTIONS[name](*(features(extractor, images) for images in sets))
    assert metric.compute().dtype == torch.float64
    assert metric.compute().item() == pytest.approx(float(expected), rel=1e-9)


def test_cmmd_on_other_features(sets):
    metric = fill(QualityMetric(ClipDiscrepancy("mmd", extractor="wavelet")), *sets)
    assert metric.compute().item() == pytest.approx(
        float(cmmd(*(features("wavelet", each) for each in sets))), rel=1e-9
    )


def test_a_function_of_the_users(sets):
    shift = FeatureMetric("shift", lambda real, fake: (real.mean(0) - fake.mean(0)).norm(), "wavelet", "min")
    real, fake = (features("wavelet", each) for each in sets)
    metric = fill(QualityMetric(shift), *sets)
    assert metric.compute().item() == pytest.approx((real.mean(0) - fake.mean(0)).norm().item(), rel=1e-5)
    assert metric.higher_is_better is False


def test_options_and_the_number_of_updates(sets):
    one, one_go, other = (QualityMetric("recall_wavelet", **options) for options in ({"k": 5}, {"k": 5}, {}))
    expected = precision_recall(*(features("wavelet", each) for each in sets), k=5).recall
    assert fill(one, *sets, size=7).compute() == fill(one_go, *sets, size=100).compute() == expected
    assert fill(other, *sets).compute() != expected


def test_floats_of_the_declared_range(sets):
    metric, floats = QualityMetric("fd_wavelet"), QualityMetric("fd_wavelet", image_range=(0.0, 1.0))
    assert fill(floats, *(images / 255 for images in sets)).compute() == fill(metric, *sets).compute()


@pytest.mark.parametrize("reset_real", [True, False])
def test_reset(sets, reset_real):
    real, fake = sets
    metric = fill(QualityMetric("fd_wavelet", reset_real=reset_real), real, fake)
    expected = metric.compute()
    metric.reset()
    with pytest.raises(ValueError, match=r"fd_wavelet needs at least 2 .* images, but got 0"):
        metric.compute()
    metric.update(fake, real=False)
    if reset_real:
        with pytest.raises(ValueError, match="needs at least 2 real images, but got 0"):
            metric.compute()
        metric.update(real, real=True)
    assert metric.compute() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda metric: pickle.loads(pickle.dumps(metric)), lambda m: m.clone()]
)
def test_a_copy_goes_on_by_itself(sets, duplicate):
    real, fake = sets
    metric = QualityMetric("fd_mine", extractors={"mine": Averages()})
    metric.update(real, real=True)
    other = duplicate(metric)
    other.update(fake, real=False)
    assert other.compute() == pytest.approx(frechet_distance(Averages()(real), Averages()(fake)).item(), rel=1e-9)
    with pytest.raises(ValueError, match="fake images, but got 0"):
        metric.compute()


def test_a_collection_of_metrics(sets):
    names = ("fd_wavelet", "kd_pixels", "coverage_wavelet", "density_wavelet")
    collection = torchmetrics.MetricCollection({name: QualityMetric(name) for name in names})
    for images, is_real in zip(sets, (True, False), strict=True):
        for part in images.split(16):
            collection.update(part, real=is_real)
    found = collection.compute()
    assert {name: value.item() for name, value in found.items()} == {
        name: pytest.approx(fill(QualityMetric(name), *sets).compute().item(), rel=1e-9) for name in names
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [("fd_pixels", False), ("kd_rbf_wavelet", False), ("recall_pixels", True), ("density_pixels", True)],
)
def test_which_values_are_better(name, expected):
    assert QualityMetric(name).higher_is_better is expected


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "fidd_pixels"}, ValueError, "Unknown metric 'fidd_pixels'"),
        ({"name": "fd_mine"}, ValueError, "extractor 'mine'"),
        ({"name": "memorization_pixels"}, ValueError, "'memorization_pixels' looks at more than the features"),
        ({"name": "pairs_pixels"}, ValueError, "'pairs_pixels' looks at more than the features"),
        ({"name": "ppl"}, ValueError, "'ppl' looks at more than the features"),
        ({"name": "authenticity_pixels"}, ValueError, "'authenticity_pixels' looks at more than the features"),
        ({"name": 3}, TypeError, "`metrics"),
        ({"name": "recall_pixels", "k": "3"}, TypeError, "'k'"),
        ({"name": "recall_pixels", "k": 0}, ValueError, "'k'"),
        ({"name": "recall_pixels", "kk": 3}, ValueError, "has no option 'kk'"),
        ({"name": ClipDiscrepancy("mmd", extractor="wavelet"), "sigma": 3.0}, TypeError, "`sigma`.*'mmd'"),
        ({"name": "fd_pixels", "image_range": (1.0, 0.0)}, ValueError, "`image_range`"),
        ({"name": "fd_pixels", "reset_real": "no"}, TypeError, "`reset_real`"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        QualityMetric(**arguments)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(3, 8, 8, dtype=torch.uint8), ValueError, "`images` must .*shape"),
        (torch.zeros(2, 4, 8, 8, dtype=torch.uint8), ValueError, "`images` returned images of shape|4 channels"),
        (torch.full((2, 3, 8, 8), torch.nan), ValueError, "`images` .*NaN"),
        ([1, 2], TypeError, "`images` must .*tensor"),
    ],
)
def test_bad_images(images, error, message):
    with pytest.raises(error, match=message):
        QualityMetric("fd_wavelet").update(images, real=True)


@pytest.mark.parametrize(("counts", "message"), [((3, 70), "needs at least 4 real images, but got 3")])
def test_too_few_images(pictures, counts, message):
    metric = fill(QualityMetric("recall_wavelet"), *(pictures(count, 32, 32) for count in counts))
    with pytest.raises(ValueError, match=message):
        metric.compute()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    """What two processes found that share the images unevenly."""
    output = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": "2"}
    processes = []
    for rank in range(2):
        with (output / f"{rank}.log").open("w") as log:
            environment = {**os.environ, **place, "RANK": str(rank)}
            command = [sys.executable, str(SCRIPT), str(output)]
            processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
    try:
        codes = [process.wait(90) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0], [(output / f"{rank}.log").read_text()[-3000:] for rank in range(2)]
    return [json.loads((output / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_processes_with_unequal_parts_give_the_number_of_one(ranks, pictures):
    sets = pictures(70, 16, 16), pictures(53, 16, 16, seed=1) // 8 * 7
    for name in ("fd_wavelet", "kd_wavelet", "recall_wavelet", "coverage_wavelet"):
        alone = fill(QualityMetric(name), *sets).compute().item()
        for found in ranks:
            assert found["uneven"][name] == pytest.approx(alone, rel=1e-9)
            assert found["idle"][name] == pytest.approx(alone, rel=1e-9)


def test_the_number_of_collectives_does_not_grow_with_the_number_of_updates(ranks):
    for found in ranks:
        few, many = found["collectives"]
        assert few == many > 0


def test_a_metric_goes_on_after_it_was_computed_by_all(ranks):
    assert [found["own"] for found in ranks] == [[50, 13], [20, 40]]
