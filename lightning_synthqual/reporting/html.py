"""Self-contained HTML: the frame of a page, and tables."""

import re
from collections.abc import Iterable, Sequence
from html import escape

_VALUES = re.compile(r'<td><data value="([^"]*)">(.*?)</data></td>', re.DOTALL)
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #767676; --generated: #0072b2; --real: #d55e00; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2rem; break-after: avoid; }
.box { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem; text-align: right; white-space: nowrap; }
th { font-weight: 600; white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
th button { font: inherit; font-weight: 600; border: 0; padding: 0; background: none; color: inherit; cursor: pointer; }
th[aria-sort=ascending] button::after { content: " ▲"; } th[aria-sort=descending] button::after { content: " ▼"; }
td img { display: block; max-height: 6rem; max-width: 10rem; }
button.zoom { border: 0; padding: 0; background: none; cursor: zoom-in; max-width: 100%; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; background: #fff; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1rem; }
figcaption, .quiet { color: var(--quiet); font-size: .9rem; }
pre { font-size: .85rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
nav ul { padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1rem; list-style: none; }
ul.findings { padding: 0; list-style: none; }
.findings li { border-left: .3rem solid var(--line); padding: .2rem .8rem; margin: .4rem 0; }
.findings li.alarm { border-color: var(--real); font-weight: 600; font-size: 1.15rem; }
.findings li.worse { border-color: var(--real); }
.findings li.change, .findings li.as-real, .findings li.clear { border-color: var(--generated); }
svg.bar { width: 10rem; height: 1.15rem; vertical-align: middle; stroke-width: 2; }
.bar .axis { stroke: var(--line); stroke-width: 1; } .bar circle { fill: var(--generated); }
.bar .error { stroke: var(--generated); } .bar .gap { stroke: var(--generated); stroke-width: 5; opacity: .3; }
.bar .floor { stroke: var(--real); stroke-dasharray: 3 2; }
input { font: inherit; margin: .3rem 0; max-width: 100%; box-sizing: border-box; }
dialog { border: 0; padding: .5rem; max-width: 96vw; max-height: 96vh; } dialog::backdrop { background: #000b; }
dialog img { display: block; max-width: 100%; max-height: 80vh; object-fit: contain; background: #fff; }
dialog img.pixels { image-rendering: pixelated; }
dialog button { font: inherit; padding: .3rem 1rem; margin-right: .5rem; }
@media (max-width: 40rem) {
  th, td { padding: .3rem; font-size: .85rem; } td img { max-width: 5rem; } svg.bar { width: 5rem; }
  td:first-child { white-space: normal; } .beside { grid-template-columns: 1fr 1fr; gap: .4rem; }
}
@media print {
  nav, input, dialog { display: none; } body { max-width: none; font-size: 10pt; padding: 0; }
  .box { overflow: visible; } table { font-size: 8pt; width: 100%; } th, td { white-space: normal; padding: .15rem; }
  td { overflow-wrap: anywhere; } td img { max-width: 2.6cm; max-height: 2.6cm; } svg.bar { width: 2.6cm; }
  tr, figure, li { break-inside: avoid; } figure img { max-height: 22cm; }
}
"""


def document(title: str, body: str, script: str = "") -> str:
    """A whole page.

    Args:
        title: Title of the page, as text.
        body: What it shows, as HTML.
        script: JavaScript that runs once the page is there.
    """
    ending = f"<script>{script}</script>\n" if script else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<link rel="icon" href="data:,">\n'  # else browsers ask the server for one
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n{ending}</body>\n</html>\n"
    )


def table(heads: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in a box of its own, which scrolls where it is too wide.

    Args:
        heads: Titles of the columns, as text.
        rows: Cells, as HTML.
    """
    head = "".join(f"<th>{escape(word)}</th>" for word in heads)
    lines = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="box"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>'


def sortable(heads: Iterable[str], rows: Iterable[Sequence[str]], name: str = "") -> str:
    """A table whose rows are sorted by a click on the title of a column, and filtered by a word.

    A cell that begins with ``<data value="...">`` is sorted by this value.

    Args:
        heads: Titles of the columns, as text.
        rows: Cells, as HTML.
        name: Name of the table, of letters, digits, ``_`` and ``-``: with it there is a field to filter rows.
    """
    label = f'id="{name}" ' if name else ""
    field = f'<input type="search" data-filters="{name}" placeholder="filter rows" aria-label="filter rows">'
    marked = table(heads, rows).replace("<table>", f'<table {label}class="sort">', 1)
    marked = marked.replace("<th>", '<th scope="col"><button type="button">').replace("</th>", "</button></th>")
    return (field if name else "") + _VALUES.sub(r'<td data-value="\1">\2</td>', marked)
