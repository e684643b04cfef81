"""An extractor of which only some outputs are kept."""

from torch import Tensor

from lightning_synthqual.extractors.base import Extractor, Identity


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
