"""Examples are run as a user runs them: each in a process and in a folder of its own."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(tmp_path):
    """``run(script, *arguments) -> (printed, log)``."""

    def launch(script: str, *arguments: str, fails: int = 0) -> tuple[str, str]:
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {
            **os.environ,
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "WANDB_MODE": "offline",
            "PATH": programs,
        }
        environment.pop("WANDB_SERVICE", None)  # a service of this process would write below its own folder
        program = "bash" if script.endswith(".sh") else sys.executable
        command = [program, str(EXAMPLES / script), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == fails, done.stderr[-3000:]
        return done.stdout, done.stderr

    return launch


@pytest.fixture
def reports(tmp_path):
    """``reports(folder)``: the rows that runs left below it."""

    def read(folder: str = "runs") -> list[dict]:
        paths = sorted((tmp_path / folder).rglob("reports.jsonl"))
        return [json.loads(line) for path in paths for line in path.read_text().splitlines()]

    return read


@pytest.fixture
def example(monkeypatch):
    """``example(name)``: an example as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module
