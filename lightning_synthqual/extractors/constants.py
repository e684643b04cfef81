"""Tensors that are computed once and copied to a device once, as long as networks are there."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_MOST = 64  # sizes of images may be many
_kept: dict[Any, Tensor] = {}


def constant(device: torch.device, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """The result of a function of plain values, on a device.

    Args:
        device: Where it is wanted.
        function: Function that always gives the same tensor.
        arguments: Its arguments.
    """
    key = device, function, arguments
    if key not in _kept:
        if len(_kept) >= _MOST:
            _kept.clear()
        _kept[key] = function(*arguments).to(device)
    return _kept[key]


def release_constants() -> None:
    """Forget what lies on accelerators: networks have left one."""
    for key in [key for key in _kept if key[0].type != "cpu"]:
        del _kept[key]
