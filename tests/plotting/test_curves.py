import numpy as np
import pytest

from lightning_synthqual import Report
from lightning_synthqual.plotting.curves import curves, curves_of_runs, points


@pytest.fixture
def reports():
    def report(step):
        scalars = {"fid": 50 / (1 + step), "fid_std": 0.5, "fid_floor": 2.0}
        return Report(scalars=scalars | ({"recall": 0.1 * step} if step else {}), protocol={}, timings={}, step=step)

    return [report(step) for step in range(6)]


def test_every_metric_has_a_panel(reports):
    one, two = curves(reports, ["fid"]), curves(reports)
    assert one.dtype == np.uint8
    assert two.shape[1:] == (2 * one.shape[1], 3)
    assert np.array_equal(curves(reports, ["fid"]), one)


def test_errors_and_floors_are_drawn(reports):
    bare = [Report(scalars={"fid": r.scalars["fid"]}, protocol={}, timings={}, step=r.step) for r in reports]
    assert not np.array_equal(curves(reports, ["fid"]), curves(bare, ["fid"]))


def has_colour(picture, colour):
    """Whether a picture has a pixel of this colour, given as RRGGBB."""
    return bool((picture == np.array(list(bytes.fromhex(colour)))).all(-1).any())


STAR, BAR = "101820", "1f2f4d"


def test_the_best_point_has_a_star_where_there_is_a_best(reports):
    assert has_colour(curves(reports, ["fid"]), STAR)
    plain = [Report({"train_distance": float(r.step)}, {}, step=r.step) for r in reports]
    assert not has_colour(curves(plain), STAR)
    worse = [*reports, Report({"fid": 99.0, "fid_std": 0.5, "fid_floor": 2.0}, {}, step=6)]
    better = [*reports, Report({"fid": 0.1, "fid_std": 0.5, "fid_floor": 2.0}, {}, step=6)]

    def column(picture):  # of the star, above the legend
        found = (picture == np.array(list(bytes.fromhex(STAR)))).all(-1)[:250]
        return found.any(0).nonzero()[0].mean()

    assert column(curves(worse, ["fid"])) < column(curves(better, ["fid"]))


def with_changes(reports, std):
    return [
        Report({**r.scalars, "fid_change": -1.0, "fid_change_std": std} if r.step else r.scalars, {}, step=r.step)
        for r in reports
    ]


def test_bars_are_as_long_as_the_error_of_the_change(reports):
    def height(std):  # of the bar at the last point, above the legend
        picture = curves(with_changes(reports, std), ["fid"])[:250]
        dark = (picture == np.array(list(bytes.fromhex(BAR)))).all(-1)
        return max(column.nonzero()[0].max() - column.nonzero()[0].min() for column in dark.T if column.any())

    assert not has_colour(curves(reports, ["fid"]), BAR)
    assert height(4.0) == pytest.approx(2 * height(2.0), rel=0.1)


def test_points_of_unsure_changes_are_hollow(reports):
    def picture(std):
        return curves(with_changes(reports, std), ["fid"])

    sure, unsure = picture(0.49), picture(0.51)
    assert sure.shape[0] < unsure.shape[0]  # a line more in the legend


def test_single_evaluations_are_no_points(reports):
    tested = Report({"fid": 99.0, "recall": 0.9}, {"sampling": {"stage": "test"}}, step=0)
    assert np.array_equal(curves([*reports, tested]), curves(reports))
    assert points([*reports, tested]) == reports
    assert points([tested]) == [tested]


def test_a_single_evaluation_is_drawn(reports):
    assert (curves(reports[:1]) < 255).any()


def test_metrics_that_were_not_measured(reports):
    with pytest.raises(ValueError, match=r"no kid\. They have: fid, recall"):
        curves(reports, ["fid", "kid"])
    with pytest.raises(ValueError, match="no metrics"):
        curves([])


def test_several_runs_are_drawn_into_the_same_panels(reports):
    other = [Report({"fid": 2 * r.scalars["fid"]}, {}, step=r.step) for r in reports]
    both = curves_of_runs({"one": reports, "other": other}, ["fid"])
    assert both.shape[1] == curves(reports, ["fid"]).shape[1]
    assert has_colour(both, "0072b2")
    assert not np.array_equal(both, curves_of_runs({"one": reports, "other": reports}, ["fid"]))
    assert curves_of_runs({"one": reports, "other": other}).shape[1] == 2 * both.shape[1]  # recall is in one alone


def test_values_that_span_decades_are_drawn_on_a_logarithmic_axis(reports):
    def heights(values):  # of the line, by column
        rows = [Report({"fid": value}, {}, step=step) for step, value in enumerate(values)]
        blue = (curves(rows, ["fid"])[:250] == np.array([0x00, 0x72, 0xB2])).all(-1)
        found = blue.any(0).nonzero()[0]
        middle = (found[0] + found[-1]) // 2
        rows = [blue[:, column].nonzero()[0].mean() for column in (found[0] + 2, middle, found[-1] - 2)]
        return (rows[1] - rows[0]) / (rows[2] - rows[0])

    assert heights([1000.0, 100.0, 10.0, 1.0, 0.1]) == pytest.approx(0.5, abs=0.05)
    assert heights([10.0, 5.0, 2.5, 1.25, 0.625]) > 0.7
