"""Reports side by side: numbers are in one row only if their protocols are the same."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_synthqual.metrics.base import SUFFIXES
from lightning_synthqual.metrics.figures import Table

if TYPE_CHECKING:
    from lightning_synthqual.evaluation.report import Report

# What belongs to a metric's protocol, and not to the images that are compared.
_GENERAL = ("num_samples", "real_range", "image_size", "quantisation")
_OF_A_SET = ("role", "num_images", "size", "fingerprint")


def compare(reports: Mapping[str, "Report"]) -> tuple[Table, list[str]]:
    """Values with their errors, a row a metric and a column a report.

    Args:
        reports: Reports by the names of their columns.

    Returns:
        The table, and for each metric that was measured by several protocols a line on what differs.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    protocols: dict[str, dict[str, dict[str, Any]]] = {}
    for title, report in reports.items():
        for name, value in report.scalars.items():
            if any(name.endswith(ending) for ending in SUFFIXES):
                continue
            protocol = protocol_of(name, report.protocol)
            key = json.dumps(protocol, sort_keys=True)
            protocols.setdefault(name, {})[key] = protocol
            error = report.scalars.get(f"{name}_std")
            text = f"{value:.4g}" + ("" if error is None else f" ± {error:.2g}")
            rows.setdefault((name, key), {})[title] = text
    notes = []
    for name, found in protocols.items():
        if len(found) > 1:
            notes.append(f"{name}: rows of different protocols ({_differences(list(found.values()))})")
    names = list(dict.fromkeys(name for name, _ in rows))
    ordered = sorted(rows, key=lambda key: names.index(key[0]))
    cells = [(name, *(rows[name, key].get(title, "") for title in reports)) for name, key in ordered]
    return Table(("metric", *reports), cells), notes


def protocol_of(name: str, protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What has to agree for two values of a metric to be comparable."""
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


def _differences(protocols: Sequence[Mapping[str, Any]], path: str = "") -> str:
    """Where protocols differ, as ``path: one / other``."""
    found = []
    for key in dict.fromkeys(key for protocol in protocols for key in protocol):
        values = [protocol.get(key) for protocol in protocols]
        if all(value == values[0] for value in values):
            continue
        if all(isinstance(value, Mapping) for value in values):
            found.append(_differences([value for value in values if isinstance(value, Mapping)], f"{path}{key} "))
        else:
            words = dict.fromkeys(_short(value) for value in values)
            found.append(f"{path}{key}: {' / '.join(words)}")
    return "; ".join(found)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"
