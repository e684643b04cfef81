from pathlib import Path

import pytest

from lightning_synthqual import Report
from lightning_synthqual.cli import main


def saved(path: Path, value: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(Report(scalars={"fid": value}, protocol={"num_samples": 8}, timings={}).to_json())
    return path


def test_reports_stand_side_by_side(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = saved(run_dir.parent / "other.json", 5.0)
    lines = f"{run_dir}/version_0/reports.jsonl"
    assert main(["compare", f"{lines}:10", lines, str(other)]) == 0
    head, one, two, note = capsys.readouterr().out.splitlines()
    assert head.split() == ["metric", "run/version_0/reports.jsonl:10", "run/version_0/reports.jsonl", "other.json"]
    assert one.split() == ["fid", "20", "±", "1", "10", "±", "1"]
    assert two.split() == ["fid", "5"]
    assert note.startswith("fid: rows of ")


def test_folders_stand_for_their_reports(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(run_dir.parent / "offline" / "report.json", 5.0)
    (run_dir / "version_0" / "seldom").mkdir()
    (run_dir / "version_0" / "seldom" / "reports.jsonl").write_text("")  # of a further monitor
    folder = str(run_dir.parent / "offline")
    assert main(["compare", str(run_dir), f"{run_dir}:10", f"{folder}/"]) == 0
    head, one, two, _ = capsys.readouterr().out.splitlines()
    assert head.split() == ["metric", "run", "run:10", "offline"]
    assert one.split() == ["fid", "10", "±", "1", "20", "±", "1"]
    assert two.split() == ["fid", "5"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "is no report"),
        ("a.json", '{"fid": 3}', "is no report"),
        ("a.json", "[]", "is no report"),
        ("a.json", b"\xff\xfe", "is no report"),
        ("a.jsonl", b"\xff\n", "is no report"),
        ("a.jsonl", "", "holds no report"),
        ("a.jsonl:3", "", "holds no report of step 3"),
        ("missing.json", None, "No such file"),
        ("", None, "holds no reports.jsonl and no report.json"),
    ],
)
def test_what_cannot_be_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | bytes | None, message: str
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    if content is not None:
        data = content.encode() if isinstance(content, str) else content
        (folder / name.split(":")[0]).write_bytes(data)
    assert main(["compare", str(folder / name)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_one_report_under_two_names_is_one(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(run_dir), f"{run_dir}/"]) == 2
    assert "A report is named twice" in capsys.readouterr().err
