import json
from pathlib import Path

import pytest

from lightning_synthqual.cli import main
from lightning_synthqual.extractors.registry import CATALOGUE as EXTRACTORS
from lightning_synthqual.extractors.registry import PAIRS
from lightning_synthqual.metrics.catalogue import CATALOGUE as METRICS
from lightning_synthqual.metrics.catalogue import STUDIES


def test_metrics_are_listed_with_what_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines if line}
    assert rows["NAME"].split() == ["NAME", "BETTER", "FEATURES", "NEEDS", "WHAT"]
    assert rows["fd_EXTRACTOR"].split()[1:3] == ["lower", "any"]
    assert "held-out images" in rows["memorization[_EXTRACTOR]"]
    assert "the generator, lpips_vgg" in rows["ppl_w_end"]
    assert "closer_to_train[_EXTRACTOR]" not in rows
    assert all(name in rows["study:"] for name in STUDIES["study"])


def test_every_metric_and_extractor_is_in_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert [row["name"].replace("_EXTRACTOR", "").replace("[]", "") for row in metrics] == list(METRICS)
    assert main(["extractors", "--json"]) == 0
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} == {*EXTRACTORS, *PAIRS}


def test_extractors_say_whether_their_weights_are_here(alexnet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extractors", "--weights-dir", str(alexnet.parent)]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "  here  " in rows["lpips_alex"]
    assert "missing: vgg16-397923af.pth" in rows["vgg16"]
    assert "none needed" in rows["wavelet"]
    assert "features, pairs of images" in rows["dreamsim"]
