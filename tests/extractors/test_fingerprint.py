import functools
import os
import subprocess
import sys
import types
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_synthqual.extractors.fingerprint import fingerprint

FACTOR = 2.0


class Scaled(nn.Module):
    """Has an attribute."""

    def __init__(self, factor: Any) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) * self.factor


class Applied(Scaled):
    """Applies a function that it holds."""

    def forward(self, images: Tensor) -> Tensor:
        return self.factor(images)


class Counter:
    """Is mentioned by a network, and counts."""

    calls = 0


class Counted(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        Counter.calls += 1
        return images


class Mode(Enum):
    SUM = 1
    MEAN = 2


class Slotted:
    __slots__ = ("factor",)

    def __init__(self, factor: float) -> None:
        self.factor = factor


def closing_over(factor: Any) -> Callable[[Tensor], Tensor]:
    def scale(images: Tensor) -> Tensor:
        return images * factor

    return scale


def defaulting_to(factor: Any) -> Callable[..., Tensor]:
    def scale(images: Tensor, by: Any = factor) -> Tensor:
        return images * by

    return scale


def class_around(factor: float) -> type[nn.Module]:
    class Around(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images * factor

    return Around


def with_buffer(value: float) -> nn.Module:
    module = nn.Module()
    module.register_buffer("shift", torch.full((2,), value), persistent=False)
    return module


def with_hook(hook: Callable[..., Any]) -> nn.Module:
    module = nn.Identity()
    module.register_forward_hook(hook)
    return module


def with_global(factor: float) -> Callable[..., Any]:
    function = lambda images: images * FACTOR  # noqa: E731
    return types.FunctionType(function.__code__, {"FACTOR": factor, "__name__": "elsewhere"})


UNLIKE: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "number": (lambda: Scaled(1.0), lambda: Scaled(2.0)),
    "type of number": (lambda: Scaled(1), lambda: Scaled(1.0)),
    "text": (lambda: Scaled("sum"), lambda: Scaled("mean")),
    "nested": (lambda: Scaled({"a": [1, (2, 3)]}), lambda: Scaled({"a": [1, (2, 4)]})),
    "order of a list": (lambda: Scaled([1, 2]), lambda: Scaled([2, 1])),
    "set": (lambda: Scaled({"a", "b"}), lambda: Scaled({"a", "c"})),
    "enum": (lambda: Scaled(Mode.SUM), lambda: Scaled(Mode.MEAN)),
    "tensor": (lambda: Scaled(torch.ones(3)), lambda: Scaled(torch.ones(3) * 2)),
    "type of tensor": (lambda: Scaled(torch.zeros(3)), lambda: Scaled(torch.zeros(3, dtype=torch.int32))),
    "array": (lambda: Scaled(np.ones(3)), lambda: Scaled(np.ones(3) * 2)),
    "shape of array": (lambda: Scaled(np.ones((2, 3))), lambda: Scaled(np.ones((3, 2)))),
    "namespace": (lambda: Scaled(types.SimpleNamespace(a=1)), lambda: Scaled(types.SimpleNamespace(a=2))),
    "slots": (lambda: Scaled(Slotted(1)), lambda: Scaled(Slotted(2))),
    "of a submodule": (lambda: nn.Sequential(Scaled(1)), lambda: nn.Sequential(Scaled(2))),
    "module in a list": (lambda: Scaled([Scaled(1)]), lambda: Scaled([Scaled(2)])),
    "library's module": (lambda: nn.Flatten(1), lambda: nn.Flatten(2)),
    "non-persistent buffer": (lambda: with_buffer(1), lambda: with_buffer(2)),
    "closure": (lambda: Applied(closing_over(1)), lambda: Applied(closing_over(2))),
    "closure over a tensor": (lambda: closing_over(torch.ones(2)), lambda: closing_over(torch.zeros(2))),
    "default": (lambda: defaulting_to(1), lambda: defaulting_to(2)),
    "lambda": (lambda: Applied(lambda x: x + 1), lambda: Applied(lambda x: x + 2)),
    "inner lambda": (lambda: lambda: lambda x: x + 1, lambda: lambda: lambda x: x + 2),
    "partial": (lambda: functools.partial(max, 1), lambda: functools.partial(max, 2)),
    "cached": (lambda: functools.lru_cache(closing_over(1)), lambda: functools.lru_cache(closing_over(2))),
    "bound method": (lambda: Scaled(1).forward, lambda: Scaled(2).forward),
    "class in a function": (lambda: class_around(1)(), lambda: class_around(2)()),
    "base class": (lambda: Scaled(1), lambda: Applied(1)),
    "hook": (lambda: with_hook(lambda *_: 1), lambda: with_hook(lambda *_: 2)),
    "global": (lambda: with_global(1.0), lambda: with_global(2.0)),
    "builtin": (lambda: Applied(torch.sin), lambda: Applied(torch.cos)),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_what_computes_something_else_has_another_fingerprint(name: str) -> None:
    one, other = UNLIKE[name]
    assert fingerprint(one()) != fingerprint(other())
    assert fingerprint(one()) == fingerprint(one())


def test_weights_are_part_of_it() -> None:
    network = nn.Linear(2, 2)
    before = fingerprint(network)
    with torch.no_grad():
        network.weight[0, 0] += 1
    assert fingerprint(network) != before


def test_training_leaves_it_alone() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = fingerprint(network)
    network.eval().requires_grad_(False)
    assert fingerprint(network) == before


def test_values_of_the_networks_classes_are_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(Applied(1))
    monkeypatch.setattr(Scaled, "unit", 3, raising=False)
    assert fingerprint(Applied(1)) != before


def test_what_is_counted_in_passing_is_not() -> None:
    seen: list[Tensor] = []

    def look(images: Tensor) -> Tensor:
        seen.append(images)
        return images

    network = nn.Sequential(Counted(), Applied(look))
    before = fingerprint(network)
    network(torch.zeros(1))
    assert len(seen) == Counter.calls == 1
    assert fingerprint(network) == before


def test_a_compiled_module_is_the_same_each_time() -> None:
    compiled = [fingerprint(torch.compile(Scaled(factor))) for factor in (1.0, 1.0, 2.0)]
    assert compiled[0] == compiled[1] != compiled[2]


def test_a_traced_module_is_told_by_its_code() -> None:
    images = torch.zeros(1, 3, 2, 2)
    traced = [fingerprint(torch.jit.trace(nn.Sequential(Scaled(factor)), images)) for factor in (1.0, 1.0, 2.0)]
    assert traced[0] == traced[1] != traced[2]


def test_a_lightning_module_is_the_same_with_and_without_its_trainer() -> None:
    class Classifier(pl.LightningModule):
        pass

    module = Classifier()
    before = fingerprint(module)
    module.trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    assert fingerprint(module) == before


def test_what_refers_to_itself_comes_to_an_end() -> None:
    first, second = Scaled([1]), Scaled([2])
    for module in (first, second):
        module.factor.append(module.factor)
        module.__dict__["me"] = [module]
    assert fingerprint(first) != fingerprint(second)


def test_what_cannot_be_read_is_left_out() -> None:
    assert fingerprint(Scaled(torch.Generator())) == fingerprint(Scaled(None))
    fingerprint(Scaled([torch.eye(2).to_sparse(), torch.empty(2, device="meta"), np.array([1, "a", None], object)]))


@pytest.mark.parametrize("seed", ["1", "2"])
def test_it_is_the_same_in_every_process(seed: str, tmp_path: Path) -> None:
    code = """
from lightning_synthqual.extractors.fingerprint import fingerprint
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = {"a", "b", "c"}
        self.function = lambda x: x in {"d", "e", "f"}
    def forward(self, x):
        return x
"""
    (tmp_path / "module_of_a_network.py").write_text(code)
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", "from module_of_a_network import *; print(fingerprint(Net()))"]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    sys.path.insert(0, str(tmp_path))
    try:
        from module_of_a_network import Net  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["module_of_a_network"]
    assert found.stdout.strip() == fingerprint(Net())
