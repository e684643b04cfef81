"""The page in a browser: it sorts, filters and enlarges, is as wide as a phone, and has no errors."""

import json
import re
import shutil
import subprocess
from html import unescape

import numpy as np
import pytest

from lightning_synthqual import Report
from lightning_synthqual.metrics.figures import Table
from lightning_synthqual.reporting.page import page

CHROMIUM = shutil.which("chromium")
OPTIONS = ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]
ACTIONS = """
<script>
const seen = {errors: []};
addEventListener('error', (event) => seen.errors.push(event.message));
addEventListener('load', () => {
  const names = () => [...document.querySelectorAll('#rows-scores tbody tr')].filter((row) => !row.hidden)
    .map((row) => row.cells[0].textContent.trim().split(' ')[0]);
  const heads = document.querySelectorAll('#rows-scores th button');
  heads[1].click(); seen.up = names();
  heads[1].click(); seen.down = names();
  const field = document.querySelector('input[data-filters=rows-scores]');
  field.value = 'REC'; field.dispatchEvent(new Event('input')); seen.filtered = names();
  const text = () => document.querySelector('#zoom p').textContent, zoom = document.getElementById('zoom');
  const press = (key) => zoom.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
  document.querySelector('td button.zoom').click(); seen.first = text();
  press('ArrowRight'); seen.next = text();
  press('ArrowLeft'); press('ArrowLeft'); seen.last = text();
  zoom.close(); seen.closed = !zoom.open;
  dispatchEvent(new Event('beforeprint')); seen.folded = document.querySelectorAll('details:not([open])').length;
  seen.alts = [...document.images].every((image) => image.alt || image.closest('dialog'));
  seen.width = [document.documentElement.scrollWidth, innerWidth];
  document.body.dataset.seen = JSON.stringify(seen);
});
</script>
"""


@pytest.fixture
def path(tmp_path):
    image = np.zeros((40, 40, 3), np.uint8)
    rows = [(f"{index}.png", image, 0.1 * index) for index in range(3)]
    scalars = {
        "fid": 12.0,
        "fid_std": 0.5,
        "fid_floor": 0.2,
        "recall": 0.3,
        "a_name_of_a_metric_that_is_very_long": 2.0,
    }
    report = Report(scalars, {"long": "x" * 300}, tables={"copies": Table(("generated", "image", "distance"), rows)})
    path = tmp_path / "report.html"
    path.write_text(page(report, "/a/very/long/path/" * 9, command="synthqual " * 40), encoding="utf-8")
    return path


def chromium(tmp_path, *arguments):
    options = [f"--{option}" for option in (*OPTIONS, f"user-data-dir={tmp_path / 'profile'}")]
    return subprocess.run([CHROMIUM, *options, *arguments], capture_output=True, text=True, timeout=60).stdout


def test_rows_are_sorted_and_filtered_and_images_enlarged(path, tmp_path):
    acting = path.with_name("acting.html")
    acting.write_text(path.read_text().replace("</head>", f"{ACTIONS}</head>"))
    whole = chromium(tmp_path, "--dump-dom", "--window-size=1400,900", acting.as_uri())
    seen = json.loads(unescape(re.search('data-seen="(.*?)"', whole)[1]))
    assert seen["errors"] == []
    assert seen["up"] == ["recall", "a_name_of_a_metric_that_is_very_long", "fid"]
    assert seen["down"] == seen["up"][::-1]
    assert seen["filtered"] == ["recall"]
    assert (seen["first"], seen["next"], seen["last"]) == ("image (0.png)", "image (1.png)", "image (2.png)")
    assert seen["closed"]
    assert seen["alts"]
    assert seen["folded"] == 0


def test_the_page_is_as_wide_as_a_phone(path, tmp_path):
    acting = path.with_name("acting.html")
    acting.write_text(path.read_text().replace("</head>", f"{ACTIONS}</head>"))
    frame = path.with_name("frame.html")  # a window of a browser is never as narrow as a phone, but a frame is
    frame.write_text(
        f'<iframe width="390" height="800" style="border:0" src="{acting.name}"></iframe><script>'
        "onload = () => document.body.dataset.seen = frames[0].document.body.dataset.seen</script>"
    )
    shown = chromium(tmp_path, "--dump-dom", "--allow-file-access-from-files", frame.as_uri())
    seen = json.loads(unescape(re.search('data-seen="(.*?)"', shown)[1]))
    assert seen["width"][0] <= seen["width"][1] == 390


def test_the_page_is_printed(path, tmp_path):
    target = tmp_path / "page.pdf"
    chromium(tmp_path, f"--print-to-pdf={target}", path.as_uri())
    assert target.read_bytes().startswith(b"%PDF")
