"""The checkpoints of a folder in the order of their steps, while a training still writes and deletes them."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

from lightning_synthqual.cli.checkpoints import read_checkpoint
from lightning_synthqual.cli.training_state import step_of

SUFFIX = ".ckpt"
_LONGEST = 400  # characters of what is said of a file: torch lists every weight that does not fit
_log = logging.getLogger(__name__)
_Version = tuple[int, int]  # when a file was changed, in ns, and its size


class Found(NamedTuple):
    """A checkpoint file.

    Args:
        step: The loggers' step at which it was saved.
        path: The file.
        version: What changes when the file is written again.
    """

    step: int
    path: Path
    version: _Version


class CheckpointFolder:
    """Looks for checkpoints; each version of a file is read once, without its weights.

    A file that cannot be read may be half-written: it is tried again at each look, and nothing that was saved after it
    counts as found, until it has not changed for ``patience`` seconds. Then it is a problem, until it changes.

    Args:
        folder: The folder, in which, or below which at any depth, the files are.
        trusted: Whether objects of any class may be read from the files.
        patience: Seconds.

    Attributes:
        path: The folder.
        waits: Whether the last look has found a file that may be half-written.
        problems: What is wrong with files that will not be tried again as they are.
    """

    def __init__(self, folder: Path, *, trusted: bool = False, patience: float = 60.0) -> None:
        self.path = folder
        self._trusted = trusted
        self._patience = patience
        self._known: dict[Path, Found] = {}
        self._unreadable: dict[Path, tuple[_Version, float]] = {}
        self.waits = False
        self.problems: dict[Path, tuple[_Version, str]] = {}

    def look(self) -> list[Found]:
        """What is there now, in the order of the steps.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If it holds several runs.
        """
        if not self.path.is_dir():
            raise FileNotFoundError(f"The folder of checkpoints `{self.path}` does not exist or is no folder.")
        self.waits = False
        found: list[Found] = []
        files = self._files()
        self.problems = {path: each for path, each in self.problems.items() if path in files}
        for path, version in sorted(files.items(), key=lambda item: item[1][0]):
            each = self._read(path, version)
            if self.waits:
                break  # what was saved later waits, too
            if each is not None:
                found.append(each)
        return sorted(found)

    def _files(self) -> dict[Path, _Version]:
        """Files and their versions; of links that name the same file one."""
        paths = [path for path in self.path.rglob(f"*{SUFFIX}") if not path.name.startswith(".")]
        _check_one_run(self.path, paths)
        files: dict[Path, tuple[Path, _Version]] = {}
        for path in sorted(paths, key=lambda path: (path.is_symlink(), path)):
            try:
                state = path.stat()
                files.setdefault(path.resolve(), (path, (state.st_mtime_ns, state.st_size)))
            except OSError:  # deleted a moment ago, or a link to such a file
                continue
        return dict(files.values())

    def _read(self, path: Path, version: _Version) -> Found | None:
        known = self._known.get(path)
        if known is not None and known.version == version:
            return known
        if self.problems.get(path, (None, ""))[0] == version:
            return None
        try:
            if path.is_dir():
                raise ValueError("It is a folder, as sharded models are saved in. Make one file of it first.")
            step = step_of(read_checkpoint(str(path), self._trusted, mapped=True).content)
        except FileNotFoundError:
            return None
        except ValueError as error:
            self._note(path, version, error)
            return None
        self.problems.pop(path, None)
        self._known[path] = Found(step, path, version)
        return self._known[path]

    def _note(self, path: Path, version: _Version, error: ValueError) -> None:
        """Wait for a file that cannot be read, or take note of it as a problem."""
        before, since = self._unreadable.get(path, (None, 0.0))
        now = time.monotonic()
        if before != version:
            since = now
            self._unreadable[path] = version, since
            _log.info("%s cannot be read yet: %s", path, error)
        if max(now - since, time.time() - version[0] / 1e9) < self._patience:
            self.waits = True
            return
        self.add_problem(Found(-1, path, version), str(error))

    def add_problem(self, found: Found, message: str) -> None:
        """Take note of a file that is not scored, until it changes."""
        text = shorten(message, _LONGEST, placeholder="…")
        self.problems[found.path] = found.version, text
        _log.warning("%s is left out: %s", found.path, text)


def _check_one_run(folder: Path, paths: list[Path]) -> None:
    """Raise if files belong to several runs, by the names of Lightning's folders."""
    runs = sorted({run for path in paths for run in _run_of(folder, path)})
    if len(runs) > 1:
        raise ValueError(
            f"`{folder}` holds checkpoints of {len(runs)} runs: {', '.join(map(str, runs))}. Name the folder of one."
        )


def _run_of(folder: Path, path: Path) -> Iterator[Path]:
    """The folder of the run that a file belongs to, if the names of folders tell."""
    parts = path.relative_to(folder).parts[:-1]
    for place, part in enumerate(parts):
        if part == "checkpoints" or part.startswith("version_"):
            yield folder.joinpath(*parts[: place + (part != "checkpoints")])
            return
