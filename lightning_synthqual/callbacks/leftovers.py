"""Checkpoint files that a killed run has left, and that the checkpoint from which it is resumed does not know."""

import logging
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

_log = logging.getLogger(__name__)
_RUN = "run_id"


class Leftovers:
    """Finds and removes such files.

    A process may be killed after a file was written and before a state that knows it was saved, or before the file
    that it replaces was removed. Only files of this run are touched, which name the same callback as their writer. One
    that is older than the resumed state is removed at once, since the run had already replaced it; a newer one as soon
    as the training has come as far again.
    """

    def __init__(self) -> None:
        self._run = ""  # names a training over all its restarts, and no other one in the same directory
        self._waiting: dict[Path, int] = {}  # global steps at which the files were saved

    def state(self) -> dict[str, Any]:
        """What checkpoints hold."""
        return {_RUN: self._run}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over the state of the resumed run."""
        self._run = state.get(_RUN, "")

    def find(self, checkpoint: ModelCheckpoint, trainer: Trainer) -> None:
        """Look for such files at the start of a fit, on one process.

        Args:
            checkpoint: The callback whose files they may be.
            trainer: The trainer.
        """
        if not self._run or not trainer.ckpt_path:
            self._run = self._run or uuid.uuid4().hex
            return
        self._waiting = dict(self._unknown_files(checkpoint, str(trainer.ckpt_path)))
        self._remove([path for path, step in self._waiting.items() if step <= trainer.global_step])

    def remove_passed(self, trainer: Trainer) -> None:
        """Remove the files that were saved no later in the training than it is now, on one process."""
        self._remove([path for path, step in self._waiting.items() if step <= trainer.global_step])

    def _remove(self, paths: list[Path]) -> None:
        for path in paths:
            del self._waiting[path]
            try:
                path.unlink(missing_ok=True)
                _log.info("Removed %s, which was saved before the training was interrupted.", path)
            except OSError as error:
                _log.warning("Removing %s failed: %s", path, error)

    def _unknown_files(self, checkpoint: ModelCheckpoint, resumed_from: str) -> Iterator[tuple[Path, int]]:
        directory = Path(str(checkpoint.dirpath))
        known = {*_files_of(checkpoint.state_dict()), Path(resumed_from).name}
        for path in sorted(directory.glob(f"*{checkpoint.FILE_EXTENSION}")) if directory.is_dir() else ():
            if path.is_file() and path.name not in known:
                step, state = _step_and_state(path, checkpoint.state_key)
                same = state.get(_RUN) == self._run and state.get("dirpath") == checkpoint.dirpath
                if same and path.name in _files_of(state):
                    yield path, step


def _files_of(state: Mapping[str, Any]) -> set[str]:
    """Names of the files that a state of a checkpoint callback knows."""
    paths = [*state.get("best_k_models", {}), state.get("last_model_path"), state.get("best_model_path")]
    return {Path(path).name for path in paths if path}


def _step_and_state(path: Path, key: str) -> tuple[int, Mapping[str, Any]]:
    """The global step of a checkpoint file and the state of a callback in it; weights are not read."""
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        return int(content["global_step"]), content["callbacks"].get(key, {})
    except Exception as error:  # a file that cannot be read is not known to be ours
        _log.debug("%s is left alone: %s", path, error)
        return 0, {}
