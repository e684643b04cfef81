import json
import math

import numpy as np
import pytest

from lightning_synthqual.audit.passport import Audit, Cell


def cell(dose, change, told=None, fault="blur", psnr=30.0, std=0.5):
    return Cell("pixels", "fd", fault, dose, 5.0 + change, change, std, psnr, told)


@pytest.fixture
def passport():
    cells = (
        cell(1.0, -0.5),
        cell(2.0, 2.5, "worse"),
        cell(4.0, 9.0, "worse", std=None),
        cell(5.0, 0.0, fault="hue", psnr=math.inf),
        cell(0.5, -3.0, "better", fault="copying", psnr=None),
    )
    protocol = {"num_images": 40, "size": [16, 16], "seconds": {"pixels": 0.5}, "faults": {}}
    examples = {"blur": {dose: np.zeros((2, 3, 8, 8), np.uint8) for dose in (0.0, 2.0)}}
    return Audit(cells, {"pixels": {"fd": None}}, protocol=protocol, examples=examples)


def test_what_the_cells_say_of_each_fault(passport):
    assert passport.smallest == {"pixels": {"fd": {"blur": 2.0, "hue": None, "copying": 0.5}}}
    assert passport.monotony["pixels"]["fd"] == {"blur": pytest.approx(0.8), "hue": None, "copying": pytest.approx(-1)}


def test_json_holds_all_but_the_pictures_and_is_read_back(passport):
    text = passport.to_json()
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert content["cells"][0] == {
        "extractor": "pixels",
        "metric": "fd",
        "fault": "blur",
        "dose": 1.0,
        "value": 4.5,
        "change": -0.5,
        "change_std": 0.5,
        "psnr": 30.0,
        "told": None,
    }
    assert content["cells"][3]["psnr"] == "inf"
    assert content["smallest"]["pixels"]["fd"]["blur"] == 2.0
    again = Audit.from_json(text)
    assert again.cells == passport.cells
    assert again.to_json() == text
    assert again.examples == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": [{"dose": 1}]}'])
def test_other_texts_are_no_audit(text):
    with pytest.raises(ValueError, match=r"no audit as `Audit.to_json` writes it"):
        Audit.from_json(text)


def test_both_files_are_written(passport, tmp_path):
    passport.save(tmp_path / "new" / "folder")
    written = {path.name: path.read_text() for path in (tmp_path / "new" / "folder").iterdir()}
    assert written.keys() == {"audit.json", "audit.html"}
    assert written["audit.json"] == passport.to_json()
    assert "fd_pixels" in written["audit.html"]
