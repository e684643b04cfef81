"""Data that are divided among processes already, on real processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("divided.py")


def run(output: Path, world_size: int) -> list[dict]:
    output.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    command = [sys.executable, str(SCRIPT), "--world-size", str(world_size), "--output", str(output)]
    processes = [
        subprocess.Popen(
            [*command, "--rank", str(rank)], env={**os.environ, **address}, stderr=subprocess.PIPE, text=True
        )
        for rank in range(world_size)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * world_size, errors
    return [json.loads((output / f"rank{rank}.json").read_text()) for rank in range(world_size)]


@pytest.mark.parametrize("world_size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_parts_are_read_whole_and_nothing_is_counted_twice(tmp_path, world_size):
    [alone] = run(tmp_path / "one", 1)
    assert "labels" not in alone
    several = run(tmp_path / "several", world_size)
    sizes = [len(range(rank, 97, world_size)) for rank in range(world_size)]
    for found in several:
        for name in ("whole", "parts", "streams", "parts of both"):
            assert found[name]["scalars"] == pytest.approx(alone["whole"]["scalars"], rel=1e-6), name
            assert found[name] == several[0][name]
            assert (found[name]["reference"]["num_images"], found[name]["num_samples"]) == (97, 60)
            parts = {"of_rank": list(range(world_size)), "items": sizes}
            assert found[name]["reference"].get("parts") == (None if name == "whole" else parts)
        for key in ("error", "labels"):
            assert "needed on every process, but processes have different parts" in found[key]
