"""Evaluation without training: two sets of images in, a report out."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.evaluation.report import Report
from lightning_synthqual.evaluation.settings import Settings
from lightning_synthqual.images.reference import ImageSet


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
) -> Report:
    """Score finished images by the same code, and so with the same numbers, as while training.

    Args:
        real: Dataset, DataLoader, or image folder.
        fake: The generated images, likewise.
        held_out: Real images that were not trained on, likewise; distances then have floors and gaps.
        reference: Which of the two real sets the metrics compare with.
        metrics: Names from the catalogue.
        extractors: Configuration of extractors, and networks of the user's, by name.
        options: By metric family, for example ``{"precision": {"k": 5}}``.
        batch_size: Images per forward pass.
        image_range: What floats of ``fake`` span.
        real_range: What floats of the real sets span; ``None``: ``image_range``.
        image_size: Resizes the real sets.
        device: Where to compute; ``None``: a GPU if there is one.
        weights_dir: A folder of weights files by their published names.
        cache_dir: Where reference features are kept.
        cache_key: Names the reference, instead of a fingerprint of its content.
        seed: Of everything that is drawn.

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
    )
    where = device if device is not None else ("cuda" if torch.cuda.is_available() else "cpu")
    evaluator = Evaluator(settings, where)
    with evaluator.ranks.together("opening the images"):
        compared, counterpart = settings.open_both(real, held_out)
        generated = ImageSet(fake, "fake", image_range=settings.image_range, seed=seed)
    evaluator.prepare(compared, counterpart)
    return evaluator.evaluate_images(generated)
