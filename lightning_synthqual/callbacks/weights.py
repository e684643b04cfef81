"""Which weights an evaluation sampled from, so that they can be compared with those that a checkpoint saves."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from lightning_synthqual.distributed import Ranks
from lightning_synthqual.images.checksum import parameters_of, weights_checksum


class SampledWeights(NamedTuple):
    """The weights of a sampled module.

    Args:
        checksum: Checksum of its parameters.
        keys: Their keys in the LightningModule's ``state_dict``; ``None`` if it does not have them all.
    """

    checksum: str
    keys: tuple[str, ...] | None


def sampled_weights(owner: nn.Module, module: Any, ranks: Ranks) -> SampledWeights | None:
    """Describe the weights of a module that is sampled; ``None`` if it has none.

    Args:
        owner: The LightningModule.
        module: The module that is sampled: the same one, a part of it, or another.
        ranks: The processes, each of which calls this.
    """
    parameters = parameters_of(module)
    if not parameters:
        return None
    names = {id(parameter): name for name, parameter in owner.named_parameters()}
    keys = [names.get(id(parameter), "") for parameter in parameters]
    checksum = weights_checksum(parameters, rank=ranks.rank, total=ranks.total)
    return SampledWeights(checksum, tuple(keys) if all(keys) else None)


def checksum_in(state: Mapping[str, Tensor], keys: tuple[str, ...], ranks: Ranks) -> str:
    """Checksum of these weights in a ``state_dict``.

    Args:
        state: The ``state_dict``; a process may have all of it, its shards of it, or nothing.
        keys: Keys of the weights.
        ranks: The processes, each of which calls this.
    """
    return weights_checksum([state.get(key) for key in keys], rank=ranks.rank, total=ranks.total)
