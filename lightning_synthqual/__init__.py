"""Lightning callbacks that watch an image generator while it trains."""

from lightning_synthqual.__about__ import __version__
from lightning_synthqual.callbacks import QualityCheckpoint, QualityMonitor, QualityStopping
from lightning_synthqual.evaluation import Report, evaluate

__all__ = ["QualityCheckpoint", "QualityMonitor", "QualityStopping", "Report", "__version__", "evaluate"]
