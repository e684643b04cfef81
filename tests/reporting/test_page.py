import base64
import io
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from lightning_synthqual import Report
from lightning_synthqual.metrics.figures import Table
from lightning_synthqual.reporting.page import page

VOID = {"meta", "img", "wbr", "link", "input"}


class Reader(HTMLParser):
    """Checks that tags close each other, and keeps text, rows and pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[str] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        assert "srcset" not in values
        assert values.get("href", "#").startswith(("#", "data:"))
        if tag == "img" and values["src"] != "data:,":  # which the enlarged image has not yet
            self.pictures.append(values["src"])
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture
def report():
    noise = np.random.default_rng(0)
    pictures = [noise.integers(0, 256, (8, 12, 3), dtype=np.uint8) for _ in range(3)]
    rows = [(i, pictures[2] if i == 0 else None, 0.5 * i, None) for i in range(60)]
    return Report(
        scalars={
            "fid": 12.34567,
            "fid_std": 0.5,
            "fid_floor": 2.0,
            "recall": 0.25,
            "pairs_psnr_train": 20.0,
            "pairs_psnr_train_std": 1.0,
        },
        protocol={"num_samples": 100, "reference": {"num_images": 50}, "note": "<script>"},
        timings={"sampling": 1.25},
        step=7,
        pictures={"samples": pictures[0], "neighbors_mine": pictures[1]},
        tables={
            "pairs": Table(("generated", "image", "psnr", "none"), rows),
            "pairs_summary": Table(("metric",), [("psnr",)]),
        },
    )


def read(report, title="title"):
    text = page(report, title)
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader, text


def test_numbers_stand_beside_their_errors_and_floors(report):
    reader, _ = read(report)
    assert reader.rows[:3] == [
        ["metric", "value", "real images", "against real images"],
        ["fid ↓", "12.35 ± 0.50", "2", "12.3 beside 2 of real images"],
        ["recall ↑", "0.25", "", ""],
    ]
    words = " ".join(reader.words)
    assert "100 generated against 50 real images, step 7" in words
    assert "Seconds: sampling 1.2" in words


def test_changes_and_errors_of_gaps_stand_beside_their_values(report):
    more = {"fid_gap": 1.5, "fid_gap_std": 0.25, "fid_change": -0.62, "fid_change_std": 0.05}
    reader, _ = read(replace(report, scalars={**report.scalars, **more}, protocol={"change": {"since": 1535}}))
    assert reader.rows[:3] == [
        ["metric", "value", "real images", "gap", "change", "against real images"],
        ["fid ↓", "12.35 ± 0.50", "2", "1.50 ± 0.25", "-0.620 ± 0.050", "12.3 beside 2 of real images"],
        ["recall ↑", "0.25", "", "", "", ""],
    ]
    assert "Change: since step 1535." in " ".join(reader.words)


def test_the_numbers_of_a_study_stand_in_its_own_table_only(report):
    reader, text = read(report)
    assert "pairs_<wbr>psnr" not in text
    assert ["psnr"] in reader.rows


def test_the_page_needs_nothing_beside_itself(report):
    reader, _ = read(report)
    decoded = []
    for source in reader.pictures:
        kind, data = source.split(",")
        assert kind == "data:image/webp;base64"
        decoded.append(Image.open(io.BytesIO(base64.b64decode(data))).size)
    assert decoded == [(12, 8)] * 3


def test_a_page_of_large_images_is_small(report):
    smooth = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(smooth).resize((1024, 1024), Image.Resampling.BICUBIC))
    rows = [(f"{index}.png", image) for index in range(50)]
    text = page(
        replace(report, pictures={"samples": np.tile(image, (3, 3, 1))}, tables={"a": Table(("n", "i"), rows)}), "t"
    )
    assert len(text) < 1_000_000


def test_findings_come_first_and_images_say_what_they_show(report):
    _, text = read(report)
    assert "FID is 6.2 times what real images score" in text[: text.index("<h2")]
    table = Table(("generated", "image"), [("a.png", np.zeros((4, 4, 3), np.uint8))], "copies of training images")
    _, text = read(replace(report, tables={"copies": table}))
    assert 'alt="image (a.png)"' in text
    assert '<a href="#copies-of-training-images">Copies of training images</a>' in text


def test_the_command_and_the_date_are_told(report):
    text = page(report, "title", command="synthqual evaluate --real 'a b'", date="2030-01-02 03:04 UTC")
    assert "<pre>synthqual evaluate --real &#x27;a b&#x27;</pre>" in text
    assert "Made on 2030-01-02 03:04 UTC." in text


def test_captions_know_pictures_of_any_extractor(report):
    reader, _ = read(report)
    assert any(words.startswith("Generated images that are nearest") for words in reader.words)


def test_long_tables_are_cut_and_say_so(report):
    reader, _ = read(report)
    assert "The first 50 of 60 rows; all are in pairs.csv." in reader.words
    assert ["49", "", "24.5", ""] in reader.rows
    assert not any(row[0] == "50" for row in reader.rows)


def test_what_users_wrote_is_text_and_no_markup(report):
    reader, text = read(report, title="a < b & c")
    assert "<h1>a &lt; b &amp; c</h1>" in text
    assert text.count("<script>") == 1  # that of the page itself
    assert any('"note": "<script>"' in words for words in reader.words)


def test_a_report_without_pictures_or_step():
    reader, _ = read(Report(scalars={"kid": 1e-7}, protocol={}, timings={}))
    assert reader.rows == [["metric", "value"], ["kid ↓", "1e-07"]]
    assert reader.pictures == []


def test_both_real_sets_are_counted(report):
    sets = {"num_samples": 100, "reference": {"num_images": 50}, "other_real": {"num_images": 20}, "version": "1.2"}
    reader, _ = read(Report(report.scalars, sets))
    words = " ".join(reader.words)
    assert "100 generated against 50 real images, 20 more real ones, lightning-synthqual 1.2." in words


def test_a_metric_of_the_users_has_its_own_direction():
    protocol = {"metrics": {"mine": {"direction": "max"}, "fid": {"direction": None}}}
    reader, _ = read(Report({"mine": 1.0, "fid": 2.0}, protocol))
    assert [row[0].rstrip() for row in reader.rows[1:]] == ["mine ↑", "fid"]
