"""How much memory an evaluation takes, from the shapes of what it holds at the same time."""

from collections.abc import Iterable, Mapping
from math import prod

from torch import Tensor

from lightning_synthqual.evaluation.reference import Reference
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.extractors.base import FrozenNetwork
from lightning_synthqual.metrics.shard import MEMORY

_FLOAT = 4  # bytes of a feature
_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (1, "bytes"))


def peak_memory(
    workspace: Workspace, reference: Reference, features: Mapping[str, Mapping[str, Tensor]], num_samples: int
) -> int:
    """Bytes that an evaluation holds at its peak, but for what networks need while they work.

    Networks, the features of all generated images and the tiles of a computation are counted, and on an accelerator
    the real features of the extractor that has most of them; on a CPU these are mapped from disk.

    Args:
        workspace: Networks and device.
        reference: The real sets.
        features: Features of a few generated images by extractor and output.
        num_samples: Number of generated images.
    """
    columns = {(name, output): rows.shape[1] for name, outputs in features.items() for output, rows in outputs.items()}
    read = [
        (name, metric.output or workspace.extractors[name].embedding)
        for metric in workspace.plan.metrics
        for name in metric.extractors()
    ]
    generated = _FLOAT * num_samples * sum(columns.get(key, 0) for key in set(read))
    networks = sum(map(_network_bytes, [*workspace.extractors.values(), *workspace.pairs.values()]))
    sets = [each for each in (reference.main, reference.other) if each is not None]
    stored = [
        sum(_bytes(each.stored.features.get(name, {}).values()) for each in sets) for name in workspace.extractors
    ]
    real = 0 if workspace.device.type == "cpu" else max(stored, default=0)
    return networks + generated + real + MEMORY


def readable(size: int) -> str:
    """A number of bytes with its unit.

    Example:
        >>> readable(3 * 2**29), readable(5)
        ('1.5 GiB', '5 bytes')
    """
    unit, name = next((unit, name) for unit, name in _UNITS if size >= unit or unit == 1)
    return f"{size / unit:.3g} {name}"


def _network_bytes(network: FrozenNetwork) -> int:
    return _bytes([*network.network.parameters(), *network.network.buffers()])


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(prod(each.shape) * each.element_size() for each in tensors)
