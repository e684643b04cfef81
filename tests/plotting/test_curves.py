import numpy as np
import pytest

from lightning_synthqual import Report
from lightning_synthqual.plotting.curves import curves


@pytest.fixture
def reports():
    def report(step):
        scalars = {"fid": 50 / (1 + step), "fid_std": 0.5, "fid_floor": 2.0}
        return Report(scalars=scalars | ({"recall": 0.1 * step} if step else {}), protocol={}, timings={}, step=step)

    return [report(step) for step in range(6)]


def test_every_metric_has_a_panel(reports):
    one, two = curves(reports, ["fid"]), curves(reports)
    assert one.dtype == np.uint8
    assert two.shape == (one.shape[0], 2 * one.shape[1], 3)
    assert np.array_equal(curves(reports, ["fid"]), one)


def test_errors_and_floors_are_drawn(reports):
    bare = [Report(scalars={"fid": r.scalars["fid"]}, protocol={}, timings={}, step=r.step) for r in reports]
    assert not np.array_equal(curves(reports, ["fid"]), curves(bare, ["fid"]))


def test_a_single_evaluation_is_drawn(reports):
    assert (curves(reports[:1]) < 255).any()


def test_metrics_that_were_not_measured(reports):
    with pytest.raises(ValueError, match=r"no kid\. They have: fid, recall"):
        curves(reports, ["fid", "kid"])
    with pytest.raises(ValueError, match="no metrics"):
        curves([])
