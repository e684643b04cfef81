"""Features to numbers: one file a family, with its pure functions and the metric that an evaluation calls."""

from lightning_synthqual.metrics.base import Influence, Metric, Score, Scores
from lightning_synthqual.metrics.copying import authenticity, data_copying_test
from lightning_synthqual.metrics.custom import FeatureMetric, ImageMetric, TorchMetric
from lightning_synthqual.metrics.frechet import frechet_distance, frechet_influence
from lightning_synthqual.metrics.inception import InceptionScore, inception_score
from lightning_synthqual.metrics.kernel import KernelDistance, cmmd, kernel_distance, kernel_influence
from lightning_synthqual.metrics.manifold import DensityCoverage, PrecisionRecall, density_coverage, precision_recall
from lightning_synthqual.metrics.memorization import Memorization, memorization
from lightning_synthqual.metrics.neighbors import Neighbors, nearest_neighbors
from lightning_synthqual.metrics.path_length import filter_percentiles, slerp
from lightning_synthqual.metrics.similarity import ms_ssim, psnr, shannon_entropy
from lightning_synthqual.metrics.vendi import vendi_score

__all__ = [
    "DensityCoverage",
    "FeatureMetric",
    "ImageMetric",
    "InceptionScore",
    "Influence",
    "KernelDistance",
    "Memorization",
    "Metric",
    "Neighbors",
    "PrecisionRecall",
    "Score",
    "Scores",
    "TorchMetric",
    "authenticity",
    "cmmd",
    "data_copying_test",
    "density_coverage",
    "filter_percentiles",
    "frechet_distance",
    "frechet_influence",
    "inception_score",
    "kernel_distance",
    "kernel_influence",
    "memorization",
    "ms_ssim",
    "nearest_neighbors",
    "precision_recall",
    "psnr",
    "shannon_entropy",
    "slerp",
    "vendi_score",
]
