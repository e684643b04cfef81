import json

import pytest

from lightning_synthqual.cli import main


def test_published_values_are_printed_with_source_and_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmarks", "--metrics", "fid,cmmd", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["metric"] for row in rows} == {"fid", "fid50k", "fid50k_full", "cmmd"}
    assert {"metric": "cmmd", "value": 2.172}.items() <= rows[-1].items()
    assert all(row["protocol"] and row["source"] for row in rows)
    assert main(["benchmarks"]) == 0
    assert capsys.readouterr().out.startswith("MODEL ")


def test_metrics_without_published_values_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmarks", "--metrics", "density"]) == 2
    assert "Of density there are no published values." in capsys.readouterr().err
