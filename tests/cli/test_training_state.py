"""What is read of the training's state in a checkpoint; the rest is tested with real trainings in test_watch.py."""

import pytest
import torch

from lightning_synthqual.cli.training_state import scored_weights, step_of


def test_without_loops_the_step_is_the_global_one() -> None:
    assert step_of({"global_step": 12}) == 12
    assert step_of({"global_step": 12, "loops": {}}) == 12
    for content in ({}, {"state_dict": {}}, {"global_step": None}):
        with pytest.raises(ValueError, match="says nothing of a step"):
            step_of(content)


def test_averaged_weights_are_those_of_the_module_until_there_are_any_and_for_a_part() -> None:
    averaging = {"n_averaged": torch.tensor(3)}
    content = {"state_dict": "average", "current_model_state": "own", "averaging_state": averaging}
    assert scored_weights({"state_dict": "own"}, of_part=False) == ("own", None)
    assert scored_weights(content, of_part=False) == ("average", "WeightAveraging")
    assert scored_weights(content, of_part=True) == ("own", None)
    none_yet = {**content, "averaging_state": {"n_averaged": torch.tensor(0)}}
    assert scored_weights(none_yet, of_part=False) == ("own", None)
    named = {**content, "callbacks": {"EMA{'x': 1}": {"latest_update_step": 3}, "other": {}}}
    assert scored_weights(named, of_part=False) == ("average", "EMA")
