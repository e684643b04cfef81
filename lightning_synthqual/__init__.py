"""Lightning callbacks that watch an image generator while it trains."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lightning_synthqual.__about__ import __version__
from lightning_synthqual.audit.run import audit
from lightning_synthqual.evaluation import Report, compare, evaluate
from lightning_synthqual.images.source import Images
from lightning_synthqual.metrics import FeatureMetric, ImageMetric, Metric, Score, TorchMetric

if TYPE_CHECKING:
    from lightning_synthqual.callbacks import QualityCheckpoint, QualityMonitor, QualityStopping

__all__ = [
    "FeatureMetric",
    "ImageMetric",
    "Images",
    "Metric",
    "QualityCheckpoint",
    "QualityMonitor",
    "QualityStopping",
    "Report",
    "Score",
    "TorchMetric",
    "__version__",
    "audit",
    "compare",
    "evaluate",
]


def __getattr__(name: str) -> Any:
    """The callbacks, once they are asked for: Lightning takes seconds to import, and folders are scored without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.callbacks"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
