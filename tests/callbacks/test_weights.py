"""The weights that were scored are compared with those that are saved."""

import copy

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from lightning_synthqual import QualityCheckpoint

METRIC = "quality/fd_wavelet"
WARNING = "saves other weights"


class SwapDuringValidation(pl.Callback):
    """As NeMo's EMA does: averaged weights are in the module from the start to the end of a validation."""

    def __init__(self) -> None:
        self.own: list[torch.Tensor] = []

    def on_validation_start(self, trainer, pl_module) -> None:
        self.own = [parameter.detach().clone() for parameter in pl_module.parameters()]
        for parameter in pl_module.parameters():
            parameter.data.mul_(0.5)

    def on_validation_end(self, trainer, pl_module) -> None:
        for parameter, own in zip(pl_module.parameters(), self.own, strict=True):
            parameter.data.copy_(own)


def warnings_of(recorded) -> list[str]:
    return [str(warning.message) for warning in recorded if WARNING in str(warning.message)]


@pytest.fixture
def fit(tiny_gan, monitor, trainer, loader, tmp_path, recwarn):
    def run(*callbacks, saving=None, module=None, **arguments):
        quality = monitor(real=loader, metrics=("fd_wavelet",), **arguments)
        keep = QualityCheckpoint(METRIC, save_top_k=-1, dirpath=str(tmp_path / "best"), **(saving or {}))
        fitting = trainer(keep, *callbacks, quality, enable_checkpointing=True, max_epochs=2)
        fitting.fit(module or tiny_gan(validates=True), loader, loader)
        assert len(keep.best_k_models) == len(quality.reports)
        return quality, keep, warnings_of(recwarn)

    return run


@pytest.mark.parametrize("saving", [{}, {"save_weights_only": True}, {"save_last": True}])
def test_weights_that_are_swapped_back_before_saving_get_one_warning(fit, saving):
    quality, _, warnings = fit(SwapDuringValidation(), saving=saving)
    assert len(quality.reports) == 2
    assert len(warnings) == 1
    checksum = quality.reports[0].protocol["sampling"]["weights_checksum"]
    assert "at global step 8" in warnings[0]
    assert f"scored at step {quality.reports[0].step} " in warnings[0]
    assert checksum in warnings[0]
    assert "every_n_train_batches" in warnings[0]


def test_the_advice_helps(fit):
    assert fit(SwapDuringValidation(), every_n_train_batches=3)[2] == []


@pytest.mark.parametrize("saving", [{}, {"save_weights_only": True}])
@pytest.mark.parametrize("schedule", [{}, {"every_n_epochs": 1}, {"every_n_train_batches": 3}])
def test_the_same_weights_get_none_and_have_the_same_checksum(
    fit, tiny_gan, monitor, trainer, loader, saving, schedule
):
    quality, keep, warnings = fit(saving=saving, **schedule)
    assert warnings == []
    checksums = [report.protocol["sampling"]["weights_checksum"] for report in quality.reports]
    assert len(set(checksums)) == len(checksums)
    module, again = tiny_gan(validates=True), monitor(real=loader, metrics=("fd_wavelet",))
    module.load_state_dict(torch.load(keep.best_model_path, weights_only=True)["state_dict"])
    trainer(again).validate(module, loader, verbose=False)
    best = min(quality.reports, key=lambda report: report.scalars["fd_wavelet"])
    assert again.reports[0].protocol["sampling"]["weights_checksum"] in checksums
    assert again.reports[0].protocol["sampling"]["weights_checksum"] == best.protocol["sampling"]["weights_checksum"]


class OwnAverage(pl.LightningModule):
    """A module that averages its generator itself."""

    latent_dim = 4

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 3 * 8 * 8), nn.Tanh(), nn.Unflatten(1, (3, 8, 8)))
        self.ema = copy.deepcopy(self.net).requires_grad_(False)

    def training_step(self, batch, batch_idx):
        return self.net(torch.randn(8, 4)).square().mean()

    def validation_step(self, batch, batch_idx):
        return None

    def on_train_batch_end(self, *_) -> None:
        for averaged, own in zip(self.ema.parameters(), self.net.parameters(), strict=True):
            averaged.data.lerp_(own.data, 0.5)

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), 1.0)


class Disturb(pl.Callback):
    """Changes a part of the module between evaluation and saving."""

    def __init__(self, part: str) -> None:
        self.part = part

    def on_validation_end(self, trainer, pl_module) -> None:
        getattr(pl_module, self.part)[0].bias.data.add_(1)


@pytest.mark.parametrize(("part", "expected"), [("ema", 1), ("net", 0)])
def test_of_a_submodule_only_its_own_weights_are_compared(fit, part, expected):
    _, _, warnings = fit(Disturb(part), model=lambda pl_module: pl_module.ema, module=OwnAverage())
    assert len(warnings) == expected


def test_weights_that_no_checkpoint_holds_are_not_compared(fit):
    _, _, warnings = fit(Disturb("ema"), model=lambda pl_module: copy.deepcopy(pl_module.ema), module=OwnAverage())
    assert warnings == []


def test_a_model_without_parameters_has_no_checksum(fit):
    quality, _, warnings = fit(model=lambda pl_module: None, sampler=noise)
    assert warnings == []
    assert "weights_checksum" not in quality.reports[0].protocol["sampling"]


def noise(module, n, generator):
    return torch.rand(n, 3, 8, 8, generator=generator)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_protocol_names_the_precision_of_sampling(tiny_gan, monitor, trainer, loader, precision):
    quality = monitor(metrics=("fd_wavelet",))
    trainer(quality, precision=precision, max_epochs=1).fit(tiny_gan(), loader)
    assert quality.reports[0].protocol["sampling"]["precision"] == precision


@pytest.mark.parametrize(("part", "expected"), [("ema", 1), ("net", 0)])
def test_the_weights_of_an_attribute_path_are_compared(fit, part, expected):
    assert len(fit(Disturb(part), model="ema", module=OwnAverage())[2]) == expected


def test_a_path_that_the_module_lacks_is_an_error_at_fit_start(fit):
    with pytest.raises(ValueError, match=r"`model='emma'` is neither .* has the parts net, ema. Did you mean"):
        fit(model="emma", module=OwnAverage())
