import numpy as np
import pytest

from lightning_synthqual import Report
from lightning_synthqual.metrics.figures import Table
from lightning_synthqual.reporting.loggers import MOST_PICTURES, MOST_ROWS, capped, write_report
from lightning_synthqual.reporting.summary import summary_line

PIXELS = np.zeros((4, 4, 3), np.uint8)


def test_large_tables_are_never_sent_whole():
    rows = [(number, 0.5) for number in range(100_000)]
    sent = list(capped(Table(("number", "value"), rows)).rows)
    assert sent == rows[: len(sent)]
    assert 1 <= len(sent) == MOST_ROWS <= 10_000  # W&B takes no more


@pytest.mark.parametrize(("columns", "rows"), [(1, 108), (3, 36)])
def test_neither_are_many_pictures(columns, rows):
    table = Table(("number", *"abc"[:columns]), [(number, *[PIXELS] * columns) for number in range(200)])
    assert len(capped(table).rows) == rows == MOST_PICTURES // columns


def test_short_tables_are_sent_whole():
    table = Table(("a",), [(1,), (2,)])
    assert capped(table) == table
    assert capped(Table(("a",), [])).rows == []


def test_a_logger_gets_no_more_than_that(tmp_path):
    written = []

    class MLFlowLogger:
        run_id = "1"

        @property
        def experiment(self):
            return self

        def log_metrics(self, *_, **__): ...

        def save(self): ...

        def log_dict(self, *_): ...

        def log_text(self, run, text, name):
            written.append((name, text.count("\n")))

    report = Report({"fid": 1.0}, {}, step=5, tables={"pairs": Table(("n",), [(n,) for n in range(100_000)])})
    write_report(report, [MLFlowLogger()], tmp_path, prefix="quality")
    assert written == [("quality/pairs/step=5.csv", MOST_ROWS + 1)]
    assert (tmp_path / "pairs" / "step=5.csv").read_text().count("\n") == 100_001


def test_a_summary_line_has_what_can_get_better_or_worse():
    scalars = {"fid": 3.25, "fid_std": 0.125, "fid_floor": 1.0, "train_distance": 2.0, "recall": 0.5}
    assert summary_line(Report(scalars, {}, timings={"total": 2.0})) == "fid 3.25 ± 0.12, recall 0.5; total 2.0 s"
    pairs = {f"pairs_psnr_{kind}": 1.0 for kind in "abcdefgh"}
    assert summary_line(Report(pairs, {}, timings={})).count("pairs") == 6
    assert summary_line(Report({}, {}, timings={})) == ""
