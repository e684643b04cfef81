"""Features to numbers: pure functions, one file a family, and the catalogue of metric names."""

from lightning_synthqual.metrics.copying import authenticity, data_copying_test
from lightning_synthqual.metrics.frechet import frechet_distance
from lightning_synthqual.metrics.inception import InceptionScore, inception_score
from lightning_synthqual.metrics.kernel import KernelDistance, cmmd, kernel_distance
from lightning_synthqual.metrics.manifold import DensityCoverage, PrecisionRecall, density_coverage, precision_recall
from lightning_synthqual.metrics.memorization import Memorization, memorization
from lightning_synthqual.metrics.neighbors import Neighbors, nearest_neighbors
from lightning_synthqual.metrics.path_length import filter_percentiles, slerp
from lightning_synthqual.metrics.pictures import ms_ssim, psnr, shannon_entropy

__all__ = [
    "DensityCoverage",
    "InceptionScore",
    "KernelDistance",
    "Memorization",
    "Neighbors",
    "PrecisionRecall",
    "authenticity",
    "cmmd",
    "data_copying_test",
    "density_coverage",
    "filter_percentiles",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "memorization",
    "ms_ssim",
    "nearest_neighbors",
    "precision_recall",
    "psnr",
    "shannon_entropy",
    "slerp",
]
