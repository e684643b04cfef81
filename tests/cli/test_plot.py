from pathlib import Path

import pytest
from PIL import Image

from lightning_synthqual import Report
from lightning_synthqual.cli import main


def test_the_curves_of_a_run_are_drawn(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(run_dir)]) == 0
    assert f"3 evaluations drawn to {run_dir / 'curves.png'}" in capsys.readouterr().out
    with Image.open(run_dir / "curves.png") as image:
        assert image.width == 420
        assert image.height > 300
    assert main(["plot", str(run_dir), "--metrics", "kid"]) == 2
    assert "no kid. They have: fid" in capsys.readouterr().err


def test_a_later_test_is_no_point_of_the_curve(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(run_dir)]) == 0
    before = (run_dir / "curves.png").read_bytes()
    with (run_dir / "version_0" / "reports.jsonl").open("a") as file:
        file.write(Report({"fid": 90.0}, {"sampling": {"stage": "test"}}, step=20).to_json() + "\n")
    assert main(["plot", str(run_dir)]) == 0
    assert (run_dir / "curves.png").read_bytes() == before
    assert capsys.readouterr().out.count("3 evaluations drawn") == 2


def test_the_run_must_be_one(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_dir / "version_0" / "seldom").mkdir()
    (run_dir / "version_0" / "seldom" / "reports.jsonl").write_text("")
    assert main(["plot", str(run_dir), "--metrics", "fid"]) == 0  # that of a further monitor does not count
    (run_dir / "another" / "version_0").mkdir(parents=True)
    (run_dir / "another" / "version_0" / "reports.jsonl").write_text("")
    assert main(["plot", str(run_dir)]) == 2
    assert "several" in capsys.readouterr().err
    assert main(["plot", str(run_dir.parent / "nowhere")]) == 2
    assert "holds no reports.jsonl" in capsys.readouterr().err


def test_a_damaged_file_is_named(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_dir / "version_0" / "reports.jsonl"
    path.write_text('{"step": 1}\n')
    assert main(["plot", str(run_dir)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"synthqual: `{path}` is no report (KeyError")


def test_several_runs_are_drawn_together(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = run_dir.parent / "other"
    other.mkdir()
    (other / "reports.jsonl").write_text(Report({"fid": 9.0}, {}, step=4).to_json() + "\n")
    target = run_dir.parent / "both.png"
    assert main(["plot", str(run_dir), str(other), "--output", str(target)]) == 0
    assert f"4 evaluations drawn to {target}" in capsys.readouterr().out
    assert main(["plot", str(run_dir), str(run_dir)]) == 2
    assert "names the same folder twice" in capsys.readouterr().err
