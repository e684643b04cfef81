"""Scripts on several real processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def run(request):
    """``run(output, world_size, *arguments)``: what each process of the test file's script has found.

    The script of ``test_<name>.py`` is ``<name>.py``; rank r writes ``rank<r>.json``.
    """
    script = request.path.with_name(request.path.name.removeprefix("test_"))

    def run(output: Path, world_size: int, *arguments: str) -> list[dict]:
        output.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
        command = [sys.executable, str(script), "--world-size", str(world_size), "--output", str(output), *arguments]
        processes = [
            subprocess.Popen(
                [*command, "--rank", str(rank)],
                env={**os.environ, **address, "LOCAL_RANK": str(rank), "PYTHONPATH": os.pathsep.join(sys.path)},
                stderr=subprocess.PIPE,
                text=True,
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

    return run
