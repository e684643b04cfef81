"""Real processes on gloo."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("train.py")


@pytest.fixture
def run(tmp_path):
    def launch(devices: int, *arguments: str, cache: str = "cache", timeout: int = 120) -> list[dict]:
        output = tmp_path / f"{devices}-{len(list(tmp_path.iterdir()))}"
        output.mkdir()
        command = [sys.executable, str(SCRIPT), "--devices", str(devices), "--output", str(output)]
        command += ["--cache", str(tmp_path / cache), *arguments]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
        processes = []  # started side by side, as a cluster does: Lightning's own launcher starts them one by one
        for rank in range(devices):
            place = {**address, "LOCAL_RANK": str(rank)} if devices > 1 else {}
            with (output / f"{rank}.log").open("w") as log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **place}))
        try:
            for process in processes:
                process.wait(timeout)
        finally:
            for process in processes:
                process.kill()
        logs = [(output / f"{rank}.log").read_text() for rank in range(devices)]
        files = sorted(output.glob("rank*.json"))
        assert len(files) == devices, logs
        return [
            {**json.loads(path.read_text()), "output": output, "log": log}
            for path, log in zip(files, logs, strict=True)
        ]

    return launch


def assert_same_scores(first: list[dict], second: list[dict]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a == pytest.approx(b, rel=1e-6)


def test_two_processes_score_as_one_does(run):
    [alone] = run(1, cache="one")
    pair = run(2, cache="two")
    assert alone["error"] is None
    assert len(alone["scalars"]) == 3  # patience 2: the generator does not learn
    for rank in pair:
        assert rank["scalars"] == pair[0]["scalars"]
        assert_same_scores(rank["scalars"], alone["scalars"])
        assert rank["fingerprints"] == alone["fingerprints"]
        assert rank["checksums"] == pair[0]["checksums"]
        assert rank["epochs"] == alone["epochs"]
    assert [rank["shift"] for rank in pair] == pytest.approx([0.1, 1.1])  # each rank has its own buffers back
    lines = next(pair[0]["output"].rglob("reports.jsonl")).read_text().splitlines()
    assert [json.loads(line)["scalars"] for line in lines] == pair[0]["scalars"]
    cached = run(2, cache="one")
    assert "found in the cache" in cached[0]["log"]
    assert_same_scores(cached[1]["scalars"], alone["scalars"])


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 3])
def test_neighbours_and_pairs_on_several_processes_are_those_of_one(run, devices):
    [alone] = run(1, "--memorization", "--epochs", "1", cache="one")
    several = run(devices, "--memorization", "--epochs", "1", cache="several")
    assert alone["error"] is None
    assert {"copying_test_mine", "pairs_mine_psnr_held_out"} < set(alone["scalars"][0])
    for rank in several:
        assert_same_scores(rank["scalars"], alone["scalars"])
    assert len(alone["pairs"][0]) == 150
    for row, expected in zip(several[0]["pairs"][0], alone["pairs"][0], strict=True):
        assert row[:3] == expected[:3]
        assert row[3:] == pytest.approx(expected[3:], rel=1e-6)
    pictures = [
        {path.parent.name: path.read_bytes() for path in output.rglob("step=*.png")}
        for output in (alone["output"], several[0]["output"])
    ]
    assert len(pictures[0]) == 8
    assert set(pictures[0]) == set(pictures[1])
    assert pictures[0]["neighbors_mine"] == pictures[1]["neighbors_mine"]


@pytest.mark.slow
def test_training_on_two_processes_is_bit_identical_with_the_callback(run):
    watched, unwatched = run(2, "--epochs", "2"), run(2, "--epochs", "2", "--unwatched")
    assert len(watched[0]["scalars"]) == 2
    for a, b in zip(watched, unwatched, strict=True):
        assert a["generators"] == b["generators"]
        assert a["critic"] == b["critic"]


@pytest.mark.slow
def test_a_slow_logger_holds_nobody_but_its_own_process_up(run):
    first, second = run(2, "--epochs", "1", "--slow-logger")
    assert first["publishing"][0] >= 3
    assert second["publishing"][0] < 1


@pytest.mark.parametrize(
    ("rank", "stage", "kind", "message"),
    [
        (0, "sampling", "ValueError", "sampler on fire"),
        pytest.param(1, "reading", "OSError", "disk on fire", marks=pytest.mark.slow),
        pytest.param(1, "sampling", "ValueError", "sampler on fire", marks=pytest.mark.slow),
        pytest.param(0, "reading", "OSError", "disk on fire", marks=pytest.mark.slow),
        pytest.param(0, "extraction", "MemoryError", "extractor on fire", marks=pytest.mark.slow),
        pytest.param(1, "extraction", "MemoryError", "extractor on fire", marks=pytest.mark.slow),
        pytest.param(1, "paths", "ZeroDivisionError", "distance on fire", marks=pytest.mark.slow),
        pytest.param(0, "scoring", "ArithmeticError", "matrix on fire", marks=pytest.mark.slow),
        pytest.param(1, "scoring", "ArithmeticError", "matrix on fire", marks=pytest.mark.slow),
    ],
)
def test_a_fault_on_one_rank_is_the_same_error_on_all(run, rank, stage, kind, message):
    started = time.monotonic()
    pair = run(2, "--fail-rank", str(rank), "--fail-stage", stage)
    parts = {"paths": "Metric 'ppl_z_full': ", "scoring": "Metric 'failing': "}  # the other metrics have their scores
    assert pair[rank]["error"] == f"{kind}: {parts.get(stage, '')}{message}"  # its own, the other process has none
    assert pair[1 - rank]["error"].startswith(f"{kind}: [rank {rank}, ")
    assert pair[1 - rank]["error"].endswith(message)
    for found in pair:
        measured = [set(scalars) for scalars in found["scalars"]]
        assert "fd_wavelet" in measured[0] if stage in parts else measured == []
        failed = "ppl" if stage == "paths" else "failing"
        assert not any(name.startswith(failed) for names in measured for name in names)
    assert time.monotonic() - started < 110  # most of it is spent on starting Python and the processes


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "stage"), [(1, "sampling"), (0, "scoring")])
def test_a_fault_can_be_survived_in_step_and_bit_identically(run, rank, stage):
    pair = run(2, "--fail-rank", str(rank), "--fail-stage", stage, "--on-error", "warn")
    assert [found["error"] for found in pair] == [None, None]
    epochs = {"sampling": 5, "scoring": 3}[stage]  # patience ends where there are scores: the generator does not learn
    assert [found["epochs"] for found in pair] == [epochs, epochs]
    measured = [set(scalars) for found in pair for scalars in found["scalars"]]
    assert len(measured) == (0 if stage == "sampling" else 6)
    assert not any("failing" in names for names in measured)
    if stage == "sampling":
        message = "sampler on fire"
        assert pair[rank]["failures"] == [message] * 5
        heard = pair[1 - rank]["failures"]
        assert all(text.startswith(f"[rank {rank}, ") and text.endswith(message) for text in heard)
        assert len(heard) == 5
    for watched, unwatched in zip(pair, run(2, "--unwatched", "--epochs", str(epochs)), strict=True):
        assert watched["generators"] == unwatched["generators"]
        assert watched["critic"] == unwatched["critic"]


@pytest.mark.slow
def test_the_number_of_collectives_does_not_grow_with_the_number_of_batches(run):
    counts = []
    for batch_size in (45, 3):
        for found in run(2, "--epochs", "1", "--batch-size", str(batch_size), cache=str(batch_size)):
            (count, end) = found["collectives"]
            assert end == -1
            counts.append(count)
    assert counts[0] > 0
    assert len(set(counts)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("devices", [3, 4])
def test_more_processes_score_as_one_does(run, devices):
    [alone] = run(1, cache="one")
    for rank in run(devices, cache="many"):
        assert_same_scores(rank["scalars"], alone["scalars"])


@pytest.mark.slow
def test_a_disk_that_takes_nothing_ends_no_training(run):
    pair = run(2, "--unwritable", "--epochs", "2")
    assert [found["error"] for found in pair] == [None, None]
    assert [len(found["scalars"]) for found in pair] == [2, 2]
    assert ["the next evaluation tries again" in found["log"] for found in pair] == [True, False]
