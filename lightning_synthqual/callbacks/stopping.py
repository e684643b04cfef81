"""Stopping on quality: patience is counted in evaluations, not in hooks."""

from enum import Enum
from math import inf
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_synthqual.callbacks.monitored import check_monitored, resolve_mode
from lightning_synthqual.evaluation.report import Report


class StoppingReason(Enum):
    """Why a run was stopped."""

    NOT_STOPPED = "not stopped"
    PATIENCE = "no improvement"
    STOPPING_THRESHOLD = "good enough"
    DIVERGENCE_THRESHOLD = "diverged"


class QualityStopping(Callback):
    """Stops training on a score of a `QualityMonitor`; acts once per evaluation, in whatever hook it ran.

    Args:
        monitor: The logged name, for example ``"quality/fid"``.
        mode: ``"min"`` or ``"max"``; ``None``: the metric's own direction.
        patience: Evaluations without improvement after which training stops.
        min_delta: Smallest change that counts as an improvement.
        stopping_threshold: Stop as soon as the score is better than this.
        divergence_threshold: Stop as soon as the score is worse than this.

    Raises:
        ValueError: If an argument has an impossible value, or ``mode`` is needed and missing.

    Example:
        >>> QualityStopping(monitor="quality/fid", patience=5, stopping_threshold=8.0).mode
        'min'
    """

    def __init__(
        self,
        monitor: str,
        mode: Literal["min", "max"] | None = None,
        patience: int = 3,
        min_delta: float = 0.0,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
    ) -> None:
        super().__init__()
        if patience < 1:
            raise ValueError(f"`patience` must be at least 1 evaluation, but got {patience}.")
        if min_delta < 0:
            raise ValueError(f"`min_delta` must not be negative, but got {min_delta}.")
        self.monitor = monitor
        self.mode = resolve_mode(monitor, mode)
        self.patience = patience
        self.min_delta = min_delta
        self.stopping_threshold = stopping_threshold
        self.divergence_threshold = divergence_threshold
        self.wait_count = 0
        self.best_score = inf if self.mode == "min" else -inf
        self.stopped_step: int | None = None
        self.reason = StoppingReason.NOT_STOPPED

    @property
    def state_key(self) -> str:
        return self._generate_state_key(
            monitor=self.monitor,
            mode=self.mode,
            stopping_threshold=self.stopping_threshold,
            divergence_threshold=self.divergence_threshold,
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "wait_count": self.wait_count,
            "best_score": self.best_score,
            "stopped_step": self.stopped_step,
            "reason": self.reason.name,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.wait_count = state_dict.get("wait_count", self.wait_count)
        self.best_score = state_dict.get("best_score", self.best_score)
        self.stopped_step = state_dict.get("stopped_step")
        self.reason = StoppingReason[state_dict.get("reason", "NOT_STOPPED")]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_monitored(trainer, self.monitor, "QualityStopping")

    def on_quality_report(self, trainer: Trainer, prefix: str, report: Report) -> None:
        """Take note of a fresh evaluation; called by the `QualityMonitor` on every process."""
        value = {f"{prefix}/{name}": value for name, value in report.scalars.items()}.get(self.monitor)
        if value is None:
            return
        reason = self.decide(value)
        if reason is not StoppingReason.NOT_STOPPED:
            self.reason, self.stopped_step = reason, report.step
            trainer.should_stop = True
            rank_zero_info(self._message(value))

    def decide(self, value: float) -> StoppingReason:
        """Count an evaluation and say whether training should stop."""
        if self.stopping_threshold is not None and self._better(value, self.stopping_threshold):
            return StoppingReason.STOPPING_THRESHOLD
        if self.divergence_threshold is not None and self._better(self.divergence_threshold, value):
            return StoppingReason.DIVERGENCE_THRESHOLD
        if self._better(value, self.best_score, self.min_delta):
            self.best_score, self.wait_count = value, 0
            return StoppingReason.NOT_STOPPED
        self.wait_count += 1
        return StoppingReason.PATIENCE if self.wait_count >= self.patience else StoppingReason.NOT_STOPPED

    def _better(self, value: float, than: float, margin: float = 0.0) -> bool:
        return value < than - margin if self.mode == "min" else value > than + margin

    def _message(self, value: float) -> str:
        detail = {
            StoppingReason.PATIENCE: f"no improvement on {self.best_score:.4g} in {self.wait_count} evaluations",
            StoppingReason.STOPPING_THRESHOLD: f"better than the threshold {self.stopping_threshold}",
            StoppingReason.DIVERGENCE_THRESHOLD: f"worse than the threshold {self.divergence_threshold}",
        }[self.reason]
        return f"Stopping at step {self.stopped_step}: {self.monitor} = {value:.4g}, {detail}."
