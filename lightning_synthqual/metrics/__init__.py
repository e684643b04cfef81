"""Features to numbers: pure functions, one file a family, and the catalogue of metric names."""

from lightning_synthqual.metrics.frechet import frechet_distance
from lightning_synthqual.metrics.kernel import KernelDistance, kernel_distance
from lightning_synthqual.metrics.manifold import PrecisionRecall, precision_recall

__all__ = ["KernelDistance", "PrecisionRecall", "frechet_distance", "kernel_distance", "precision_recall"]
