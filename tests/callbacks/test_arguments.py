"""Wrong arguments are errors at construction that name the argument."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_synthqual import QualityCheckpoint, QualityMonitor, QualityStopping

ODD = (object(), b"x", 1j, float("nan"))
MONITOR = {
    "real": ["", 5, True, 1.5, b"x"],
    "held_out": ["", 5, False],
    "reference": ["test", None, 1],
    "metrics": [None, 5, "fid", {"fid"}, [3], [None]],
    "num_samples": [True, "10", 1, 2.0, None, *ODD],
    "num_real": [True, "10", 1, 2.0, *ODD],
    "batch_size": [0, True, "64", 64.0, None, *ODD],
    "every_n_epochs": [0, True, "1", 1.0, *ODD],
    "every_n_train_batches": [0, True, "1", 1.0, *ODD],
    "evaluate_at_end": ["yes", 1, None, *ODD],
    "model": [3, nn.Linear(1, 1), "no.such:name", "a b", "", *ODD],
    "sampler": [3, "no.such.name", *ODD],
    "labels": ["random", 3, True, *ODD],
    "image_range": [None, 255, (1, -1), (0,), (0, 1, 2), ("0", "1"), (0, float("nan")), (False, True), *ODD],
    "real_range": [255, (1, -1), (0, float("inf")), *ODD],
    "image_size": [True, 1.5, 0, "64", (8,), (8, 0), (8, 8.0), (True, 8), *ODD],
    "extractors": [5, "inception", ["inception"], *ODD],
    "options": [5, "kid", {"kid": 5}, {"kid": None}, *ODD],
    "weights_dir": [5, True, "", *ODD],
    "cache_dir": [5, True, "", *ODD],
    "cache_key": [5, True, "", *ODD],
    "cache_check": ["all", None, True, *ODD],
    "num_workers": [-1, True, "2", 2.0, *ODD],
    "seed": [True, -1, "0", 0.0, None, *ODD],
    "prefix": ["", 5, None, "../../x", "/x", "x/", "a//b", "a\\b", "a\nb", "a:b", "..", ".x", "a/../b", "{x}", *ODD],
    "on_error": ["ignore", None, True, *ODD],
}
MODE = ["lower", 1, True, *ODD]
STOPPING = {
    "monitor": [3, None, "", *ODD],
    "mode": MODE,
    "patience": ["3", 0, True, 2.0, None, *ODD],
    "min_delta": ["0", -1, True, None, float("nan"), float("inf"), *ODD],
    "stopping_threshold": ["8", True, float("inf"), *ODD],
    "divergence_threshold": ["8", True, *ODD],
    "stop_on_failure": ["no", 0, None, *ODD],
}
CHECKPOINT = {
    "monitor": [3, None, "", *ODD],
    "mode": MODE,
    "save_top_k": ["2", -2, True, 1.0, None, *ODD],
    "dirpath": [5, "", *ODD],
    "filename": [5, "", *ODD],
    "save_last": ["yes", 1, *ODD],
    "save_weights_only": ["no", 0, None, *ODD],
    "auto_insert_metric_name": [1, None, *ODD],
    "verbose": [1, None, *ODD],
}


def cases(table):
    return [pytest.param(name, value, id=f"{name}={value!r:.20}") for name, values in table.items() for value in values]


def assert_names_the_argument(make, name, value):
    with pytest.raises((TypeError, ValueError)) as raised:
        make()
    assert f"`{name}" in str(raised.value) or f"{name}=" in str(raised.value) or repr(value) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "value"), cases(MONITOR))
def test_monitor(name, value):
    assert_names_the_argument(lambda: QualityMonitor(**{"metrics": ("fd_pixels",), name: value}), name, value)


@pytest.mark.parametrize(("name", "value"), cases(STOPPING))
def test_stopping(name, value):
    assert_names_the_argument(lambda: QualityStopping(**{"monitor": "quality/fid", name: value}), name, value)


@pytest.mark.parametrize(("name", "value"), cases(CHECKPOINT))
def test_checkpoint(name, value):
    assert_names_the_argument(lambda: QualityCheckpoint(**{"monitor": "quality/fid", name: value}), name, value)


def test_good_arguments_of_every_kind():
    quality = QualityMonitor(
        real=TensorDataset(torch.zeros(3, 3, 8, 8)),
        held_out=Path("photos"),
        metrics=["fd_pixels"],
        num_samples=np.int64(10),
        image_range=[0, 255],
        image_size=(8, np.int32(9)),
        extractors={},
        options={"kid": {"subsets": 5}},
        weights_dir=Path("weights"),
        model=lambda module: module,
        prefix="val/quality 1.b-c_d",
        evaluate_at_end=np.bool_(True),
    )
    assert type(quality.num_samples) is int
    assert quality.evaluate_at_end is True
    assert quality.plan.image_range == (0.0, 255.0)
    assert quality.plan.size == (8, 9)
    assert QualityStopping("quality/fid", min_delta=1, patience=np.int8(2)).min_delta == 1.0
    assert QualityCheckpoint("quality/fid", save_last="link", dirpath=Path("x"), save_top_k=-1).save_last == "link"


def test_a_given_mode_needs_no_metric_that_is_known():
    for kind in (QualityStopping, QualityCheckpoint):
        assert kind("loss", mode="max").mode == "max"
