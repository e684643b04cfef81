import argparse
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_synthqual import Report
from lightning_synthqual.cli import _parser, compare, main


def test_the_command_is_installed_and_says_its_version() -> None:
    command = Path(sys.executable).with_name("synthqual")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("lightning-synthqual 0.")


@pytest.mark.parametrize("words", [[], ["weights"], ["weights", "fetch"], ["wieghts"]])
def test_incomplete_commands_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: synthqual" in capsys.readouterr().err


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from parsers(each)


def options() -> list[argparse.Action]:
    return [action for parser in parsers(_parser()) for action in parser._actions]


@pytest.mark.parametrize("action", options(), ids=lambda action: "".join(action.option_strings) or action.dest)
def test_every_option_has_help_that_states_its_default(action: argparse.Action) -> None:
    if isinstance(action, argparse._SubParsersAction):
        assert all(choice.help for choice in action._choices_actions)
        return
    assert action.help
    repeated = isinstance(action, argparse._AppendAction)
    given = action.required or action.nargs in (0, "+") or action.dest == "run_dir"
    assert given or ("may be repeated" if repeated else "default: ") in action.help


@pytest.mark.parametrize("words", [["-v", "compare", "a"], ["compare", "-v", "a"], ["compare", "a", "--verbose"]])
def test_verbosity_may_be_stated_anywhere(words: list[str]) -> None:
    assert _parser().parse_args(words).verbose is True
    assert _parser().parse_args(["compare", "a"]).verbose is False
    assert _parser().parse_args(["weights", "list", "-v"]).verbose is True


def test_the_traceback_is_there_for_those_who_ask(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert main(["compare", "/nowhere", "-v"]) == 2
    assert any(record.exc_info for record in caplog.records)


def test_ctrl_c_is_no_error(monkeypatch: pytest.MonkeyPatch, run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "read_reports", interrupt)
    assert main(["compare", str(run_dir)]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_has_left_is_no_error(
    monkeypatch: pytest.MonkeyPatch, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in ``synthqual compare RUN | head``."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as pipe, monkeypatch.context() as patch:  # noqa: PTH123 - a file descriptor
        patch.setattr(sys, "stdout", pipe)
        assert main(["compare", str(run_dir)]) == 141
        pipe.write("nobody reads this")  # and closing the file raises no error
    assert capsys.readouterr().err == ""


def test_what_cannot_be_printed_is_escaped(monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> None:
    report = Report(scalars={"fid": 2.0, "fid_std": 1.0}, protocol={}, timings={})
    path = run_dir / "a\udcff.json"
    path.write_text(report.to_json())
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding="ascii"))
    assert main(["compare", str(path), str(run_dir)]) == 0
    assert b"a\\udcff.json" in output.getvalue()
    assert b"2.0 \\xb1 1.0" in output.getvalue()


def test_the_current_folder_can_be_imported_from_while_a_command_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "module_in_the_folder.py").write_text("number = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    words = ["evaluate", "--real", "x", "--fake", "x", "--output", "out", "--module", "module_in_the_folder.number"]
    assert main(words) == 2
    assert "must be a LightningModule or a function that returns a module, but is int" in capsys.readouterr().err
    assert str(tmp_path) not in sys.path


def test_the_package_runs_as_a_module() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "lightning_synthqual", "--version"], capture_output=True, text=True, check=True
    )
    assert printed.stdout.startswith("lightning-synthqual ")
