import sys
from functools import partial
from operator import attrgetter
from typing import Any

import pytest
import torch
from torch import nn

from lightning_synthqual.images.callables import can_be_called, describe_callable, label_of


def scaled(module: Any, n: int, generator: Any, scale: float = 1.0) -> Any:
    return module(n) * scale


def doubled(module: Any, n: int, generator: Any) -> Any:
    return module(n) * 2


class Guided:
    def __init__(self, guidance: float) -> None:
        self.guidance = guidance
        self.generator = torch.Generator()

    def __call__(self, module: Any, n: int, generator: Any) -> Any:
        return module(n) * self.guidance

    def draw(self, module: Any, n: int, generator: Any) -> Any:
        return module(n) + self.guidance


class Otherwise(Guided):
    def __call__(self, module: Any, n: int, generator: Any) -> Any:
        return module(n) / self.guidance


def closure(scale: float) -> Any:
    return lambda module, n, generator: module(n) * scale


def test_a_function_is_named_by_its_path_and_code() -> None:
    described = describe_callable(scaled)
    assert described["name"] == f"{__name__}.scaled"
    assert len(described["code"]) == 12
    assert label_of(scaled) == f"{__name__}.scaled [{described['code']}]"


def test_descriptions_repeat() -> None:
    for make in (lambda: closure(2.0), lambda: Guided(2.0), lambda: partial(scaled, scale=2.0), lambda: Guided(1).draw):
        assert describe_callable(make()) == describe_callable(make())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (scaled, doubled),
        (lambda m, n, g: m(n), lambda m, n, g: m(n + 1)),
        (partial(scaled, scale=2.0), partial(scaled, scale=3.0)),
        (partial(scaled, None), partial(scaled, 3)),
        (closure(2.0), closure(3.0)),
        (Guided(2.0), Guided(3.0)),
        (Guided(2.0), Otherwise(2.0)),
        (Guided(2.0).draw, Guided(3.0).draw),
        (Guided(2.0).draw, Guided(2.0)),
        (closure(closure(2.0)), closure(closure(3.0))),
        (lambda m, n, g: [n for _ in m], lambda m, n, g: [g for _ in m]),
    ],
)
def test_what_does_something_else_is_described_otherwise(one: Any, other: Any) -> None:
    assert describe_callable(one)["code"] != describe_callable(other)["code"]


def test_weights_of_a_module_do_not_change_its_description() -> None:
    assert (
        describe_callable(nn.Linear(2, 2))
        == describe_callable(nn.Linear(3, 3))
        == {"name": "torch.nn.modules.linear.Linear"}
    )


def test_what_has_no_code_has_a_name() -> None:
    assert describe_callable(len) == {"name": "builtins.len"}
    assert label_of(len) == "builtins.len"


def test_a_function_that_holds_itself_is_described() -> None:
    def recursive(n: int) -> int:
        return n and recursive(n - 1)

    assert describe_callable(recursive) == describe_callable(recursive)


@pytest.mark.parametrize(
    ("function", "keywords", "expected"),
    [
        (scaled, (), True),
        (scaled, ("labels",), False),
        (scaled, ("scale",), True),
        (lambda *_, **__: None, ("labels",), True),
        (lambda module, n: None, (), False),
        (lambda module, n, generator, labels: None, (), False),
        (lambda module, n, generator, labels: None, ("labels",), True),
        (type, (), True),  # it does not say
    ],
)
def test_what_a_function_can_be_called_with(function: Any, keywords: tuple[str, ...], expected: bool) -> None:
    assert can_be_called(function, "module", "n", "generator", keywords=keywords) is expected


def test_a_scripts_functions_have_one_name_run_or_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def own() -> None:
        return None

    monkeypatch.setattr(own, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/somewhere/train.py", raising=False)
    own.__qualname__ = "sampler"
    assert describe_callable(own)["name"] == "train.sampler"


def test_an_attribute_path_is_named_by_itself() -> None:
    assert describe_callable(attrgetter("ema.ema_model")) == {"name": "ema.ema_model"}
