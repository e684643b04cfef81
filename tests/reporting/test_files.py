import errno
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_synthqual.evaluation.report import Report
from lightning_synthqual.reporting.files import (
    REPORTS,
    SUPERSEDED,
    ReportFolder,
    append_report,
    rewind_reports,
    save_pictures,
)


def report(step: int) -> Report:
    return Report({"kd_wavelet": 0.5 * step}, {"seed": 0, "size": [4, 4]}, step=step, epoch=1, timings={"total": 1.5})


def rows(directory: Path) -> list[Report]:
    return [Report.from_json(line) for line in (directory / REPORTS).read_text(encoding="utf-8").splitlines()]


def test_reports_are_appended_line_by_line(tmp_path: Path) -> None:
    directory = tmp_path / "not" / "there"
    for step in range(3):
        append_report(directory, report(step))
    assert REPORTS == "reports.jsonl"
    assert rows(directory) == [report(step) for step in range(3)]


@pytest.mark.parametrize("end", [1, 20, -1])
def test_an_unfinished_line_is_dropped(tmp_path: Path, end: int) -> None:
    append_report(tmp_path, report(1))
    with (tmp_path / REPORTS).open("a") as file:
        file.write(report(2).to_json()[:end])
    append_report(tmp_path, report(3))
    assert rows(tmp_path) == [report(1), report(3)]


def test_rewinding_keeps_the_given_reports_and_moves_the_others(tmp_path: Path) -> None:
    for step in range(4):
        append_report(tmp_path, report(step))
    with (tmp_path / REPORTS).open("a") as file:
        file.write(report(4).to_json()[:20])
    rewind_reports(tmp_path, [report(0), report(1)])
    assert rows(tmp_path) == [report(0), report(1)]
    superseded = (tmp_path / SUPERSEDED).read_text().splitlines()
    assert [Report.from_json(line) for line in superseded] == [report(2), report(3)]
    assert {path.name for path in tmp_path.iterdir()} == {REPORTS, SUPERSEDED}


def test_rewinding_writes_the_history_into_a_new_folder(tmp_path: Path) -> None:
    rewind_reports(tmp_path / "new", [report(0), report(1)])
    assert rows(tmp_path / "new") == [report(0), report(1)]
    assert [path.name for path in (tmp_path / "new").iterdir()] == [REPORTS]


def test_a_first_line_may_be_unfinished_too(tmp_path: Path) -> None:
    (tmp_path / REPORTS).write_text('{"step": 1')
    append_report(tmp_path, report(3))
    assert rows(tmp_path) == [report(3)]


def test_a_value_that_json_does_not_know_leaves_the_file_whole(tmp_path: Path) -> None:
    append_report(tmp_path, report(1))
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_report(tmp_path, Report({"fid": float("nan")}, {}, step=2))
    assert rows(tmp_path) == [report(1)]


def test_pictures_are_saved_by_name_and_step(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    save_pictures(tmp_path, Report({}, {}, step=40, pictures={"samples": pixels, "pairs": 255 - pixels}))
    with Image.open(tmp_path / "samples" / "step=40.png") as picture:
        assert np.array_equal(np.array(picture), pixels)
    with Image.open(tmp_path / "pairs" / "step=40.png") as picture:
        assert np.array_equal(np.array(picture), 255 - pixels)


def test_without_pictures_nothing_is_made(tmp_path: Path) -> None:
    save_pictures(tmp_path, report(1))
    assert list(tmp_path.iterdir()) == []


def test_rewinding_to_nothing_makes_nothing(tmp_path: Path) -> None:
    rewind_reports(tmp_path / "new", [])
    assert list(tmp_path.iterdir()) == []


def full_disk(monkeypatch) -> None:
    """Let each file take some bytes, and then no more."""

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lightning_synthqual.reporting.files.os.fsync", refuse)


def test_a_full_disk_leaves_whole_rows_and_no_other_file(tmp_path: Path, monkeypatch) -> None:
    append_report(tmp_path, report(1))
    with monkeypatch.context() as patch:
        full_disk(patch)
        for write in (partial(append_report, tmp_path, report(2)), partial(rewind_reports, tmp_path, [report(1)] * 2)):
            with pytest.raises(OSError, match="No space left"):
                write()
            assert rows(tmp_path) == [report(1)]
    append_report(tmp_path, report(2))
    assert rows(tmp_path) == [report(1), report(2)]
    assert [path.name for path in tmp_path.iterdir()] == [REPORTS]


PIXELS = np.full((4, 4, 3), 7, np.uint8)


def with_pictures(step: int) -> Report:
    return Report({"fid": float(step)}, {}, step=step, pictures={"samples": PIXELS})


def test_what_the_disk_refuses_is_written_with_the_next_report(tmp_path: Path, caplog) -> None:
    folder, directory = ReportFolder(), tmp_path / "logs"
    directory.write_text("not a directory")
    folder.rewind(directory, [with_pictures(0)])
    folder.write(directory, with_pictures(1))
    assert caplog.text.count(f"Writing to {directory} failed") == 2
    assert "the next evaluation tries again" in caplog.text
    directory.unlink()
    caplog.clear()
    folder.write(directory, with_pictures(2))
    assert caplog.text == ""
    assert rows(directory) == [with_pictures(step) for step in range(3)]
    assert sorted(path.name for path in directory.rglob("*.png")) == ["step=1.png", "step=2.png"]


def test_pictures_wait_without_holding_the_rows_up(tmp_path: Path) -> None:
    folder = ReportFolder()
    (tmp_path / "samples").write_text("not a directory")
    folder.write(tmp_path, with_pictures(1))
    assert rows(tmp_path) == [with_pictures(1)]
    (tmp_path / "samples").unlink()
    folder.retry()
    assert (tmp_path / "samples" / "step=1.png").exists()


def test_rows_wait_for_those_before_them(tmp_path: Path) -> None:
    folder = ReportFolder()
    (tmp_path / REPORTS).mkdir()
    folder.write(tmp_path, with_pictures(1))
    folder.write(tmp_path, with_pictures(2))
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == ["step=1.png", "step=2.png"]
    (tmp_path / REPORTS).rmdir()
    folder.retry()
    assert rows(tmp_path) == [with_pictures(1), with_pictures(2)]


def test_a_report_that_can_never_be_written_holds_no_other_up(tmp_path: Path, caplog) -> None:
    folder = ReportFolder()
    folder.write(tmp_path, Report({"fid": float("nan")}, {}, step=1))
    assert "not JSON compliant" in caplog.text
    folder.write(tmp_path, report(2))
    assert rows(tmp_path) == [report(2)]
