import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lightning_synthqual.importing import current_folder_importable, resolve_object


@pytest.mark.parametrize("value", [None, 3, math.sqrt, object()])
def test_objects_pass_unchanged(value: Any) -> None:
    assert resolve_object(value, "it") is value


@pytest.mark.parametrize("path", ["math.sqrt", "math:sqrt"])
def test_a_path_is_what_it_names(path: str) -> None:
    assert resolve_object(path, "it") is math.sqrt


def test_a_path_may_be_deep() -> None:
    assert resolve_object("importlib.metadata.version", "it").__name__ == "version"


@pytest.mark.parametrize("path", ["nowhere.to", "math.nothing", "math", "", ".relative.name", "math.", "a b.c"])
def test_other_paths_are_errors_that_name_the_argument(path: str) -> None:
    with pytest.raises(ValueError, match=r"^`model='.*'` names nothing that can be imported .* 'package.module.name'"):
        resolve_object(path, "model")


def test_the_current_folder_is_importable_for_a_while(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    with suppress(KeyError), current_folder_importable():
        assert sys.path == [str(tmp_path), *before]
        raise KeyError
    assert sys.path == before
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with current_folder_importable():
        assert sys.path == [str(tmp_path)]
    assert sys.path == [str(tmp_path)]
