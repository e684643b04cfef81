"""Bars, as they are drawn on the screen."""

import io

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar

from lightning_synthqual.callbacks.progress import RichBars, progress_of
from lightning_synthqual.reporting.progress import Bars, Silent

STAGES = ("quality: reading", "quality: sampling", "quality: scoring")


@pytest.mark.parametrize("validates", [True, False])
def test_tqdm(tiny_gan, monitor, trainer, loader, capsys, validates):
    fitting = trainer(monitor(), TQDMProgressBar(), enable_progress_bar=True, max_epochs=1)
    fitting.fit(tiny_gan(validates=validates), *([loader] * (1 + validates)))
    screen = capsys.readouterr().out
    for stage in STAGES:
        assert stage in screen
    assert "/50 [" in screen  # images, with their rate
    assert "Epoch 0: 100%" in screen


@pytest.mark.parametrize("validates", [True, False])
def test_rich(tiny_gan, monitor, trainer, loader, validates):
    pytest.importorskip("rich")
    screen = io.StringIO()
    bar = RichProgressBar(console_kwargs={"file": screen, "force_terminal": True, "width": 160})
    fitting = trainer(monitor(), bar, enable_progress_bar=True, max_epochs=1)
    fitting.fit(tiny_gan(validates=validates), *([loader] * (1 + validates)))
    for stage in STAGES[1:]:
        assert stage in screen.getvalue()
    assert "Epoch 0/0" in screen.getvalue()


def test_rich_before_the_trainers_bar_is_up(monkeypatch):
    rich = pytest.importorskip("rich")
    screen = io.StringIO()
    monkeypatch.setattr(rich, "_console", rich.console.Console(file=screen, force_terminal=True))
    bars = RichBars(RichProgressBar(), "quality")
    with bars.stage("reading", None) as advance:
        advance(3)
    assert "quality: reading" in screen.getvalue()


@pytest.mark.parametrize("callbacks", [[], [TQDMProgressBar(refresh_rate=0)]])
def test_silence_where_the_trainer_is_silent(tiny_gan, monitor, trainer, loader, capsys, callbacks):
    fitting = trainer(monitor(), *callbacks, enable_progress_bar=bool(callbacks), max_epochs=1)
    fitting.fit(tiny_gan(), loader)
    captured = capsys.readouterr()
    assert "sampling:" not in captured.out + captured.err
    assert isinstance(progress_of(fitting, "quality"), Silent)


def test_other_ranks_and_other_bars_are_silent(trainer):
    bar = TQDMProgressBar()
    fitting = trainer(bar, enable_progress_bar=True)
    assert isinstance(progress_of(fitting, "quality"), Bars)
    bar.disable()  # as Lightning does on all ranks but the first
    assert isinstance(progress_of(fitting, "quality"), Silent)

    class Another(pl.callbacks.ProgressBar):
        is_disabled = False

    assert isinstance(progress_of(trainer(Another(), enable_progress_bar=True), "quality"), Silent)
