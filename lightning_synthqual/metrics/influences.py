"""Influences as they are kept and stored: float32, which is enough for errors of differences."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_synthqual.metrics.base import Influence


def compact(influence: Influence) -> Influence:
    """An influence in float32 on the CPU."""

    def rows(values: Tensor) -> Tensor:
        return values.detach().to("cpu", torch.float32)

    return Influence(torch.as_tensor(influence.value).detach().to("cpu", torch.float64), *map(rows, influence[1:]))


def pack_influences(influences: Mapping[str, Influence]) -> dict[str, Tensor]:
    """Influences by metric name as float32 tensors by ``<metric>.fake`` and ``<metric>.real``."""
    parts = {name: compact(each) for name, each in influences.items()}
    return {f"{name}.{part}": getattr(each, part) for name, each in parts.items() for part in ("fake", "real")}


def unpack_influences(tensors: Mapping[str, Tensor], scalars: Mapping[str, float]) -> dict[str, Influence]:
    """The influences that ``pack_influences`` packed, of the values that are among ``scalars``."""
    names = [key.removesuffix(".fake") for key in tensors if key.endswith(".fake")]
    return {
        name: Influence(
            torch.tensor(scalars[name], dtype=torch.float64), tensors[f"{name}.fake"], tensors[f"{name}.real"]
        )
        for name in names
        if name in scalars and f"{name}.real" in tensors
    }
