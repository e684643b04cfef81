import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from planted_audit import cell, pictures, planted

from lightning_synthqual.audit.faults import FAULTS
from lightning_synthqual.audit.page import audit_page


class Parser(HTMLParser):
    """Collects links, their goals, the texts of cells, and tags that were not closed."""

    def __init__(self, page):
        super().__init__()
        self.ids, self.links, self.labels, self.images, self.open = set(), [], {}, [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given["id"]} if "id" in given else set()
        self.links += [given["href"]] if "href" in given and tag == "a" else []
        self.labels |= {given["id"]: given["aria-label"]} if tag == "a" and "id" in given else {}
        self.images += [given] if tag == "img" else []
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def audit(**given):
    changes = {
        ("wavelet", "fd"): {"blur": [0, 9, 9, 9, 9, 9], "mirror": [0.5] * 4, "copying": [-9] * 5},
        ("pixels", "fd"): {"blur": [0, 9, 0, 0, 0, 0], "mirror": [0, 0, 0, 9], "copying": [0, 0, 0, 0, -9]},
    }
    return planted(changes, examples={"blur": pictures()}, **given)


def test_the_page_opens_with_sentences_and_each_cell_leads_to_its_curve():
    page = audit_page(audit())
    found = Parser(page)
    assert found.open == []
    assert page.index("fd_wavelet and fd_pixels together see all 2 faults") < page.index("What each metric sees")
    assert "metrics=(&quot;fd_wavelet&quot;, &quot;fd_pixels&quot;)" in page
    assert list(found.labels.values()) == [
        "blur, fd_wavelet: told as worse from 0.5 px (30 dB) on",
        "blur, fd_pixels: told as worse at 0.5 px (30 dB), but not at all larger doses",
        "mirror, fd_wavelet: not told up to 100 % of the images (30 dB)",
        "mirror, fd_pixels: told as worse from 100 % of the images (30 dB) on",
        "copying, fd_wavelet: improves at 5 % of the images (30 dB)",
        "copying, fd_pixels: improves at 100 % of the images (30 dB)",
    ]
    shown = re.findall(r'<a class="(\w+)" id="m\d-\d"[^>]*>([^<]*)</a>', page)
    assert shown == [("s2", "0.5"), ("other", "~"), ("other", ""), ("s5", "1"), ("up", "▲ 0.05"), ("up", "▲ 1")]
    assert page.count("<svg") == 6
    assert 'aria-label="Untouched: 10. 0.4 px: 10.0 ± 1.0; 0.5 px: 19.0 ± 1.0, told as worse;' in page


def test_examples_are_the_smallest_told_dose_beside_untouched_images():
    found = Parser(audit_page(audit()))
    assert [image["alt"] for image in found.images] == ["Untouched images", "The same with blur, 0.5 px"]
    assert all(image["src"].startswith("data:image/webp;base64,") for image in found.images)


def test_links_to_examples_are_left_out_where_there_are_none():
    found = Parser(audit_page(audit()))
    assert {link.removeprefix("#") for link in found.links} <= found.ids


def test_tables_are_shown_if_there_are_any():
    page = audit_page(audit())
    assert "Colour share" not in page
    assert "agree on matches" not in page
    shares = {"wavelet": {"fd": 0.834, "kd": None}}
    page = audit_page(audit(colour_share=shares, matches=[{"extractors": "a <b>", "agreement": 0.25}]))
    assert "<td>wavelet</td><td>83 %</td><td></td>" in page
    assert "<td>a &lt;b&gt;</td><td>0.25</td>" in page


def test_odd_values_and_names_do_no_harm():
    planted_audit = planted({("own <net>", "fd"): {'a "fault"': [0, 0, 9]}}, protocol={"path": "<x>"})
    planted_audit.cells += [
        cell("own <net>", "kd", 'a "fault"', 0.0, 0.0, value=3.0),
        cell("own <net>", "kd", 'a "fault"', 0.25, math.nan, value=math.nan, psnr=None),
        cell("own <net>", "kd", 'a "fault"', 0.5, 0.0, std=0.0, value=3.0, psnr=math.inf),
    ]
    page = audit_page(planted_audit, title="<Mars>")
    assert Parser(page).open == []
    assert "<net>" not in page
    assert "<Mars>" not in page
    assert "NaN" not in re.sub("<pre>.*?</pre>", "", page)


def whole():
    """As large as an audit of all faults with three extractors and five metrics."""
    columns = [(name, metric) for name in ("a", "b", "c") for metric in ("fd", "kd", "precision", "recall", "coverage")]
    changes = {column: {fault: [0, 4, 5, 6, 7, 8] for fault in FAULTS} for column in columns}
    return planted(changes, examples={fault: pictures(80) for fault in FAULTS})


def test_the_page_of_a_whole_audit_is_small_and_asks_for_nothing():
    page = audit_page(whole())
    assert len(page) < 2_000_000
    assert not re.search(r'(src|href)="(?!data:|#)|url\(|@import|https?:', page)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_a_cells_curve_opens_and_the_print_has_all_columns(tmp_path):
    file = tmp_path / "audit.html"
    file.write_text(audit_page(whole()), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--disable-sync", "--disable-component-update"]
    check = (
        "<script>addEventListener('load', () => { const panel = document.querySelector('#c0-1');"
        "document.body.dataset.seen = getComputedStyle(panel).display + ' ' + "
        "(document.documentElement.scrollWidth <= innerWidth); })</script></body>"
    )
    checked = tmp_path / "checked.html"
    checked.write_text(file.read_text(encoding="utf-8").replace("</body>", check), encoding="utf-8")
    for fragment, shown in (("#c0-1", "block true"), ("", "none true")):
        command = ["chromium", *flags, "--window-size=500,800", "--dump-dom", f"{checked.as_uri()}{fragment}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert f'data-seen="{shown}"' in done.stdout
