"""Evaluation without training: sets of images, or a generator, in; a report out."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from lightning_synthqual.checking import check
from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.evaluation.plan import Plan, make_plan
from lightning_synthqual.evaluation.reference import open_real, open_set
from lightning_synthqual.evaluation.report import Report
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.images.checksum import parameters_of, weights_checksum
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.images.sampling import OWN_WEIGHTS, Sampler, SamplerFunction
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
    labels: Literal["data", "uniform"] | None = None,
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
        num_samples: Number of images that a module generates.
        num_real: Number of real images, chosen at random by the seed; ``None``: all of them.
        sampler: ``(module, n, generator) -> images`` for a module; default: as `QualityMonitor` does it.
        labels: Labels for a module, ``"data"`` or ``"uniform"``: it is called as ``module(z, labels)``.
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
    plan = make_plan(
        metrics,
        reference=reference,
        num_real=num_real,
        batch_size=batch_size,
        image_range=image_range,
        real_range=real_range,
        image_size=image_size,
        extractors=extractors,
        options=options,
        weights_dir=weights_dir,
        cache_dir=cache_dir,
        cache_key=cache_key,
        cache_check=cache_check,
        num_workers=num_workers,
        seed=seed,
        skip_unreadable=skip_unreadable,
    )
    check("num_samples", num_samples, int, low=2)
    check("precision", precision, choices=tuple(PRECISIONS))
    module = fake if isinstance(fake, nn.Module) else None
    where = _default_device(module) if device is None else _checked_device(device)
    workspace = Workspace(plan, Ranks(), where, progress)
    with workspace.ranks.synchronized("opening the images"):
        compared, other = open_real(plan, real, held_out)
        if module is None:
            images = _open_generated(plan, fake)
        else:
            source = _sampler(module.to(where), plan, real, sampler, labels, precision)
    if module is None:
        return Evaluator(workspace, compared, other).evaluate_images(images)
    evaluator = Evaluator(workspace, compared, other, sampler=source, num_samples=num_samples)
    return evaluator.evaluate(source, num_samples)


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


def _open_generated(plan: Plan, source: Any) -> ImageSet:
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
    return images


def _sampler(
    module: nn.Module,
    plan: Plan,
    real: Any,
    function: SamplerFunction | None,
    labels: Literal["data", "uniform"] | None,
    precision: str,
) -> Sampler:
    return Sampler(
        module,
        owner=module,
        weights=OWN_WEIGHTS,
        function=function,
        labels=labels,
        label_source=open_set(plan, real, "real") if labels == "data" else None,
        image_range=plan.image_range,
        seed=plan.seed,
        device=next((parameter.device for parameter in module.parameters()), torch.device("cpu")),
        context=partial(in_precision, module, precision),
        details={"precision": precision, "weights_checksum": weights_checksum(parameters_of(module))},
    )
