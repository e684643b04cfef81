import csv
import io

import pytest

from lightning_synthqual import Report
from lightning_synthqual.metrics.difference import Difference
from lightning_synthqual.reporting.compare import (
    Row,
    SideBySide,
    Value,
    html,
    letter,
    markdown,
    plain_csv,
    restricted,
    terminal,
    verdict,
)

FID = Row("fid", "min", (Value(2.5, 0.25, 0.5), Value(2.0, 0.25, 0.5)), (Difference(-0.5, 0.125, True),))
RECALL = Row("recall", "max", (Value(0.5), Value(0.25)), (Difference(-0.25, None, False),))
DISTANCE = Row("distance", None, (Value(1.0, 0.1), None), (None,))
COMPARED = SideBySide(("early", "a|b<c"), (FID, RECALL, DISTANCE), ("A note.", "Another, with <."))


@pytest.mark.parametrize(
    ("value", "std", "direction", "word"),
    [
        (-0.5, 0.24, "min", "better"),
        (-0.5, 0.25, "min", "tie"),  # two errors are not beyond two
        (0.5, 0.24, "min", "worse"),
        (0.5, 0.24, "max", "better"),
        (-0.5, 0.24, "max", "worse"),
        (0.5, 0.24, None, "differs"),
        (0.5, 0.26, None, "tie"),
        (0.5, None, "min", ""),
        (0.5, 0.0, "min", ""),
        (0.0, 0.0, "min", "tie"),
    ],
)
def test_a_word_follows_from_the_error_and_the_direction(value, std, direction, word):
    assert verdict(Difference(value, std, True), direction) == word


def test_the_best_needs_a_direction_and_others():
    assert FID.best == {1}
    assert RECALL.best == {0}
    assert DISTANCE.best == set()
    assert FID._replace(direction=None).best == set()
    assert FID._replace(values=(Value(1.0), None, Value(1.0), Value(2.0))).best == {0, 2}
    assert FID._replace(values=(Value(1.0), None)).best == set()


def test_a_terminal_gets_aligned_columns_and_bold_letters_only_if_asked():
    plain, bold = terminal(COMPARED), terminal(COMPARED, bold=True)
    lines = plain.splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "metric A: early B: a|b<c real images B - A z B is",
        "fid ↓ 2.50 ± 0.25 2.00 ± 0.25 0.5 -0.50 ± 0.12 -4.0 better",
        "recall ↑ 0.5 0.25 -0.25",
        "distance 1.00 ± 0.10",
        "A note.",
        "Another, with <.",
    ]
    assert lines[0].index("B - A") == lines[1].index("-0.50") == lines[2].index("-0.25")
    assert "\033" not in plain
    assert "\033[1m2.00 ± 0.25\033[0m" in bold
    assert "\033[1m2.50" not in bold
    assert bold.replace("\033[1m", "").replace("\033[0m", "") == plain


def test_markdown_has_the_best_in_bold_and_the_notes_as_a_list():
    head, rule, fid, recall, _, gap, *notes = markdown(COMPARED).splitlines()
    assert head == r"| metric | A: early | B: a\|b<c | real images | B - A | z | B is |"
    assert rule == "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert fid == "| fid ↓ | 2.50 ± 0.25 | **2.00 ± 0.25** | 0.5 | -0.50 ± 0.12 | -4.0 | better |"
    assert recall.startswith("| recall ↑ | **0.5** | 0.25 |")
    assert (gap, notes) == ("", ["- A note.", "- Another, with <."])


def test_csv_has_all_digits_and_nothing_beside_the_table():
    rows = list(csv.DictReader(io.StringIO(plain_csv(COMPARED))))
    assert rows[0] == {
        "metric": "fid",
        "direction": "min",
        "A: early": "2.5",
        "A: early std": "0.25",
        "A: early floor": "0.5",
        "B: a|b<c": "2.0",
        "B: a|b<c std": "0.25",
        "B: a|b<c floor": "0.5",
        "B - A": "-0.5",
        "B - A std": "0.125",
        "B - A z": "-4.0",
        "B - A paired": "True",
        "B - A verdict": "better",
    }
    assert (rows[2]["B: a|b<c"], rows[2]["B - A"], rows[2]["direction"]) == ("", "", "")
    assert len(rows) == 3


def test_html_is_a_page_in_which_names_are_text():
    text = html(COMPARED)
    assert text.startswith("<!doctype html>")
    assert "<strong>2.00 ± 0.25</strong>" in text
    assert "<strong>2.50" not in text
    assert "B: a|b&lt;c" in text
    assert "Another, with &lt;." in text
    assert "b<c" not in text


def test_without_floors_there_is_no_column_of_them():
    assert "real images" not in terminal(SideBySide(("one", "two"), (RECALL,)))
    assert "floor" not in plain_csv(SideBySide(("one", "two"), (RECALL,)))


def test_floors_that_differ_are_all_shown():
    row = FID._replace(values=(Value(2.5, floor=0.5), Value(2.0, floor=0.75)))
    assert "0.5 / 0.75" in terminal(SideBySide(("one", "two"), (row,)))


def test_reports_have_letters():
    assert [letter(place) for place in (0, 25, 26, 52)] == ["A", "Z", "A1", "A2"]


def test_metrics_are_chosen_with_all_that_stands_beside_them():
    report = Report({"fid": 1.0, "fid_std": 0.1, "fid_floor": 0.5, "recall": 0.5, "recall_std": 0.1}, {})
    assert list(restricted(report, ["fid"]).scalars) == ["fid", "fid_std", "fid_floor"]
    assert report.names == ["fid", "recall"]
