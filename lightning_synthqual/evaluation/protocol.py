"""What is needed to find a report's numbers again."""

from typing import Any

from lightning_synthqual.__about__ import __version__
from lightning_synthqual.evaluation.context import Context
from lightning_synthqual.evaluation.extraction import Extracted
from lightning_synthqual.evaluation.networks import Networks
from lightning_synthqual.evaluation.reference import Reference
from lightning_synthqual.metrics.pictures import ms_ssim_scales


def describe(context: Context, networks: Networks, reference: Reference, generated: Extracted) -> dict[str, Any]:
    """The protocol of an evaluation as plain values.

    Args:
        context: The settings.
        networks: Whose identities belong to it.
        reference: The real sets.
        generated: The generated images.
    """
    settings, other = context.settings, reference.counterpart
    return {
        "version": __version__,
        "num_samples": generated.count,
        "seed": settings.seed,
        "image_range": list(settings.image_range),
        "real_range": list(settings.real_range or settings.image_range),
        "image_size": list(settings.size) if settings.size else None,
        "quantisation": "uint8, round half to even, clamped",
        "reference": reference.protocol or None,
        "counterpart": other.protocol if other else None,
        "extractors": {name: extractor.identity.describe() for name, extractor in networks.extractors.items()},
        "pairs": {name: network.identity.describe() for name, network in networks.pairs.items()},
        "metrics": _metrics(context, generated.size),
    }


def _metrics(context: Context, size: list[int] | None) -> dict[str, dict[str, Any]]:
    """What each metric is made of, but for path lengths, which describe themselves."""
    settings = context.settings
    metrics = {
        metric.name: {"family": family.name, "extractor": extractor, **settings.options_of(family)}
        for family, extractor, group in settings.groups
        for metric in group
    }
    for metric in settings.studies:
        family, options = metric.entry.family, settings.options_of(metric.entry.family)
        metrics[metric.name] = {"family": family.name, "extractor": metric.extractor, **options}
        if "ms_ssim" in options.get("metrics", ()) and size:
            metrics[metric.name]["ms_ssim_scales"] = ms_ssim_scales(*size)
    return metrics
