"""Evaluation without training: sets of images, or a generator, in; a report out."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.evaluation.report import Report
from lightning_synthqual.evaluation.settings import Settings
from lightning_synthqual.images.sampling import OWN_WEIGHTS, Sampler, SamplerFunction
from lightning_synthqual.reporting.progress import Progress


def evaluate(
    real: Any,
    fake: Any,
    *,
    held_out: Any = None,
    reference: Literal["real", "held_out"] = "real",
    metrics: Sequence[str] = ("fid", "kid", "precision", "recall"),
    extractors: Mapping[str, Any] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    batch_size: int = 64,
    image_range: tuple[float, float] = (-1.0, 1.0),
    real_range: tuple[float, float] | None = None,
    image_size: int | tuple[int, int] | None = None,
    device: torch.device | str | None = None,
    weights_dir: str | None = None,
    cache_dir: str | None = None,
    cache_key: str | None = None,
    seed: int = 0,
    num_samples: int = 10_000,
    sampler: SamplerFunction | None = None,
    labels: Literal["data", "uniform"] | None = None,
    skip_unreadable: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Score finished images, or a generator, by the same code, and so with the same numbers, as while training.

    Args:
        real: Dataset, DataLoader, image folder, or ``.npy`` or ``.npz`` file.
        fake: The generated images, likewise; or a module, which is sampled as `QualityMonitor` samples it.
        held_out: Real images that were not trained on, likewise; distances then have floors and gaps.
        reference: Which of the two real sets the metrics compare with.
        metrics: Names from the catalogue.
        extractors: Configuration of extractors, and networks of the user's, by name.
        options: By metric family, for example ``{"precision": {"k": 5}}``.
        batch_size: Images per forward pass.
        image_range: What floats of ``fake`` span.
        real_range: What floats of the real sets span; ``None``: ``image_range``.
        image_size: Resizes the real sets.
        device: Where to compute, and where a module goes; ``None``: where the module is, or for images a GPU if there
            is one.
        weights_dir: A folder of weights files by their published names.
        cache_dir: Where reference features are kept.
        cache_key: Names the reference, instead of a fingerprint of its content.
        seed: Of everything that is drawn.
        num_samples: How many images of a module are generated.
        sampler: ``(module, n, generator) -> images`` for a module; default: as `QualityMonitor` does it.
        labels: For a module, ``"data"`` or ``"uniform"``: it is called as ``module(z, labels)``.
        skip_unreadable: Whether pictures of a folder that cannot be read are left out and counted in the protocol,
            instead of being an error.
        progress: Where to show how far it is.

    Returns:
        The report.

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
    settings = Settings(
        metrics=metrics,
        reference=reference,
        batch_size=batch_size,
        image_range=image_range,
        real_range=real_range,
        image_size=image_size,
        extractors=extractors,
        options=options,
        weights_dir=weights_dir,
        cache_dir=cache_dir,
        cache_key=cache_key,
        seed=seed,
        skip_unreadable=skip_unreadable,
    )
    module = fake if isinstance(fake, nn.Module) else None
    where = torch.device(device if device is not None else _default_device(module))
    evaluator = Evaluator(settings, where, progress=progress)
    with evaluator.ranks.together("opening the images"):
        compared, counterpart = settings.open_both(real, held_out)
        source = None if module is None else _sampler(module.to(where), settings, real, sampler, labels)
        generated = None if module is not None else settings.open_generated(fake)
    evaluator.prepare(compared, counterpart)
    if source is not None:
        evaluator.dry_run(source, num_samples)
        return evaluator.evaluate(source, num_samples)
    assert generated is not None
    return evaluator.evaluate_images(generated)


def _default_device(module: nn.Module | None) -> torch.device | str:
    if module is not None:
        return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    return "cuda" if torch.cuda.is_available() else "cpu"


def _sampler(
    module: nn.Module,
    settings: Settings,
    real: Any,
    function: SamplerFunction | None,
    labels: Literal["data", "uniform"] | None,
) -> Sampler:
    return Sampler(
        module,
        owner=module,
        weights=OWN_WEIGHTS,
        function=function,
        labels=labels,
        label_source=settings.open(real, "real") if labels == "data" else None,
        image_range=settings.image_range,
        seed=settings.seed,
        device=next((parameter.device for parameter in module.parameters()), torch.device("cpu")),
    )
