"""The images that harm a score most."""

import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_synthqual import Metric, Score, evaluate
from lightning_synthqual.metrics.base import Influence
from lightning_synthqual.metrics.figures import ImageRef
from lightning_synthqual.metrics.worst import SHOWN, worst_images


class Brightness(Metric):
    """The mean of all pixels, of which each image's part is known."""

    direction = "max"
    reads_real = False

    def score(self, state, fake):
        means = fake.double().mean(1)
        return Score(means.mean(), influence=Influence(means.mean(), means - means.mean(), means[:0]))


class Unknown(Brightness):
    """A metric that does not say what single images add."""

    def score(self, state, fake):
        return fake.double().mean()


class Painter(nn.Module):
    latent_dim = 3

    def forward(self, z):
        return z.tanh()[:, :, None, None].expand(-1, -1, 8, 8)


@pytest.mark.parametrize("direction", ["min", "max"])
def test_the_largest_harmful_influences_come_first_with_their_shares_of_the_value(direction):
    metric = Brightness("mine")
    metric.direction = direction
    harm = torch.zeros(41)
    harm[[5, 30, 7]] = torch.tensor([1.0, 8.0, 2.0])
    harm[[6, 8]] = -5.5
    influence = Influence(torch.tensor(20.0), harm if direction == "min" else -harm, torch.tensor([]))
    sheet = worst_images(["mine"], {"mine": influence}, [metric], pytest.fail)["mine_worst"]
    ((images, texts),) = [tuple(zip(*row.cells, strict=True)) for row in sheet.rows]
    assert images == tuple((ImageRef("generated", index),) for index in (30, 7, 5))
    # Without image 30 the value would be 8 / 40 of 20 better.
    assert texts == ("1.00%", "0.25%", "0.12%")


def test_no_more_than_a_few_are_shown_and_none_where_none_does_harm():
    rows = torch.linspace(-1, 1, 50)
    many, none = (Influence(torch.tensor(2.0), each, torch.tensor([])) for each in (rows, torch.zeros(50)))
    metric = Brightness("mine")
    sheet = worst_images(["mine"], {"mine": many}, [metric], pytest.fail)["mine_worst"]
    assert [image.index for image in sheet.images] == list(range(SHOWN))
    assert worst_images(["mine"], {"mine": none}, [metric], pytest.fail) == {}


def test_the_images_of_a_generator_are_kept_for_it(tmp_path):
    report = evaluate(
        None, Painter(), metrics=[Brightness("mine", extractor="pixels"), "mine_worst"], num_samples=100, batch_size=32
    )
    assert set(report.pictures) == {"samples", "mine_worst"}
    assert report.pictures["mine_worst"].std() > 0
    assert set(report.scalars) == {"mine", "mine_std"}


def test_the_worst_are_those_whose_pixels_say_so():
    images = torch.tensor([200, 100, 50], dtype=torch.uint8)[None, :, None, None].repeat(40, 1, 8, 8)
    images[17] = 0
    without, asked = (
        evaluate(None, TensorDataset(images), metrics=[Brightness("mine", extractor="pixels"), *more])
        for more in ((), ("mine_worst",))
    )
    assert set(without.pictures) == {"samples"}
    sheet = asked.pictures["mine_worst"]
    assert (asked.pictures["samples"] == (200, 100, 50)).all(-1).any()
    assert not (sheet == (200, 100, 50)).all(-1).any()  # they do no harm
    assert (sheet == 0).all(-1).sum() > 1000
    assert np.array_equal(asked.pictures["samples"], without.pictures["samples"])


def test_where_no_influence_is_known_one_warning_says_so(caplog):
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    with caplog.at_level(logging.WARNING):
        report = evaluate(None, TensorDataset(images), metrics=[Unknown("mine", extractor="pixels"), "mine_worst"])
    assert set(report.pictures) == {"samples"}
    messages = [record.getMessage() for record in caplog.records if "mine" in record.getMessage()]
    assert messages == ["The images that harm mine most are not shown: their influence is not known."]


def test_a_score_without_a_direction_has_no_worst_images():
    metric = Brightness("mine")
    metric.direction = None
    influence = Influence(torch.tensor(2.0), torch.tensor([1.0, -1.0]), torch.tensor([]))
    said = []
    assert worst_images(["mine"], {"mine": influence}, [metric], said.append) == {}
    assert said == ["The images that harm mine most are not shown: neither low nor high values are better."]
