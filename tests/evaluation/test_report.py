import json
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_synthqual.evaluation.report import Report, pack, unpack

finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
reports = st.builds(
    Report,
    st.dictionaries(st.text(), finite, max_size=4),
    st.dictionaries(st.text(), values, max_size=4),
    step=st.none() | st.integers(0),
    epoch=st.none() | st.integers(0),
    timings=st.dictionaries(st.text(), finite, max_size=3),
)


@given(report=reports)
def test_json_and_back_is_the_same_report_on_one_line(report: Report) -> None:
    text = report.to_json()
    assert Report.from_json(text) == report
    assert len(text.splitlines()) == 1


def test_json_has_the_documented_keys_and_no_pictures() -> None:
    report = Report({"fid": 1.0}, {"seed": 0}, step=3, pictures={"samples": np.zeros((2, 2, 3), np.uint8)})
    assert json.loads(report.to_json()) == {
        "schema": 1,
        "step": 3,
        "epoch": None,
        "scalars": {"fid": 1.0},
        "protocol": {"seed": 0},
        "timings": {},
    }
    assert Report.from_json(report.to_json()).pictures == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_does_not_get_into_the_json(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Report({"fid": value}, {}).to_json()


def test_pictures_take_no_part_in_comparison() -> None:
    assert Report({}, {}, pictures={"samples": np.zeros((2, 2, 3), np.uint8)}) == Report({}, {})
    assert Report({"fid": 1.0}, {}) != Report({"fid": 2.0}, {})


@pytest.mark.parametrize("name", ["scalars", "step"])
def test_a_report_is_frozen(name: str) -> None:
    change: Any = {"scalars": {}, "step": 1}
    with pytest.raises(FrozenInstanceError):
        setattr(Report({}, {}), name, change[name])


def test_text_is_a_row_per_metric_with_its_standard_error() -> None:
    report = Report({"kid": 0.0125, "kid_std": 0.00123, "precision": 0.5, "pixel_std": 3.0}, {})
    rows = [row.split() for row in str(report).splitlines()]
    assert rows == [["kid", "0.0125", "±", "0.0012"], ["precision", "0.5"], ["pixel_std", "3"]]
    assert len({len(row.split(" ±")[0]) for row in str(report).splitlines()}) == 1
    assert str(Report({}, {})) == ""


def test_text_has_changes_in_the_line_of_their_value() -> None:
    scalars = {"kid": 0.5, "kid_std": 0.1, "kid_change": -0.25, "kid_change_std": 0.05, "kid_gap": 1.0}
    report = Report({**scalars, "kid_gap_std": 0.2, "isc": 2.0, "isc_change": 1.0}, {"change": {"since": 7}})
    assert [row.split() for row in str(report).splitlines()] == [
        ["kid", "0.50", "±", "0.10", "(-0.250", "±", "0.050", "since", "step", "7)"],
        ["kid_gap", "1.00", "±", "0.20"],
        ["isc", "2", "(+1", "since", "step", "7)"],
    ]


def test_packed_reports_come_back_and_share_their_protocols():
    reports = [
        Report({"fid": 1.5}, {"seed": 0, "size": (2, 3)}, step=1, epoch=0, timings={"total": 0.25}),
        Report({"fid": 1.25}, {"seed": 0, "size": (2, 3)}, step=2, epoch=0),
        Report({}, {"seed": 1}, step=3, epoch=1),
    ]
    packed = pack(reports)
    assert len(packed["protocols"]) == 2
    assert [report.to_json() for report in unpack(packed)] == [report.to_json() for report in reports]
    assert unpack({}) == []


def test_packed_reports_load_from_a_checkpoint_without_unpickling(tmp_path):
    torch.save(pack([Report({"fid": 1.5}, {"seed": 0}, step=1)]), tmp_path / "x.ckpt")
    assert unpack(torch.load(tmp_path / "x.ckpt", weights_only=True)) == [Report({"fid": 1.5}, {"seed": 0}, step=1)]


def test_a_report_of_a_later_version_is_refused_and_one_of_an_earlier_is_read():
    row = json.loads(Report({"fid": 1.0}, {"seed": 0}).to_json())
    with pytest.raises(
        ValueError, match=r"The report has the schema 2, but .* knows schemas up to 1. Update the package"
    ):
        Report.from_json(json.dumps({**row, "schema": 2}))
    del row["schema"]
    assert Report.from_json(json.dumps(row)) == Report({"fid": 1.0}, {"seed": 0})


def test_directions_are_those_of_the_protocol_and_else_of_the_catalogue():
    protocol = {"metrics": {"mine": {"direction": "max"}, "fid": {"direction": None}, "old": {}}}
    report = Report({}, protocol)
    found = {
        name: report.direction(name) for name in ("mine", "mine_gap", "mine_std", "mine_floor", "fid", "kid", "old")
    }
    assert found == {
        "mine": "max",
        "mine_gap": "max",
        "mine_std": None,
        "mine_floor": None,
        "fid": None,
        "kid": "min",
        "old": None,
    }
    assert Report({}, {}).direction("recall") == "max"
