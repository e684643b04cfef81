import pytest

from lightning_synthqual.reporting.numbers import with_error


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (12.34567, 0.256, "12.35 ± 0.26"),
        (2.97, 0.0996, "2.97 ± 0.10"),  # rounds up to another power of ten
        (0.1, 5.0, "0.1 ± 5.0"),
        (1234.5, 25.6, "1234 ± 26"),
        (1234.5, 256.0, "1230 ± 260"),
        (123456789.0, 34567890.0, "1.23e+08 ± 3.5e+07"),
        (1.2345e-7, 3.21e-8, "1.23e-07 ± 3.2e-08"),
        (1.5, 1e-9, "1.5 ± 1e-09"),
        (0.25, None, "0.25"),
        (1.0, 0.0, "1 ± 0"),
    ],
)
def test_the_error_has_two_significant_digits_and_the_value_matches(value, error, text):
    assert with_error(value, error) == text


def test_changes_have_their_sign():
    assert with_error(0.6182, 0.0523, signed=True) == "+0.618 ± 0.052"
    assert with_error(-0.6182, 0.0523, signed=True) == "-0.618 ± 0.052"
    assert with_error(0.5, None, signed=True) == "+0.5"
