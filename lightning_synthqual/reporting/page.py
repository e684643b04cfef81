"""A report as one self-contained HTML page."""

import base64
import io
import json
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_synthqual.metrics.base import SUFFIXES
from lightning_synthqual.metrics.figures import Cell, Table
from lightning_synthqual.reporting.html import document, table
from lightning_synthqual.reporting.numbers import SIGNS, with_error

if TYPE_CHECKING:
    from lightning_synthqual.evaluation.report import Report

_MOST_ROWS = 50  # of a table; all of them are in its CSV file
_CAPTIONS = {
    "samples": "The first images.",
    "neighbors": "Generated images that are nearest to training data compared with held-out data, with their nearest "
    "neighbours and the distances to them.",
    "distances": "Distances to nearest neighbours. A copying generator is closer to training images than held-out "
    "images are.",
    "feature_space": "Where the sets lie in feature space.",
    "pairs_train": "The most similar, the average and the least similar pairs by each metric.",
    "pairs_held_out": "The same for the nearest held-out images.",
    "pairs_random": "The same for random training images.",
    "pairs_entropy": "Each metric against the entropy of the pair: a correlation shows that the metric measures how "
    "plain the images are.",
}
_BESIDE = {"_std": "± error", "_floor": "real images", "_gap": "gap", "_change": "change"}  # of a value


def page(report: "Report", title: str) -> str:
    """The report as HTML: numbers with their errors, figures, tables, and the protocol that made them.

    Args:
        report: The report.
        title: Title of the page.
    """
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="quiet">{escape(_summary(report))}</p>',
        "<h2>Numbers</h2>",
        _scalars(report, _outside_summaries(report)),
        *_pictures(report),
        *_tables(report),
        "<h2>Protocol</h2>",
        "<details><summary>What made the numbers</summary>",
        f"<pre>{escape(json.dumps(report.protocol, indent=2, ensure_ascii=False))}</pre></details>",
        f'<p class="quiet">{escape(_seconds(report.timings))}</p>',
    ]
    return document(title, "\n".join(parts))


def _summary(report: "Report") -> str:
    protocol = report.protocol
    reference = protocol.get("reference") or {}
    words = [f"{protocol.get('num_samples', '?')} generated against {reference.get('num_images', '?')} real images"]
    if protocol.get("other_real"):
        words.append(f"{protocol['other_real']['num_images']} more real ones")
    if report.step is not None:
        words.append(f"step {report.step}")
    return ", ".join([*words, f"lightning-synthqual {protocol.get('version', '')}".rstrip()]) + "."


def _scalars(report: "Report", scalars: dict[str, float]) -> str:
    stems = [name for name in scalars if not _companion_of(name, scalars)]
    present = [ending for ending in _BESIDE if any(stem + ending in scalars for stem in stems)]
    since = report.protocol.get("change", {}).get("since")
    heads = ["metric", "value", *(_BESIDE[ending] for ending in present)]
    rows = []
    for stem in stems:
        beside = (_with_error(scalars, stem + ending) for ending in present)
        name = escape(stem).replace("_", "_<wbr>")
        rows.append((f"{name} {SIGNS[report.direction(stem)]}", _number(scalars[stem]), *beside))
    note = "↓ lower is better, ↑ higher is better. ± is the standard error."
    if "_floor" in present:
        note += " “Real images”: the value of held-out images."
    if "_gap" in present:
        note += " Gap: against held-out minus against training images; above 0 is nearer to training."
    if "_change" in present:
        note += f" Change: since {'the evaluation before' if since is None else f'step {since}'}."
    return table(heads, rows) + f'<p class="quiet">{note}</p>'


def _with_error(scalars: dict[str, float], name: str) -> str:
    """A number that stands beside a value, with its own error if it has one."""
    if name not in scalars:
        return ""
    if f"{name}_std" not in scalars:
        return _number(scalars[name])
    return with_error(scalars[name], scalars[f"{name}_std"], signed=name.endswith("_change"))


def _outside_summaries(report: "Report") -> dict[str, float]:
    """The scalars but those of a study that has a table of its own."""
    stems = tuple(f"{name.removesuffix('_summary')}_" for name in report.tables if name.endswith("_summary"))
    return {name: value for name, value in report.scalars.items() if not name.startswith(stems)}


def _companion_of(name: str, scalars: dict[str, float]) -> bool:
    return any(name.endswith(ending) and name.removesuffix(ending) in scalars for ending in SUFFIXES)


def _pictures(report: "Report") -> Iterator[str]:
    for name, pixels in report.pictures.items():
        title = escape(_title(name))
        yield f"<h2>{title}</h2>"
        kind = "" if name == "samples" else ' class="plot"'
        yield f'<figure><img{kind} alt="{title}" src="{_data_uri(pixels)}">'
        yield f"<figcaption>{escape(_caption(name))}</figcaption></figure>"


def _caption(name: str) -> str:
    """What a figure shows; its name may hold that of an extractor."""
    if name.endswith("_worst"):
        return f"The images that harm {name.removesuffix('_worst')} most, and by which share of it each does."
    for known, caption in _CAPTIONS.items():
        stem, _, ending = known.partition("_") if known.startswith("pairs") else (known, "", "")
        if (name == stem or name.startswith(f"{stem}_")) and name.endswith(ending):
            return caption
    return ""


def _tables(report: "Report") -> Iterator[str]:
    for name, whole in report.tables.items():
        shown = Table(whole.columns, whole.rows[:_MOST_ROWS])
        yield f"<h2>Table: {escape(_title(name))}</h2>"
        yield table(list(shown.columns), [tuple(map(_cell, row)) for row in shown.rows])
        if len(whole.rows) > _MOST_ROWS:
            words = f"The first {_MOST_ROWS} of {len(whole.rows)} rows; all are in {escape(name)}.csv."
            yield f'<p class="quiet">{words}</p>'


def _cell(value: Cell) -> str:
    if isinstance(value, np.ndarray):
        return f'<img alt="" src="{_data_uri(value)}">'
    return _number(value) if isinstance(value, float) else escape("" if value is None else str(value))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _title(name: str) -> str:
    return name.replace("_", " ")


def _seconds(timings: dict[str, Any]) -> str:
    return "Seconds: " + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in timings.items()) + "."
