"""The weights that Lightning's WeightAveraging averages, whichever of the two callbacks stands first."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_synthqual.images.sampling import OWN_WEIGHTS


def stand_behind_averaging(trainer: Trainer, callback: Callback) -> None:
    """Move a callback behind WeightAveraging, which at each hook has then done its part: averaged, or swapped back."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    averaging = _averaging(callbacks)
    if averaging is not None and callbacks.index(averaging) > callbacks.index(callback):
        others = [other for other in callbacks if other is not callback]
        others.insert(others.index(averaging) + 1, callback)
        trainer.callbacks = others  # type: ignore[attr-defined]  # a new list: Lightning may be iterating over the old


@contextmanager
def averaged_weights(trainer: Trainer, pl_module: LightningModule) -> Iterator[str]:
    """Put averaged weights into the module, if there are any, and its own back afterwards.

    Yields:
        Whose weights the module has, for the protocol.
    """
    averaging = _averaging(trainer.callbacks)  # type: ignore[attr-defined]
    average = getattr(averaging, "_average_model", None)
    if average is None or int(average.n_averaged) == 0:
        yield OWN_WEIGHTS
        return
    _swap(average.module, pl_module)
    try:
        yield f"averaged by {type(averaging).__name__}"
    finally:
        _swap(average.module, pl_module)


def _averaging(callbacks: list[Any]) -> Any | None:
    # By name: the class exists since Lightning 2.6, and once in each of Lightning's two packages.
    named = (cb for cb in callbacks if any(kind.__name__ == "WeightAveraging" for kind in type(cb).__mro__))
    return next(named, None)


@torch.no_grad()
def _swap(first: torch.nn.Module, second: torch.nn.Module) -> None:
    """Exchange parameters and buffers, one at a time, so that no second copy of the network is needed."""
    for one, other in zip(
        itertools.chain(first.parameters(), first.buffers()),
        itertools.chain(second.parameters(), second.buffers()),
        strict=True,
    ):
        kept = one.data.clone()
        one.data.copy_(other.data)
        other.data.copy_(kept)
