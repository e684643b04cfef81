import copy

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_synthqual import QualityCheckpoint
from lightning_synthqual.callbacks.averaging import OWN_WEIGHTS

weight_averaging = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging")  # since Lightning 2.6


class Averaging(weight_averaging.WeightAveraging):
    """The mean of all weights so far, copied for comparison after each step."""

    def __init__(self, start: int = 0) -> None:
        super().__init__(use_buffers=True)
        self.start = start
        self.copies: dict[int, dict[str, torch.Tensor]] = {}

    def should_update(self, step_idx=None, epoch_idx=None) -> bool:
        return step_idx is not None and step_idx >= self.start

    def on_train_batch_end(self, trainer, *args) -> None:
        super().on_train_batch_end(trainer, *args)
        batches = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        self.copies[batches] = copy.deepcopy(self._average_model.module.state_dict())


def expected_scores(tiny_gan, monitor, trainer, loader, weights) -> dict[str, float]:
    module = tiny_gan(validates=True)
    module.load_state_dict(weights)
    quality = monitor(real=loader)
    trainer(quality).validate(module, loader, verbose=False)
    return quality.reports[-1].scalars


@pytest.mark.parametrize("averaging_first", [True, False])
@pytest.mark.parametrize(
    ("validates", "arguments", "batches"),
    [(True, {}, [4, 8]), (False, {}, [4, 8]), (False, {"every_n_train_batches": 3}, [3, 6])],
)
def test_averaged_weights_are_scored_whatever_the_order(
    tiny_gan, monitor, trainer, loader, levels, averaging_first, validates, arguments, batches
):
    averaging, quality = Averaging(), monitor(real=loader, **arguments)
    callbacks = [averaging, quality] if averaging_first else [quality, averaging]
    fitting = trainer(*callbacks)
    fitting.fit(tiny_gan(validates=validates), *([loader] * (1 + validates)))
    assert len(quality.reports) == 2
    for report, batch in zip(quality.reports, batches, strict=True):
        assert levels(report) == expected_scores(tiny_gan, monitor, trainer, loader, averaging.copies[batch])
        assert report.protocol["sampling"]["weights"] == "averaged by Averaging"


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("averaging_first", [True, False])
def test_training_and_averages_are_bit_identical(tiny_gan, monitor, trainer, loader, averaging_first, raises):
    def sampler(module, n, generator):
        if raises and generator.initial_seed() and module.trainer.global_step:
            raise RuntimeError("sampler on fire")
        return module(torch.randn(n, 4, generator=generator))

    states = []
    for watched in (False, True):
        averaging, gan = Averaging(), tiny_gan(validates=True)
        quality = [monitor(real=loader, sampler=sampler, every_n_train_batches=2, on_error="warn")] if watched else []
        trainer(*([averaging, *quality] if averaging_first else [*quality, averaging])).fit(gan, loader, loader)
        states.append([*gan.state_dict().values(), *averaging.copies[3].values(), *averaging.copies[8].values()])
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))


def test_before_the_first_average_the_modules_own_weights_are_scored(tiny_gan, monitor, trainer, loader):
    quality = monitor(real=loader)
    trainer(quality, Averaging(start=10**6)).fit(tiny_gan(), loader)
    alone = monitor(real=loader)
    trainer(alone).fit(tiny_gan(), loader)
    assert [r.scalars for r in quality.reports] == [r.scalars for r in alone.reports]
    assert {r.protocol["sampling"]["weights"] for r in quality.reports} == {OWN_WEIGHTS}


def test_a_getter_comes_before_averages(tiny_gan, monitor, trainer, loader):
    def ema(pl_module):
        return pl_module

    quality = monitor(real=loader, model=ema)
    trainer(Averaging(), quality).fit(tiny_gan(), loader)
    alone = monitor(real=loader)
    trainer(alone).fit(tiny_gan(), loader)
    assert [r.scalars for r in quality.reports] == [r.scalars for r in alone.reports]
    assert all(r.protocol["sampling"]["weights"].endswith("ema") for r in quality.reports)


def test_the_other_callbacks_keep_their_order(tiny_gan, monitor, trainer, loader):
    class Witness(pl.Callback):
        def __init__(self) -> None:
            self.hooks: list[str] = []

        def setup(self, *_, **__) -> None:
            self.hooks.append("setup")

        def on_train_start(self, *_) -> None:
            self.hooks.append("on_train_start")

    first, second, averaging, quality = Witness(), Witness(), Averaging(), monitor(real=loader)
    fitting = trainer(first, quality, second, averaging)
    fitting.fit(tiny_gan(), loader)
    assert [cb for cb in fitting.callbacks if cb in (first, second, averaging, quality)] == [
        first,
        second,
        averaging,
        quality,
    ]
    assert first.hooks == second.hooks == ["setup", "on_train_start"]


def test_the_number_after_the_fit_is_the_averages(tiny_gan, monitor, trainer, loader, levels):
    averaging, quality, gan = Averaging(), monitor(real=loader), tiny_gan(validates=True)
    fitting = trainer(quality, averaging)
    fitting.fit(gan, loader, loader)
    fitting.validate(gan, loader, verbose=False)
    assert quality.reports[-1].scalars == levels(quality.reports[-2])


STARTS = {
    "steps": {"update_starting_at_step": 10},  # two optimizers: after the fifth batch
    "epochs": {"update_starting_at_step": 10**6, "update_starting_at_epoch": 1},
    "never": {"update_starting_at_step": 10**6},
}


@pytest.mark.parametrize(
    ("start", "averaging_first", "arguments", "weights_only"),
    [
        ("steps", True, {}, False),
        ("steps", False, {"every_n_train_batches": 3}, False),
        ("steps", False, {}, True),
        ("epochs", True, {"every_n_train_batches": 3}, True),
        ("epochs", False, {}, False),
        ("never", True, {}, False),
    ],
)
def test_a_file_holds_what_was_scored_before_and_after_the_first_average(
    tiny_gan, monitor, trainer, loader, tmp_path, recwarn, start, averaging_first, arguments, weights_only
):
    averaging = weight_averaging.EMAWeightAveraging(decay=0.5, **STARTS[start])
    quality = monitor(real=loader, **arguments)
    keep = QualityCheckpoint("quality/fd_wavelet", save_top_k=-1, dirpath=str(tmp_path), save_weights_only=weights_only)
    order = [averaging, quality] if averaging_first else [quality, averaging]
    trainer(keep, *order, max_epochs=3, enable_checkpointing=True).fit(tiny_gan(validates=True), loader, loader)
    assert len(keep.best_k_models) == len(quality.reports) >= 3
    for path, label in keep.best_k_models.items():
        weights = torch.load(path, weights_only=True)["state_dict"]
        found = expected_scores(tiny_gan, monitor, trainer, loader, weights)["fd_wavelet"]
        assert found == pytest.approx(label.item(), rel=1e-6)
    names = [report.protocol["sampling"]["weights"] for report in quality.reports]
    assert names[0] == OWN_WEIGHTS
    assert names[-1] == (OWN_WEIGHTS if start == "never" else "averaged by EMAWeightAveraging")
    assert not [warning for warning in recwarn if "other weights" in str(warning.message)]


def test_other_checkpoints_hold_it_too_and_resume_alike(tiny_gan, monitor, trainer, loader, tmp_path):
    def fit(folder, checkpoint=None, watched=True):
        averaging = weight_averaging.EMAWeightAveraging(decay=0.5, update_starting_at_step=10)
        saving = ModelCheckpoint(tmp_path / folder, filename="{epoch}", save_top_k=-1)
        gan, quality = tiny_gan(validates=True), monitor(real=loader)
        callbacks = [quality, averaging, saving] if watched else [averaging, saving]
        trainer(*callbacks, max_epochs=3, enable_checkpointing=True).fit(gan, loader, loader, ckpt_path=checkpoint)
        return gan.state_dict(), quality.reports

    weights, reports = fit("a")
    saved = torch.load(tmp_path / "a" / "epoch=0.ckpt", weights_only=True)["state_dict"]
    assert expected_scores(tiny_gan, monitor, trainer, loader, saved) == reports[0].scalars
    unwatched, _ = fit("b", watched=False)
    assert all(torch.equal(weights[name], unwatched[name]) for name in weights)
    again, resumed = fit("c", tmp_path / "a" / "epoch=0.ckpt")
    assert [report.step for report in resumed] == [report.step for report in reports]
    assert all(torch.equal(again[name], tensor) for name, tensor in resumable_weights(fit, tmp_path).items())


def resumable_weights(fit, tmp_path) -> dict[str, torch.Tensor]:
    """Weights of an unwatched training that is resumed from an unwatched checkpoint."""
    return fit("d", tmp_path / "b" / "epoch=0.ckpt", watched=False)[0]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_several_monitors_keep_their_order(tiny_gan, monitor, trainer, loader, tmp_path, place):
    first, second = monitor(prefix="first"), monitor(prefix="second")
    callbacks = [first, second]
    callbacks.insert(place, Averaging())
    fitting = trainer(*callbacks, max_epochs=1)
    fitting.fit(tiny_gan(), loader)
    assert [callback for callback in fitting.callbacks if callback in callbacks] == [callbacks[place], first, second]
    assert (tmp_path / "reports.jsonl").exists()
    assert (tmp_path / "second" / "reports.jsonl").exists()
    assert not (tmp_path / "first").exists()
