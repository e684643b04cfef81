"""What a checkpoint says of the training that saved it: at which step, and which weights were scored there."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Weights(NamedTuple):
    """The weights that a `QualityMonitor` scores where the checkpoint is saved.

    Args:
        state: Their state dict.
        averaged_by: Class of the callback that has averaged them; ``None`` if they are the module's own.
    """

    state: Any
    averaged_by: str | None


def step_of(content: Mapping[str, Any]) -> int:
    """The loggers' step, under which a `QualityMonitor` reports an evaluation where the checkpoint is saved.

    It counts batches from 0, whatever the number of optimizers, and is read from the state of Lightning's loops; where
    there is none, it is the checkpoint's ``global_step``.

    Args:
        content: Content of the checkpoint.

    Raises:
        ValueError: If the checkpoint says nothing of a step.
    """
    fit = (content.get("loops") or {}).get("fit_loop") or {}
    stepped = (fit.get("epoch_loop.state_dict") or {}).get("_batches_that_stepped")
    if stepped is None:
        if not isinstance(content.get("global_step"), int):
            raise ValueError("It says nothing of a step: it is no checkpoint of a Lightning training.")
        return int(content["global_step"])
    # The counter goes up after a batch's hooks and its validation; at the end of an epoch it is one ahead.
    batches, epochs = (_progress(fit, name) for name in ("epoch_loop.batch_progress", "epoch_progress"))
    ahead = batches.get("completed") == batches.get("ready") and epochs.get("processed") == epochs.get("ready")
    return max(int(stepped) - 1, 0) if ahead else int(stepped)


def _progress(fit: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """How far a loop has come."""
    return (fit.get(name) or {}).get("current") or {}


def scored_weights(content: Mapping[str, Any], *, of_part: bool) -> Weights:
    """The weights that were scored: Lightning's ``WeightAveraging`` saves two kinds.

    Args:
        content: Content of the checkpoint.
        of_part: Whether ``model=`` chose what is sampled, which is a part of the module with its own weights.
    """
    state, own = content.get("state_dict"), content.get("current_model_state")
    if own is None:
        return Weights(state, None)
    averaged = int((content.get("averaging_state") or {}).get("n_averaged", 0)) > 0
    if of_part or not averaged:
        return Weights(own, None)
    return Weights(state, _averaging(content.get("callbacks") or {}))


def _averaging(states: Mapping[str, Any]) -> str:
    """The class of the callback that averages, by its state."""
    names = [name for name, state in states.items() if isinstance(state, Mapping) and "latest_update_step" in state]
    return str(names[0]).partition("{")[0].rpartition(".")[2] if names else "WeightAveraging"
