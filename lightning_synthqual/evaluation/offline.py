"""Evaluation without training: sets of images, or a generator, in; a report out."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from lightning_synthqual.checking import check, check_all
from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.evaluation.plan import INPUTS_RULES, Plan, make_plan
from lightning_synthqual.evaluation.reference import Reference, open_real, open_set
from lightning_synthqual.evaluation.report import Report, describe_settings, with_real_samples
from lightning_synthqual.evaluation.sets import open_inputs
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.images.averages import averages_message, named_averages
from lightning_synthqual.images.checksum import parameters_of, weights_checksum
from lightning_synthqual.images.labels import LabelFormat
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.images.sampling import OWN_WEIGHTS, Sampler, SamplerFunction
from lightning_synthqual.importing import find_model, model_argument, name_of_model
from lightning_synthqual.metrics.catalogue import without_generator
from lightning_synthqual.precision import PRECISIONS, in_precision
from lightning_synthqual.reporting.progress import Progress


def evaluate(
    real: Any,
    fake: Any,
    *,
    held_out: Any = None,
    reference: Literal["real", "held_out"] = "real",
    metrics: Sequence[Any] = ("fid", "kid", "precision", "recall"),
    extractors: Mapping[str, Any] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    batch_size: int = 64,
    image_range: tuple[float, float] = (-1.0, 1.0),
    real_range: tuple[float, float] | None = None,
    image_size: int | tuple[int, int] | None = None,
    device: torch.device | str | None = None,
    weights_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    cache_key: str | None = None,
    cache_check: Literal["sample", "full"] = "sample",
    num_workers: int | None = None,
    seed: int = 0,
    num_samples: int = 10_000,
    num_real: int | None = None,
    sampler: SamplerFunction | None = None,
    model: Callable[[Any], Any] | str | None = None,
    labels: Literal["data", "uniform"] | None = None,
    inputs: Any = None,
    repeat_inputs: bool = False,
    label_format: LabelFormat = "index",
    per_class: bool = False,
    precision: str = "32-true",
    skip_unreadable: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Score finished images, or a generator, by the same code, and so with the same numbers, as while training.

    Args:
        real: Dataset, DataLoader, image folder, or ``.npy`` or ``.npz`` file.
        fake: Generated images, of the same kinds; or a module, which is sampled as `QualityMonitor` samples it.
        held_out: Real images that were not trained on, of the same kinds; distances then have floors and gaps.
        reference: Real set that the metrics compare with.
        metrics: Names from the catalogue, `Metric` objects, or their import paths.
        extractors: Configuration of extractors, and the user's own networks, by name.
        options: Options by metric family, for example ``{"precision": {"k": 5}}``.
        batch_size: Images per forward pass.
        image_range: Range of floats in ``fake``.
        real_range: Range of floats in the real sets; ``None``: ``image_range``.
        image_size: Side or (height, width) to resize the real sets to.
        device: Device for extraction, and for a module; ``None``: the module's, or for images a GPU if there is one.
        weights_dir: Folder of weights files by their published names.
        cache_dir: Folder for reference features.
        cache_key: Name of the reference, instead of a fingerprint of its content.
        cache_check: ``"full"``: hash every pixel of data that have no fingerprint of their own, not only of 256 images.
        num_workers: Processes that read images; ``None``: the DataLoader's own, else on Linux as many as pay.
        seed: Random seed of the evaluation.
        num_samples: Number of images that a module generates; by default at most one for each of ``inputs``.
        num_real: Number of real images, chosen at random by the seed; ``None``: all of them.
        sampler: ``(module, n, generator) -> images`` for a module, with ``inputs`` ``(module, batch, generator)``;
            default: as `QualityMonitor` does it.
        model: Which part of a module is sampled: an attribute path, such as ``"ema.ema_model"``, else a function
            ``module -> module`` or its import path; default: the module itself.
        labels: Labels for a module, ``"data"`` or ``"uniform"``: it is called as ``module(z, labels)``.
        inputs: What a module is conditioned on, as `QualityMonitor` takes it; or what finished images were made of, one
            item for each, in their order.
        repeat_inputs: Whether items of ``inputs`` are used again where there are fewer than samples.
        label_format: ``"index"``, or ``"one_hot"``: the module gets float rows (n, num_classes).
        per_class: Whether metrics of features are reported by class, too: ``<metric>_per_class`` is their mean.
            Finished images need labels: of the data sets' items, or class folders of the same names on both sides.
        precision: Precision of sampling a module: the ``precision`` of the trainer whose numbers are to be reproduced.
        skip_unreadable: Whether unreadable images of a folder are skipped and counted in the protocol.
        progress: Progress display.

    Returns:
        The report. A metric that failed is missing there and named in ``protocol["failed"]``.

    Raises:
        FileNotFoundError: If a folder or a weights file is missing.
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument or an image is not what it should be.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> images = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8)
        >>> report = evaluate(TensorDataset(images), TensorDataset(images), metrics=["precision_wavelet"])
        >>> report.scalars
        {'precision_wavelet': 1.0, 'precision_wavelet_std': 0.0}
    """
    arguments = dict(locals())
    check("label_format", label_format, choices=("index", "one_hot"))
    check("num_samples", num_samples, int, low=2)
    check_all({"inputs": inputs, "repeat_inputs": repeat_inputs}, INPUTS_RULES)
    check("precision", precision, choices=tuple(PRECISIONS))
    if isinstance(fake, nn.Module):
        del arguments["fake"]
        scorer = GeneratorScorer(module=fake, **arguments)
        return with_real_samples(scorer.score(fake), scorer.reference)
    arguments["metrics"] = _of_images(metrics)
    plan = make_plan(**{name: arguments[name] for name in signature(make_plan).parameters if name in arguments})
    workspace = Workspace(plan, Ranks(), _device(device, None), progress)
    with workspace.ranks.synchronized("opening the images"):
        given = open_inputs(plan, inputs, real, num_samples=num_samples, repeat=repeat_inputs)
        compared, other = open_real(plan, real, held_out)
        images = _open_generated(plan, fake, compared)
    evaluator = Evaluator(workspace, compared, other)
    return with_real_samples(evaluator.evaluate_images(images, given), evaluator.reference)


class GeneratorScorer:
    """Scores a generator as often as its weights change; networks are loaded and real images are read once.

    Args:
        real: Real images, as for `evaluate`.
        module: The generator, which is tried.
        held_out: Real images that were not trained on.
        device: Device of everything; ``None``: that of the module.
        num_samples: Number of images to generate.
        sampler: Sampler, as for `evaluate`.
        model: Which part of the module is sampled, as for `evaluate`.
        labels: Labels, as for `evaluate`.
        label_format: Format of the labels, as for `evaluate`.
        inputs: What the module is conditioned on, as for `evaluate`.
        repeat_inputs: Whether items of ``inputs`` are used again where there are fewer than samples.
        precision: Precision of sampling.
        progress: Progress display.
        **planned: Further arguments of `evaluate`, those of the plan.

    Raises:
        FileNotFoundError: If a folder or a weights file is missing.
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument or an image is not what it should be.
    """

    def __init__(
        self,
        real: Any,
        module: nn.Module,
        *,
        held_out: Any = None,
        device: torch.device | str | None = None,
        num_samples: int = 10_000,
        sampler: SamplerFunction | None = None,
        model: Callable[[Any], Any] | str | None = None,
        labels: Literal["data", "uniform"] | None = None,
        label_format: LabelFormat = "index",
        inputs: Any = None,
        repeat_inputs: bool = False,
        precision: str = "32-true",
        progress: Progress | None = None,
        **planned: Any,
    ) -> None:
        self._plan = make_plan(**planned)
        self._plan.check_labels(labels, label_format)
        self._label_format = label_format
        self._function, self._model, self._labels, self._precision = sampler, model_argument(model), labels, precision
        self._device = _device(device, module)
        workspace = Workspace(self._plan, Ranks(), self._device, progress)
        with workspace.ranks.synchronized("opening the images"):
            self._inputs = open_inputs(self._plan, inputs, real, num_samples=num_samples, repeat=repeat_inputs)
            compared, other = open_real(self._plan, real, held_out)
            self._label_source = open_set(self._plan, real, "real") if labels == "data" else None
            source = self._sampler(module, self._weights, {})
        workspace.warn(averages_message(module, model))
        self._num_samples = self._plan.number_of(num_samples, self._inputs)
        self._evaluator = Evaluator(workspace, compared, other, sampler=source, num_samples=self._num_samples)

    @property
    def reference(self) -> Reference:
        """The real images."""
        return self._evaluator.reference

    @property
    def settings(self) -> dict[str, Any]:
        """The part of the protocol of all its reports that is known before any of them."""
        counted = {"num_samples": self._num_samples} if self._plan.extractor_names else {}
        return {**counted, **describe_settings(self._evaluator.workspace, self._evaluator.reference)}

    @property
    def metric_names(self) -> list[str]:
        """The names of the metrics in the protocol."""
        return [name for metric in self._evaluator.metrics for name in metric.names]

    def score(
        self,
        module: nn.Module,
        *,
        weights: str | None = None,
        precision: str | None = None,
        details: Mapping[str, Any] | None = None,
        step: int | None = None,
        epoch: int | None = None,
        before: Report | None = None,
    ) -> Report:
        """Score the module as it is now.

        Args:
            module: The module, or another one like it.
            weights: Which weights it has, for the protocol.
            precision: Precision of sampling, if it is another one for this module.
            details: Further entries for the protocol of sampling.
            step: Step of the loggers.
            epoch: Epoch.
            before: The evaluation before this one, since which changes are reported.
        """
        sampler = self._sampler(module, weights or self._weights, details or {}, precision)
        return self._evaluator.evaluate(sampler, self._num_samples, step=step, epoch=epoch, before=before)

    @property
    def _weights(self) -> str:
        return OWN_WEIGHTS if self._model is None else f"of model={name_of_model(self._model)}"

    def _sampler(
        self, module: nn.Module, weights: str, details: Mapping[str, Any], precision: str | None = None
    ) -> Sampler:
        precision = precision or self._precision
        module = module.to(self._device)
        getter = find_model(self._model, module)
        part = module if getter is None else getter(module)
        if getter is not None and not isinstance(part, nn.Module):
            raise TypeError(
                f"`model={name_of_model(self._model)}` must return the module to sample, but returned "
                f"{type(part).__name__}."
            )
        own = {"precision": precision, "weights_checksum": weights_checksum(parameters_of(part))}
        return Sampler(
            part,
            owner=module,
            getter=getter,
            weights=weights,
            function=self._function,
            labels=self._labels,
            label_source=self._label_source,
            label_format=self._label_format,
            inputs=self._inputs,
            image_range=self._plan.image_range,
            seed=self._plan.seed,
            device=next((parameter.device for parameter in module.parameters()), torch.device("cpu")),
            context=partial(in_precision, part, precision),
            details={**own, **named_averages(module, self._model), **details},
        )


def _device(device: Any, module: nn.Module | None) -> torch.device:
    return _default_device(module) if device is None else _checked_device(device)


def _of_images(metrics: Any) -> Any:
    """The metrics of finished images; what is no sequence is left to the check of arguments."""
    if isinstance(metrics, str) or not isinstance(metrics, Sequence):
        return metrics
    return [part for each in metrics for part in (without_generator(each) if isinstance(each, str) else [each])]


def _checked_device(device: Any) -> torch.device:
    """The device, if there is one.

    Raises:
        TypeError: If it is of the wrong type.
        ValueError: If there is none.
    """
    expected = "a device of this machine, such as 'cpu'"
    check("device", device, (str, int, torch.device), expected=expected)
    try:
        return torch.empty(0, device=device).device
    except Exception as error:  # torch raises errors of many kinds
        raise ValueError(f"`device` must be {expected}, but got {device!r} ({error}).") from error


def _default_device(module: nn.Module | None) -> torch.device:
    if module is not None:
        return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _open_generated(plan: Plan, source: Any, compared: ImageSet | None) -> ImageSet:
    """Open generated images that exist already.

    Raises:
        FileNotFoundError: If a folder is missing.
        TypeError: If ``source`` is no set of images.
        ValueError: If it is empty, or a metric needs the generator itself.
    """
    for metric in plan.metrics:
        if metric.needs_generator:
            raise ValueError(
                f"{metric.name} samples a generator's latent space, but `fake` are finished images. Pass the "
                "generator, a module, or leave the metric out."
            )
    images = ImageSet(
        source,
        "fake",
        fallback=plan.image_range,
        seed=plan.seed,
        num_workers=plan.num_workers,
        skip_unreadable=plan.skip_unreadable,
    )
    images.inspect()
    if plan.reads_labels and compared is not None:
        images.check_classes(compared)
    return images
