"""The matrix of an audit: faults by metrics, with a curve for each cell."""

from collections.abc import Container, Iterator, Mapping
from html import escape
from itertools import groupby

from lightning_synthqual.audit.curve import curve
from lightning_synthqual.audit.reading import Column, Reading, Readings, Words, columns_of, number

_LEVELS = 5  # of colour, from the smallest to the largest dose
STYLE = """
.matrix table { border-collapse: separate; border-spacing: 2px; }
.matrix th, .matrix td { border: 0; padding: 0; text-align: center; }
.matrix thead th { vertical-align: bottom; font-size: .85rem; }
.matrix .name { writing-mode: vertical-rl; transform: rotate(180deg); padding: .3rem 0; margin: auto; }
.matrix tbody th { text-align: left; padding-right: .6rem; position: sticky; left: 0; background: Canvas; }
.matrix tbody th small { display: block; color: var(--quiet); font-weight: 400; line-height: 1.1; }
.matrix a { display: block; min-width: 2.9rem; padding: .45rem .2rem; font-size: .85rem; text-decoration: none;
  color: #000; background: #8882; border-radius: 3px; min-height: 1.4rem; print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }
.matrix a.other { color: CanvasText; }
.matrix a:hover, .matrix a:focus { outline: 3px solid #d95f02; }
.matrix .first { border-left: .5rem solid transparent; }
.s1 { background: #08306b !important; color: #fff !important; }
.s2 { background: #2171b5 !important; color: #fff !important; }
.s3 { background: #6baed6 !important; } .s4 { background: #b3cde3 !important; } .s5 { background: #e3edf8 !important; }
.up { background: repeating-linear-gradient(45deg, #fdb863 0 6px, #fdd9a5 6px 12px) !important; }
.key span { display: inline-block; padding: 0 .5rem; margin: .1rem; border-radius: 3px; color: #000;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.panel { display: none; }
.panel:target { display: block; position: fixed; z-index: 9; left: 0; right: 0; bottom: 0; margin: 0 auto;
  padding: 1rem; max-width: 62rem; max-height: 85vh; overflow: auto;
  background: Canvas; border: 1px solid var(--quiet);
  border-radius: 8px 8px 0 0; box-shadow: 0 0 2rem #0006; box-sizing: border-box; }
.panel h3 { margin: 0 3rem .5rem 0; }
.panel .close { position: absolute; right: 1rem; top: .8rem; padding: .2rem .6rem; }
.panel .both { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.panel svg { width: 100%; max-width: 30rem; flex: 1 1 20rem; } .panel table { font-size: .85rem; }
svg text { font-size: 12px; fill: currentColor; } svg path, svg polyline { fill: none; stroke: currentColor; }
svg polyline { opacity: .5; } svg .zero { stroke-dasharray: 5 4; opacity: .7; }
svg circle, svg .better { stroke-width: 2; stroke: #2171b5; fill: Canvas; } svg .worse { fill: #2171b5; }
svg .better { fill: #fdb863; stroke: #b35806; }
@media (max-width: 40rem) {
  .matrix a { min-width: 2.3rem; }
  .matrix tbody th { white-space: normal; max-width: 7rem; }
}
@media print {
  .matrix { overflow: visible; } .matrix a { min-width: 0; padding: .15rem; font-size: 7pt; min-height: .9rem; }
  .matrix tbody th { position: static; font-size: 8pt; } .matrix tbody th small { font-size: 6.5pt; }
  .panel:target { position: static; box-shadow: none; max-height: none; break-inside: avoid; } .close { display: none; }
}
"""
SCRIPT = """
addEventListener("keydown", event => {
  const close = document.querySelector(".panel:target .close");
  if (event.key === "Escape" && close) close.click();
});
"""


def matrix(rows: Readings, words: Words) -> str:
    """The matrix as HTML; each cell is a link to its curve.

    Args:
        rows: What the audit says.
        words: Doses in words.
    """
    columns = columns_of(rows)
    groups = [(name, len(list(members))) for name, members in groupby(columns, lambda column: column.extractor)]
    firsts = {next(column for column in columns if column.extractor == name) for name, _ in groups}
    top = "".join(f'<th class="first" colspan="{size}" scope="colgroup">{escape(name)}</th>' for name, size in groups)
    heads = "".join(
        f'<th class="{"first" if column in firsts else ""}" scope="col">'
        f'<div class="name">{escape(column.metric.replace("_", " "))}</div></th>'
        for column in columns
    )
    body = "\n".join(
        f'<tr><th scope="row">{escape(words.fault(fault))}<small>{escape(words.unit(fault))}</small></th>'
        + "".join(
            f'<td class="{"first" if column in firsts else ""}">{_cell(row.get(column), words, (at, place))}</td>'
            for place, column in enumerate(columns)
        )
        + "</tr>"
        for at, (fault, row) in enumerate(rows.items())
    )
    return (
        f'<div class="box matrix" id="matrix"><table><thead><tr><td></td>{top}</tr><tr><td></td>{heads}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>{_key()}"
    )


def panels(rows: Readings, words: Words, untouched: Mapping[Column, float], pictured: Container[str]) -> Iterator[str]:
    """The curve of each cell, which is shown when its link is followed.

    Args:
        rows: What the audit says.
        words: Doses in words.
        untouched: Values of untouched images, as far as the audit has cells for them.
        pictured: Faults with example images.
    """
    columns = columns_of(rows)
    for at, (fault, row) in enumerate(rows.items()):
        for place, column in enumerate(columns):
            if column in row:
                link = f' <a href="#e{at}">Example images</a>' if fault in pictured else ""
                yield _panel(row[column], words, untouched.get(column), (at, place), link)


def _key() -> str:
    shades = "".join(
        f'<span class="s{level}">{words}</span>'
        for level, words in ((1, "smallest dose"), (2, "·"), (3, "·"), (4, "·"), (5, "largest dose"))
    )
    return (
        f'<p class="quiet key">A number is the smallest dose from which on all doses are told as worse: {shades} '
        '<span class="up">▲ dose</span> the metric improves at this dose (the smallest); ~ told as worse at some doses '
        "only; = these images do not change; empty: not told. "
        "Click a cell, or press Enter on it, for its curve.</p>"
    )


def _cell(reading: Reading | None, words: Words, place: tuple[int, int]) -> str:
    if reading is None:
        return ""
    link = f'id="m{place[0]}-{place[1]}" href="#c{place[0]}-{place[1]}"'
    style, text = _look(reading)
    label = f"{words.fault(reading.fault)}, {reading.column.name}: {_outcome(reading, words)}"
    return f'<a class="{style}" {link} aria-label="{escape(label)}">{text}</a>'


def _look(reading: Reading) -> tuple[str, str]:
    """Class and text of a cell."""
    seen, rank, kind = reading.seen_from, reading.rank, reading.kind
    if kind == "seen" and seen is not None and rank is not None:
        last = max(len(reading.cells) - 1, 1)
        level = 1 + round((rank - 1) / last * (_LEVELS - 1))
        return f"s{level}", f"{seen.dose:g}" + (" ▲" if reading.better else "")
    if kind == "better":
        return "up", f"▲ {reading.better[0].dose:g}"
    return "other", {"partly": "~", "unchanged": "="}.get(kind, "")


def _outcome(reading: Reading, words: Words) -> str:
    """What a cell says, in words."""
    seen, kind = reading.seen_from, reading.kind
    better = f"improves at {words.cell(reading.better[0])}" if reading.better else ""
    if kind == "seen" and seen is not None:
        return f"told as worse from {words.cell(seen)} on" + (f", but {better}" if better else "")
    if kind == "better":
        return better
    if kind == "partly" and reading.told is not None:
        return f"told as worse at {words.cell(reading.told)}, but not at all larger doses"
    strongest = words.cell(reading.cells[-1])
    return "the images do not change" if kind == "unchanged" else f"not told up to {strongest}"


def _panel(reading: Reading, words: Words, untouched: float | None, place: tuple[int, int], link: str) -> str:
    fault, outcome = reading.fault, _outcome(reading, words)
    title = f"{reading.column.name} under {words.fault(fault)}"
    lines = "".join(
        f"<tr><td>{escape(words.dose(fault, cell.dose))}</td>"
        f"<td>{number(cell.change, cell.change_std, signed=True)}</td>"
        f"<td>{'' if cell.psnr is None else f'{cell.psnr:.1f}'}</td><td>{cell.told or ''}</td></tr>"
        for cell in reading.cells
    )
    return (
        f'<section class="panel" id="c{place[0]}-{place[1]}" tabindex="-1" aria-label="{escape(title)}">'
        f'<h3>{escape(title)}</h3><a class="close" href="#m{place[0]}-{place[1]}" aria-label="Close">✕</a>'
        f"<p>{escape(outcome[0].upper() + outcome[1:])}.{link}</p>"
        f'<div class="both">{curve(reading, words, untouched)}<table><thead><tr><th>dose</th><th>change</th>'
        f"<th>PSNR</th><th>told</th></tr></thead><tbody>{lines}</tbody></table></div></section>"
    )
