from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from lightning_synthqual.checking import Rule, check, check_all


@pytest.mark.parametrize(
    ("value", "kind", "limits", "expected"),
    [
        (3, int, {"low": 3, "high": 3}, 3),
        (np.int64(3), int, {}, 3),
        (3, float, {}, 3.0),
        (np.float32(0.5), float, {"above": 0}, 0.5),
        (True, bool, {}, True),
        (np.bool_(False), bool, {}, False),
        ("fid", str, {}, "fid"),
        ("a", None, {"choices": ("a", "b")}, "a"),
        (None, int, {"optional": True}, None),
        (None, None, {"choices": ("a",), "optional": True}, None),
        ([1, np.int8(2)], Sequence, {"items": Rule(int), "length": 2}, (1, 2)),
        ({"a": 1}, Mapping, {"items": Rule(float)}, {"a": 1.0}),
        ("x/y", Path, {}, "x/y"),
        (Path("x"), (str, Path), {}, Path("x")),
        (len, Callable, {}, len),
        (8, (int, Sequence), {"low": 1, "items": Rule(int, low=1), "length": 2}, 8),
        ((8, 9), (int, Sequence), {"low": 1, "items": Rule(int, low=1), "length": 2}, (8, 9)),
        ("quality/a", str, {"pattern": r"\w+(/\w+)*"}, "quality/a"),
    ],
)
def test_good_values_come_back_as_plain_ones(value, kind, limits, expected):
    found = check("x", value, kind, **limits)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "limits", "error", "message"),
    [
        ("3", int, {"low": 1}, TypeError, "`x` must be an integer of at least 1, but got '3'."),
        (True, int, {}, TypeError, "`x` must be an integer, but got True."),
        (1.5, int, {}, TypeError, "`x` must be an integer, but got 1.5."),
        (0, int, {"low": 1, "high": 5}, ValueError, "`x` must be an integer of at least 1 of at most 5, but got 0."),
        (None, int, {}, TypeError, "`x` must be an integer, but got None."),
        (float("nan"), float, {"low": 0}, ValueError, "`x` must be a finite number of at least 0, but got nan."),
        (float("inf"), float, {}, ValueError, "`x` must be a finite number, but got inf."),
        (True, float, {}, TypeError, "`x` must be a finite number, but got True."),
        (0, float, {"above": 0}, ValueError, "`x` must be a finite number above 0, but got 0."),
        ("yes", bool, {}, TypeError, "`x` must be True or False, but got 'yes'."),
        (1, bool, {}, TypeError, "`x` must be True or False, but got 1."),
        (" ", str, {}, ValueError, "`x` must be a non-empty string, but got ' '."),
        (3, str, {"optional": True}, TypeError, "`x` must be a non-empty string, or None, but got 3."),
        ("lower", None, {"choices": ("min", "max"), "optional": True}, ValueError, "'min', 'max' or None, but got"),
        (1, None, {"choices": (True, "link")}, ValueError, "`x` must be True or 'link', but got 1."),
        ("fid", Sequence, {}, TypeError, "`x` must be a list or tuple, but got 'fid'."),
        ([1, "b"], Sequence, {"items": Rule(int)}, TypeError, "`x[1]` must be an integer, but got 'b'."),
        ([1], Sequence, {"length": 2}, ValueError, "`x` must be a list or tuple of 2 items, but got [1]."),
        ({"k": "3"}, Mapping, {"items": Rule(int)}, TypeError, "`x['k']` must be an integer, but got '3'."),
        (5, Mapping, {}, TypeError, "`x` must be a mapping, but got 5."),
        (5, Callable, {"hint": "Pass a function."}, TypeError, "a callable, but got 5. Pass a function."),
        ("../x", str, {"pattern": r"\w+", "expected": "a plain name"}, ValueError, "must be a plain name, but got"),
        (3, (str, Path), {}, TypeError, "`x` must be a non-empty string or a path, but got 3."),
        (5, None, {"refused": (int, float), "expected": "a Dataset"}, TypeError, "must be a Dataset, but got 5."),
        ("", None, {"expected": "a folder", "optional": True}, ValueError, "must be a folder, or None, but got ''."),
        ("z" * 999, int, {}, TypeError, "... (str)."),
    ],
)
def test_bad_values_are_errors_that_name_the_argument(value, kind, limits, error, message):
    with pytest.raises(error) as raised:
        check("x", value, kind, **limits)
    assert message in str(raised.value)
    assert len(str(raised.value)) < 250


def test_a_table_of_rules():
    rules = {"k": Rule(int, low=1), "name": Rule(str, optional=True)}
    assert check_all({"k": np.int64(3), "name": None, "self": object()}, rules) == {"k": 3, "name": None}
    with pytest.raises(ValueError, match="`k` must be an integer of at least 1"):
        check_all({"k": 0, "name": None}, rules)
