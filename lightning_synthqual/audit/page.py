"""An audit as one self-contained HTML page."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from lightning_synthqual.audit import matrix, thumbnails
from lightning_synthqual.audit.passport import Audit
from lightning_synthqual.audit.reading import Column, Readings, Words, readings
from lightning_synthqual.audit.verdict import Verdict, verdict
from lightning_synthqual.reporting.html import document, table

_STYLE = """
.line { padding: .6rem .8rem; border: 1px solid var(--line); border-radius: 4px; white-space: pre-wrap; }
.verdict li { margin: .3rem 0; } dt { font-weight: 600; margin-top: .6rem; } dd { margin: 0 0 0 1rem; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; } .box { overflow: visible; } h2 { break-after: avoid; }
  th, td { white-space: normal; padding: .15rem .4rem; font-size: 8pt; } pre { white-space: pre-wrap; }
  tr, dd, li { break-inside: avoid; }
}
"""
_COLOUR = (
    "The part of the change that is gone when all images are greyed: 1 - D(grey real, grey faulty) / D(real, faulty), "
    "summed over the doses that are told, with the distances of untouched images subtracted. 100 %: only colour; "
    "0 %: no colour. Empty: undefined, since the metric tells nothing."
)
_MATCHES = "How often the nearest neighbours that two extractors find are the same image."
_PREFERENCES = (
    "The mean similarity of images and their nearest ones by each extractor, and how often no other extractor's match "
    "is more similar."
)
_PLAINNESS = (
    "Correlation (Pearson r, with its interval) of each similarity with the entropy of the pair: a large one says that "
    "the similarity prefers plain images."
)


def audit_page(audit: Audit, title: str = "Metric passport") -> str:
    """The audit as HTML: sentences, the matrix of faults and metrics, curves, examples, tables and the protocol.

    Args:
        audit: The audit.
        title: Title of the page, as text.

    Returns:
        A whole page without any reference to the network.
    """
    rows, words, said = readings(audit), Words(audit.protocol), verdict(audit)
    figures = thumbnails.examples(audit.examples or {}, rows, words)
    body = [
        f"<style>{matrix.STYLE}{thumbnails.STYLE}{_STYLE}</style>",
        f"<h1>{escape(title)}</h1>",
        f'<p class="quiet">{escape(_summary(audit.protocol, rows))}</p>',
        *_verdict(said),
        "<h2>What each metric sees</h2>",
        matrix.matrix(rows, words),
        *matrix.panels(rows, words, _untouched(audit), figures),
        *_examples(figures.values()),
        "<h2>Each metric in words</h2>",
        *_by_metric(said),
        *_colour_share(audit.colour_share),
        *_rows("Do extractors agree on matches?", _MATCHES, audit.matches),
        *_rows("Whose matches do similarities prefer?", _PREFERENCES, audit.preferences),
        *_rows("Do similarities prefer plain images?", _PLAINNESS, audit.plainness),
        "<h2>Faults and doses</h2>",
        _doses(rows, words),
        "<h2>Protocol</h2>",
        "<details><summary>What made the numbers</summary>",
        f"<pre>{escape(json.dumps(audit.protocol, indent=2, ensure_ascii=False, default=str))}</pre></details>",
        f"<script>{matrix.SCRIPT}</script>",
    ]
    return document(title, "\n".join(body))


def _summary(protocol: Mapping[str, Any], rows: Readings) -> str:
    parts = [f"{protocol['num_images']} images with faults" if protocol.get("num_images") else "Images with faults"]
    if protocol.get("num_reference"):
        parts.append(f"compared with {protocol['num_reference']} reference images")
    parts.append(f"{len(rows)} faults")
    version = protocol.get("version")
    return ", ".join([*parts, *([f"lightning-synthqual {version}"] if version else [])]) + "."


def _verdict(said: Verdict) -> Iterator[str]:
    yield "<h2>Verdict</h2>"
    yield '<ul class="verdict">' + "".join(f"<li>{escape(sentence)}</li>" for sentence in said.sentences) + "</ul>"
    if said.line:
        yield f'<p>To use the recommended metrics:</p><pre class="line"><code>{escape(said.line)}</code></pre>'


def _untouched(audit: Audit) -> dict[Column, float]:
    return {Column(cell.extractor, cell.metric): cell.value for cell in audit.cells if cell.dose == 0}


def _examples(figures: Collection[str]) -> Iterator[str]:
    if figures:
        yield "<h2>Example images</h2>"
        yield f'<div class="examples">{"".join(figures)}</div>'


def _by_metric(said: Verdict) -> Iterator[str]:
    yield "<dl>"
    for name, sentences in said.by_metric.items():
        yield f"<dt>{escape(name)}</dt>" + "".join(f"<dd>{escape(sentence)}</dd>" for sentence in sentences)
    yield "</dl>"


def _colour_share(shares: Mapping[str, Mapping[str, float | None]]) -> Iterator[str]:
    metrics = list(dict.fromkeys(metric for row in (shares or {}).values() for metric in row))
    if not metrics:
        return
    rows = [
        (
            escape(extractor),
            *("" if (share := row.get(metric)) is None else f"{100 * share:.0f} %" for metric in metrics),
        )
        for extractor, row in shares.items()
    ]
    yield "<h2>Colour share</h2>"
    yield table(["extractor", *metrics], rows)
    yield f'<p class="quiet">{_COLOUR}</p>'


def _rows(title: str, note: str, rows: Sequence[Mapping[str, Any]] | None) -> Iterator[str]:
    """A table of rows that name their cells."""
    if not rows:
        return
    heads = list(dict.fromkeys(head for row in rows for head in row))
    yield f"<h2>{escape(title)}</h2>"
    yield table(
        [head.replace("_", " ") for head in heads], [tuple(_text(row.get(head)) for head in heads) for row in rows]
    )
    yield f'<p class="quiet">{note}</p>'


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else escape("" if value is None else str(value))


def _doses(rows: Readings, words: Words) -> str:
    """What the doses are, with the PSNR of each as a common scale."""
    lines = []
    for fault, row in rows.items():
        cells = next(iter(row.values())).cells
        doses = ", ".join(f"{cell.dose:g}" + ("" if cell.psnr is None else f" ({cell.psnr:.0f} dB)") for cell in cells)
        lines.append((escape(words.fault(fault)), escape(words.description(fault)), escape(words.unit(fault)), doses))
    return f'<div class="doses">{table(["fault", "what it does", "unit", "doses (PSNR)"], lines)}</div>'
