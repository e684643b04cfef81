"""Everything that depends on Lightning's internals; each function says what breaks if Lightning changes them.

The versions that were tried are named in ``tests/callbacks/test_lightning.py``.
"""

import sys
import weakref
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_synthqual.metrics.base import Direction

OTHER_PACKAGE = "pytorch_lightning"  # the same library under another name, with classes of its own
_SHARDING = ("FSDPStrategy", "DeepSpeedStrategy")  # their parameters are no tensors of the model's own shapes


class BothPackages:
    """Base class of callbacks that a `pytorch_lightning` trainer recognises, too, once that package is imported.

    Trainers recognise callbacks by `isinstance` with the classes of their own package. The class of that
    package with the same name as the callback's Lightning class is added to the base classes, as the last one, so that
    none of its methods is used. Nothing is imported, and instances pickle as usual.

    If Lightning renames `Callback` or `ModelCheckpoint`, `pytorch_lightning` trainers do not recognise ours any more.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Join the other package, if it is imported already: configuration files name classes, not instances."""
        super().__init_subclass__(**kwargs)
        join_other_package()

    def __new__(cls, *args: Any, **kwargs: Any) -> "BothPackages":
        """Make an instance; ``pytorch_lightning`` may have been imported since the class was."""
        join_other_package()
        return super().__new__(cls)


def join_other_package() -> None:
    """Add the `pytorch_lightning` class that corresponds to a callback's Lightning class to its base classes."""
    callbacks = sys.modules.get(f"{OTHER_PACKAGE}.callbacks")
    for kind in BothPackages.__subclasses__():
        own = ModelCheckpoint if issubclass(kind, ModelCheckpoint) else Callback
        other = getattr(callbacks, own.__name__, None)
        if other is not None and not issubclass(kind, other):
            kind.__bases__ = (*kind.__bases__, other)


def ensure_recognised(trainer: Trainer, checkpoint: ModelCheckpoint) -> None:
    """Make a trainer treat ours as its first checkpoint callback, if it was made before its package was imported.

    Then the trainer's constructor did not recognise it, and left it where it stood in the list.
    """
    recognised = trainer.checkpoint_callbacks
    if checkpoint in recognised:
        return
    join_other_package()
    others = [callback for callback in callbacks_of(trainer) if callback not in (checkpoint, *recognised)]
    reorder_callbacks(trainer, [*others, checkpoint, *recognised])


class SameTrainer:
    """Whether a callback is used by the trainer that used it last; a copy of the callback has not been used."""

    def __init__(self) -> None:
        self._last: weakref.ref[Any] | None = None

    def __call__(self, trainer: Trainer) -> bool:
        """Compare with the trainer of the last call."""
        last, self._last = self._last, weakref.ref(trainer)
        return last is not None and last() is trainer

    def __reduce__(self) -> tuple[type["SameTrainer"], tuple[()]]:
        return SameTrainer, ()


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """The trainer's callbacks; an attribute that Lightning sets without declaring it."""
    return trainer.callbacks  # type: ignore[attr-defined, no-any-return]


def reorder_callbacks(trainer: Trainer, callbacks: list[Callback]) -> None:
    """Give the trainer another list; a new one, because Lightning may be iterating over the old one."""
    trainer.callbacks = callbacks  # type: ignore[attr-defined]


def is_smoke_test(trainer: Trainer) -> bool:
    """Whether this is a ``fast_dev_run``, which evaluates a few images and writes nothing."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def batches_so_far(trainer: Trainer) -> int:
    """Training batches over all epochs and restarts; without ``batch_progress`` no schedule by batches works."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready


def logged_step(trainer: Trainer) -> int:
    """The step under which Lightning logs the losses of the last batch.

    If ``_batches_that_stepped`` changes, scores are logged at the step of other losses.
    """
    stepped = trainer.fit_loop.epoch_loop._batches_that_stepped
    progress = trainer.fit_loop.epoch_loop.batch_progress.total
    # Between a batch's end hooks and the next batch the counter is one ahead; inside validation it is not yet.
    ahead = trainer.state.fn == "fit" and trainer.training and progress.completed == progress.ready
    return max(stepped - 1, 0) if ahead else stepped


def steps_before_start(trainer: Trainer) -> int:
    """Logged steps that lie before a fit that starts now, 0 unless it is resumed."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def train_loader(trainer: Trainer, needed: bool) -> DataLoader[Any] | None:
    """The trainer's train data, or ``None`` if it has none (in validate and test).

    If ``_data_source`` changes, ``real=None`` finds no data at the start of a fit.

    Args:
        trainer: The trainer.
        needed: Whether data that are not one DataLoader are an error.

    Raises:
        ValueError: If they are needed and not one DataLoader.
    """
    loader = trainer.train_dataloader
    source = trainer.fit_loop._data_source
    if loader is None and source.is_defined():
        loader = source.dataloader()
    if loader is None or isinstance(loader, DataLoader):
        return loader
    if not needed:
        return None
    raise ValueError(
        f"`real` is None and the trainer's train data are not one DataLoader but {type(loader).__name__}. "
        "Pass the training images as `real=`: a Dataset, a DataLoader or an image folder."
    )


def stage_source(trainer: Trainer, stage: str) -> tuple[Any, bool] | None:
    """Where the data of a stage come from: loaders, or an object with the hook (then with ``True``); ``None``: nowhere.

    If ``_data_source`` changes, ``"val"`` and ``"test"`` find no data.

    Args:
        trainer: The trainer.
        stage: ``"validate"`` or ``"test"``.
    """
    loop: Any = trainer.test_loop if stage == "test" else trainer.validate_loop
    if stage == "validate" and trainer.state.fn == "fit":
        loop = trainer.fit_loop.epoch_loop.val_loop
    source = loop._data_source
    return (source.instance, source.is_module()) if source.is_defined() else None


def replica_of(trainer: Trainer) -> int | None:
    """Which copy of the model this process belongs to; with tensor parallelism several processes share one.

    If ``distributed_sampler_kwargs`` changes, tensor-parallel processes draw different noise and scores are wrong.
    """
    sampling = getattr(trainer.strategy, "distributed_sampler_kwargs", None) or {}
    return sampling.get("rank")


def shards_parameters(trainer: Trainer) -> bool:
    """Whether the strategy replaces parameters by flat parts, so that their bits say nothing about a checkpoint's."""
    return any(kind.__name__ in _SHARDING for kind in type(trainer.strategy).__mro__)


def precision_of(trainer: Trainer) -> str:
    """The precision in which the trainer runs the generator, for example ``"bf16-mixed"``."""
    return str(trainer.precision)


def stage_of(trainer: Trainer) -> dict[str, str]:
    """What the protocol says of an evaluation that no fit makes: ``{"stage": "validate"}`` or ``{"stage": "test"}``."""
    return {} if trainer.state.fn == "fit" else {"stage": str(getattr(trainer.state.fn, "value", trainer.state.fn))}


def report_directory(trainer: Trainer) -> Path:
    """The first logger's directory, else ``default_root_dir``; without any exchange between processes."""
    if not trainer.loggers:
        return Path(trainer.default_root_dir)
    logger = trainer.loggers[0]
    if logger.log_dir is not None:
        return Path(logger.log_dir)
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(logger.save_dir or trainer.default_root_dir) / str(logger.name) / version


def is_averaging(callback: Any) -> bool:
    """Whether it is Lightning's ``WeightAveraging``: by name, as it exists since 2.6 and once in each package."""
    return any(kind.__name__ == "WeightAveraging" for kind in type(callback).__mro__)


def average_model(averaging: Any) -> Any | None:
    """The ``AveragedModel`` of a ``WeightAveraging``, if a fit has made one.

    If ``_average_model`` changes, the module's own weights are scored where the averaged ones are saved.
    """
    return getattr(averaging, "_average_model", None)


def save_top_k(checkpoint: ModelCheckpoint, trainer: Trainer, scores: Mapping[str, Tensor]) -> None:
    """Let a ``ModelCheckpoint`` save now, if ``scores`` are good enough, and its last checkpoint with it.

    If ``_monitor_candidates``, ``_save_topk_checkpoint`` or ``_save_last_checkpoint`` change, nothing is saved.
    """
    candidates = {**checkpoint._monitor_candidates(trainer), **scores}
    checkpoint._save_topk_checkpoint(trainer, candidates)
    checkpoint._save_last_checkpoint(trainer, candidates)


def set_mode(checkpoint: ModelCheckpoint, mode: Direction) -> None:
    """Say later than its constructor which scores are better to a ``ModelCheckpoint`` that has not saved yet.

    If ``kth_value`` is replaced, the first checkpoints of metrics whose larger values are better are not saved.
    """
    checkpoint.mode = mode
    checkpoint.kth_value = torch.tensor(inf if mode == "min" else -inf)


def saved_states(checkpoint: Mapping[str, Any], kind: type, **arguments: Any) -> list[dict[str, Any]]:
    """States of callbacks of a class in a loaded checkpoint whose keys begin with these arguments.

    If the form of state keys changes, a monitor that is resumed with other metrics does not find its history.

    Args:
        checkpoint: The loaded checkpoint.
        kind: Class of the callback.
        **arguments: First arguments in the key, in their order.
    """
    start = f"{kind.__qualname__}{arguments}".removesuffix("}")
    return [
        state
        for key, state in checkpoint["callbacks"].items()
        if isinstance(key, str) and key.startswith((f"{start}, ", f"{start}}}"))
    ]
