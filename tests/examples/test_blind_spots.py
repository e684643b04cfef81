"""What each metric sees and what it is blind to, on real images; the values are in examples/README.md."""

import pytest
import torch

from lightning_synthqual import Report
from lightning_synthqual.evaluation.plan import make_plan


@pytest.fixture
def script(example):
    return example("blind_spots")


def test_every_column_is_a_metric(script):
    for extractor in ("inception", "clip", "dinov2", "wavelet"):
        columns = script.columns(extractor)
        names = [script.name_of(column, extractor) for column in columns if column not in script.MEMORIZATION]
        make_plan([*names, f"memorization_{extractor}"])  # raises for unknown names
        assert ("isc" in columns) == (extractor == "inception")
        assert ("cmmd" in columns) == (extractor == "clip")
    assert script.name_of("fd", "inception") == "fid"


def test_the_faults_are_what_they_are_called(script):
    train, fresh = (script.patches("moon", *columns) for columns in ((0, 256), (384, 512)))
    sets = script.faults(train, fresh)
    assert all(images.dtype == torch.uint8 and images.shape[1:] == (3, 32, 32) for images in sets.values())
    assert sets["blur"].float().diff(dim=3).square().mean() < 0.8 * fresh.float().diff(dim=3).square().mean()
    assert (sets["colour shift"][:, 0] > sets["colour shift"][:, 2]).float().mean() > 0.95
    assert len(sets["duplication"].unique(dim=0)) == len(fresh) // 8
    known = {image.numpy().tobytes() for image in train}
    assert sum(image.numpy().tobytes() in known for image in sets["copying"]) == len(fresh) // 4


def test_a_change_counts_from_three_standard_errors(script):
    unharmed = Report({"fd_wavelet": 1.0, "fd_wavelet_std": 0.3, "recall_wavelet": 0.5, "recall_wavelet_std": 0.0}, {})
    worse = Report({"fd_wavelet": 2.6, "fd_wavelet_std": 0.4, "recall_wavelet": 0.6, "recall_wavelet_std": 0.0}, {})
    assert script.verdict("fd", "wavelet", worse, unharmed) == "-"
    assert script.verdict("recall", "wavelet", worse, unharmed) == "+"
    near = Report({"fd_wavelet": 2.4, "fd_wavelet_std": 0.4}, {})
    assert script.verdict("fd", "wavelet", near, unharmed) == ""
    assert script.verdict("recall", "wavelet", near, unharmed) == ""


# What must be seen (-), what must be taken for better (+), and what must go unnoticed ("").
EXPECTED = {
    "wavelet": {
        "blur": {"fd": "-", "kd": "-", "recall": "-"},
        "noise": {"fd": "-", "kd": "-", "recall": "-"},
        "JPEG": {"fd": "-", "precision": "-", "coverage": "-"},
        "colour shift": {"fd": "-", "kd": "-", "precision": "-", "recall": "-"},
        "mode dropping": {"fd": "-", "kd": "-", "recall": "-", "coverage": "-", "precision": "+", "copy_fraction": ""},
        "duplication": {"recall": "-", "coverage": "-", "precision": "", "kd": "", "copy_fraction": ""},
        "copying": {"copy_fraction": "-", "authenticity": "-", "precision": "+", "recall": "+", "fd": ""},
    },
    "pixels": {
        "blur": {"fd": "+", "precision": "+", "kd": ""},
        "noise": {"fd": "", "kd": "", "precision": "-"},
        "JPEG": {"fd": "", "kd": "", "precision": "", "recall": "", "coverage": ""},
        "colour shift": {"fd": "-", "kd": "-", "precision": "-"},
        "mode dropping": {"fd": "-", "kd": "", "recall": "-", "precision": "+"},
        "duplication": {"fd": "-", "recall": "-", "coverage": "-", "precision": ""},
        "copying": {"fd": "+", "copy_fraction": "-", "authenticity": "-"},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("extractor", EXPECTED)
def test_what_metrics_see_and_what_they_are_blind_to(script, extractor, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reports = script.measure(extractor)
    unharmed = reports[script.UNHARMED]
    for fault, marks in EXPECTED[extractor].items():
        found = {column: script.verdict(column, extractor, reports[fault], unharmed) for column in marks}
        assert found == marks, fault
    lines = script.table(extractor, reports)
    assert len(lines) == 2 + len(reports)
