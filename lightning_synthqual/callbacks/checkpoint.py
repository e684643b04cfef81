"""Keeping the best checkpoints by quality: each evaluation is considered once."""

from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_synthqual.callbacks.monitor import is_trial
from lightning_synthqual.callbacks.monitored import check_monitored, resolve_mode
from lightning_synthqual.evaluation.report import Report


class QualityCheckpoint(ModelCheckpoint):
    """A `ModelCheckpoint` that saves when, and only when, a `QualityMonitor` has evaluated.

    Args:
        monitor: The logged name, for example ``"quality/fid"``.
        mode: ``"min"`` or ``"max"``; ``None``: the metric's own direction.
        save_top_k: How many of the best to keep; -1: all.
        dirpath: Where; as in ``ModelCheckpoint``.
        filename: As in ``ModelCheckpoint``.
        save_last: As in ``ModelCheckpoint``.
        save_weights_only: As in ``ModelCheckpoint``.
        auto_insert_metric_name: As in ``ModelCheckpoint``.
        verbose: As in ``ModelCheckpoint``.

    Raises:
        ValueError: If ``mode`` is needed and missing.

    Example:
        >>> QualityCheckpoint(monitor="quality/recall", save_top_k=3).mode
        'max'
    """

    def __init__(
        self,
        monitor: str,
        mode: Literal["min", "max"] | None = None,
        save_top_k: int = 1,
        dirpath: str | None = None,
        filename: str | None = None,
        save_last: bool | Literal["link"] | None = None,
        save_weights_only: bool = False,
        auto_insert_metric_name: bool = True,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            monitor=monitor,
            mode=resolve_mode(monitor, mode),
            save_top_k=save_top_k,
            dirpath=dirpath,
            filename=filename,
            save_last=save_last,
            save_weights_only=save_weights_only,
            auto_insert_metric_name=auto_insert_metric_name,
            verbose=verbose,
        )
        self._fresh: dict[str, Tensor] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_monitored(trainer, str(self.monitor), "QualityCheckpoint")

    def on_quality_report(self, trainer: Trainer, prefix: str, report: Report) -> None:
        """Take note of a fresh evaluation; called by the `QualityMonitor` on every process."""
        scalars = {f"{prefix}/{name}": torch.tensor(value) for name, value in report.scalars.items()}
        if self.monitor in scalars:
            self._fresh = scalars

    # Lightning calls checkpoint callbacks last, so in these hooks every other callback's state is up to date.

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self._save_if_fresh(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_if_fresh(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_if_fresh(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_if_fresh(trainer)

    def _save_if_fresh(self, trainer: Trainer) -> None:
        if self._fresh is None or is_trial(trainer):
            return
        candidates = self._monitor_candidates(trainer) | self._fresh
        self._fresh = None
        self._save_topk_checkpoint(trainer, candidates)
        self._save_last_checkpoint(trainer, candidates)
