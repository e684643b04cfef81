"""Differences of reports: which values may be compared, whose rows belong together, and how sure a difference is."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_synthqual.metrics.difference import Difference, difference

if TYPE_CHECKING:
    from lightning_synthqual.evaluation.report import Report

_log = logging.getLogger(__name__)
# What makes a number, whatever it is measured of.
_MEASURE = ("options", "extractor", "pair networks")
# What belongs to a metric's protocol, and not to the images that are compared.
# The range of real images is no part of it: their fingerprint is that of the pixels that come of it.
_GENERAL = ("num_samples", "image_size", "quantisation")
_OF_A_SET = ("role", "num_images", "size", "fingerprint")
_LATENTS = ("kind", "latent_shape", "labels", "sampler", "inputs")


class Differences(NamedTuple):
    """One report minus another.

    Attributes:
        found: The differences by metric name.
        unpaired: By the reason, the names of those that are not paired.
        incomparable: By what differs, the names of those that were not measured in the same way.
    """

    found: dict[str, Difference]
    unpaired: dict[str, list[str]]
    incomparable: dict[str, list[str]]


def compare(a: "Report", b: "Report", *, paired: bool = False) -> dict[str, Difference]:
    """Subtract report ``b`` from report ``a``, value by value, each with the standard error of the difference.

    Where both are of the same latents, drawn from the same seed, and of the same real images, errors are those of
    paired differences, which are a good deal smaller: what both have in common cancels. Else they are those of
    independent scores, and a line in the log says why. Errors are over draws of latents and of real images. A training
    repeated from another seed differs by more than that (about three times, arXiv:2606.20536), and the best of many
    evaluations looks better than it is.

    Args:
        a: A report.
        b: Another one.
        paired: Whether image i of both is known to be of the same latent though the reports do not say so, as for
            folders of images that two generators made of the same seeds.

    Returns:
        By metric name what both reports have: ``Difference(value, std, paired)``, ``std`` being ``None`` where a value
        has no standard error.

    Raises:
        ValueError: If no value of both is measured in the same way; it names what differs.

    Example:
        >>> from lightning_synthqual import Report, compare
        >>> compare(Report({"fid": 9.0, "fid_std": 0.3}, {}), Report({"fid": 9.5, "fid_std": 0.4}, {}))["fid"]
        Difference(value=-0.5, std=0.5, paired=False)
    """
    result = differences(a, b, paired=paired)
    missing = "; ".join(f"{', '.join(names)} ({what})" for what, names in result.incomparable.items())
    if not result.found:
        missing = missing or f"one has {', '.join(_named(a)) or 'none'}, the other {', '.join(_named(b)) or 'none'}"
        raise ValueError(f"The reports have no value in common that was measured in the same way: {missing}.")
    for reason, names in result.unpaired.items():
        _log.warning("Not paired, so that errors are larger: %s (%s).", reason, ", ".join(names))
    if missing:
        _log.warning("Not compared: %s.", missing)
    return result.found


def difference_of(name: str, a: "Report", b: "Report") -> Difference | None:
    """Report ``a`` minus report ``b`` in one value, as ``compare``; ``None`` if it is not measured in the same way."""
    return differences(a.only(name), b.only(name)).found.get(name)


def with_change(report: "Report", before: "Report | None") -> "Report":
    """The report with the change of each value since an earlier evaluation, and in the protocol how it was compared.

    Args:
        report: The report.
        before: The evaluation before it, if there is one.
    """
    if before is None:
        return report
    found, reasons, _ = differences(report, before)
    known = {name: each for name, each in found.items() if each.std is not None and (each.std > 0 or each.value != 0)}
    change: dict[str, Any] = {"since": before.step, "paired": [name for name, each in known.items() if each.paired]}
    unpaired = {reason: [name for name in names if name in known] for reason, names in reasons.items()}
    if any(unpaired.values()):
        change["unpaired"] = {reason: names for reason, names in unpaired.items() if names}
    scalars: dict[str, float] = {}
    for name, value in report.scalars.items():
        scalars[name] = value
        each = known.get(name)
        if each is not None and each.std is not None:
            scalars |= {f"{name}_change": each.value, f"{name}_change_std": each.std}
    return replace(report, scalars=scalars, protocol={**report.protocol, "change": change})


def differences(a: "Report", b: "Report", *, paired: bool = False) -> Differences:
    """Subtract report ``b`` from report ``a`` as `compare` does, and tell what is not paired or not comparable.

    Args:
        a: A report.
        b: Another one.
        paired: Whether image i of both is known to be of the same latent.
    """
    found: dict[str, Difference] = {}
    reasons: dict[str, list[str]] = {}
    incomparable: dict[str, list[str]] = {}
    for name in _common(a, b):
        one, other = (measure_of(name, each.protocol) for each in (a, b))
        if one != other:
            incomparable.setdefault(differing([one, other]), []).append(name)
            continue
        reason = _unpaired_because(name, a, b, paired)
        found[name] = difference(a.score(name), b.score(name), paired=reason is None)
        if not found[name].paired and found[name].std is not None:
            reasons.setdefault(reason or "an influence of each row is not known", []).append(name)
    return Differences(found, reasons, incomparable)


def _named(report: "Report") -> list[str]:
    """The values that are compared; of a report of one value that one, whatever it is."""
    return report.names or [name for name in report.scalars if not name.endswith("_std")]


def _common(a: "Report", b: "Report") -> Iterator[str]:
    return (name for name in _named(a) if name in b.scalars)


def _unpaired_because(name: str, a: "Report", b: "Report", known: bool) -> str | None:
    """Why rows of two values do not belong together; ``None`` if they do."""
    one, other = (report.influences.get(name) for report in (a, b))
    if one is None or other is None:
        return "the influences of the rows are missing" if a.influences or b.influences else "there are no influences"
    if len(one.fake) != len(other.fake):
        return f"the numbers of generated images differ: {len(one.fake)} and {len(other.fake)}"
    if not known:
        reason = _other_latents(a.protocol, b.protocol)
        if reason is not None:
            return reason
    if not (len(one.real) or len(other.real) or _labels_are_real(a.protocol)):
        return None
    for role in ("reference", "other_real"):
        sets = [protocol_of(name, report.protocol).get(role) for report in (a, b)]
        if sets[0] != sets[1]:
            return f"the real images differ ({differing([{role: each} for each in sets])})"
    return None if len(one.real) == len(other.real) else "the numbers of real images differ"


def _other_latents(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    """Why generated images are not of the same latents."""
    one, other = a.get("sampling"), b.get("sampling")
    if not one or not other:
        return "finished images may be of any latents"
    if not (one.get("repeatable", True) and other.get("repeatable", True)):
        return "the sampler gives other images each time it is seeded alike"
    facts = [_latents(sampling, protocol) for sampling, protocol in ((one, a), (other, b))]
    return None if facts[0] == facts[1] else f"the latents differ ({differing(facts)})"


def _latents(sampling: Mapping[str, Any], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What generated images depend on besides the generator; samplers are seeded by block."""
    keys = _LATENTS if sampling.get("kind") == "latent" else (*_LATENTS, "batch_size")
    found = {**{key: sampling.get(key) for key in keys}, "seed": protocol.get("seed")}
    sampler = found["sampler"]
    if isinstance(sampler, Mapping) and "code" in sampler:  # its module has another name where it is run as a script
        found["sampler"] = sampler["code"]
    return found


def _labels_are_real(protocol: Mapping[str, Any]) -> bool:
    return (protocol.get("sampling") or {}).get("labels") == "data"


def measure_of(name: str, protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What has to agree for two values of a metric to be comparable: how they were measured."""
    found = protocol_of(name, protocol)
    return {key: found.get(key) for key in _MEASURE}


def conditions_of(name: str, protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What moves a value besides the generator: numbers and sizes of images, and which real ones."""
    return {key: value for key, value in protocol_of(name, protocol).items() if key not in _MEASURE}


def protocol_of(name: str, protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What a value of a metric depends on besides the generator."""
    metrics = protocol.get("metrics", {})
    # The study of pairs reports several scalars under names that begin with its own.
    stems = [stem for stem in metrics if name == stem or name.startswith(f"{stem}_")]
    options = metrics.get(max(stems, key=len)) if stems else None
    found: dict[str, Any] = {key: protocol.get(key) for key in _GENERAL}
    found["options"] = options
    for role in ("reference", "other_real"):
        images = protocol.get(role)
        found[role] = {key: images.get(key) for key in _OF_A_SET if key in images} if images else None
    extractor = options.get("extractor") if options else None
    found["extractor"] = protocol.get("extractors", {}).get(extractor)
    found["size of generated images"] = (protocol.get("generated") or {}).get("size")
    networks = (options or {}).get("networks")
    if networks:
        found["pair networks"] = {name: protocol.get("pairs", {}).get(name) for name in networks}
    if not (options or {}).get("both_sets"):
        del found["other_real"]
    return found


def differing(protocols: Sequence[Mapping[str, Any]], path: str = "") -> str:
    """Where protocols differ, as ``path: one / other``."""
    found = []
    for key in dict.fromkeys(key for protocol in protocols for key in protocol):
        values = [protocol.get(key) for protocol in protocols]
        if all(value == values[0] for value in values):
            continue
        if all(isinstance(value, Mapping) for value in values):
            found.append(differing([value for value in values if isinstance(value, Mapping)], f"{path}{key} "))
        else:
            words = dict.fromkeys(_short(value) for value in values)
            found.append(f"{path}{key}: {' / '.join(words)}")
    return "; ".join(found)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"
