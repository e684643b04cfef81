"""A checksum of weights: the same for the same bits, on every device and on any number of processes."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def weights_checksum(
    tensors: Sequence[Tensor | None], *, rank: int = 0, total: Callable[[Tensor], Tensor] | None = None
) -> str:
    """Checksum of the bits of tensors, in their order.

    Each tensor becomes the sum of its bits read as integers, which no order of addition changes. Of a sharded tensor
    each process adds its own shard, of any other the first process adds the whole.

    Args:
        tensors: Weights; ``None`` for one that this process does not have.
        rank: Number of this process.
        total: Sum of a tensor over the processes; needed if there are several.

    Returns:
        16 hexadecimal digits, the same on every process.

    Example:
        >>> weights = torch.ones(2, 3)
        >>> weights_checksum([weights]) == weights_checksum([weights.clone()])
        True
        >>> weights_checksum([weights]) == weights_checksum([weights + 1e-6])
        False
    """
    sums = [_own_sum(tensor, rank) for tensor in tensors]
    own = torch.zeros(len(sums), dtype=torch.int64)
    for device in dict.fromkeys(part.device for part in sums):  # one transfer for each device
        indices = [index for index, part in enumerate(sums) if part.device == device]
        own[indices] = torch.stack([sums[index] for index in indices]).cpu()
    summed = own if total is None else total(own)
    return hashlib.sha256(repr(summed.tolist()).encode()).hexdigest()[:16]


def parameters_of(module: Any) -> list[nn.Parameter]:
    """The initialised parameters of a module; none of something that is no module."""
    parameters = module.parameters() if isinstance(module, nn.Module) else ()
    return [parameter for parameter in parameters if not nn.parameter.is_lazy(parameter)]


@torch.no_grad()
def _own_sum(tensor: Any, rank: int) -> Tensor:
    """What this process adds to a tensor's sum: int64 ()."""
    if tensor is None:
        return torch.zeros((), dtype=torch.int64)
    if hasattr(tensor, "placements"):  # a DTensor
        local, counts = tensor.to_local(), _is_first_replica(tensor)
    else:
        local, counts = tensor.detach(), rank == 0
    if not counts or local.numel() == 0:
        return torch.zeros((), dtype=torch.int64, device=local.device)
    plain = torch.view_as_real(local) if local.is_complex() else local
    return plain.view(_WORDS[plain.element_size()]).sum(dtype=torch.int64)


def _is_first_replica(tensor: Any) -> bool:
    """Whether no process before this one has the same shard."""
    coordinate = tensor.device_mesh.get_coordinate()
    if coordinate is None:
        return False
    return all(place == 0 for place, kind in zip(coordinate, tensor.placements, strict=True) if kind.is_replicate())
