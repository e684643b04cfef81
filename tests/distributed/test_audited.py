"""Audits on real processes."""

import pytest


@pytest.mark.slow
def test_two_processes_find_what_one_does(run, tmp_path):
    [alone] = run(tmp_path / "one", 1)
    pair = run(tmp_path / "two", 2)
    assert pair[0] == pair[1]
    assert {cell["fault"] for cell in alone["cells"]} == {"contrast", "hue", "blend", "mode_drop"}
    for found in (alone, pair[0]):
        assert found["protocol"].pop("seconds").keys() == {"pixels"}
    assert pair[0] == alone
