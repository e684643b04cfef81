"""``synthqual watch`` and ``synthqual evaluate-run``: each checkpoint of a training, during it or after it."""

import argparse
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lightning_synthqual.cli.arguments import verbose
from lightning_synthqual.cli.evaluate import (
    MODULE,
    add_checkpoint,
    add_images,
    add_measures,
    add_running,
    measuring,
    sampling,
)
from lightning_synthqual.cli.found import CheckpointFolder
from lightning_synthqual.cli.results import Results, only_writer
from lightning_synthqual.cli.watching import Loader, Watch
from lightning_synthqual.reporting.run_loggers import KINDS, make_logger

_PATIENCE, _PATIENCE_ONCE = 60.0, 10.0  # seconds without a change after which a file that cannot be read is left out


def add(commands: Any) -> None:
    """Add both commands to those of ``synthqual``."""
    watch = commands.add_parser(
        "watch",
        help="score each checkpoint of a folder, while a training still writes them",
        description="Scores each checkpoint once, in the order of the steps, and writes reports.jsonl, influences, "
        "figures, curves.png and a link `best`. It can be stopped or killed at any time, and goes on where it was.",
        parents=[verbose()],
    )
    watch.add_argument("checkpoints", type=Path, metavar="CHECKPOINTS", help="folder of checkpoints, at any depth")
    watch.add_argument("--once", action="store_true", help="end when all that there is has been scored")
    interval = "seconds between two looks at the folder; default: %(default)s"
    watch.add_argument("--interval", type=_seconds, default=10.0, metavar="S", help=interval)
    _add_options(watch)
    run_of = commands.add_parser(
        "evaluate-run",
        help="score each checkpoint of a finished run",
        description="As `synthqual watch --once` on the checkpoints in the folder of a run.",
        parents=[verbose()],
    )
    run_of.add_argument("checkpoints", type=Path, metavar="DIR", help="folder of a run")
    run_of.set_defaults(once=True, interval=1.0)
    _add_options(run_of)


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_images(parser.add_argument_group("images"))
    add_measures(parser.add_argument_group("what is measured"))
    checkpoints = parser.add_argument_group("the checkpoints")
    checkpoints.add_argument("--module", required=True, metavar="PATH", help=MODULE)
    add_checkpoint(checkpoints)
    add_running(parser, "folder for reports.jsonl, figures and tables")
    outcome = parser.add_argument_group("what becomes of the scores")
    monitor = "score by which `best` is chosen; default: the first metric"
    outcome.add_argument("--monitor", metavar="NAME", help=monitor)
    outcome.add_argument("--logger", choices=KINDS, action="append", default=[], help="may be repeated; default: none")
    prefix = "prefix of the logged names; default: %(default)s"
    outcome.add_argument("--prefix", default="quality", metavar="NAME", help=prefix)
    outcome.add_argument("--project", metavar="NAME", help="W&B project; default: $WANDB_PROJECT")
    run_id = "W&B run, such as the training's (while it runs both need WANDB_MODE=shared); default: a new one"
    outcome.add_argument("--run-id", metavar="ID", help=run_id)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> None:
    """Score the checkpoints; a signal ends a watch, which is its usual end, but interrupts ``--once``."""
    parsed.output.mkdir(parents=True, exist_ok=True)
    folder = CheckpointFolder(
        parsed.checkpoints,
        trusted=parsed.trust_checkpoint,
        patience=_PATIENCE_ONCE if parsed.once else _PATIENCE,
    )
    folder.look()  # a wrong path, before anything else is opened
    loader = Loader(parsed.module, trusted=parsed.trust_checkpoint, of_part=parsed.model is not None)
    settings = {**measuring(parsed), **sampling(parsed, None)}
    with ExitStack() as stack:
        stack.enter_context(only_writer(parsed.output))
        loggers = []
        for kind in dict.fromkeys(parsed.logger):
            loggers.append(make_logger(kind, parsed.output, project=parsed.project, run_id=parsed.run_id))
            stack.callback(loggers[-1].finish)
        results = Results(parsed.output, loggers, prefix=parsed.prefix, monitor=parsed.monitor)
        watch = Watch(folder, loader, results, settings, _tell)
        stack.enter_context(_terminated_as_interrupted())
        try:
            watch.run(once=parsed.once, interval=parsed.interval)
        except KeyboardInterrupt:
            if parsed.once:
                raise
            watch.check_problems()
        finally:
            print(watch.summary)


def _tell(line: str) -> None:
    print(line, flush=True)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: what is under way is dropped, and what is written stays whole."""
    if threading.current_thread() is not threading.main_thread():  # which cannot be interrupted
        yield
        return
    process = os.getpid()

    def interrupt(number: int, _: Any) -> None:
        if os.getpid() != process:  # one that reads images
            os._exit(128 + number)
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, but got {text}")
    return value
