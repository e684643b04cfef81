"""The same scores under every strategy of Lightning's that runs without a GPU."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("strategies.py")


def scores(output: Path, processes: int, log: str = "") -> list[dict]:
    files = sorted(output.glob("rank*.json"))
    assert len(files) == processes, log[-4000:]
    found = [json.loads(path.read_text()) for path in files]
    assert all(process["world_size"] == processes for process in found)
    assert all(process["num_samples"] == [81, 81] for process in found)
    assert all(process["scalars"] == found[0]["scalars"] for process in found)
    assert all(process["checksums"] == found[0]["checksums"] for process in found)
    assert not [message for process in found for message in process["warnings"] if "other weights" in message]
    assert len(list((output / "best").iterdir())) == 2
    assert len((output / "reports.jsonl").read_text().splitlines()) == 2
    return [{**scalars, "checksum": int(found[0]["checksums"][0], 16)} for scalars in found[0]["scalars"]]


def run(output: Path, processes: int, *arguments: str) -> list[dict]:
    output.mkdir()
    command = [sys.executable, str(SCRIPT), "--output", str(output), "--devices", str(processes), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return scores(output, processes, done.stderr)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> list[dict]:
    return run(tmp_path_factory.mktemp("alone") / "output", 1)


def assert_same(found: list[dict], expected: list[dict]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("data", "tensor"), [(1, 2), (2, 1), (2, 2)])
def test_sharded_models(alone, tmp_path, data, tensor):
    parallel = ["--data-parallel", str(data), "--tensor-parallel", str(tensor)]
    assert_same(run(tmp_path / "output", data * tensor, "--strategy", "model_parallel", *parallel), alone)


@pytest.mark.slow
def test_spawned_processes(alone, tmp_path):
    assert_same(run(tmp_path / "output", 2, "--strategy", "ddp_spawn"), alone)


@pytest.mark.slow
def test_two_nodes(alone, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    script = [str(SCRIPT), "--output", str(tmp_path), "--devices", "2", "--nodes", "2", "--strategy", "ddp"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    nodes = [
        subprocess.Popen(
            [*command, "--node-rank", str(node), *script], stderr=subprocess.PIPE, text=True, env=environment
        )
        for node in (0, 1)
    ]
    logs = [node.communicate(timeout=120)[1] for node in nodes]
    assert_same(scores(tmp_path, 4, "".join(logs)), alone)
