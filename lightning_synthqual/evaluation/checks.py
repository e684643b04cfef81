"""What must hold before numbers are worth anything: enough images, comparable sizes, features of one kind."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from lightning_synthqual.extractors.base import Extractor, Features
from lightning_synthqual.metrics.families import Family
from lightning_synthqual.metrics.names import Metric


def names(metrics: Iterable[Metric]) -> str:
    """The names of metrics in a row."""
    return ", ".join(metric.name for metric in metrics)


def check_enough(count: int, what: str, family: Family, options: Mapping[str, Any], metrics: Iterable[Metric]) -> None:
    """Raise if there are fewer images than a family can do with.

    Args:
        count: Number of images.
        what: Where they are from, for the message.
        family: What is to be computed.
        options: Its options.
        metrics: The names under which it was asked for.

    Raises:
        ValueError: It names the metrics.
    """
    least = family.min_rows(options)
    if count < least:
        raise ValueError(f"{names(metrics)} needs at least {least} images, but {what} has {count}. Give more.")


def few_images(generated: int, real: int, columns: int, family: Family, metrics: Iterable[Metric]) -> str | None:
    """A warning, where a metric is biased because there are fewer images than features."""
    if not family.wants_more_rows_than_columns or min(generated, real) >= columns:
        return None
    return (
        f"{names(metrics)}: {generated} generated or {real} real images are fewer than the {columns} features, so the "
        "value is biased upwards. Compare it only at equal numbers."
    )


def unlike_sizes(real: list[int] | None, generated: list[int]) -> str | None:
    """A warning, where real and generated images are of different (height, width)."""
    if real is None or real == generated:
        return None
    return (
        f"Real images are {real[0]}x{real[1]} and generated {generated[0]}x{generated[1]} (height x width); the "
        f"difference in resolution is part of every score. Pass `image_size={tuple(generated)}` to resize real ones."
    )


def check_comparable(name: str, extractor: Extractor, reference: Features, outputs: Mapping[str, Tensor]) -> None:
    """Raise unless generated features may be compared with those of the reference.

    Args:
        name: Of the extractor.
        extractor: What gave the generated features.
        reference: The real ones.
        outputs: The generated ones (N, D) by output.

    Raises:
        ValueError: If they come from another network, or have another number of columns.
    """
    if reference.identity != extractor.identity:
        raise ValueError(f"Features of {reference.identity} cannot be compared with those of {extractor.identity}.")
    for output, rows in outputs.items():
        columns = reference.outputs[output].shape[1]
        if rows.shape[1] != columns:
            raise ValueError(
                f"Extractor {name!r} gives {rows.shape[1]} features for generated and {columns} for real images. "
                "Resize the real ones by `image_size=`, or pool inside the extractor."
            )
