"""Projections of features, as a report has them."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_synthqual import evaluate
from lightning_synthqual.metrics.feature_space import FeatureSpace
from lightning_synthqual.metrics.shard import Shard
from lightning_synthqual.metrics.views import Generated, RealSets, Runtime, SetView


def test_feature_space_is_the_same_for_the_same_seed(three_sets: Any, tmp_path: Path) -> None:
    def draw(seed: int) -> Any:
        options = {"feature_space": {"seed": seed, "num_images": 30}}
        found = evaluate(**three_sets.arguments(tmp_path, metrics=["feature_space_mine"], options=options))
        assert found.scalars == {}
        return found.pictures["feature_space_mine"]

    assert np.array_equal(draw(0), draw(0))
    assert not np.array_equal(draw(0), draw(1))


def project(sets: dict[str, Tensor], rank: int = 0, **options: Any) -> Any:
    def view(kind: Any, role: Any) -> Any:
        return kind(role, {"wavelet": {"x": sets[role]}}, {"wavelet": "x"}, None, None, len(sets[role]))

    metric = FeatureSpace("feature_space", extractor="wavelet", **options).with_runtime(Runtime(shard=Shard(rank, 2)))
    train, held_out = view(SetView, "real"), view(SetView, "held_out")
    return metric.score_set(metric.prepare_sets(RealSets(train, train, held_out)), view(Generated, "generated"))


def test_principal_components_are_those_of_the_training_features(cloud: Any) -> None:
    sets = {"real": cloud(0, 50, 6), "held_out": cloud(1, 30, 6), "generated": cloud(2, 40, 6, centre=3.0)}
    (panel,) = project(sets, methods=("pca",)).figures["feature_space"].panels.values()
    assert {kind: len(points.x) for kind, points in panel.items()} == {"training": 50, "held-out": 30, "generated": 40}
    mean = sets["real"].mean(dim=0)
    axes = torch.linalg.eigh(torch.cov(sets["real"].T)).eigenvectors.flip(1)[:, :2]
    for kind, role in (("training", "real"), ("held-out", "held_out"), ("generated", "generated")):
        expected = ((sets[role] - mean) @ axes).numpy()
        for found, column in zip(panel[kind][:2], expected.T, strict=True):
            assert np.allclose(np.abs(found), np.abs(column), atol=1e-8)


def test_so_many_images_are_shown_at_most_and_one_feature_is_a_line(cloud: Any) -> None:
    sets = {role: cloud(seed, 40, 1) for seed, role in enumerate(("real", "held_out", "generated"))}
    (panel,) = project(sets, methods=("pca",), num_images=9).figures["feature_space"].panels.values()
    assert [len(points.x) for points in panel.values()] == [9, 9, 9]
    assert all((points.y == 0).all() for points in panel.values())


def test_the_first_process_draws(cloud: Any) -> None:
    sets = {role: cloud(seed, 20, 3) for seed, role in enumerate(("real", "held_out", "generated"))}
    found = project(sets, rank=1, methods=("pca",))
    assert (dict(found.values), dict(found.figures)) == ({}, {})


def test_umap_has_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install lightning-synthqual\[umap\]"):
        FeatureSpace("feature_space", extractor="wavelet", methods=("umap",))
