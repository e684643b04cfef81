from lightning_synthqual import Report
from lightning_synthqual.reporting.summary import summary_line


def test_scores_that_can_get_better_stand_first_with_their_errors():
    scalars = {"fid": 12.34567, "fid_std": 0.256, "fid_floor": 2.0, "train_distance": 0.5, "recall": 0.25}
    line = summary_line(Report(scalars, {}, timings={"sampling": 1.25, "total": 2.0}))
    assert line == "fid 12.35 ± 0.26, recall 0.25; sampling 1.2 s, total 2.0 s"


def test_without_such_scores_the_first_few_others_are_shown():
    scalars = {f"pairs_psnr_{kind}": 20.0 for kind in range(9)}
    line = summary_line(Report(scalars, {}))
    assert line == ", ".join(f"pairs_psnr_{kind} 20" for kind in range(6))


def test_metrics_of_the_users_count_by_the_direction_that_they_have():
    protocol = {"metrics": {"mine": {"direction": "max"}, "yours": {"direction": None}}}
    assert summary_line(Report({"yours": 1.0, "mine": 2.0}, protocol)) == "mine 2"


def test_a_report_of_nothing():
    assert summary_line(Report({}, {})) == ""
    assert summary_line(Report({}, {}, timings={"total": 1.0})) == "total 1.0 s"
