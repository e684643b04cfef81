"""Types and limits of the callbacks' arguments."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from lightning_synthqual.checking import Rule
from lightning_synthqual.evaluation.plan import INPUTS_RULES, PLANNED_RULES, SHARED_RULES

_MONITOR = Rule(str, expected="a logged name such as 'quality/fid'")
_MODE = Rule(choices=("min", "max"), optional=True)
_COUNT = Rule(int, low=1, optional=True)
_THRESHOLD = Rule(float, optional=True)
_SIGNIFICANCE = Rule(float, low=0, optional=True)

SCHEDULE_RULES = {"every_n_epochs": _COUNT, "every_n_train_batches": _COUNT}
MONITOR_RULES = {
    **SHARED_RULES,
    **PLANNED_RULES,
    **SCHEDULE_RULES,
    **INPUTS_RULES,
    "num_samples": Rule(int, low=2),
    "evaluate_at_end": Rule(bool),
    "model": Rule(
        (Callable, str),
        refused=(nn.Module,),
        expected="a function `model(pl_module) -> module to sample from`, its import path, or the path of an attribute",
        hint="Of a module `pl_module.ema`: `model='ema'`.",
        optional=True,
    ),
    "sampler": Rule(
        Callable,
        expected="a callable `sampler(module, n, generator) -> images` (with `inputs` `sampler(module, batch, "
        "generator)`), or its import path",
        optional=True,
    ),
    "labels": Rule(choices=("data", "uniform"), optional=True),
    "label_format": Rule(choices=("index", "one_hot")),
    "prefix": Rule(
        str,
        pattern=r"\w[\w. -]*(/\w[\w. -]*)*",
        expected="a name of letters, digits, '_', '-', '.', ' ' and, between names, '/'",
    ),
    "on_error": Rule(choices=("raise", "warn")),
}

STOPPING_RULES = {
    "monitor": _MONITOR,
    "mode": _MODE,
    "patience": Rule(int, low=1),
    "min_delta": Rule(float, low=0),
    "stopping_threshold": _THRESHOLD,
    "divergence_threshold": _THRESHOLD,
    "significance": _SIGNIFICANCE,
    "stop_on_failure": Rule(bool),
}

CHECKPOINT_RULES = {
    "monitor": _MONITOR,
    "mode": _MODE,
    "save_top_k": Rule(int, low=-1),
    "significance": _SIGNIFICANCE,
    "dirpath": Rule(Path, optional=True),
    "filename": Rule(str, optional=True),
    "save_last": Rule(choices=(True, False, "link"), optional=True),
    "save_weights_only": Rule(bool),
    "auto_insert_metric_name": Rule(bool),
    "verbose": Rule(bool),
}
