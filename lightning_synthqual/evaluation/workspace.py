"""Where an evaluation happens: its processes, its device, its networks, and who hears how far it is."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.plan import Plan
from lightning_synthqual.extractors.base import Extractor, FrozenNetwork, Identity
from lightning_synthqual.extractors.cache import FeatureCache
from lightning_synthqual.extractors.pairs import PairNetwork, pair_of
from lightning_synthqual.extractors.registry import (
    PAIRS,
    load_configured,
    load_configured_pair,
    load_configured_text,
)
from lightning_synthqual.extractors.selection import Selected
from lightning_synthqual.extractors.texts import TextEncoder
from lightning_synthqual.importing import resolve_object
from lightning_synthqual.metrics.base import Metric
from lightning_synthqual.metrics.shard import Shard
from lightning_synthqual.metrics.views import Runtime
from lightning_synthqual.precision import full_precision
from lightning_synthqual.reporting.progress import Progress, Silent
from lightning_synthqual.residence import Residence

_log = logging.getLogger(__name__)
Distance = Callable[[Tensor, Tensor], Tensor]


class SharedCache:
    """Cached tensors that all processes find, or none; they are mapped from disk, whatever the device.

    Args:
        directory: Folder of the files; ``None``: the default one.
        ranks: The processes.
        used: Whether anything is read or written.
    """

    def __init__(self, directory: str | Path | None, ranks: Ranks, used: bool) -> None:
        self.used = used
        self._files = FeatureCache(directory)
        self._ranks = ranks
        self._trusted: set[tuple[str, str]] = set()

    def load(
        self, fingerprint: str, identity: Identity, *, rows: int | None = None, probe: Tensor | None = None
    ) -> dict[str, Tensor] | None:
        """Tensors of a data set by name, as `FeatureCache.load` finds them on every process."""
        if not self.used:
            return None
        leads = self._ranks.leads_node  # one process of a machine compares the checksum
        found = self._files.load(fingerprint, identity, rows=rows, probe=probe, verify=leads)
        if not all(self._ranks.gather_objects(found is not None)):
            return None
        self._trusted.add((fingerprint, identity.key))
        return found

    def save(
        self, fingerprint: str, identity: Identity, tensors: Mapping[str, Tensor], *, probe: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Write tensors, once on each machine; every process calls this.

        Returns:
            The tensors on the CPU, mapped from the file where it could be written.
        """
        key, written = (fingerprint, identity.key), self.used
        self._trusted.discard(key)
        if self.used and self._ranks.leads_node:
            written = self._files.save(fingerprint, identity, tensors, probe=probe)
        if not self.used or not all(self._ranks.gather_objects(written)):
            return {name: tensor.cpu() for name, tensor in tensors.items()}
        self._trusted.add(key)
        mapped = self._files.load(fingerprint, identity, verify=False)
        return mapped or {name: tensor.cpu() for name, tensor in tensors.items()}

    def digest(self, fingerprint: str, identity: Identity) -> str | None:
        """Checksum of what was loaded or saved; ``None`` if it is not in the cache."""
        return self._files.digest(fingerprint, identity) if (fingerprint, identity.key) in self._trusted else None


class Workspace:
    """What every part of an evaluation uses.

    Args:
        plan: Plan of what to measure.
        ranks: The processes.
        device: Device for extraction and scoring.
        progress: Progress display of the first process.
        use_cache: Whether to read and write cached features.

    Attributes:
        cache: Features that were extracted before.
        residence: What is on the device.
        extractors: Networks that turn images into features, by name; loaded by ``load_networks``.
        pairs: Networks that compare two images, by name.
    """

    def __init__(
        self,
        plan: Plan,
        ranks: Ranks,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        use_cache: bool = True,
    ) -> None:
        self.plan = plan
        self.ranks = ranks
        # Scores need float64, which Apple's GPUs do not have.
        self.device = torch.device("cpu" if torch.device(device).type == "mps" else device)
        self.progress: Progress = progress if progress is not None and ranks.rank == 0 else Silent()
        self.cache = SharedCache(plan.cache_dir, ranks, use_cache)
        self.residence = Residence(self.device, plan.keep_on_device)
        self.shard = Shard(ranks.rank, ranks.world_size, ranks.total)
        self.extractors: dict[str, Extractor] = {}
        self.pairs: dict[str, PairNetwork] = {}
        self._distances: dict[Any, Distance] = {}
        self._shared: dict[Any, Any] = {}
        self._once: dict[Any, Any] = {}
        self._warned: set[str] = set()

    def warn(self, message: str | None) -> None:
        """Give a warning once, on one process."""
        if message is not None and message not in self._warned and self.ranks.rank == 0:
            _log.warning(message)
        if message is not None:
            self._warned.add(message)

    def once(self, key: Any, compute: Callable[[], Any]) -> Any:
        """What does not change during a run, computed when it is first asked for."""
        if key not in self._once:
            self._once[key] = compute()
        return self._once[key]

    def load_text(self, name: str) -> TextEncoder:
        """The text network of an extractor, one process of each machine first."""
        plan = self.plan
        with self.ranks.node_leader_first():
            return load_configured_text(name, plan.extractors.get(name), plan.weights_dir, self.device)

    def load_networks(self) -> None:
        """Load every network that a metric needs, one process of each machine first.

        Raises:
            FileNotFoundError: If weights are missing.
        """
        plan = self.plan
        with self.ranks.node_leader_first():
            for name in plan.extractor_names:
                spec = plan.extractors.get(name)
                self.extractors[name] = load_configured(name, spec, plan.weights_dir, self.device)
            for metric in plan.metrics:
                for value in metric.networks().values():
                    if value not in self.extractors or value in PAIRS:
                        self._distances[value] = self._distance(value)

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """The networks on the device within the context, and nothing afterwards, unless it was asked to stay."""
        self._move_networks(self.device)
        try:
            yield
        finally:
            self.residence.release()
            if self.device.type != "cpu" and not self.plan.keep_on_device:
                self._move_networks(torch.device("cpu"))
                torch.cuda.empty_cache()

    def _move_networks(self, device: torch.device) -> None:
        networks: list[FrozenNetwork] = [*self.extractors.values(), *self.pairs.values()]
        for network in networks:
            if network.device != device:
                network.to(device)

    def metrics(self) -> tuple[Metric, ...]:
        """The plan's metrics, able to work here."""
        return tuple(metric.with_runtime(self._runtime(metric)) for metric in self.plan.metrics)

    def selected(self, metrics: Sequence[Metric] | None = None, *, on_host: bool = False) -> dict[str, Selected]:
        """The extractors that metrics read, and of each what they read of it.

        Args:
            metrics: The metrics; ``None``: all of them.
            on_host: Whether features leave the device at once.
        """
        metrics = self.plan.metrics if metrics is None else metrics
        readers = {name: [each for each in metrics if name in each.extractors()] for name in self.extractors}
        return {
            name: Selected(self.extractors[name], _joined(self.extractors[name].embedding, each), on_host)
            for name, each in readers.items()
            if each
        }

    def _runtime(self, metric: Metric) -> Runtime:
        networks = {key: value for key, value in metric.networks().items() if value in self._distances}
        return Runtime(
            shard=self.shard,
            device=self.device,
            networks={key: self._distances[value] for key, value in networks.items()},
            gather=self._gather,
            progress=self._stage,
            warn=self.warn,
            smoke_test=self.plan.smoke_test,
            shared=self._shared,
        )

    def _gather(self, rows: Tensor | None, indices: Sequence[int], count: int) -> Tensor:
        return self.ranks.gather_rows(rows, list(indices), count, torch.device("cpu"))

    def _stage(self, name: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
        return self.progress.stage(name, total)

    def _distance(self, value: Any) -> Distance:
        """A pair network by name, or the user's callable, itself or by import path."""
        if isinstance(value, str) and value in PAIRS:
            if value in self.extractors:
                self.pairs[value] = pair_of(self.extractors[value])
            else:
                spec = self.plan.extractors.get(value)
                self.pairs[value] = load_configured_pair(value, spec, self.plan.weights_dir, self.device)
            return self.pairs[value].measure
        function: Distance = resolve_object(value, "distance")

        def measure(one: Tensor, other: Tensor) -> Tensor:
            with full_precision():
                return function(one, other)

        return measure


def _joined(embedding: str, metrics: Sequence[Metric]) -> frozenset[str] | None:
    """The outputs that one of the metrics reads; ``None`` if that may be any of them."""
    found = [metric.outputs_read(embedding) for metric in metrics]
    return None if None in found else frozenset(name for each in found if each is not None for name in each)
