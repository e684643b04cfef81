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


CHANGED = {"fid": 2.97, "fid_std": 0.17, "fid_change": -0.62, "fid_change_std": 0.05}
RECALL = {"recall": 0.41, "recall_std": 0.02, "recall_change": 0.01, "recall_change_std": 0.004}
SINCE = {"change": {"since": 1535, "paired": ["fid", "recall"]}}


def test_a_change_stands_beside_its_value_with_the_step_since_which_it_is():
    line = summary_line(Report(CHANGED, SINCE), best={"fid"})
    assert line == "fid 2.97 ± 0.17, -0.620 ± 0.050 since step 1535, best so far"


def test_of_several_changes_the_step_is_said_once():
    line = summary_line(Report({**CHANGED, **RECALL, "isc": 2.0}, SINCE, timings={"total": 2.0}), best={"recall"})
    assert line == (
        "fid 2.97 ± 0.17, -0.620 ± 0.050; recall 0.410 ± 0.020, +0.0100 ± 0.0040, best so far; isc 2; "
        "changes since step 1535; total 2.0 s"
    )


def test_changes_outside_a_training_have_no_step():
    assert summary_line(Report(CHANGED, {"change": {"since": None}})) == "fid 2.97 ± 0.17, -0.620 ± 0.050"


def test_an_alarm_begins_the_line():
    scalars = {"fid": 2.0, "copy_excess": 0.5, "copy_excess_std": 0.01, "copy_fraction": 0.51}
    report = Report({**scalars, "copy_fraction_held_out": 0.01}, {"num_samples": 100})
    assert summary_line(report).startswith("51 of 100 generated images look like copies of training images (51 %;")
