"""``synthqual metrics`` and ``synthqual extractors``: what there is, what it needs, whether its weights are here."""

import argparse
import importlib
import inspect
import json
from typing import Any

from lightning_synthqual.cli.arguments import add_weights_dir, verbose
from lightning_synthqual.cli.output import print_table
from lightning_synthqual.extractors.registry import CATALOGUE as EXTRACTORS
from lightning_synthqual.extractors.registry import PAIRS, required_weights
from lightning_synthqual.metrics.catalogue import CATALOGUE as METRICS
from lightning_synthqual.metrics.catalogue import GROUPS, STUDIES, Entry

_BETTER = {"min": "lower", "max": "higher", None: ""}


def add(commands: Any) -> None:
    """Add the commands to those of ``synthqual``."""
    metrics = commands.add_parser("metrics", help="the metrics that there are, and what they need", parents=[verbose()])
    metrics.add_argument("--json", action="store_true", help="print JSON")
    metrics.set_defaults(run=run_metrics)
    extractors = commands.add_parser(
        "extractors", help="the networks that there are, and whether their weights are here", parents=[verbose()]
    )
    extractors.add_argument("--json", action="store_true", help="print JSON")
    add_weights_dir(extractors)
    extractors.set_defaults(run=run_extractors)


def run_metrics(parsed: argparse.Namespace) -> None:
    """Print the metrics by name, and the names that stand for several."""
    if parsed.json:
        _show([_metric_row(name, entry) for name, entry in METRICS.items()], as_json=True)
    else:
        families = {member: group for group, parts in GROUPS.items() for member in parts if group not in METRICS}
        listed = {families.get(name, name): entry for name, entry in METRICS.items()}
        _show([_metric_row(name, entry) for name, entry in listed.items()], as_json=False)
        print("\nNAME_EXTRACTOR takes the features of an extractor, as in fd_wavelet. Names that stand for several:")
        for name, members in {**GROUPS, **STUDIES}.items():
            print(f"  {name}: {', '.join(members)}")


def run_extractors(parsed: argparse.Namespace) -> None:
    """Print extractors and networks that compare two images, each with the state of its weights."""
    modules = {**PAIRS, **EXTRACTORS}
    _show([_extractor_row(name, module, parsed.weights_dir) for name, module in modules.items()], parsed.json)


def _metric_row(name: str, entry: Entry) -> dict[str, str]:
    metric = entry.metric(name, extractor=entry.extractor or ("any" if entry.suffixed else None), **entry.arguments)
    needs = [
        *(["held-out images"] if metric.both_sets else []),
        *(["the generator"] if metric.needs_generator else []),
        *map(str, metric.networks().values()),
    ]
    return {
        "name": f"{name}_EXTRACTOR" if not entry.bare else f"{name}[_EXTRACTOR]" if entry.suffixed else name,
        "better": _BETTER[entry.direction] if name in METRICS else "",
        "features": metric.extractor or "",
        "needs": ", ".join(needs),
        "what": _first_clause(entry.metric),
    }


def _extractor_row(name: str, module: str, weights_dir: str | None) -> dict[str, str]:
    needed = required_weights(name, weights_dir)
    missing = [each.filename for each in needed if each.path is None]
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    state = f"missing: {missing[0]}{more}" if missing else "here" if needed else "none needed"
    kinds = [kind for kind, known in (("features", EXTRACTORS), ("pairs of images", PAIRS)) if name in known]
    what = _first_clause(importlib.import_module(f"lightning_synthqual.extractors.{module}"))
    return {"name": name, "gives": ", ".join(kinds), "weights": state, "what": what}


def _first_clause(documented: Any) -> str:
    """The first line of a docstring as far as its first colon or semicolon."""
    line = (inspect.getdoc(documented) or "").partition("\n")[0]
    return line.partition(";")[0].partition(": ")[0].rstrip(".").replace("``", "")


def _show(rows: list[dict[str, str]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        print_table([tuple(key.upper() for key in rows[0]), *(tuple(row.values()) for row in rows)])
