"""Stopping on quality: patience is counted in evaluations, not in hooks."""

from enum import Enum
from math import inf
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_synthqual.callbacks.arguments import STOPPING_RULES
from lightning_synthqual.callbacks.lightning import BothPackages, logged_step
from lightning_synthqual.callbacks.listener import ReportListener
from lightning_synthqual.callbacks.monitored import check_monitored, find_mode, known_mode
from lightning_synthqual.checking import check_all
from lightning_synthqual.evaluation.report import Report
from lightning_synthqual.metrics.base import Direction


class StoppingReason(Enum):
    """Why a run was stopped."""

    NOT_STOPPED = "not stopped"
    PATIENCE = "no improvement"
    STOPPING_THRESHOLD = "good enough"
    DIVERGENCE_THRESHOLD = "diverged"
    FAILURE = "failed evaluation"


class QualityStopping(BothPackages, ReportListener, Callback):
    """Stops training on a score of a `QualityMonitor`; acts once per evaluation, in whatever hook it ran.

    An evaluation that failed or in which the score is undefined does not count towards ``patience``.

    Args:
        monitor: The logged name, for example ``"quality/fid"``.
        mode: ``"min"`` or ``"max"``; ``None``: the metric's own direction, if it has one.
        patience: Evaluations without improvement after which training stops.
        min_delta: Smallest change that counts as an improvement.
        stopping_threshold: Stop as soon as the score is better than this.
        divergence_threshold: Stop as soon as the score is worse than this.
        stop_on_failure: Whether to stop as soon as an evaluation fails; it needs a monitor with ``on_error="warn"``.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument has an impossible value; at the start of a fit, if nothing logs the name, or
            ``mode`` is needed and missing.

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
        stop_on_failure: bool = False,
    ) -> None:
        super().__init__()
        checked = check_all(locals(), STOPPING_RULES)
        self.monitor = monitor
        self.patience: int = checked["patience"]
        self.min_delta: float = checked["min_delta"]
        self.stopping_threshold: float | None = checked["stopping_threshold"]
        self.divergence_threshold: float | None = checked["divergence_threshold"]
        self.stop_on_failure: bool = checked["stop_on_failure"]
        self.wait_count = 0
        self._set_mode(known_mode(monitor, mode))
        self.stopped_step: int | None = None
        self.reason = StoppingReason.NOT_STOPPED

    def _set_mode(self, mode: Direction | None) -> None:
        self.mode = mode
        self.best_score = inf if mode == "min" else -inf

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

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.mode is None:  # before a state is loaded
            self._set_mode(find_mode(trainer, self.monitor))
        if stage == "fit":  # before any callback reads data
            check_monitored(trainer, self.monitor, self.mode, "QualityStopping")

    def on_quality_report(self, trainer: Trainer, prefix: str, report: Report) -> None:
        """Count an evaluation, and stop the training if it is time to."""
        value = {f"{prefix}/{name}": value for name, value in report.scalars.items()}.get(self.monitor)
        if value is None:
            self._stop_if_failed(trainer, prefix, report)
            return
        reason = self.decide(value)
        if reason is not StoppingReason.NOT_STOPPED:
            self._stop(trainer, reason, report.step, f"{self.monitor} = {value:.4g}, {self._detail(reason)}")

    def on_quality_failure(self, trainer: Trainer, prefix: str, error: Exception) -> None:
        """Stop the training after an evaluation that failed, if that is wanted."""
        if self.stop_on_failure and self.monitor.rpartition("/")[0] == prefix:
            detail = f"the evaluation failed ({type(error).__name__}: {error})"
            self._stop(trainer, StoppingReason.FAILURE, logged_step(trainer), detail)

    def _stop_if_failed(self, trainer: Trainer, prefix: str, report: Report) -> None:
        """Stop the training if the score is missing because its metric failed, and that is wanted."""
        failed = report.protocol.get("failed", {})
        if self.stop_on_failure and failed and self.monitor.rpartition("/")[0] == prefix:
            self._stop(trainer, StoppingReason.FAILURE, report.step, f"{self.monitor} is missing ({failed})")

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

    def _stop(self, trainer: Trainer, reason: StoppingReason, step: int | None, detail: str) -> None:
        self.reason, self.stopped_step = reason, step
        trainer.should_stop = True
        rank_zero_info(f"Stopping at step {step}: {detail}.")

    def _detail(self, reason: StoppingReason) -> str:
        return {
            StoppingReason.PATIENCE: f"no improvement on {self.best_score:.4g} in {self.wait_count} evaluations",
            StoppingReason.STOPPING_THRESHOLD: f"better than the threshold {self.stopping_threshold}",
            StoppingReason.DIVERGENCE_THRESHOLD: f"worse than the threshold {self.divergence_threshold}",
        }[reason]
