import numpy as np
import pytest

from lightning_synthqual import Report
from lightning_synthqual.cli import main
from lightning_synthqual.reporting.findings import findings

COPIES = {
    "copy_fraction_wavelet": 43 / 240,
    "copy_fraction_held_out_wavelet": 0.0041,
    "copy_excess_wavelet": 0.175,
    "copy_excess_wavelet_std": 0.025,
}
PROTOCOL = {"num_samples": 240}


def texts(scalars, protocol=PROTOCOL, before=None):
    return [finding.text for finding in findings(Report(scalars, protocol), before)]


def kinds(scalars, protocol=PROTOCOL):
    return [finding.kind for finding in findings(Report(scalars, protocol))]


def test_copies_come_first_and_are_counted():
    found = texts({"fid": 12.0, "fid_std": 0.5, "fid_floor": 3.0, **COPIES})
    assert found == [
        "43 of 240 generated images look like copies of training images (18 %; held-out images: 0.4 %).",
        "FID is 4.0 times what real images score (12.00 ± 0.50, real images 3).",
    ]


@pytest.mark.parametrize(("excess", "kind"), [(0.076, "alarm"), (0.074, "clear"), (-0.1, "clear")])
def test_an_alarm_needs_three_standard_errors(excess, kind):
    assert kinds({**COPIES, "copy_excess_wavelet": excess}) == [kind]


def test_nothing_is_said_of_copies_without_an_error():
    assert texts({"copy_excess": 0.5, "copy_fraction": 0.5, "copy_fraction_held_out": 0.0}) == []


def test_without_the_values_of_its_sentence_an_alarm_is_general():
    assert texts({"copy_excess": 0.5, "copy_excess_std": 0.1}) == ["Copy excess is too high (0.50 ± 0.10)."]


def test_gaps_are_told_in_one_sentence():
    scalars = {"kid": 0.02, "kid_gap": 0.004, "kid_gap_std": 0.001, "kd_wavelet": 1.0}
    scalars |= {"kd_wavelet_gap": 0.5, "kd_wavelet_gap_std": 0.1, "kid_rbf": 1, "kid_rbf_gap": 1, "kid_rbf_gap_std": 1}
    assert texts(scalars) == [
        "Generated images are nearer to training images than to held-out images: KID by 0.0040 ± 0.0010, KD (wavelet) "
        "by 0.50 ± 0.10."
    ]


def test_scores_are_sorted_by_how_far_they_are_from_real_images():
    scalars = {"fid": 6.0, "fid_floor": 3.0, "recall": 0.2, "recall_floor": 0.8, "precision": 0.79}
    scalars["precision_floor"] = 0.8
    assert texts(scalars) == [
        "Recall is low (0.2, real images 0.8): much of the variety of the real images is missing.",
        "FID is 2.0 times what real images score (6, real images 3).",
        "Precision is no worse than for real images.",
    ]


def test_a_floor_below_zero_has_no_multiples():
    assert texts({"kid": 0.01, "kid_std": 0.001, "kid_floor": -0.0002}) == [
        "KID is above that of real images (0.0100 ± 0.0010, real images -0.0002)."
    ]


def test_a_difference_within_the_errors_is_none():
    assert kinds({"fid": 6.0, "fid_std": 1.0, "fid_floor": 3.5, "fid_floor_std": 0.8}) == ["as real"]


def test_changes_say_better_and_worse_by_the_direction_of_each():
    scalars = {"fid": 5.0, "fid_change": -0.6, "fid_change_std": 0.05, "kid": 1.0, "kid_change": 0.1}
    scalars |= {"kid_change_std": 0.06, "recall": 0.5, "recall_change": -0.2, "recall_change_std": 0.01}
    assert texts(scalars, {"change": {"since": 7}}) == [
        "Better than the last evaluation (step 7): FID by 0.600 ± 0.050.",
        "Worse than the last evaluation (step 7): recall by 0.200 ± 0.010.",
    ]


def test_a_change_that_may_be_chance_is_called_so():
    scalars = {"fid": 5.0, "fid_change": -0.06, "fid_change_std": 0.05}
    assert texts(scalars) == ["No score differs from the last evaluation by more than 2 standard errors."]


def test_the_evaluation_before_may_be_given():
    found = texts({"fid": 9.0, "fid_std": 0.3}, before=Report({"fid": 12.0, "fid_std": 0.4}, PROTOCOL))
    assert found == ["Better than the last evaluation: FID by 3.00 ± 0.50."]


def test_an_unknown_metric_is_read_by_its_direction():
    protocol = {"metrics": {"my_score": {"direction": "max"}, "my_other": {"direction": None}}}
    scalars = {"my_score": 1.0, "my_score_floor": 4.0, "my_other": 1.0, "my_other_floor": 4.0}
    assert texts(scalars, protocol) == ["My_score is low (1, real images 4)."]


def test_nothing_is_said_where_nothing_can_be():
    assert texts({"fid": 12.0, "loss": 3.0, "copy_excess": 0.3}) == []


def test_the_page_and_the_terminal_begin_with_them(tmp_path, capsys):
    draw = np.random.default_rng(0)
    train, held_out, new = (draw.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8) for count in (60, 40, 40))
    sets = {"real": train, "held-out": held_out, "fake": np.concatenate([train[:20], new[:20]])}
    for name, images in sets.items():
        np.save(tmp_path / f"{name}.npy", images)
    paths = [word for name in sets for word in (f"--{name}", str(tmp_path / f"{name}.npy"))]
    output = ["--output", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache"), "--quiet"]
    assert main(["evaluate", *paths, "--metrics", "memorization_pixels", *output]) == 0
    sentence = "20 of 40 generated images look like copies of training images (50 %; held-out images: 0 %)."
    assert capsys.readouterr().out.startswith(sentence)
    assert f'<ul class="findings"><li class="alarm">{sentence}</li>' in (tmp_path / "out" / "report.html").read_text()
    lines = (tmp_path / "out" / "copies_pixels.csv").read_text().splitlines()
    assert {tuple(line.split(",")[:2]) for line in lines[1:]} == {(f"item {i}", f"item {i}") for i in range(20)}
