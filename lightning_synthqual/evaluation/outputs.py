"""Which outputs of extractors are kept: those that a metric reads."""

from collections.abc import Sequence

from torch import Tensor

from lightning_synthqual.extractors.base import Extractor, Identity
from lightning_synthqual.metrics.base import Metric

_OPEN = ("rows", "prepare_sets", "score_set")


class Selected:
    """An extractor of which only some outputs are kept.

    Args:
        extractor: The extractor.
        outputs: Names of the outputs; ``None``: all of them.
        on_host: Whether features leave the device at once.
    """

    def __init__(self, extractor: Extractor, outputs: frozenset[str] | None, on_host: bool = False) -> None:
        self.extractor = extractor
        self.outputs = outputs
        self.on_host = on_host

    @property
    def identity(self) -> Identity:
        """The extractor's."""
        return self.extractor.identity

    @property
    def key(self) -> str:
        """What tells the features apart from those of other outputs, in the cache."""
        return "" if self.outputs is None else f" {', '.join(sorted(self.outputs))}"

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Extract features, as the extractor does; all of them where one is missing, so that a metric can say which."""
        features = self.extractor(images)
        kept = features.keys() if self.outputs is None or not self.outputs <= features.keys() else self.outputs
        return {name: rows.cpu() if self.on_host else rows for name, rows in features.items() if name in kept}


def selected(extractors: dict[str, Extractor], metrics: Sequence[Metric], on_host: bool = False) -> dict[str, Selected]:
    """The extractors that metrics read, and of each what they read of it.

    Args:
        extractors: All extractors by name.
        metrics: The metrics.
        on_host: Whether features leave the device at once.
    """
    readers = {name: [metric for metric in metrics if name in metric.extractors()] for name in extractors}
    return {
        name: Selected(extractors[name], _outputs_of(extractors[name], each), on_host)
        for name, each in readers.items()
        if each
    }


def _outputs_of(extractor: Extractor, metrics: Sequence[Metric]) -> frozenset[str] | None:
    if any(_reads_anything(metric) for metric in metrics):
        return None
    return frozenset(metric.output or extractor.embedding for metric in metrics)


def _reads_anything(metric: Metric) -> bool:
    """Whether a metric of the user's looks for features itself."""
    return not metric.family and any(getattr(type(metric), name) is not getattr(Metric, name) for name in _OPEN)
