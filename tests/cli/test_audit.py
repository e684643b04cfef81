"""``synthqual audit``."""

import json

import pytest

from lightning_synthqual.audit import Audit
from lightning_synthqual.cli import main


def words(folders, tmp_path, network, **options):
    given = {"metrics": "fd,recall", "faults": "contrast,hue", **options}
    chosen = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    places = ["--output", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache"), "--quiet"]
    sets = ["--real", str(folders["train"]), "--held-out", str(folders["held_out"])]
    return ["audit", *sets, *places, "--extractors", "pixels", "--extractor", f"mine={json.dumps(network)}", *chosen]


def test_the_passport_is_written_and_its_verdict_printed(folders, tmp_path, network, capsys):
    main(words(folders, tmp_path, network, num_images=16))
    found = Audit.from_json((tmp_path / "out" / "audit.json").read_text())
    assert {(cell.extractor, cell.metric, cell.fault) for cell in found.cells} == {
        (extractor, metric, fault)
        for extractor in ("pixels", "mine")
        for metric in ("fd", "recall")
        for fault in ("contrast", "hue")
    }
    assert (found.protocol["num_images"], found.protocol["num_reference"]) == (16, 40)
    printed = capsys.readouterr().out
    assert printed.startswith("On these 16 images, ")
    assert f"Written: {tmp_path / 'out' / 'audit.html'}" in printed
    assert "fd_mine" in (tmp_path / "out" / "audit.html").read_text()


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("faults", "blurr", "names 'blurr', which is unknown"),
        ("metrics", "fdd", "`--metrics` names 'fdd', which is unknown"),
        ("num_images", 21, "is 21, but there are 20 images to test"),
        ("num_images", 2, "on each side, but there are 2 to test"),
    ],
)
def test_bad_input_is_one_line(folders, tmp_path, network, option, value, expected, capsys):
    assert main(words(folders, tmp_path, network, **{option: value})) == 2
    shown = capsys.readouterr().err
    assert expected in shown
    assert len(shown.splitlines()) == 1
