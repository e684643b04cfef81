"""Scores by class."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from lightning_synthqual import QualityMonitor, evaluate
from lightning_synthqual.metrics.base import Influence, Metric, Score

READ: list[object] = []  # data sets, once for each item: attributes are put back after an evaluation
SEEN: list[torch.Tensor] = []


class Labelled(Dataset):
    """Classes 0 to 3, of which the last has six images; `shift` darkens the classes of larger numbers."""

    def __init__(self, seed: int, shift: float, count: int = 120) -> None:
        self.images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        self.shift = shift

    def __len__(self) -> int:
        return len(self.images)

    def label(self, index: int) -> int:
        return index % 3 if index > 5 else 3

    def __getitem__(self, index: int):
        READ.append(self)
        label = self.label(index)
        return (self.images[index] * 255 * (1 - self.shift * label / 6)).to(torch.uint8), label

    def of(self, label: int) -> list[torch.Tensor]:
        return [self[index][0] for index in range(len(self)) if self.label(index) == label]


class Brightness(Metric):
    """A metric of somebody else's, with a standard error that is known."""

    def score(self, state, fake):
        ours, theirs = fake.double().mean(dim=1), state.double().mean(dim=1)
        value = ours.mean() - theirs.mean()
        return Score(value, influence=Influence(value, ours - ours.mean(), theirs.mean() - theirs))


class Conditional(nn.Module):
    """Its images are as bright as their class."""

    latent_dim = 2

    def forward(self, z, labels):
        SEEN.append(labels)
        number = labels if labels.ndim == 1 else labels.argmax(dim=1)
        return (number.float() / 2 - 1)[:, None, None, None] + 0.1 * z.mean(dim=1)[:, None, None, None].expand(
            -1, 3, 8, 8
        )


METRICS = ("fd_wavelet", "kd_wavelet", "recall_wavelet")


@pytest.fixture
def report(tmp_path):
    metrics = (*METRICS, Brightness("brightness", extractor="pixels"))
    return evaluate(Labelled(0, 0.0), Labelled(1, 0.5), metrics=metrics, per_class=True, cache_dir=str(tmp_path))


def test_each_class_has_the_score_of_its_images_alone(report, tmp_path):
    table = report.tables["per_class"]
    assert table.columns == ("class", "metric", "value", "standard error", "images")
    rows = {(row[0], row[1]): row[2:] for row in table.rows}
    assert {label for label, _ in rows} == {0, 1, 2}
    alone = evaluate(Labelled(0, 0.0).of(1), Labelled(1, 0.5).of(1), metrics=METRICS, cache_dir=str(tmp_path))
    for name in METRICS:
        expected = (alone.scalars[name], alone.scalars[f"{name}_std"], 38)
        assert rows[1, name] == pytest.approx(expected, rel=1e-9)


def test_the_scalar_is_the_mean_over_classes_with_its_standard_error(report):
    rows = [row for row in report.tables["per_class"].rows if row[1] == "brightness"]
    assert len(rows) == 3
    assert report.scalars["brightness_per_class"] == pytest.approx(np.mean([row[2] for row in rows]))
    error = np.sqrt(np.sum([row[3] ** 2 for row in rows])) / 3
    assert report.scalars["brightness_per_class_std"] == pytest.approx(error)
    influence = report.influences["brightness_per_class"]
    assert float(influence.std) == pytest.approx(error, rel=0.05)
    assert len(influence.fake) == 120
    assert not influence.fake[:6].any()  # of the class that is left out
    assert report.direction("recall_wavelet_per_class") == "max"


def test_small_classes_are_left_out_by_name(report, caplog):
    described = report.protocol["metrics"]["fd_wavelet_per_class"]
    assert described["least_images"] == 10
    assert described["left_out"] == ["3 (6 generated, 6 real)"]
    assert "fd_wavelet_per_class leaves out classes with fewer than 10 images: 3" in "".join(
        record.getMessage() for record in caplog.get_records("setup")
    )
    assert report.pictures["per_class"].ndim == 3


def test_labels_are_cached_and_changed_ones_are_read_again(tmp_path):
    def score(real):
        return evaluate(real, Labelled(1, 0.5), metrics=["fd_wavelet"], per_class=True, cache_dir=str(tmp_path))

    first, again = Labelled(0, 0.0, 600), Labelled(0, 0.0, 600)
    report = score(first)
    assert score(again).tables["per_class"] == report.tables["per_class"]
    counts = [sum(each is data for each in READ) for data in (first, again)]
    assert counts[0] - counts[1] > 600 + 300  # all images, and the labels of all but a few items
    other = Labelled(0, 0.0, 600)
    other.label = lambda index: 1 - index % 2
    assert {row[0] for row in score(other).tables["per_class"].rows} == {0, 1}


@pytest.mark.parametrize("labels", ["data", "uniform"])
@pytest.mark.parametrize("label_format", ["index", "one_hot"])
def test_generated_images_have_the_labels_that_they_were_generated_with(tmp_path, labels, label_format):
    module = Conditional()
    module.num_classes = 4
    report = evaluate(
        Labelled(0, 0.0), module, metrics=["fd_pixels", Brightness("brightness", extractor="pixels")], labels=labels,
        label_format=label_format, per_class=True, num_samples=100, batch_size=16, cache_dir=str(tmp_path),
    )  # fmt: skip
    values = [row[2] for row in report.tables["per_class"].rows if row[1] == "brightness"]
    assert np.diff(values) == pytest.approx([0.5, 0.5], abs=0.1)
    assert SEEN[-1].dtype == (torch.int64 if label_format == "index" else torch.float32)
    assert SEEN[-1].shape[1:] == (() if label_format == "index" else (4,))


def test_one_hot_labels_count_the_classes_of_the_data_where_the_module_does_not(tmp_path):
    report = evaluate(
        Labelled(0, 0.0), Conditional(), metrics=["fd_pixels"], labels="data", label_format="one_hot", num_samples=20,
        cache_dir=str(tmp_path),
    )  # fmt: skip
    assert report.protocol["sampling"]["num_classes"] == 4


def test_folders_of_classes(tmp_path):
    for side, names in {"real": "ab", "fake": "ab", "other": "ac", "flat": "a"}.items():
        for name in names:
            folder = tmp_path / side / ("" if side == "flat" else name)
            folder.mkdir(parents=True)
            for number in range(12):
                levels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(levels).save(folder / f"{number}.png")

    def score(fake):
        cache = str(tmp_path / "cache")
        return evaluate(tmp_path / "real", tmp_path / fake, metrics=["fd_wavelet"], per_class=True, cache_dir=cache)

    assert [row[0] for row in score("fake").tables["per_class"].rows] == ["a", "b"]
    with pytest.raises(ValueError, match="same names in `fake` and `real`, but only one of them has b, c"):
        score("other")
    with pytest.raises(ValueError, match="`per_class=True` needs `fake` items"):
        score("flat")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"per_class": True}, "per_class=True` needs labels"),
        ({"label_format": "one_hot"}, "label_format='one_hot'` needs labels"),
        ({"per_class": True, "labels": "uniform", "metrics": ("vendi_wavelet",)}, "none of the metrics compares"),
    ],
)
def test_missing_labels_are_an_error_at_construction(arguments, message):
    with pytest.raises(ValueError, match=message):
        QualityMonitor(**arguments)
