"""What is on the accelerator, and when: between evaluations nothing, unless it was asked to stay."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

_T = TypeVar("_T")
_METRICS = "lightning_synthqual.metrics."
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class _Left:
    """A tensor, or a module, that has left the device."""

    what: Any


class Residence:
    """Moves tensors and modules to a device and away from it; on the CPU nothing moves.

    A tensor that came here is moved once, however often it is asked for, until ``release``.

    Args:
        device: The device.
        keep: Whether everything stays there.
    """

    def __init__(self, device: torch.device, keep: bool = False) -> None:
        self.device = device
        self._moves = device.type != "cpu" and not keep
        self._here: dict[int, tuple[Tensor, Tensor]] = {}  # by the identity of the tensor on the CPU, which lives on
        self._origins: dict[int, tuple[Tensor, Tensor]] = {}  # the same pairs by that of the tensor on the device
        self._modules: list[nn.Module] = []

    def here(self, tensor: Tensor) -> Tensor:
        """A tensor of the CPU on the device."""
        if tensor.device == self.device:
            return tensor
        if id(tensor) not in self._here:
            moved = tensor.to(self.device)
            self._here[id(tensor)] = self._origins[id(moved)] = (tensor, moved)
        return self._here[id(tensor)][1]

    def leave(self, state: _T) -> _T:
        """The state with its tensors on the CPU; what came from there is that again, and no copy."""
        return state if not self._moves else _changed(state, self._left)

    def enter(self, state: _T) -> _T:
        """The state that ``leave`` was given."""
        return state if not self._moves else _changed(state, self._entered)

    def release(self) -> None:
        """Let go of what is on the device, unless it stays."""
        if self._moves:
            self._here.clear()
            self._origins.clear()
            for module in self._modules:
                module.to(_CPU)
            self._modules.clear()

    def _left(self, part: Any) -> Any:
        if isinstance(part, nn.Module):
            return _Left(part.to(_CPU))
        if not isinstance(part, Tensor) or part.device.type == "cpu":
            return part
        pair = self._origins.get(id(part))
        return _Left(part.cpu() if pair is None else pair[0])

    def _entered(self, part: Any) -> Any:
        if not isinstance(part, _Left):
            return part
        if isinstance(part.what, nn.Module):
            self._modules.append(part.what)
            return part.what.to(self.device)
        return self.here(part.what)


class OnDevice(Mapping[str, Tensor]):
    """Features by output, each on the device as soon as it is asked for.

    Args:
        outputs: The features on the CPU.
        residence: The device.
    """

    def __init__(self, outputs: Mapping[str, Tensor], residence: Residence) -> None:
        self._outputs = outputs
        self._residence = residence

    def __getitem__(self, name: str) -> Tensor:
        return self._residence.here(self._outputs[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value whose parts are changed; the same object where no part is.

    Parts are looked for in containers, dataclasses, and what metrics of this package prepare.
    """
    return _walk(value, change, {})


def _walk(value: Any, change: Callable[[Any], Any], seen: dict[int, tuple[Any, Any]]) -> Any:
    changed = change(value)
    if changed is not value or value is None or isinstance(value, Tensor | nn.Module | type | str | bytes):
        return changed
    if id(value) in seen:
        return seen[id(value)][1]
    seen[id(value)] = value, value  # of a cycle
    found = _walk_parts(value, lambda part: _walk(part, change, seen))
    seen[id(value)] = value, found
    return found


def _walk_parts(value: Any, walk: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        parts = {key: walk(part) for key, part in value.items()}
        return value if _same(value.values(), parts.values()) else _like(value, parts)
    if isinstance(value, tuple | list):
        items = [walk(part) for part in value]
        if _same(value, items):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    names = _attributes(value)
    attributes = {name: walk(getattr(value, name)) for name in names}
    if _same((getattr(value, name) for name in names), attributes.values()):
        return value
    other = copy.copy(value)
    for name, part in attributes.items():
        object.__setattr__(other, name, part)  # also of frozen dataclasses
    return other


def _same(before: Any, after: Any) -> bool:
    return all(one is other for one, other in zip(before, after, strict=True))


def _like(value: dict[Any, Any], parts: dict[Any, Any]) -> dict[Any, Any]:
    other = copy.copy(value)
    other.update(parts)
    return other


def _attributes(value: Any) -> list[str]:
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    return list(vars(value)) if type(value).__module__.startswith(_METRICS) and hasattr(value, "__dict__") else []
