"""Callbacks for a Trainer."""

from lightning_synthqual.callbacks.checkpoint import QualityCheckpoint
from lightning_synthqual.callbacks.listener import ReportListener
from lightning_synthqual.callbacks.monitor import QualityMonitor
from lightning_synthqual.callbacks.stopping import QualityStopping

__all__ = ["QualityCheckpoint", "QualityMonitor", "QualityStopping", "ReportListener"]
