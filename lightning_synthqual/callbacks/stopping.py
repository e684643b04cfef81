"""Stopping on quality: patience is counted in evaluations, not in hooks."""

from enum import Enum
from math import inf
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_synthqual.callbacks.arguments import STOPPING_RULES
from lightning_synthqual.callbacks.lightning import BothPackages, logged_step
from lightning_synthqual.callbacks.listener import ReportListener
from lightning_synthqual.callbacks.monitored import check_monitored, find_alarm, find_mode, known_mode
from lightning_synthqual.callbacks.significance import pack_score, surely_differs, unpack_score
from lightning_synthqual.checking import check_all
from lightning_synthqual.evaluation.report import Report
from lightning_synthqual.metrics.base import Direction
from lightning_synthqual.metrics.catalogue import alarm

_SURE = 3.0  # standard errors beyond which an alarm is no chance: a training has many evaluations
_TWICE = 2  # evaluations in a row in which it has to be so


class StoppingReason(Enum):
    """Why a run was stopped."""

    NOT_STOPPED = "not stopped"
    PATIENCE = "no improvement"
    STOPPING_THRESHOLD = "good enough"
    DIVERGENCE_THRESHOLD = "diverged"
    ALARM = "something is wrong"
    FAILURE = "failed evaluation"


class QualityStopping(BothPackages, ReportListener, Callback):
    """Stops training on a score of a `QualityMonitor`; acts once per evaluation, in whatever hook it ran.

    An evaluation that failed or in which the score is undefined does not count towards ``patience``.

    Some scores are alarms: above 0, ``copy_excess`` says that training images are copied, and the gap of a kernel
    distance that generated images are nearer to training than to held-out images. On these the training stops once the
    score is above ``divergence_threshold`` (0 by default) by more than ``significance`` (3 by default) of its standard
    errors in two evaluations in a row, and ``patience`` does not apply.

    Args:
        monitor: The logged name, for example ``"quality/fid"``.
        mode: ``"min"`` or ``"max"``; ``None``: the metric's own direction, if it has one.
        patience: Evaluations without improvement after which training stops.
        min_delta: Smallest change that counts as an improvement.
        stopping_threshold: Stop as soon as the score is better than this.
        divergence_threshold: Stop as soon as the score is worse than this.
        significance: Number of standard errors of the paired difference from the best evaluation beyond which a score
            counts as an improvement; ``None``: any improvement counts.
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
        significance: float | None = None,
        stop_on_failure: bool = False,
    ) -> None:
        super().__init__()
        checked = check_all(locals(), STOPPING_RULES)
        self.monitor = monitor
        self.patience: int = checked["patience"]
        self.min_delta: float = checked["min_delta"]
        self.stopping_threshold: float | None = checked["stopping_threshold"]
        self.divergence_threshold: float | None = checked["divergence_threshold"]
        self.significance: float | None = checked["significance"]
        self.stop_on_failure: bool = checked["stop_on_failure"]
        self.wait_count = 0
        self.alarm_count = 0
        self._alarm = alarm(monitor.rpartition("/")[2])
        self._best: Report | None = None
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
            **({} if self.significance is None else {"significance": self.significance}),
        )

    def state_dict(self) -> dict[str, Any]:
        best = {} if self._best is None else {"best": pack_score(self._best)}
        return {
            **best,
            "wait_count": self.wait_count,
            "alarm_count": self.alarm_count,
            "best_score": self.best_score,
            "stopped_step": self.stopped_step,
            "reason": self.reason.name,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.wait_count = state_dict.get("wait_count", self.wait_count)
        self.alarm_count = state_dict.get("alarm_count", 0)
        self.best_score = state_dict.get("best_score", self.best_score)
        self._best = unpack_score(state_dict["best"]) if "best" in state_dict else None
        self.stopped_step = state_dict.get("stopped_step")
        self.reason = StoppingReason[state_dict.get("reason", "NOT_STOPPED")]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.mode is None:  # before a state is loaded
            self._set_mode(find_mode(trainer, self.monitor))
        if self._alarm is None:
            self._alarm = find_alarm(trainer, self.monitor)
        if stage == "fit":  # before any callback reads data
            check_monitored(trainer, self.monitor, self.mode, "QualityStopping")

    def on_quality_report(self, trainer: Trainer, prefix: str, report: Report) -> None:
        """Count an evaluation, and stop the training if it is time to."""
        where, _, name = self.monitor.rpartition("/")
        value = report.scalars.get(name) if where == prefix else None
        if value is None:
            self._stop_if_failed(trainer, prefix, report)
            return
        if self._alarm is not None:
            reason = self._watch(value, report.scalars.get(f"{name}_std"))
        else:
            reason = self.decide(value, surely=surely_differs(name, report, self._best, self.significance))
            if self.best_score == value and self.wait_count == 0 and self.significance is not None:
                self._best = report.only(name)
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

    def decide(self, value: float, *, surely: bool = True) -> StoppingReason:
        """Count an evaluation and say whether training should stop.

        Args:
            value: The score.
            surely: Whether it differs from the best one by more than chance.
        """
        if self.stopping_threshold is not None and self._better(value, self.stopping_threshold):
            return StoppingReason.STOPPING_THRESHOLD
        if self.divergence_threshold is not None and self._better(self.divergence_threshold, value):
            return StoppingReason.DIVERGENCE_THRESHOLD
        if surely and self._better(value, self.best_score, self.min_delta):
            self.best_score, self.wait_count = value, 0
            return StoppingReason.NOT_STOPPED
        self.wait_count += 1
        return StoppingReason.PATIENCE if self.wait_count >= self.patience else StoppingReason.NOT_STOPPED

    def _watch(self, value: float, error: float | None) -> StoppingReason:
        """Count an evaluation whose score is an alarm."""
        if self.stopping_threshold is not None and self._better(value, self.stopping_threshold):
            return StoppingReason.STOPPING_THRESHOLD
        margin = (_SURE if self.significance is None else self.significance) * (error or 0.0)
        beyond = error is not None and self._better(self._limit, value, margin)
        self.alarm_count = self.alarm_count + 1 if beyond else 0
        return StoppingReason.ALARM if self.alarm_count >= _TWICE else StoppingReason.NOT_STOPPED

    @property
    def _limit(self) -> float:
        """Where the alarm begins."""
        return (self._alarm or 0.0) if self.divergence_threshold is None else self.divergence_threshold

    def _better(self, value: float, than: float, margin: float = 0.0) -> bool:
        return value < than - margin if self.mode == "min" else value > than + margin

    def _stop(self, trainer: Trainer, reason: StoppingReason, step: int | None, detail: str) -> None:
        self.reason, self.stopped_step = reason, step
        trainer.should_stop = True
        rank_zero_info(f"Stopping at step {step}: {detail}.")

    def _detail(self, reason: StoppingReason) -> str:
        known = "improvement" if self.significance is None else f"improvement of {self.significance:g} standard errors"
        return {
            StoppingReason.PATIENCE: f"no {known} on {self.best_score:.4g} in {self.wait_count} evaluations",
            StoppingReason.ALARM: f"above {self._limit:g} by more than chance in {_TWICE} evaluations in a row",
            StoppingReason.STOPPING_THRESHOLD: f"better than the threshold {self.stopping_threshold}",
            StoppingReason.DIVERGENCE_THRESHOLD: f"worse than the threshold {self.divergence_threshold}",
        }[reason]
