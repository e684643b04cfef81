"""What generated images are made of, in an evaluation: opened and checked, their texts embedded once."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.plan import Plan
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.extractors.registry import load_configured_text
from lightning_synthqual.images.inputs import DEFAULT_SAMPLES, Inputs
from lightning_synthqual.images.source import Images
from lightning_synthqual.metrics.base import Metric

_FORMS = "items that are tuples (input, target), dicts with `target`, or images that are their own targets"


def open_inputs(
    plan: Plan, source: Any, *, num_samples: int = DEFAULT_SAMPLES, repeat: bool = False, given: str | None = None
) -> Inputs | None:
    """Open what a generator is conditioned on, if anything is given, and check that metrics find what they need.

    Args:
        plan: The plan.
        source: What was given as ``inputs``.
        num_samples: Number of images to generate; 10,000 also stands for as many as there are items if these are fewer.
        repeat: Whether items may be used several times.
        given: Which of the trainer's data they are, if they are.

    Raises:
        FileNotFoundError: If a folder is missing.
        TypeError: If ``source`` is no set of items.
        ValueError: If there are too few items, or a metric does not find targets or texts.
    """
    if Images.of(source).source is None:
        inputs = None
    else:
        inputs = Inputs(
            source,
            num_samples=num_samples,
            most=plan.most_samples,
            repeat=repeat,
            given=given,
            seed=plan.seed,
            declared=plan.real_range,
            fallback=plan.image_range,
            image_size=plan.size,
            num_workers=plan.num_workers,
        )
    for metric in plan.metrics:
        _check_needs(metric, inputs)
    if inputs is not None and inputs.targets is not None and any(each.reads_targets for each in plan.metrics):
        inputs.targets.inspect()
        inputs.keep_targets()
    return inputs


def check_reference(plan: Plan, real: Any, inputs: Inputs | None, example: str) -> None:
    """Raise if nothing says which images of (input, target) items are the real ones.

    Args:
        plan: The plan.
        real: What was given as ``real``.
        inputs: What the generator is conditioned on.
        example: The data in the line to pass: ``"data"``, or ``"None"`` for the trainer's.

    Raises:
        ValueError: It says what to pass.
    """
    images = Images.of(real)
    asked = plan.reads_real and plan.reference == "real" and images.source is None and images.key is None
    if asked and inputs is not None and inputs.distinct_targets:
        names = [name for metric in plan.metrics if metric.reads_real for name in metric.names]
        raise ValueError(
            f"{names[0]} compares generated images with real ones, but `real` is missing, and without a word the first "
            "image of an item, its input, would be taken. Pass "
            f"`real=Images({example}, key={inputs.target_key!r})` to compare with targets."
        )


def number_of(plan: Plan, num_samples: int, inputs: Inputs | None) -> int:
    """Number of images to generate."""
    if inputs is not None:
        return inputs.num_samples
    return num_samples if plan.most_samples is None else min(num_samples, plan.most_samples)


def check_same_everywhere(inputs: Inputs | None, ranks: Ranks) -> None:
    """Raise if processes are given different inputs.

    Raises:
        ValueError: It says what to do.
    """
    if inputs is not None and len(set(ranks.gather_objects(inputs.fingerprint))) > 1:
        raise ValueError(
            "Processes have different data as `inputs`, but image i is made of item i on whichever process. Give each "
            "process the whole data set, in the same order."
        )


def check_number(count: int, inputs: Inputs | None) -> None:
    """Raise unless there are as many finished images as inputs.

    Raises:
        ValueError: It names both numbers.
    """
    if inputs is not None and count != len(inputs):
        raise ValueError(
            f"`fake` has {count} images and `inputs` {len(inputs)} items, but image i belongs to item i. Give equally "
            "many, in the same order."
        )


def as_protocol(inputs: Inputs | None) -> dict[str, Any]:
    """Plain values for the protocol."""
    return {} if inputs is None else {"inputs": inputs.protocol}


class InputTexts:
    """The texts of inputs, and their embeddings, which are made once in a run: they do not change."""

    def __init__(self, workspace: Workspace, inputs: Inputs) -> None:
        self._workspace = workspace
        self._inputs = inputs

    def pick(self, indices: Sequence[int]) -> list[str]:
        """Any texts."""
        texts = self._inputs.texts()
        return [texts[index] for index in indices]

    def features(self, extractor: str) -> Tensor:
        """Embeddings (M, D) of all texts, on the CPU; every process calls this."""
        return self._embedded(extractor)[0]

    def truncated(self, extractor: str) -> int:
        """How many texts are longer than the extractor's text network reads."""
        return self._embedded(extractor)[1]

    def _embedded(self, extractor: str) -> tuple[Tensor, int]:
        known = self._workspace.text_features
        if extractor not in known:
            known[extractor] = self._embed(extractor)
        return known[extractor]

    def _embed(self, extractor: str) -> tuple[Tensor, int]:
        """Embed each text once, on the process whose turn it is; the network is gone afterwards."""
        plan, ranks = self._workspace.plan, self._workspace.ranks
        with ranks.node_leader_first():
            spec = plan.extractors.get(extractor)
            encoder = load_configured_text(extractor, spec, plan.weights_dir, self._workspace.device)
        texts = self._inputs.texts()
        unique = list(dict.fromkeys(texts))
        own = list(range(ranks.rank, len(unique), ranks.world_size))
        rows = encoder([unique[place] for place in own]) if own else None
        rows = ranks.gather_rows(rows, own, len(unique), torch.device("cpu"))
        places = {text: place for place, text in enumerate(unique)}
        long = {text for text in unique if encoder.is_truncated(text)}
        return rows[[places[text] for text in texts]], sum(text in long for text in texts)


def _check_needs(metric: Metric, inputs: Inputs | None) -> None:
    """Raise if a metric does not find the targets or texts that it compares with."""
    names = ", ".join(metric.names)
    if metric.reads_targets and (inputs is None or inputs.targets is None):
        missing = "`inputs` is missing" if inputs is None else "the items of `inputs` hold no image"
        raise ValueError(
            f"{names} compares each generated image with its target, but {missing}. Pass `inputs=` {_FORMS}; for "
            "similarities to the nearest real images, ask for 'pairs'."
        )
    if metric.reads_texts and (inputs is None or not inputs.has_texts):
        missing = "`inputs` is missing" if inputs is None else "the items of `inputs` hold none"
        raise ValueError(
            f"{names} compares each generated image with its text, but {missing}. Pass `inputs=` a list of prompts, "
            "or items that are tuples with a string or dicts with `text`, `caption` or `prompt`."
        )
