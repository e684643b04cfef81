"""A training's checkpoints, scored by ``synthqual watch``, get the scores that the training has logged."""

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_synthqual import QualityCheckpoint, Report
from lightning_synthqual.cli import main, results, watch
from lightning_synthqual.cli.checkpoints import Maker
from lightning_synthqual.cli.found import CheckpointFolder, Found
from lightning_synthqual.cli.watching import Loaded, Loader
from lightning_synthqual.evaluation.reference import Reference
from lightning_synthqual.reporting.files import REPORTS

sys.path.insert(0, str(Path(__file__).parent))
from watched import METRICS, NETWORK, Gan, train

SCRIPT = Path(__file__).with_name("watched.py")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path]) -> tuple[Path, list[Report]]:
    """The folder of a run with a checkpoint for each evaluation, and its reports."""
    folder = tmp_path_factory.mktemp("run")
    saving = ModelCheckpoint(folder / "checkpoints", every_n_train_steps=4, save_top_k=-1, filename="{step}")
    reports = train(folder, folders["train"], saving, every_n_train_batches=2)
    return folder, reports


@pytest.fixture
def watching(folders: dict[str, Path], tmp_path: Path) -> Callable[..., list[str]]:
    """The words of a command, to be completed by further ones."""

    def words(command: str, checkpoints: Path, *more: str) -> list[str]:
        given = [command, str(checkpoints), "--module", "watched.Gan", "--real", str(folders["train"])]
        given += ["--metrics", ",".join(METRICS), "--extractor", f"mine={json.dumps(NETWORK)}", "--num-samples", "33"]
        given += ["--batch-size", "8", "--cache-dir", str(tmp_path / "cache"), "--output", str(tmp_path / "out")]
        return [*given, *(["--once"] if command == "watch" else []), *more]

    return words


def reports_in(folder: Path) -> list[Report]:
    return [Report.from_json(line) for line in (folder / REPORTS).read_text().splitlines()]


def scores(reports: list[Report]) -> list[tuple[int | None, int | None, dict[str, float]]]:
    return [(report.step, report.epoch, report.scalars) for report in reports]


def counting(function: Callable[..., Any], calls: list[str], name: str) -> Callable[..., Any]:
    def counted(*arguments: Any, **keywords: Any) -> Any:
        calls.append(name)
        return function(*arguments, **keywords)

    return counted


@pytest.mark.parametrize("command", ["watch", "evaluate-run"])
def test_scores_are_those_of_the_training_to_the_last_digit(
    run: tuple[Path, list[Report]],
    watching: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    folder, trained = run
    made: list[str] = []
    for kind, name in ((Maker, "make"), (Reference, "__init__")):
        monkeypatch.setattr(kind, name, counting(getattr(kind, name), made, name))
    assert main(watching(command, folder / "checkpoints" if command == "watch" else folder)) == 0
    found = reports_in(tmp_path / "out")
    assert [report.step for report in found] == [1, 3, 5, 7, 9, 11]  # files are called step=4, step=8, ...
    assert scores(found) == scores(trained)
    assert [each.protocol["change"] for each in found[1:]] == [each.protocol["change"] for each in trained[1:]]
    checksums = [[each.protocol["sampling"]["weights_checksum"] for each in reports] for reports in (found, trained)]
    assert checksums[0] == checksums[1]
    assert made == ["make", "__init__"]  # one module, and real images are read once


SCHEDULES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "validation": ({}, {}),
    "epoch": ({"every_n_epochs": 1}, {"save_on_train_epoch_end": True}),
    "batch": ({"every_n_train_batches": 3}, {"every_n_train_steps": 6}),
}


@pytest.mark.parametrize("moment", SCHEDULES)
@pytest.mark.parametrize("own", [False, True])
def test_the_step_is_the_loggers_whoever_saves_and_when(
    folders: dict[str, Path], tmp_path: Path, moment: str, own: bool
) -> None:
    schedule, saving = SCHEDULES[moment]
    keep: ModelCheckpoint = (
        QualityCheckpoint("quality/fd_mine", dirpath=tmp_path / "best", save_top_k=-1, save_weights_only=True)
        if own
        else ModelCheckpoint(tmp_path / "best", save_top_k=-1, **saving)
    )
    reports = train(tmp_path, folders["train"], keep, **schedule)
    found = CheckpointFolder(tmp_path / "best").look()
    assert [each.step for each in found] == [report.step for report in reports]
    assert len({each.step for each in found}) == (4 if moment == "batch" else 3)
    if own:
        assert [f"step={each.step}" in each.path.stem for each in found] == [True] * len(found)


@pytest.mark.parametrize("averages", [False, True])
def test_of_two_kinds_of_weights_those_are_scored_that_the_training_scored(
    folders: dict[str, Path], watching: Callable[..., list[str]], tmp_path: Path, averages: bool
) -> None:
    averaging = pl.callbacks.WeightAveraging(avg_fn=lambda average, new, _: average + 0.1 * (new - average))
    if not averages:
        averaging.should_update = lambda **_: False  # type: ignore[method-assign]
    saving = ModelCheckpoint(tmp_path / "saved", save_top_k=-1)
    reports = train(tmp_path, folders["train"], averaging, saving)
    assert main(watching("watch", tmp_path / "saved")) == 0
    found = reports_in(tmp_path / "out")
    assert scores(found) == scores(reports)
    weights = [report.protocol["sampling"]["weights"] for report in found]
    assert weights == [report.protocol["sampling"]["weights"] for report in reports]
    assert weights == ["averaged by WeightAveraging" if averages else "the module's own"] * 3


def test_what_is_there_is_not_scored_again_and_the_best_is_linked(
    run: tuple[Path, list[Report]],
    watching: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, trained = run
    words = watching("watch", tmp_path / "some", "--monitor", "quality/precision_mine", "--logger", "csv")
    (tmp_path / "some").mkdir()
    paths = sorted((folder / "checkpoints").iterdir(), key=lambda path: path.stat().st_mtime)
    for path in paths[:2]:
        shutil.copy2(path, tmp_path / "some")
    assert main(words) == 0
    first = (tmp_path / "out" / REPORTS).read_text()
    assert first.count("\n") == 2
    (tmp_path / "out" / REPORTS).write_text(first[:-20])  # killed while it wrote
    shutil.rmtree(tmp_path / "some")
    shutil.copytree(folder / "checkpoints", tmp_path / "some")
    shutil.copy(paths[-1], tmp_path / "some" / "last.ckpt")  # of the same step
    assert main(words) == 0
    found = reports_in(tmp_path / "out")
    assert scores(found) == scores(trained)
    best = max(trained, key=lambda report: report.scalars["precision_mine"])
    assert (tmp_path / "out" / "best").resolve().name == f"step={2 * (best.step or 0) + 2}.ckpt"
    assert (tmp_path / "out" / "curves.png").is_file()
    assert len(list((tmp_path / "out" / "samples").iterdir())) == 6
    with (tmp_path / "out" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["step"]), float(row["quality/fd_mine"])) for row in rows] == [
        (report.step, report.scalars["fd_mine"]) for report in trained
    ]
    capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("0 checkpoints scored, 6 reports in")
    for more, different in {("--seed", "3"): "seed: 0 / 3", ("--num-samples", "30"): "num_samples: 33 / 30"}.items():
        assert main([*words, *more]) == 2
        error = capsys.readouterr().err
        assert f"measured in another way ({different}" in error or f"; {different}" in error


def copied(run: tuple[Path, list[Report]], folder: Path, *steps: int) -> dict[int, Path]:
    """Copies of some of a run's checkpoints, by the loggers' step."""
    folder.mkdir()
    name = "step={}.ckpt"  # of the optimizers, two a batch
    return {step: Path(shutil.copy2(run[0] / "checkpoints" / name.format(2 * step + 2), folder)) for step in steps}


def test_a_step_that_comes_late_is_put_where_it_belongs(
    run: tuple[Path, list[Report]], watching: Callable[..., list[str]], tmp_path: Path
) -> None:
    late = copied(run, tmp_path / "some", 1, 3, 5)[3]
    late.rename(tmp_path / "late")
    assert main(watching("watch", tmp_path / "some")) == 0
    (tmp_path / "late").rename(late)
    assert main(watching("watch", tmp_path / "some")) == 0
    found = reports_in(tmp_path / "out")
    assert [report.step for report in found] == [1, 3, 5]
    assert found[1].scalars == run[1][1].scalars
    assert found[2].protocol["change"]["since"] == 1


def test_what_is_no_checkpoint_of_the_class_is_left_out_and_said_at_the_end(
    run: tuple[Path, list[Report]],
    watching: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = copied(run, tmp_path / "some", 1, 3, 5, 7, 9, 11)
    content = torch.load(paths[3], weights_only=True)
    torch.save({**content, "state_dict": nn.Linear(2, 2).state_dict()}, paths[3])
    torch.save({"state_dict": content["state_dict"]}, paths[5])
    paths[7].write_bytes(paths[7].read_bytes()[:-300])
    wider = {"state_dict": Gan(width=7).state_dict(), "hyper_parameters": {"width": 7}}
    torch.save({**torch.load(paths[9], weights_only=True), **wider}, paths[9])  # of the same class, and so no problem
    changed = torch.load(paths[11], weights_only=True)
    (state,) = (state for name, state in changed["callbacks"].items() if name.startswith("QualityMonitor"))
    state["history"]["rows"][-1]["varying"]["sampling"]["precision"] = "bf16-mixed"
    torch.save(changed, paths[11])
    for path in paths.values():
        os.utime(path, (1, 1))
    assert main(watching("watch", tmp_path / "some")) == 2
    error = capsys.readouterr().err
    assert "synthqual: 4 of 6 checkpoints were left out: step=12.ckpt: It says nothing of a step" in error
    assert "step=16.ckpt: The checkpoint" in error
    assert "step=8.ckpt: The weights file" in error
    assert "does not fit Gan" in error
    assert "step=24.ckpt: It would be scored in another way" in error
    assert "(sampling precision: 32-true / bf16-mixed)" in error
    assert error.strip().count("\n") == 0
    assert [report.step for report in reports_in(tmp_path / "out")] == [1, 9]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--metrics", "fd_mine"], r"measured in another way \(metrics: "),
        (["--seed", "3"], r"measured in another way \(seed: 0 / 3"),
        (["--num-samples", "30"], r"measured in another way \(num_samples: 33 / 30"),
        (["--held-out", "HELD", "--reference", "held_out"], r"reference role: real / held_out"),
    ],
)
def test_a_folder_of_another_protocol_is_refused(
    run: tuple[Path, list[Report]],
    watching: Callable[..., list[str]],
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    copied(run, tmp_path / "some", 3)
    (tmp_path / "out").mkdir()
    row = json.loads(run[1][0].to_json())
    row["protocol"]["sampling"]["checkpoint"] = "step=4.ckpt"
    before = json.dumps(row) + "\n"
    (tmp_path / "out" / REPORTS).write_text(before)
    more = [str(folders["held_out"]) if word == "HELD" else word for word in more]
    assert main(watching("watch", tmp_path / "some", *more)) == 2
    assert re.search(message, capsys.readouterr().err)
    assert (tmp_path / "out" / REPORTS).read_text() == before


def test_bad_folders_are_named(
    run: tuple[Path, list[Report]],
    watching: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, _ = run
    (tmp_path / "empty").mkdir()
    for version in (0, 1):
        (tmp_path / "runs").mkdir(exist_ok=True)
        copied(run, tmp_path / "runs" / f"version_{version}", 1)
    cases = {
        "nowhere": "does not exist",
        "empty": r"holds no checkpoints \(\*\.ckpt\)",
        "runs": "of 2 runs: .*version_0",
    }
    for name, message in cases.items():
        assert main(watching("evaluate-run", tmp_path / name)) == 2
        assert re.search(message, capsys.readouterr().err)
    (tmp_path / "out" / REPORTS).write_text("{}\n")
    assert main(watching("evaluate-run", folder)) == 2
    assert "is no report" in capsys.readouterr().err
    (tmp_path / "out" / REPORTS).unlink()
    assert main(watching("evaluate-run", folder, "--monitor", "fidd")) == 2
    assert "`--monitor fidd` is no score that can get better or worse. There are: fd_mine" in capsys.readouterr().err


def test_the_trainings_own_reports_are_left_alone(
    run: tuple[Path, list[Report]],
    watching: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "out").mkdir()
    shutil.copy(run[0] / REPORTS, tmp_path / "out")
    assert main(watching("evaluate-run", run[0])) == 2
    assert "has reports of the training itself" in capsys.readouterr().err
    assert (tmp_path / "out" / REPORTS).read_bytes() == (run[0] / REPORTS).read_bytes()


def test_half_written_and_deleted_files_are_survived(run: tuple[Path, list[Report]], tmp_path: Path) -> None:
    paths = copied(run, tmp_path / "some", 1, 3, 5)
    for step, path in paths.items():
        os.utime(path, (time.time() + step, time.time() + step))
    folder = CheckpointFolder(tmp_path / "some", patience=0.2)
    content = paths[3].read_bytes()
    paths[3].write_bytes(content[:-200])
    os.utime(paths[3], (time.time() + 3, time.time() + 3))
    assert [each.step for each in folder.look()] == [1]  # 5 was saved later, and waits
    assert folder.waits
    paths[3].write_bytes(content)
    assert [each.step for each in folder.look()] == [1, 3, 5]
    assert not folder.waits
    paths[3].write_bytes(content[:-200])
    folder.look()
    time.sleep(0.25)
    assert [each.step for each in folder.look()] == [1, 5]
    assert list(folder.problems) == [paths[3]]
    paths[1].unlink()
    (tmp_path / "some" / "best.ckpt").symlink_to(paths[1])
    (tmp_path / "some" / "last.ckpt").symlink_to(paths[5])
    assert [each.path for each in folder.look()] == [paths[5]]
    paths[3].unlink()
    folder.look()
    assert not folder.problems


def test_two_processes_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with (
        results.only_writer(tmp_path),
        pytest.raises(ValueError, match=r"Another process writes to `--output .*another folder"),
        results.only_writer(tmp_path, patience=0.1),
    ):
        pass
    with results.only_writer(tmp_path, patience=0):
        pass


class Deleting(Loader):
    """Another process deletes a checkpoint a moment before it is loaded."""

    def load(self, found: Found) -> Loaded:
        if found.step == 3:
            found.path.unlink()
        return super().load(found)


def test_a_checkpoint_that_is_deleted_in_time_is_no_problem(
    run: tuple[Path, list[Report]],
    watching: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copied(run, tmp_path / "some", 1, 3, 5)
    monkeypatch.setattr(watch, "Loader", Deleting)
    assert main(watching("watch", tmp_path / "some")) == 0
    assert [report.step for report in reports_in(tmp_path / "out")] == [1, 5]


@pytest.mark.parametrize("at", ["save_influences", "append_report", "_link"])
def test_killed_and_started_again_no_row_is_missing_or_there_twice(
    run: tuple[Path, list[Report]],
    watching: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
) -> None:
    copied(run, tmp_path / "some", 1, 3, 5)
    real, calls = getattr(results, at), []

    def dying(*arguments: Any, **keywords: Any) -> None:
        calls.append(at)
        if len(calls) == 2:
            if at == "append_report":
                with (tmp_path / "out" / REPORTS).open("a") as file:
                    file.write(arguments[1].to_json()[:300])
            raise KeyboardInterrupt
        real(*arguments, **keywords)

    monkeypatch.setattr(results, at, dying)
    assert main(watching("watch", tmp_path / "some")) == 130
    assert main(watching("watch", tmp_path / "some")) == 0
    assert scores(reports_in(tmp_path / "out")) == scores(run[1][:3])
    assert not list((tmp_path / "out").rglob("*partial*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_watch_ends_cleanly_when_it_is_told_to(
    run: tuple[Path, list[Report]],
    watching: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    copied(run, tmp_path / "some", 1)
    before = signal.getsignal(number)

    def send() -> None:
        while not (tmp_path / "out" / "curves.png").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    words = watching("watch", tmp_path / "some", "--interval", "30")
    assert main([word for word in words if word != "--once"]) == 0
    thread.join()
    output, error = capsys.readouterr()
    assert error == ""
    assert output.startswith("step 1 (step=4.ckpt): fd_mine")
    assert "1 checkpoints scored, 1 reports in" in output
    assert signal.getsignal(number) is before


def start(words: list[str]) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPT.parent), *sys.path]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lightning_synthqual", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_watcher_that_is_killed_at_random_beside_a_training(
    folders: dict[str, Path], watching: Callable[..., list[str]], tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    (tmp_path / "saved").mkdir()
    command = [sys.executable, str(SCRIPT), str(tmp_path), str(folders["train"])]
    training = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    words = [word for word in watching("watch", tmp_path / "saved", "--interval", "0.1") if word != "--once"]
    draw, kills, rows = random.Random(0), 0, tmp_path / "out" / REPORTS
    while training.poll() is None:
        watcher = start(words)
        before = rows.read_text().count("\n") if rows.exists() else 0
        while training.poll() is None and (rows.read_text().count("\n") if rows.exists() else 0) == before:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.4))
        watcher.kill()
        watcher.communicate()
        kills += 1
    assert training.returncode == 0
    assert kills >= 2
    done = start([*words, "--once"])
    _, error = done.communicate(timeout=60)
    assert done.returncode == 0, error
    assert scores(reports_in(tmp_path / "out")) == scores(reports_in(tmp_path))
    assert len(reports_in(tmp_path)) == 12
