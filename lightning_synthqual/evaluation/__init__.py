"""One evaluation, with or without a Trainer: images in, report out."""

from lightning_synthqual.evaluation.offline import evaluate
from lightning_synthqual.evaluation.report import Report
from lightning_synthqual.reporting.differences import compare

__all__ = ["Report", "compare", "evaluate"]
