import copy
import csv
import io
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_synthqual import Report
from lightning_synthqual.cli import main
from lightning_synthqual.metrics.base import Influence
from lightning_synthqual.reporting.files import append_report, save_influences, write_influences

PROTOCOL: dict[str, Any] = {
    "version": "0.1.0",
    "num_samples": 100,
    "seed": 0,
    "image_range": [-1.0, 1.0],
    "real_range": [-1.0, 1.0],
    "image_size": None,
    "quantisation": "uint8",
    "reference": {"role": "real", "num_images": 50, "size": [8, 8], "fingerprint": "a" * 40},
    "other_real": {"role": "held_out", "num_images": 20, "fingerprint": "b"},
    "generated": {"size": [8, 8]},
    "sampling": {"kind": "latent", "latent_shape": [4], "labels": None, "sampler": None, "repeatable": True},
    "extractors": {"inception": {"name": "inception", "weights": "c" * 64}, "mine": {"weights": "d"}},
    "pairs": {},
    "metrics": {
        "fid": {"family": "frechet", "extractor": "inception", "direction": "min"},
        "precision": {"family": "precision", "extractor": "inception", "k": 3, "direction": "max"},
        "closer_to_train_mine": {"extractor": "mine", "both_sets": True, "direction": None},
        "pairs": {"extractor": "mine", "num_images": 10, "both_sets": True, "networks": ["lpips_alex"]},
    },
}
SCALARS = {
    "fid": 10.0,
    "fid_std": 0.5,
    "fid_floor": 1.0,
    "fid_change": -1.0,
    "precision": 0.5,
    "precision_std": 0.05,
    "closer_to_train_mine": 0.5,
    "pairs_psnr_train": 20.0,
}
NAMES = ("fid", "precision", "closer_to_train_mine", "pairs_psnr_train")


def report(change: Callable[[dict[str, Any]], None] | None = None, shift: float = 0.0, **scalars: float) -> Report:
    """A report whose influences are the same but for a small part."""
    protocol = copy.deepcopy(PROTOCOL)
    if change is not None:
        change(protocol)
    draw = torch.Generator().manual_seed(0)
    fake, real = torch.randn(100, generator=draw), torch.randn(50, generator=draw)
    values = {**SCALARS, **scalars}
    influences = {
        "fid": Influence(torch.tensor(values["fid"]), fake + shift * fake.roll(1), real),
        "precision": Influence(torch.tensor(values["precision"]), 0.1 * fake + shift * fake.roll(2), real[:0]),
    }
    return Report(values, protocol, timings={}, influences=influences)


def saved(path: Path, report: Report, influences: bool = True) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.to_json())
    beside = path.with_suffix(".influences.safetensors")
    beside.unlink(missing_ok=True)
    if influences:
        write_influences(beside, report.influences)
    return str(path)


@pytest.fixture
def compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Compare reports by the command; returns its status and what it printed."""

    def run(*reports: Report, words: tuple[str, ...] = (), influences: bool = True) -> tuple[int, str, str]:
        paths = [saved(tmp_path / f"{place}.json", each, influences) for place, each in enumerate(reports)]
        status = main(["compare", *paths, *words])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def as_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_paired_differences_see_what_independent_ones_do_not(compared: Any) -> None:
    one, other = report(), report(shift=0.1, fid=9.9, precision=0.5)
    status, text, _ = compared(one, other)
    assert status == 0
    lines = {line.split()[0]: " ".join(line.split()) for line in text.splitlines()}
    assert lines["metric"] == "metric A: 0.json B: 1.json real images B - A z B is"
    assert lines["fid"].startswith("fid ↓ 10.00 ± 0.50 9.90 ± 0.50 1 -0.100 ± 0.0")
    assert lines["fid"].endswith("better")
    assert lines["precision"].endswith("tie")
    assert lines["closer_to_train_mine"] == "closer_to_train_mine 0.5 0.5 +0 tie"
    assert "fid_change" not in text
    assert "paired: what both have in common cancels" in text
    assert "not paired" not in text
    assert "arXiv:2606.20536" in text
    assert "best of several" not in text
    (row,) = as_csv(compared(one, other, words=("--format", "csv", "--metrics", "fid"))[1])
    (apart,) = as_csv(compared(one, other, words=("--format", "csv", "--metrics", "fid"), influences=False)[1])
    assert (row["B - A paired"], apart["B - A paired"]) == ("True", "False")
    assert float(row["B - A std"]) < float(apart["B - A std"]) / 3
    assert float(apart["B - A std"]) == pytest.approx(0.5 * 2**0.5)
    assert (row["B - A verdict"], apart["B - A verdict"]) == ("better", "tie")
    assert float(row["B - A"]) == pytest.approx(-0.1)


def test_more_than_two_reports_are_compared_with_the_first(compared: Any) -> None:
    status, text, _ = compared(report(), report(fid=9.0, shift=0.1), report(fid=12.0, shift=0.1))
    assert status == 0
    (fid,) = (" ".join(line.split()) for line in text.splitlines() if line.startswith("fid"))
    assert fid.count("better") == fid.count("worse") == 1
    assert fid.index("better") < fid.index("worse")
    assert "C - A" in text
    assert text.count("The best of several looks better than it is") == 1


def other_latents(protocol: dict[str, Any]) -> None:
    protocol["seed"] = 3


def no_sampling(protocol: dict[str, Any]) -> None:
    del protocol["sampling"]


def other_k(protocol: dict[str, Any]) -> None:
    protocol["metrics"]["precision"]["k"] = 5


def other_held_out(protocol: dict[str, Any]) -> None:
    protocol["other_real"]["fingerprint"] = "e"


def other_weights(protocol: dict[str, Any]) -> None:
    protocol["extractors"]["inception"]["weights"] = "f" * 64


def other_count(protocol: dict[str, Any]) -> None:
    protocol["num_samples"] = 90


def other_reference(protocol: dict[str, Any]) -> None:
    protocol["reference"]["fingerprint"] = "g" * 40


def other_pairs(protocol: dict[str, Any]) -> None:
    protocol["metrics"]["pairs"]["num_images"] = 11


def other_network(protocol: dict[str, Any]) -> None:
    protocol["pairs"] = {"lpips_alex": {"weights": "h"}}


def other_range(protocol: dict[str, Any]) -> None:
    protocol["real_range"] = [0.0, 1.0]
    protocol["version"] = "0.2.0"
    protocol["image_range"] = [0.0, 1.0]


def test_what_does_not_alter_the_pixels_of_the_reference_changes_nothing(compared: Any) -> None:
    _, alike, _ = compared(report(), report(shift=0.1))
    _, ranges, _ = compared(report(), report(other_range, shift=0.1))
    assert ranges == alike


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_latents, "B not paired with A, so that errors are larger: the latents differ (seed: 3 / 0)."),
        (
            no_sampling,
            "B not paired with A, so that errors are larger: finished images may be of any latents. Where image i of "
            "all is made of the same latent, say `--paired`.",
        ),
        (
            other_reference,
            "B not paired with A (fid), so that errors are larger: the real images differ (reference fingerprint: "
            "gggggggggggg… / aaaaaaaaaaaa…).",
        ),
    ],
)
def test_what_is_not_paired_is_said_in_one_line(compared: Any, change: Any, reason: str) -> None:
    status, text, _ = compared(report(), report(change, shift=0.1, fid=9.9))
    assert status == 0
    assert [line for line in text.splitlines() if "not paired" in line] == [reason]
    assert "fid ↓" in text


def test_another_number_of_images_is_compared_as_independent(compared: Any) -> None:
    fewer = report(other_count)
    rows = {name: each._replace(fake=each.fake[:90]) for name, each in fewer.influences.items()}
    _, text, _ = compared(report(), replace(fewer, influences=rows))
    assert [line for line in text.splitlines() if "100" in line] == [
        "B not paired with A, so that errors are larger: the numbers of generated images differ: 90 and 100.",
        "A and B differ by more than the generator, which may move scores: num_samples: 100 / 90.",
    ]


def test_without_influences_too(compared: Any) -> None:
    status, text, _ = compared(report(), report(fid=9.9), influences=False)
    assert status == 0
    reasons = [line for line in text.splitlines() if "not paired" in line]
    assert reasons == ["B not paired with A, so that errors are larger: there are no influences."]


def test_finished_images_of_the_same_seeds_are_paired_if_it_is_said(compared: Any) -> None:
    reports = report(no_sampling), report(no_sampling, shift=0.1)
    _, text, _ = compared(*reports, words=("--paired",))
    assert "not paired" not in text
    assert "paired: what both have in common cancels" in text


@pytest.mark.parametrize(
    ("change", "apart", "words"),
    [
        (other_k, {"precision"}, "options k: 5 / 3"),
        (other_weights, {"fid", "precision"}, "extractor weights: ffffffffffff… / cccccccccccc…"),
        (other_pairs, {"pairs_psnr_train"}, "options num_images: 11 / 10"),
        (other_network, {"pairs_psnr_train"}, "pair networks lpips_alex: {'weights': 'h'} / None"),
    ],
)
def test_what_is_measured_in_another_way_never_shares_a_row(
    compared: Any, change: Any, apart: set[str], words: str
) -> None:
    _, text, notes = compared(report(), report(change), words=("--format", "csv"))
    rows = as_csv(text)
    for name in NAMES:
        found = [(row["A: 0.json"], row["B: 1.json"], row["B - A"]) for row in rows if row["metric"] == name]
        if name in apart:
            assert [("" in row[:2], row[2]) for row in found] == [(True, ""), (True, "")]
        else:
            (row,) = found
            assert "" not in row
    (note,) = (line for line in notes.splitlines() if "in rows of their own" in line)
    assert f"{', '.join(name for name in NAMES if name in apart)} ({words})" in note


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_count, "num_samples: 100 / 90"),
        (other_reference, "reference fingerprint: aaaaaaaaaaaa… / gggggggggggg…"),
        (other_held_out, "other_real fingerprint: b / e"),
    ],
)
def test_what_else_moves_scores_is_said_once(compared: Any, change: Any, words: str) -> None:
    _, text, _ = compared(report(), report(change))
    assert [line for line in text.splitlines() if line.startswith("A and B differ")] == [
        f"A and B differ by more than the generator, which may move scores: {words}."
    ]


def test_nothing_comparable_is_an_error_that_names_what_differs(compared: Any) -> None:
    status, out, err = compared(report(), report(other_weights), words=("--metrics", "fid"))
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert "fid (extractor weights: ffffffffffff… / cccccccccccc…)" in line
    status, _, err = compared(Report({"fid": 1.0}, PROTOCOL), Report({"kid": 1.0}, PROTOCOL), influences=False)
    assert status == 2
    assert "one has kid, the other fid" in err


def test_metrics_that_are_missing_are_named(compared: Any) -> None:
    status, _, err = compared(report(), report(), words=("--metrics", "fid,kid"))
    assert status == 2
    assert "The reports have no kid. They have: fid, precision, closer_to_train_mine, pairs_psnr_train." in err


@pytest.mark.parametrize(
    ("form", "strong"), [("markdown", "**9.00 ± 0.50**"), ("html", "<strong>9.00 ± 0.50</strong>")]
)
def test_other_forms(compared: Any, form: str, strong: str) -> None:
    _, text, err = compared(report(), report(fid=9.0), words=("--format", form))
    assert strong in text
    assert "arXiv:2606.20536" in text
    assert err == ""


def test_notes_of_csv_do_not_get_into_it(compared: Any) -> None:
    _, text, err = compared(report(), report(fid=9.0), words=("--format", "csv"))
    assert len(text.splitlines()) == 5
    assert "arXiv:2606.20536" in err


def test_reports_stand_side_by_side(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = saved(run_dir.parent / "other.json", Report({"fid": 5.0}, {"num_samples": 8}), influences=False)
    lines = f"{run_dir}/version_0/reports.jsonl"
    assert main(["compare", f"{lines}:10", lines, other]) == 0
    head, fid, *_ = (" ".join(line.split()) for line in capsys.readouterr().out.splitlines())
    titles = "A: run/version_0/reports.jsonl:10 B: run/version_0/reports.jsonl C: other.json"
    assert head == f"metric {titles} B - A z B is C - A z C is"
    assert fid == "fid ↓ 20.0 ± 1.0 10.0 ± 1.0 5 -10.0 ± 1.4 -7.1 better -15"


def test_folders_stand_for_their_reports(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(run_dir.parent / "offline" / "report.json", Report({"fid": 5.0}, {"num_samples": 8}), influences=False)
    (run_dir / "version_0" / "seldom").mkdir()
    (run_dir / "version_0" / "seldom" / "reports.jsonl").write_text("")  # of a further monitor
    folder = str(run_dir.parent / "offline")
    assert main(["compare", str(run_dir), f"{run_dir}:10", f"{folder}/"]) == 0
    head, fid, *_ = (" ".join(line.split()) for line in capsys.readouterr().out.splitlines())
    assert head.startswith("metric A: run B: run:10 C: offline ")
    assert fid.startswith("fid ↓ 10.0 ± 1.0 20.0 ± 1.0 5 ")


def test_evaluations_of_a_run_are_paired_by_their_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step, each in ((3, report()), (7, report(shift=0.1, fid=9.9))):
        fitted = replace(each, step=step)
        append_report(tmp_path, fitted)
        save_influences(tmp_path, fitted)
    # A test at the same step, of other weights, stands in rows and files of its own.
    tested = replace(report(lambda protocol: protocol["sampling"].update(stage="test"), shift=9.0), step=7)
    save_influences(tmp_path, tested)
    assert main(["compare", f"{tmp_path}:3", f"{tmp_path}:7", "--metrics", "fid", "--format", "csv"]) == 0
    (row,) = as_csv(capsys.readouterr().out)
    assert (row["B - A paired"], row["B - A verdict"]) == ("True", "better")
    assert float(row["B - A std"]) < 0.05


def test_only_a_terminal_gets_bold_letters(
    run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["compare", str(run_dir), f"{run_dir}:10"]) == 0
    assert "\033" not in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["compare", str(run_dir), f"{run_dir}:10"]) == 0
    assert "\033[1m10.0 ± 1.0\033[0m" in capsys.readouterr().out


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


def test_one_report_alone_is_shown_without_differences(compared: Any) -> None:
    status, text, _ = compared(report())
    assert status == 0
    assert [line.split()[0] for line in text.splitlines()] == ["metric", *NAMES]


def test_one_report_under_two_names_is_one(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(run_dir), f"{run_dir}/"]) == 2
    assert "A report is named twice" in capsys.readouterr().err
