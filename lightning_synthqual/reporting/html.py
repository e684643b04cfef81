"""Self-contained HTML: the frame of a page, and tables."""

from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #888; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.box { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem; text-align: right; white-space: nowrap; }
th { font-weight: 600; } th:first-child, td:first-child { text-align: left; }
td img { display: block; max-height: 6rem; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; background: #fff; }
figcaption, .quiet { color: var(--quiet); font-size: .9rem; }
pre { font-size: .85rem; overflow-x: auto; }
@media (max-width: 40rem) {
  th, td { padding: .3rem; } th { white-space: normal; vertical-align: bottom; }
  td:first-child { white-space: normal; }
  figure { overflow-x: auto; } figure img.plot { min-width: 38rem; }
}
"""


def document(title: str, body: str) -> str:
    """A whole page.

    Args:
        title: Title of the page, as text.
        body: What it shows, as HTML.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
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
