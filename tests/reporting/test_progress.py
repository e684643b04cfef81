import io

import pytest

from lightning_synthqual.reporting.progress import Bars, Silent


def test_a_bar_shows_stage_count_and_total() -> None:
    screen = io.StringIO()
    with Bars("quality", file=screen).stage("sampling", 40) as advance:
        for _ in range(4):
            advance(10)
    assert "quality: sampling" in screen.getvalue()
    assert "0/40" in screen.getvalue()


def test_a_bar_of_unknown_length_counts() -> None:
    screen = io.StringIO()
    with Bars(file=screen).stage("reading", None) as advance:
        advance(3)
    assert "reading: 0it" in screen.getvalue()


def test_an_error_within_a_stage_comes_through_and_closes_the_bar() -> None:
    screen = io.StringIO()
    with pytest.raises(ValueError, match="inside"), Bars(file=screen).stage("scoring", 1):
        raise ValueError("inside")
    assert screen.getvalue().endswith("\r")


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with Silent().stage("sampling", 4) as advance:
        advance(4)
    assert capsys.readouterr() == ("", "")
