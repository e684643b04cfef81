"""One evaluation, with or without a Trainer: images in, report out."""

from lightning_synthqual.evaluation.comparison import compare
from lightning_synthqual.evaluation.offline import evaluate
from lightning_synthqual.evaluation.report import Report

__all__ = ["Report", "compare", "evaluate"]
