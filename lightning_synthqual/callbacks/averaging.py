"""The weights that Lightning's WeightAveraging averages, whichever of the two callbacks stands first in the list."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_synthqual.callbacks.lightning import average_model, callbacks_of, is_averaging, reorder_callbacks
from lightning_synthqual.images.averages import averages_message
from lightning_synthqual.images.sampling import OWN_WEIGHTS


def move_behind_averaging(trainer: Trainer, callbacks: Sequence[Callback]) -> None:
    """Move callbacks behind WeightAveraging, which in each hook has then averaged, or swapped weights back.

    Args:
        trainer: The trainer.
        callbacks: Those that have to stand behind; they keep their order among each other.
    """
    present = callbacks_of(trainer)
    averaging = _averaging(trainer)
    if averaging is None:
        return
    others = [other for other in present if other not in callbacks]
    behind = others.index(averaging) + 1
    if any(present.index(callback) < present.index(averaging) for callback in callbacks):
        moved = [other for other in present if other in callbacks]
        reorder_callbacks(trainer, [*others[:behind], *moved, *others[behind:]])


@contextmanager
def averaged_weights(trainer: Trainer, pl_module: LightningModule) -> Iterator[str]:
    """Put averaged weights into the module, if there are any, and its own back afterwards.

    Yields:
        Description of the weights that the module has, for the protocol.
    """
    averaging = _averaging(trainer)
    average = average_model(averaging)
    if average is None or int(average.n_averaged) == 0:
        yield OWN_WEIGHTS
        return
    _swap(average.module, pl_module)
    try:
        yield f"averaged by {type(averaging).__name__}"
    finally:
        _swap(average.module, pl_module)


def save_own_weights_before_the_first_average(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Let a checkpoint hold the module's weights as long as WeightAveraging has not averaged any.

    Until then its average is a copy of the weights at the start of the fit, which nobody scores, and which the first
    average replaces. So a training that is resumed from the checkpoint goes on as if this had not been done.

    Args:
        trainer: The trainer.
        checkpoint: The checkpoint, in which WeightAveraging has put the average in the place of the weights.
    """
    average = average_model(_averaging(trainer))
    if average is not None and int(average.n_averaged) == 0 and "current_model_state" in checkpoint:
        checkpoint["state_dict"] = checkpoint["current_model_state"]


def tell_of_averages(pl_module: LightningModule, model: Any, prefix: str) -> None:
    """Log which averaged weights the module keeps itself and nobody asks for.

    Args:
        pl_module: The module.
        model: The ``model=`` that was given, if one was.
        prefix: Prefix of the monitor.
    """
    message = averages_message(pl_module, model)
    if message is not None:
        rank_zero_info(f"{prefix}: {message}")


def _averaging(trainer: Trainer) -> Callback | None:
    return next((callback for callback in callbacks_of(trainer) if is_averaging(callback)), None)


@torch.no_grad()
def _swap(first: torch.nn.Module, second: torch.nn.Module) -> None:
    """Exchange parameters and buffers, one at a time, so that no second copy of the network is needed."""
    for one, other in zip(
        itertools.chain(first.parameters(), first.buffers()),
        itertools.chain(second.parameters(), second.buffers()),
        strict=True,
    ):
        copied = one.data.clone()
        one.data.copy_(other.data)
        other.data.copy_(copied)
