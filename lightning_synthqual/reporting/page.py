"""A report as one self-contained HTML page."""

import json
import re
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lightning_synthqual.metrics.base import SUFFIXES
from lightning_synthqual.metrics.figures import Cell, Table
from lightning_synthqual.reporting.bars import bar
from lightning_synthqual.reporting.findings import findings
from lightning_synthqual.reporting.html import document, sortable
from lightning_synthqual.reporting.numbers import SIGNS, with_error
from lightning_synthqual.reporting.scripts import SCRIPT, ZOOM
from lightning_synthqual.reporting.thumbnails import figure_image, thumbnail

if TYPE_CHECKING:
    from lightning_synthqual.evaluation.report import Report

_MOST_ROWS = 50  # of a table; all of them are in its CSV file
_CAPTIONS = {
    "samples": "The first generated images.",
    "real_samples": "Real images, chosen at even intervals.",
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
_BESIDE = {"_floor": "real images", "_gap": "gap", "_change": "change"}  # of a value
_GRIDS = ("samples", "real_samples")  # side by side


class _Section(NamedTuple):
    """A part of the page with a place in the contents."""

    title: str
    body: str

    @property
    def anchor(self) -> str:
        return re.sub(r"[^A-Za-z0-9]+", "-", self.title).strip("-").lower()


def page(report: "Report", title: str, *, command: str = "", date: str = "") -> str:
    """The report as HTML: findings, scores beside those of real images, images, tables, and the protocol.

    Args:
        report: The report.
        title: Title of the page.
        command: Command line that made it; empty for none.
        date: When it was made; empty for no date.
    """
    sections = [*_sections(report)]
    links = "".join(f'<li><a href="#{each.anchor}">{escape(each.title)}</a></li>' for each in sections)
    made = " ".join(filter(None, [_summary(report), date and f"Made on {date}."]))
    parts = [
        f"<h1>{escape(title)}</h1>",
        _findings(report),
        f'<p class="quiet">{escape(made)}</p>',
        *([f"<pre>{escape(command)}</pre>"] if command else []),
        f'<nav aria-label="Contents"><ul>{links}</ul></nav>',
        *(f'<h2 id="{each.anchor}">{escape(each.title)}</h2>\n{each.body}' for each in sections),
        ZOOM,
    ]
    return document(title, "\n".join(parts), SCRIPT)


def _sections(report: "Report") -> Iterator[_Section]:
    yield _Section("Scores", _scores(report, _outside_summaries(report)))
    shown = {name: table for name, table in report.tables.items() if _has_images(table)}
    grids = [_figure(report, name) for name in _GRIDS if name in report.pictures]
    if grids:
        yield _Section("Images", f'<div class="beside">{"".join(grids)}</div>')
    for name, table in shown.items():
        yield _Section(_heading(name, table), _table(name, table))
    for name in report.pictures:
        if name not in _GRIDS:
            yield _Section(f"Figure: {_words(name)}", _figure(report, name))
    for name, table in report.tables.items():
        if name not in shown:
            folded = f"<details><summary>{len(table.rows)} rows</summary>{_table(name, table)}</details>"
            yield _Section(f"Table: {_heading(name, table)}", _table(name, table) if _is_short(table) else folded)
    protocol = escape(json.dumps(report.protocol, indent=2, ensure_ascii=False))
    text = f"<details><summary>What made the numbers</summary><pre>{protocol}</pre></details>"
    yield _Section("Protocol", f'{text}<p class="quiet">{escape(_seconds(report.timings))}</p>')


def _findings(report: "Report") -> str:
    found = findings(report)
    lines = "".join(f'<li class="{each.kind.replace(" ", "-")}">{escape(each.text)}</li>' for each in found)
    return f'<ul class="findings">{lines}</ul>' if found else ""


def _summary(report: "Report") -> str:
    protocol = report.protocol
    reference = protocol.get("reference") or {}
    words = [f"{protocol.get('num_samples', '?')} generated against {reference.get('num_images', '?')} real images"]
    if protocol.get("other_real"):
        words.append(f"{protocol['other_real']['num_images']} more real ones")
    if report.step is not None:
        words.append(f"step {report.step}")
    return ", ".join([*words, f"lightning-synthqual {protocol.get('version', '')}".rstrip()]) + "."


def _scores(report: "Report", scalars: dict[str, float]) -> str:
    stems = [name for name in scalars if not _companion_of(name, scalars)]
    present = [ending for ending in _BESIDE if any(stem + ending in scalars for stem in stems)]
    since = report.protocol.get("change", {}).get("since")
    drawn = "_floor" in present
    heads = ["metric", "value", *(_BESIDE[ending] for ending in present), *(["against real images"] if drawn else [])]
    rows = [_score_row(report, scalars, stem, present) for stem in stems]
    note = "↓ lower is better, ↑ higher is better. ± is the standard error."
    if drawn:
        note += " “Real images”: the value of held-out images. Drawn: the score with its 95 % error bar, blue, and that"
        note += " of real images, dashed."
    if "_gap" in present:
        note += " Gap: against held-out minus against training images; above 0 is nearer to training."
    if "_change" in present:
        note += f" Change: since {'the evaluation before' if since is None else f'step {since}'}."
    return sortable(heads, rows, "rows-scores") + f'<p class="quiet">{note}</p>'


def _score_row(report: "Report", scalars: dict[str, float], stem: str, present: Sequence[str]) -> tuple[str, ...]:
    name = escape(stem).replace("_", "_<wbr>")
    values = [_with_error(scalars, stem + ending) for ending in ("", *present)]
    floor = scalars.get(f"{stem}_floor")
    drawing = [bar(scalars[stem], scalars.get(f"{stem}_std"), floor)] if "_floor" in present else []
    return f"{name} {SIGNS[report.direction(stem)]}", *values, *drawing


def _with_error(scalars: dict[str, float], name: str) -> str:
    """A number with its error if it has one, sorted by the number."""
    if name not in scalars:
        return ""
    text = with_error(scalars[name], scalars.get(f"{name}_std"), signed=name.endswith("_change"))
    return f'<data value="{scalars[name]!r}">{text}</data>'


def _outside_summaries(report: "Report") -> dict[str, float]:
    """The scalars but those of a study that has a table of its own."""
    stems = tuple(f"{name.removesuffix('_summary')}_" for name in report.tables if name.endswith("_summary"))
    return {name: value for name, value in report.scalars.items() if not name.startswith(stems)}


def _companion_of(name: str, scalars: dict[str, float]) -> bool:
    return any(name.endswith(ending) and name.removesuffix(ending) in scalars for ending in SUFFIXES)


def _figure(report: "Report", name: str) -> str:
    pixels, caption = report.pictures[name], _caption(name)
    alt = f"{_words(name)}: {caption}" if caption else _words(name)
    return f"<figure>{figure_image(pixels, alt)}<figcaption>{escape(caption)}</figcaption></figure>"


def _caption(name: str) -> str:
    """What a figure shows; its name may hold that of an extractor."""
    if name.endswith("_worst"):
        return f"The images that harm {name.removesuffix('_worst')} most, and by which share of it each does."
    for known, caption in _CAPTIONS.items():
        stem, _, ending = known.partition("_") if known.startswith("pairs") else (known, "", "")
        if (name == stem or name.startswith(f"{stem}_")) and name.endswith(ending):
            return caption
    return ""


def _table(name: str, whole: Table) -> str:
    rows = whole.rows[:_MOST_ROWS]
    words = ""
    if len(whole.rows) > _MOST_ROWS:
        words = f"The first {_MOST_ROWS} of {len(whole.rows)} rows; all are in {escape(name)}.csv."
    cells = [[_cell(value, whole.columns[place], row) for place, value in enumerate(row)] for row in rows]
    note = f'<p class="quiet">{words}</p>' if words else ""
    return sortable(whole.columns, cells, f"rows-{re.sub('[^A-Za-z0-9_-]', '-', name)}") + note


def _cell(value: Cell, column: str, row: Sequence[Cell]) -> str:
    if isinstance(value, np.ndarray):
        names = [str(each) for each in row if isinstance(each, str)]
        return thumbnail(value, f"{column} ({', '.join(names)})" if names else column)
    if isinstance(value, float):
        return f'<data value="{value!r}">{value:.4g}</data>'
    return escape("" if value is None else str(value))


def _has_images(table: Table) -> bool:
    return any(isinstance(cell, np.ndarray) for row in table.rows for cell in row)


def _is_short(table: Table) -> bool:
    return len(table.rows) <= _MOST_ROWS


def _heading(name: str, table: Table) -> str:
    return (table.title[:1].upper() + table.title[1:]) or _words(name)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _seconds(timings: dict[str, Any]) -> str:
    return "Seconds: " + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in timings.items()) + "."
