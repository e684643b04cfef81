import math

import pytest
from planted_audit import planted

from lightning_synthqual.audit.cover import cheapest_cover
from lightning_synthqual.audit.reading import Column, readings
from lightning_synthqual.audit.verdict import verdict

ALL, NONE = [9] * 6, [0.5] * 6


def text(audit):
    return "\n".join(verdict(audit).sentences)


def test_a_metric_sees_a_fault_from_the_dose_on_from_which_all_are_told():
    audit = planted({("wavelet", "fd"): {"blur": [0, 9, 1, 9, 9, 9], "noise": [0, 9, 9, 9, 9, 1], "jpeg": NONE}})
    rows = readings(audit)
    column = Column("wavelet", "fd")
    assert [rows[fault][column].kind for fault in rows] == ["seen", "partly", "blind"]
    assert (rows["blur"][column].seen_from.dose, rows["blur"][column].rank) == (1.0, 4)
    assert verdict(audit).by_metric["fd_wavelet"] == (
        "Sees blur from 1 px (30 dB).",
        "Tells noise as worse at some doses, but not at all larger ones.",
        "Does not tell jpeg (up to 90 below quality 100 (30 dB)).",
    )


def test_the_cheapest_metrics_that_see_all_are_recommended():
    changes = {
        ("wavelet", "fd"): {"blur": ALL, "noise": ALL, "mirror": NONE},
        ("wavelet", "kd"): {"blur": NONE, "noise": NONE, "mirror": ALL},
        ("pixels", "fd"): {"blur": ALL, "noise": NONE, "mirror": ALL},
    }
    said = verdict(planted(changes))
    assert said.line == 'metrics=("fd_wavelet", "kd_wavelet")'  # one extractor instead of two
    assert said.sentences[0] == (
        "On these 400 images, fd_wavelet and kd_wavelet together see all 3 faults that any of the 3 metrics sees, of 3 "
        "that were tried."
    )
    changes["pixels", "fd"]["noise"] = ALL
    assert verdict(planted(changes)).line == 'metrics=("fd_pixels",)'  # one metric instead of two
    slow = planted(changes, protocol={"seconds": {"wavelet": 2.0, "pixels": 30.0}})
    assert verdict(slow).line == 'metrics=("fd_wavelet", "kd_wavelet")'


def test_of_equal_metrics_the_one_that_sees_smaller_doses_is_recommended():
    changes = {("pixels", "kd"): {"blur": [0, 0, 9, 9, 9, 9]}, ("pixels", "fd"): {"blur": [0, 9, 9, 9, 9, 9]}}
    assert verdict(planted(changes)).metrics == ("fd_pixels",)


def test_what_three_metrics_cannot_see_is_named():
    faults = ["blur", "noise", "jpeg", "gamma"]
    changes = {
        ("own", f"m{at}"): {fault: ALL if fault == seen else NONE for fault in faults} for at, seen in enumerate(faults)
    }
    audit = planted(changes)
    assert cheapest_cover(readings(audit)).missed == ("gamma",)
    assert "together see 3 of the 4 faults" in text(audit)
    assert "No 3 metrics see more; only other metrics see gamma." in text(audit)


def test_what_nobody_sees_and_what_improves_is_said_with_its_dose():
    changes = {
        ("inception", "fd"): {"mirror": NONE, "blur": ALL, "copying": [-9] * 5},
        ("inception", "precision"): {"mirror": NONE, "blur": NONE, "copying": [-1, -9, 0, 0, 0]},
    }
    said = text(planted(changes, psnr=12.3))
    assert "No metric tells these as worse: mirror (tried up to 100 % of the images (12 dB)) and copying (" in said
    assert "these metrics improve under faults: fid under copying; precision under copying." in said
    by_metric = verdict(planted(changes)).by_metric
    assert "Improves under copying (at 10 % of the images (30 dB))." in by_metric["precision"]


def test_faults_that_do_not_change_the_images_are_no_blindness():
    audit = planted({("wavelet", "fd"): {"hue": [0] * 6}}, psnr=math.inf)
    assert text(audit) == (
        "On these 400 images, no metric sees any of the 0 faults from some dose on.\n"
        "These images do not change under hue: no metric can tell."
    )
    assert verdict(audit).line == ""


@pytest.mark.parametrize(
    ("first", "images"),
    [
        (1.5, "1,600"),  # half of the three errors that are needed: four times the images
        (2.0, "900"),
        (1.4, None),  # too uncertain
        (-2.0, None),  # the other direction than that of larger doses
    ],
)
def test_the_number_of_images_follows_from_the_error(first, images):
    said = text(planted({("wavelet", "fd"): {"blur": [first, 9, 9, 9, 9, 9]}}))
    expected = f"With more images fd_wavelet would tell smaller doses: blur of 0.4 px (about {images})."
    assert (expected in said) == (images is not None)
    assert ("With more images" in said) == (images is not None)


def test_lower_values_may_be_worse():
    audit = planted({("wavelet", "recall"): {"blur": ALL}})
    for cell in audit.cells:
        cell.change = -cell.change
    audit.cells[0].change, audit.cells[0].told = -1.5, None
    assert "blur of 0.4 px (about 1,600)" in text(audit)


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"a": {"fd": 0.0, "kd": 0.04}}, "No metric depends much on colour: at most 4 %"),
        (
            {"a": {"fd": 0.82, "kd": None}, "b": {"fd": 0.05}},
            "5 % to 82 %; mostly colour is what fd_a tells; hardly any",
        ),
        ({"a": {"fd": 0.3}}, "Colour share, the part of the changes that is gone in grey images: 30 %."),
    ],
)
def test_colour_share_in_words(shares, words):
    assert words in text(planted({("a", "fd"): {"blur": ALL}}, colour_share=shares))


def test_no_colour_share_no_sentence():
    assert "olour" not in text(planted({("a", "fd"): {"blur": ALL}}, colour_share={"a": {"fd": None}}))
