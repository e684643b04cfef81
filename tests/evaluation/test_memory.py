"""How much memory an evaluation takes, and what happens where there is less."""

import logging
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from lightning_synthqual import Metric
from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.evaluation.plan import make_plan
from lightning_synthqual.evaluation.reference import peak_memory
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.images.sampling import Sampler
from lightning_synthqual.metrics.shard import MEMORY, smaller_tiles, tile_size


class Hungry(Metric):
    """It needs more memory than there is unless tiles are small."""

    tried: ClassVar[list[int]] = []
    most = 1000

    def score(self, state: Tensor, fake: Tensor) -> float:
        self.tried.append(tile_size(64))
        if self.tried[-1] > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0


class Generator(nn.Module):
    latent_dim = 3 * 16 * 16

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(z).view(-1, 3, 16, 16)


@pytest.fixture
def evaluator(clouds, tmp_path):
    """``evaluator(*metrics)`` of the first of the clouds."""
    Hungry.tried.clear()

    def make(*metrics, **arguments):
        plan = make_plan(metrics, cache_dir=str(tmp_path))
        return Evaluator(Workspace(plan, Ranks()), ImageSet(clouds[0], "real"), **arguments)

    return make


def test_scoring_goes_on_with_smaller_tiles_where_memory_is_short(evaluator, clouds, caplog):
    one, fake = evaluator("kd_pixels", Hungry("hungry", extractor="pixels")), ImageSet(clouds[2], "fake")
    report = one.evaluate_images(fake)
    assert one.failures == {}
    assert report.scalars["hungry"] == 1.0
    assert "kd_pixels" in report.scalars
    assert Hungry.tried == sorted(Hungry.tried, reverse=True)
    assert Hungry.tried[-1] <= Hungry.most < Hungry.tried[-2]
    assert "No memory is left for hungry; tiles of half the size are tried" in caplog.text
    Hungry.tried.clear()
    one.evaluate_images(fake)
    assert len(Hungry.tried) == 1  # what fits is remembered


def test_a_metric_that_never_fits_fails_alone(evaluator, clouds):
    class Insatiable(Hungry):
        most = 0

    one = evaluator("kd_pixels", Insatiable("hungry", extractor="pixels"))
    report = one.evaluate_images(ImageSet(clouds[2], "fake"))
    assert set(report.scalars) == {"kd_pixels", "kd_pixels_std"}
    assert list(one.failures) == ["hungry"]
    assert len(Hungry.tried) < 10


def test_tiles_are_halved_only_within_the_context():
    sides = [tile_size(64)]
    for halvings in (1, 3, 60):
        with smaller_tiles(halvings):
            sides.append(tile_size(64))
    assert sides == sorted(sides, reverse=True)
    assert sides[-1] == 1
    assert tile_size(64) == sides[0]


def test_the_memory_of_an_evaluation_follows_from_shapes(evaluator, caplog):
    sampler = Sampler(Generator())
    with caplog.at_level(logging.INFO):
        one = evaluator("kd_pixels", "fd_wavelet", sampler=sampler, num_samples=5000)
    (line,) = [text for text in caplog.messages if "An evaluation needs about" in text]
    assert line.endswith(" on cpu, besides what networks work with.")
    features = {name: each(torch.zeros(2, 3, 16, 16).byte()) for name, each in one.workspace.extractors.items()}
    columns = sum(rows.shape[1] for outputs in features.values() for rows in outputs.values())
    needed = peak_memory(one.workspace, one.reference, features, 5000)
    weights = [each for extractor in one.workspace.extractors.values() for each in extractor.network.buffers()]
    assert needed == MEMORY + 5000 * 4 * columns + sum(each.nbytes for each in weights)
    one.workspace.device = torch.device("cuda")  # where the real features of one extractor are, too
    largest = max(rows.shape[1] for outputs in features.values() for rows in outputs.values())
    assert peak_memory(one.workspace, one.reference, features, 5000) == needed + 60 * 4 * largest
