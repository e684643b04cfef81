"""The study of pairs, as a report has it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from torch import nn
from torch.utils.data import TensorDataset

from lightning_synthqual import evaluate
from lightning_synthqual.evaluation.plan import make_plan
from lightning_synthqual.metrics import nearest_neighbors, psnr, shannon_entropy
from lightning_synthqual.metrics.pairs import PairsMetric, correlation_score, mean_score


def test_the_study_of_pairs(three_sets: Any, tmp_path: Path) -> None:
    train, held_out, fake = three_sets.tensors
    embed = three_sets.embed
    options = {
        "pairs": {"metrics": ("psnr", "ms_ssim", "mine"), "num_images": 30},
        "feature_space": {"methods": ["pca"]},
    }
    report = evaluate(**three_sets.arguments(tmp_path, metrics=["pairs_mine"], options=options))
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
    assert (line["most similar"], line["least similar"]) == (max(row[4] for row in rows), min(row[4] for row in rows))
    std = torch.tensor([row[4] for row in rows], dtype=torch.float64).std().item() / 30**0.5
    assert report.scalars["pairs_mine_ms_ssim_held_out_std"] == pytest.approx(std)
    assert line["standard error"] == pytest.approx(std)
    assert "pairs_mine_psnr_held_out_entropy_r_std" in report.scalars
    assert "pairs_mine_psnr_real_entropy_r_std" not in report.scalars
    assert cells["psnr", "train"]["n"] == 25  # of copies it is infinite
    assert "pairs_mine_psnr_train" not in report.scalars
    assert report.scalars["pairs_mine_psnr_held_out"] == pytest.approx(cells["psnr", "held_out"]["mean"])
    assert report.scalars["pairs_mine_ms_ssim_held_out_entropy_r"] == pytest.approx(found.statistic)
    kinds = {f"pairs_mine_{kind}" for kind in ("train", "held_out", "random", "entropy")}
    assert set(report.pictures) == kinds | {"samples", "real_samples", "feature_space_mine"}
    assert report.protocol["metrics"]["pairs_mine"]["num_images"] == 30
    assert report.protocol["metrics"]["pairs_mine"]["ms_ssim_scales"] == 2


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        (("lpisp",), "'pairs_wavelet' needs the similarity 'lpisp', but known are lpips_alex"),
        (("psnr", "inception"), "needs the similarity 'inception', but known are .*other metrics \\(wavelet\\)"),
        (("nowhere.similarity",), "nowhere"),
    ],
)
def test_similarities_that_nobody_knows(networks: tuple[str, ...], message: str) -> None:
    with pytest.raises((ValueError, ImportError), match=message):
        make_plan(["pairs_wavelet"], options={"pairs": {"metrics": networks}})


def test_held_out_images_are_needed() -> None:
    plan = make_plan(["pairs_wavelet"], options={"pairs": {"metrics": ("psnr",)}})
    with pytest.raises(ValueError, match=r"pairs_wavelet and 1 more.*`held_out` is missing"):
        plan.check_held_out(None)


def test_sizes_are_compared_before_anything_is_measured() -> None:
    metric = PairsMetric("pairs", extractor="wavelet", metrics=("psnr", "ms_ssim"))
    view: Any = type("View", (), {"size": (8, 8)})()
    with pytest.raises(ValueError, match=r"generated ones are 8x8 and real ones 24x16 .*Pass `image_size=\(8, 8\)`"):
        list(metric.try_out(view, (24, 16)))
    with pytest.raises(ValueError, match="at least 11 pixels, but got 8x8"):
        list(metric.try_out(view, (8, 8)))
    assert list(PairsMetric("pairs", extractor="wavelet", metrics=("psnr",)).try_out(view, (8, 8))) == []


def test_pairs_of_images_of_unlike_sizes(three_sets: Any, tmp_path: Path) -> None:
    generated = TensorDataset(three_sets.fake[:, :, :12, :12])
    options = {"pairs": {"metrics": ["psnr"]}}
    network = {"mine": {"network": nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), "input_range": (0, 1)}}
    with pytest.raises(ValueError, match=r"ones are 12x12 and real ones 24x24 .*Pass `image_size=\(12, 12\)`"):
        evaluate(
            **three_sets.arguments(
                tmp_path, fake=generated, metrics=["pairs_mine"], options=options, extractors=network
            )
        )


def test_influences_on_means_and_correlations() -> None:
    draw = np.random.default_rng(0)
    table = draw.normal(size=(200, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    mean, r = mean_score(table[:, 0], "train"), correlation_score(pearsonr(*table.T).statistic, table, 0, "train")
    changes = [
        (rest[:, 0].mean() - float(mean.value), pearsonr(*rest.T).statistic - float(r.value))
        for rest in (np.delete(table, row, axis=0) for row in range(200))
    ]
    for score, found, tolerance in zip((mean, r), np.array(changes).T, (1e-9, 0.05), strict=True):
        influences = score.influence.fake.numpy()
        assert abs(influences.mean()) < 1e-12
        assert np.linalg.norm(199 * found + influences) < tolerance * np.linalg.norm(influences)
        assert len(score.influence.real) == 0


@pytest.mark.parametrize("kind", ["real", "real_random"])
def test_pairs_of_real_images_have_no_influence(kind: str) -> None:
    table = np.random.default_rng(0).normal(size=(50, 2))
    score = mean_score(table[:, 0], kind)
    assert score.influence is None
    assert float(score.error) == pytest.approx(table[:, 0].std(ddof=1) / 50**0.5)
    assert correlation_score(0.5, table, 0, kind).error is None


def test_correlations_without_some_pairs_have_no_influence() -> None:
    table = np.random.default_rng(0).normal(size=(50, 2))
    table[3, 0] = np.inf
    assert correlation_score(0.5, table, 0, "train").influence is None
