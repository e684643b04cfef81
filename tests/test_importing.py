import math
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import nn

from lightning_synthqual.importing import (
    current_folder_importable,
    find_model,
    model_argument,
    name_of_model,
    part_of,
    resolve_object,
)


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


class Gan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
        self.ema: nn.Module | None = nn.Module()
        self.ema.ema_model = nn.Linear(2, 2)
        self.later = None

    @property
    def trainer(self) -> Any:
        raise RuntimeError("not attached to a `Trainer`")


def first(module: Gan) -> nn.Module:
    return module.generator[0]


def test_an_attribute_path_names_a_part_of_the_module() -> None:
    gan = Gan()
    assert part_of("generator", gan) is gan.generator
    assert part_of("generator.0", gan) is gan.generator[0]
    assert part_of("ema.ema_model", gan) is gan.ema.ema_model
    assert part_of(None, gan) is gan
    assert part_of(first, gan) is gan.generator[0]


def test_an_attribute_goes_before_an_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    gan, other = Gan(), Gan()
    package = ModuleType("ema")
    package.ema_model = package.of_others = lambda module: other  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ema", package)
    assert part_of("ema.ema_model", gan) is gan.ema.ema_model
    assert part_of("ema.of_others", gan) is other
    assert part_of(f"{__name__}.first", gan) is gan.generator[0]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("generater", "neither an attribute of Gan nor .*Gan has the parts generator, ema. Did you mean 'generator'?"),
        ("ema.ema_modl", r"`ema` has the parts ema_model\. Did you mean 'ema.ema_model'\?"),
        ("generator.1.x", r"`generator.1` \(Tanh\) has no parts"),
        ("later", r"Gan has the parts generator, ema\.$"),
        ("trainer.ema", r"Gan has the parts generator, ema\.$"),
    ],
)
def test_a_path_that_the_module_lacks_is_an_error_that_lists_what_there_is(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^`model='{path}'`.*{message}"):
        find_model(path, Gan())


def test_an_import_path_has_to_name_a_function() -> None:
    with pytest.raises(TypeError, match=r"`--model='math.pi'` must be .* but names float"):
        find_model("math.pi", Gan(), "--model")


def test_what_can_only_be_an_import_path_is_imported_at_once() -> None:
    assert model_argument("math:sqrt") is math.sqrt
    assert model_argument("ema.ema_model") == "ema.ema_model"
    assert [name_of_model(each) for each in ("a.b", math.sqrt, 3)] == ["a.b", "sqrt", "int"]
    with pytest.raises(ValueError, match="nothing that can be imported"):
        model_argument("no.such:name")
