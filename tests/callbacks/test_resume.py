"""Killed at any instant and resumed, a run has the history and the decisions of an undisturbed one."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_synthqual import QualityCheckpoint, QualityMonitor, QualityStopping

sys.path.insert(0, str(Path(__file__).parent))
from resumable import STAGES, run

SCRIPT = Path(__file__).with_name("resumable.py")


def history(directory: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (directory / "run" / "version_0" / "reports.jsonl").read_text().splitlines()]
    for row in rows:  # a script calls the module of its own functions __main__
        row["protocol"]["sampling"]["sampler"] = None
    return [{key: row[key] for key in ("step", "epoch", "scalars", "protocol")} for row in rows]


def checkpoints(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "best").iterdir())


def plain(state: Any) -> Any:
    """A state whose tensors and protocols can be compared."""
    if isinstance(state, torch.Tensor):
        return state.tolist()
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items() if key != "row"}
    return state


def decisions(trainer) -> dict[str, Any]:
    quality, stop, keep = (
        next(cb for cb in trainer.callbacks if type(cb) is kind)
        for kind in (QualityMonitor, QualityStopping, QualityCheckpoint)
    )
    return {
        "stopping": plain(stop.state_dict()),
        "kept": plain({Path(path).name: each for path, each in keep.state_dict()["kept"].items()}),
        "best": Path(keep.best_model_path).name,
        "best score": keep.best_model_score,
        "reports": [(report.step, report.scalars) for report in quality.reports],
    }


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the script: sums round differently by the number of threads, and training widens the difference."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def undisturbed(one_thread, tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    trainer = run(directory)
    return directory, trainer


def test_the_undisturbed_run_has_something_to_show(undisturbed):
    directory, trainer = undisturbed
    assert [row["step"] for row in history(directory)] == [2, 5, 8, 11, 14, 17, 20, 23]
    assert len({row["scalars"]["fd_mine"] for row in history(directory)}) == 8
    assert [path.name for path in (directory / "best").iterdir()] == [decisions(trainer)["best"]]


@pytest.mark.parametrize(
    "stage",
    [stage if stage in ("half a row", "saved") else pytest.param(stage, marks=pytest.mark.slow) for stage in STAGES],
)
def test_killed_and_resumed(undisturbed, tmp_path, stage):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path, stage], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    content = (tmp_path / "run" / "version_0" / "reports.jsonl").read_text()
    evaluated = stage in ("reported", "saved", "replaced")
    assert content.count("\n") == (3 if evaluated else 2)
    files = {"saved": ["step=5.ckpt", "step=8.ckpt"], "replaced": ["step=8.ckpt"]}.get(stage, ["step=5.ckpt"])
    assert checkpoints(tmp_path) == files
    assert content.endswith("\n") == (stage != "half a row")
    checkpoint = str(tmp_path / "last" / "last.ckpt")
    torch.load(checkpoint, weights_only=True)
    trainer = run(tmp_path, checkpoint)
    directory, expected = undisturbed
    assert history(tmp_path) == history(directory)
    assert decisions(trainer) == decisions(expected)
    superseded = tmp_path / "run" / "version_0" / "reports.superseded.jsonl"
    assert superseded.exists() == evaluated
    assert checkpoints(tmp_path) == checkpoints(directory)
    assert not list(tmp_path.rglob(".*partial*"))


def test_resumed_in_another_folder_the_history_is_whole(undisturbed, tmp_path):
    directory, _ = undisturbed
    (checkpoint,) = (directory / "last").glob("*step=16.ckpt")
    run(tmp_path, str(checkpoint))
    assert history(tmp_path) == history(directory)
