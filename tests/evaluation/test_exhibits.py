"""The memorization metrics, the study of pairs and feature-space plots, as a report has them."""

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset

from lightning_synthqual import evaluate
from lightning_synthqual.metrics import Memorization, memorization, nearest_neighbors, psnr, shannon_entropy

SIDE = 24


class Mean(nn.Module):
    def forward(self, images):
        return nn.functional.avg_pool2d(images.float(), 6).flatten(1)


def embed(images):
    return Mean()(images)


@pytest.fixture(scope="module")
def sets():
    """Smooth pictures: training, held-out, and generated ones of which the first five are copies."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (150, 3, 5, 5), generator=draw).float()
    images = nn.functional.interpolate(coarse, size=SIDE, mode="bicubic").clamp(0, 255).round().to(torch.uint8)
    train, held_out, fresh = images[:70], images[70:110], images[110:]
    return train, held_out, torch.cat([train[10:15], fresh])


@pytest.fixture
def arguments(tmp_path):
    return {"extractors": {"mine": Mean()}, "cache_dir": str(tmp_path)}


def datasets(*images):
    return [TensorDataset(each) for each in images]


def test_the_scalars_are_the_function_of_the_features(sets, arguments):
    train, held_out, fake = sets
    real, other, generated = datasets(train, held_out, fake)
    report = evaluate(real, generated, held_out=other, metrics=["memorization_mine", "fd_mine"], **arguments)
    expected = memorization(*map(embed, sets))
    for name in Memorization._fields:
        assert report.scalars[f"{name}_mine"] == pytest.approx(getattr(expected, name).item(), rel=1e-6, abs=1e-9)
    assert report.scalars["copy_fraction_mine"] == pytest.approx(5 / 45)
    assert report.scalars["copy_fraction_mine_std"] > 0
    assert report.protocol["metrics"]["copying_test_mine"]["distance"] == "cosine"
    swapped = evaluate(
        real, generated, held_out=other, metrics=["memorization_mine"], reference="held_out", **arguments
    )
    memorized = {name: value for name, value in report.scalars.items() if not name.startswith("fd")}
    assert swapped.scalars == memorized


def test_the_worst_pairs_are_shown_with_their_neighbours(sets, arguments):
    train, held_out, fake = sets
    real, other, generated = datasets(*sets)
    options = {"memorization": {"shown": 6}}
    report = evaluate(real, generated, held_out=other, metrics=["copy_fraction_mine"], options=options, **arguments)
    table = report.tables["neighbors_mine"]
    assert len(table.rows) == 6
    found = nearest_neighbors(embed(fake), embed(train), k=2, distance="cosine")
    far = nearest_neighbors(embed(fake), embed(held_out), distance="cosine")
    for place, row in enumerate(table.rows):
        cells = dict(zip(table.columns, row, strict=True))
        if place < 5:
            assert cells["generated"] == place  # the copies come first
            assert cells["training"] == 10 + place
            assert cells["distance to training"] == 0
        at = cells["generated"]
        assert cells["held-out"] == far.indices[at, 0]
        assert cells["distance to training"] == pytest.approx(found.distances[at, 0].item(), abs=1e-12)
        assert cells["to second nearest training"] == pytest.approx(found.distances[at, 1].item())
        assert cells["distance to held-out"] == pytest.approx(far.distances[at, 0].item())
        for name, images, index in (("generated", fake, at), ("nearest training", train, cells["training"])):
            assert np.array_equal(cells[f"{name} image"], images[index].permute(1, 2, 0).numpy())
    assert {"neighbors_mine", "distances_mine", "samples"} == set(report.pictures)
    assert "pictures" in report.timings


def test_the_study_of_pairs(sets, arguments):
    train, held_out, fake = sets
    real, other, generated = datasets(*sets)
    options = {
        "pairs": {"metrics": ("psnr", "ms_ssim", "mine"), "num_images": 30},
        "feature_space": {"methods": ["pca"]},
    }
    report = evaluate(real, generated, held_out=other, metrics=["pairs_mine"], options=options, **arguments)
    table, summary = report.tables["pairs_mine"], report.tables["pairs_mine_summary"]
    assert table.columns == ("generated", "kind", "match", "psnr", "ms_ssim", "mine", "entropy")
    assert [row[1] for row in table.rows] == ["train"] * 30 + ["held_out"] * 30 + ["random"] * 30
    for kind, references in (("train", train), ("held_out", held_out), ("random", train)):
        rows = [row for row in table.rows if row[1] == kind]
        matches = torch.tensor([row[2] for row in rows])
        if kind != "random":
            found = nearest_neighbors(embed(fake[:30]), embed(references), distance="cosine")
            assert torch.equal(matches, found.indices[:, 0])
            assert [row[5] for row in rows] == pytest.approx(found.distances[:, 0].tolist(), abs=1e-7)
        ratio = psnr(fake[:30], references[matches])
        assert [row[3] for row in rows] == pytest.approx(ratio.tolist())
        entropy = (shannon_entropy(fake[:30]) + shannon_entropy(references[matches])) / 2
        assert [row[6] for row in rows] == pytest.approx(entropy.tolist())
    cells = {row[:2]: dict(zip(summary.columns, row, strict=True)) for row in summary.rows}
    assert set(cells) == {
        (metric, kind)
        for metric in ("psnr", "ms_ssim", "mine")
        for kind in ("train", "held_out", "random", "real", "real_random")
    }
    rows = [row for row in table.rows if row[1] == "held_out"]
    found = pearsonr([row[4] for row in rows], [row[6] for row in rows])
    line = cells["ms_ssim", "held_out"]
    assert (line["r with entropy"], line["p"], line["n"]) == pytest.approx((found.statistic, found.pvalue, 30))
    assert (line["best"], line["worst"]) == (max(row[4] for row in rows), min(row[4] for row in rows))
    assert cells["psnr", "train"]["n"] == 25  # of copies it is infinite
    assert "pairs_mine_psnr_train" not in report.scalars
    assert report.scalars["pairs_mine_psnr_held_out"] == pytest.approx(cells["psnr", "held_out"]["mean"])
    assert report.scalars["pairs_mine_ms_ssim_held_out_entropy_r"] == pytest.approx(found.statistic)
    kinds = {f"pairs_mine_{kind}" for kind in ("train", "held_out", "random", "entropy")}
    assert set(report.pictures) == kinds | {"samples", "feature_space_mine"}
    assert report.protocol["metrics"]["pairs_mine"]["num_images"] == 30
    assert report.protocol["metrics"]["pairs_mine"]["ms_ssim_scales"] == 2


def test_feature_space_is_the_same_for_the_same_seed(sets, arguments):
    real, other, generated = datasets(*sets)

    def draw(seed):
        options = {"feature_space": {"seed": seed, "num_images": 30}}
        found = evaluate(real, generated, held_out=other, metrics=["feature_space_mine"], options=options, **arguments)
        assert found.scalars == {}
        return found.pictures["feature_space_mine"]

    assert np.array_equal(draw(0), draw(0))
    assert not np.array_equal(draw(0), draw(1))


def test_a_stream_of_real_images_shows_the_same(sets, arguments):
    class Stream(IterableDataset):
        def __init__(self, images):
            self.images = images

        def __iter__(self):
            return iter(self.images)

    real, other, generated = datasets(*sets)
    metrics = ["copy_fraction_mine"]
    expected = evaluate(real, generated, held_out=other, metrics=metrics, **arguments)
    found = evaluate(*map(Stream, (sets[0], sets[2])), held_out=Stream(sets[1]), metrics=metrics, **arguments)
    for name, pixels in expected.pictures.items():
        assert np.array_equal(found.pictures[name], pixels), name


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"held_out": None}, ValueError, "closer_to_train_mine and 17 more.*`held_out` is missing"),
        ({"metrics": ["pairs_mine"], "held_out": None}, ValueError, "pairs_mine and 1 more.*`held_out` is missing"),
        ({"options": {"pairs": {"metrics": "psnr"}}}, TypeError, r"sequence of names. Use `\('psnr',\)`"),
        ({"options": {"pairs": {"metrics": []}}}, ValueError, "is empty. Name at least one"),
        (
            {"options": {"pairs": {"metrics": ["lpisp"]}}},
            ValueError,
            "has the name 'lpisp', but known are psnr, ms_ssim, lpips_alex",
        ),
        ({"options": {"memorization": {"distance": "l1"}}}, ValueError, "`distance` must be 'euclidean' or 'cosine'"),
        (
            {"options": {"feature_space": {"methods": ["isomap"]}}},
            ValueError,
            "takes pca, tsne, umap, but got 'isomap'",
        ),
    ],
)
def test_bad_input(sets, arguments, changes, error, message):
    real, other, generated = datasets(*sets)
    given = {
        "held_out": other,
        "metrics": ["memorization_mine", "pairs_mine"],
        **arguments,
        "options": {"pairs": {"metrics": ["mine"]}},
        **changes,
    }
    with pytest.raises(error, match=message):
        evaluate(real, generated, **given)


def test_pairs_of_images_of_unlike_sizes(sets, arguments):
    real, other, _ = datasets(*sets)
    generated = TensorDataset(sets[2][:, :, :12, :12])
    options = {"pairs": {"metrics": ["psnr"]}}
    network = {"mine": {"network": nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), "input_range": (0, 1)}}
    with pytest.raises(ValueError, match=r"ones are 12x12 and real ones 24x24 .*Pass `image_size=\(12, 12\)`"):
        evaluate(
            real,
            generated,
            held_out=other,
            metrics=["pairs_mine"],
            options=options,
            extractors=network,
            cache_dir=arguments["cache_dir"],
        )
