"""The command ``synthqual``: one file per command."""

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Sequence

from lightning_synthqual.__about__ import __version__
from lightning_synthqual.cli import audit, benchmarks, compare, evaluate, listing, plot, watch, weights
from lightning_synthqual.cli.arguments import verbose
from lightning_synthqual.cli.messages import describe
from lightning_synthqual.importing import current_folder_importable

_BAD_INPUT = 2
_INTERRUPTED = 130  # 128 + SIGINT
_NOBODY_READS = 141  # 128 + SIGPIPE
_COMMANDS = (evaluate, watch, audit, compare, plot, listing, benchmarks, weights)
_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Words after ``synthqual``; default: those of the process.

    Returns:
        The exit status: 0; 2 for bad input, with one line on standard error; 130 after Ctrl-C; 141 if nothing reads
        standard output.
    """
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if parsed.verbose else logging.WARNING, format="%(message)s")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that cannot be printed must not cost the scores
    try:
        with current_folder_importable():
            parsed.run(parsed)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return _NOBODY_READS
    except Exception as error:  # users' modules and damaged files raise errors of any type
        _log.info("Traceback:", exc_info=error)
        print(f"synthqual: {describe(error, vars(parsed))}", file=sys.stderr)
        return _BAD_INPUT
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "synthqual",
        description="Quality of generated images.",
        epilog="`synthqual COMMAND --help` describes a command.",
        parents=[verbose(default=False)],
    )
    version = f"lightning-synthqual {__version__}"
    parser.add_argument("--version", action="version", version=version, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return parser


def _discard_output() -> None:
    """Point standard output at nothing, so that Python does not write the rest into the closed pipe at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
