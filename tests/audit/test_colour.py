import math

import pytest

from lightning_synthqual.audit.colour import Seen, colour_shares


def test_the_share_is_what_is_gone_over_all_doses_in_the_direction_in_which_they_were_told():
    found = colour_shares(
        [
            Seen("mine", "fd", 3.0, 3.0),
            Seen("mine", "fd", -1.0, 1.0),
            Seen("mine", "kd", 2.0, 0.0),
            Seen("other", "fd", -2.0, -2.0),
        ]
    )
    assert found == {"mine": {"fd": pytest.approx(1 - (3 - 1) / 4), "kd": 1.0}, "other": {"fd": 0.0}}


def test_every_metric_has_a_share_or_none():
    columns = [("mine", "fd"), ("mine", "kd"), ("other", "fd")]
    assert colour_shares([], columns) == {"mine": {"fd": None, "kd": None}, "other": {"fd": None}}
    seen = [Seen("mine", "kd", 2.0, 1.0), Seen("mine", "kd", 2.0, math.nan), Seen("mine", "fd", 2.0, math.nan)]
    assert colour_shares(seen, columns) == {"mine": {"fd": None, "kd": 0.5}, "other": {"fd": None}}
