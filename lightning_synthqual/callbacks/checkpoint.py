"""Saves the best checkpoints by quality: each evaluation is considered once."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_synthqual.callbacks.arguments import CHECKPOINT_RULES
from lightning_synthqual.callbacks.leftovers import Leftovers
from lightning_synthqual.callbacks.lightning import BothPackages, ensure_recognised, is_smoke_test, save_top_k, set_mode
from lightning_synthqual.callbacks.listener import ReportListener
from lightning_synthqual.callbacks.monitor import QualityMonitor, monitors_of
from lightning_synthqual.callbacks.monitored import check_monitored, find_mode, known_mode
from lightning_synthqual.callbacks.significance import pack_score, surely_differs, unpack_score
from lightning_synthqual.checking import check_all
from lightning_synthqual.evaluation.report import Report


class QualityCheckpoint(BothPackages, ReportListener, ModelCheckpoint):
    """A `ModelCheckpoint` that saves when, and only when, a `QualityMonitor` has evaluated.

    A file holds the weights that were scored. Where it cannot, because another callback exchanges the weights between
    the evaluation and the saving, a warning says so. Files that a killed run has saved after the checkpoint from which
    it is resumed are removed once the run has come as far again.

    Args:
        monitor: The logged name, for example ``"quality/fid"``.
        mode: ``"min"`` or ``"max"``; ``None``: the metric's own direction, if it has one.
        save_top_k: How many of the best to keep; -1: all.
        significance: Number of standard errors of the paired difference beyond which a score has to be better than that
            of the file that it replaces, so that of evaluations that tie the earliest is kept; ``None``: any better
            score replaces a file. The state then holds 4 bytes for each row of images and each kept file.
        dirpath: Directory of the files, as in ``ModelCheckpoint``.
        filename: Pattern of their names, as in ``ModelCheckpoint``; ``step`` is the report's, that of the loggers.
        save_last: As in ``ModelCheckpoint``.
        save_weights_only: As in ``ModelCheckpoint``.
        auto_insert_metric_name: As in ``ModelCheckpoint``.
        verbose: As in ``ModelCheckpoint``.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument has an impossible value; at the start of a fit, if nothing logs the name, or
            ``mode`` is needed and missing.

    Example:
        >>> QualityCheckpoint(monitor="quality/recall", save_top_k=3).mode
        'max'
    """

    def __init__(
        self,
        monitor: str,
        mode: Literal["min", "max"] | None = None,
        save_top_k: int = 1,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        save_last: bool | Literal["link"] | None = None,
        save_weights_only: bool = False,
        auto_insert_metric_name: bool = True,
        verbose: bool = False,
        significance: float | None = None,
    ) -> None:
        checked = check_all(locals(), CHECKPOINT_RULES)
        self.significance: float | None = checked.pop("significance")
        self._direction = known_mode(monitor, mode)
        super().__init__(**{**checked, "mode": self._direction or "min"})
        self._kept: dict[str, Report] = {}  # what was scored of each file
        self._unscored: set[str] = set()  # older files of which that is not known
        self._fresh: tuple[QualityMonitor, Report] | None = None
        self._saving = False
        self._warned = False
        self._leftovers = Leftovers()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._direction is None:  # before a state is loaded
            self._direction = find_mode(trainer, str(self.monitor))
            set_mode(self, self._direction or "min")
        super().setup(trainer, pl_module, stage)
        ensure_recognised(trainer, self)
        if stage == "fit":  # before any callback reads data
            check_monitored(trainer, str(self.monitor), self._direction, "QualityCheckpoint")

    @property
    def state_key(self) -> str:
        key = super().state_key
        return key if self.significance is None else f"{key}, significance={self.significance!r}"

    def state_dict(self) -> dict[str, Any]:
        kept = {} if self.significance is None else {path: pack_score(each) for path, each in self._scored().items()}
        return {**super().state_dict(), **self._leftovers.state(), **({"kept": kept} if kept else {})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._leftovers.load(state_dict)
        self._kept = {path: unpack_score(each) for path, each in state_dict.get("kept", {}).items()}
        self._unscored = set(self.best_k_models) - self._kept.keys()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not is_smoke_test(trainer):
            self._leftovers.find(self, trainer)

    def on_quality_report(self, trainer: Trainer, prefix: str, report: Report) -> None:
        """Note an evaluation, to be saved in the next hook in which checkpoints may be saved."""
        if str(self.monitor).rpartition("/")[0] != prefix or self._scores(report).get(str(self.monitor)) is None:
            return
        monitor = next(monitor for monitor in monitors_of(trainer) if monitor.prefix == prefix)
        self._fresh = monitor, report

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._saving:
            self._compare(trainer, checkpoint["state_dict"])

    # Lightning calls checkpoint callbacks last, so in these hooks every other callback's state is up to date.

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        self._save_if_fresh(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_if_fresh(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_if_fresh(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_if_fresh(trainer, pl_module)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        wanted = bool(super().check_monitor_top_k(trainer, current))
        if wanted and self._fresh is not None and len(self.best_k_models) == self.save_top_k:
            replaced = self._kept.get(self.kth_best_model_path)
            wanted = surely_differs(self._name, self._fresh[1], replaced, self.significance)
            if wanted:  # the file that takes its place may have the same name
                self._kept.pop(self.kth_best_model_path, None)
        self._unscored = {path for path in self.best_k_models if path not in self._kept} - {self.kth_best_model_path}
        return wanted

    @property
    def _name(self) -> str:
        """Name of the score without the monitor's prefix."""
        return str(self.monitor).rpartition("/")[2]

    def _scored(self) -> dict[str, Report]:
        """What was scored of each file that is kept, as far as it is known; the newest is of the last evaluation."""
        new = set(self.best_k_models) - self._unscored if self._fresh is not None else set()
        fresh = {path: self._fresh[1].only(self._name) for path in new if self._fresh is not None}
        return {path: each for path, each in {**fresh, **self._kept}.items() if path in self.best_k_models}

    def _scores(self, report: Report) -> dict[str, Tensor]:
        prefix = str(self.monitor).rpartition("/")[0]
        return {f"{prefix}/{name}": torch.tensor(value) for name, value in report.scalars.items()}

    def _save_if_fresh(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._fresh is None or is_smoke_test(trainer):
            return
        monitor, report = self._fresh
        if trainer.is_global_zero:
            self._leftovers.remove_passed(trainer)
        trainer.strategy.barrier("QualityCheckpoint")  # no process looks for free file names before that
        # Averaging callbacks put their average only into checkpoints that are more than weights.
        exchanged = monitor.scored_weights(trainer, pl_module) if self.save_weights_only else nullcontext()
        self._saving = True
        try:
            with exchanged:
                if self.save_weights_only:  # then `on_save_checkpoint` is not called
                    self._compare(trainer, dict(pl_module.named_parameters()))
                step = torch.tensor(report.step)  # of the loggers: `global_step` counts each optimizer of a GAN
                save_top_k(self, trainer, {**self._scores(report), "step": step})
            if self.significance is not None:
                self._kept = self._scored()
        finally:
            self._saving, self._fresh = False, None

    def _compare(self, trainer: Trainer, state: dict[str, Tensor]) -> None:
        """Warn if the weights that are about to be saved are not those that were scored."""
        assert self._fresh is not None
        monitor, report = self._fresh
        scored, saved = report.protocol["sampling"].get("weights_checksum"), monitor.checksum_in(state)
        if scored is None or saved is None or scored == saved or self._warned:
            return
        self._warned = True
        rank_zero_warn(
            f"`QualityCheckpoint(monitor={self.monitor!r})` saves other weights at global step {trainer.global_step} "
            f"than those that were scored at step {report.step} (checksum {saved}, not {scored}), so the score does "
            "not belong to the file. Another callback exchanges the weights between evaluation and saving, as moving "
            "averages (EMA) do around validation. Give the weights that are saved to the monitor by "
            "`QualityMonitor(model=...)`, or evaluate outside validation by `every_n_epochs` or "
            "`every_n_train_batches`."
        )
