"""Averages that a module keeps itself are named where they are not scored, and can be scored by their path."""

import copy

import lightning.pytorch as pl
import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from lightning_synthqual import QualityMonitor
from lightning_synthqual.importing import part_of


class EMA(nn.Module):
    """The shape of ema_pytorch's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.online_model = model
        self.ema_model = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def update(self) -> None:
        for average, own in zip(self.ema_model.parameters(), self.online_model.parameters(), strict=True):
            average.lerp_(own, 0.1)


class Gan(pl.LightningModule):
    latent_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 3 * 8 * 8), nn.Tanh(), nn.Unflatten(1, (3, 8, 8)))
        self.ema = EMA(self.net)

    def forward(self, z):
        return self.net(z)

    def training_step(self, batch, batch_idx):
        return self.net(torch.randn(8, 4)).square().mean()

    def on_train_batch_end(self, *_) -> None:
        self.ema.update()

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), 1.0)


def test_they_are_named_in_the_log_and_in_the_protocol_unless_a_model_is_chosen(monitor, trainer, loader, caplog):
    gan = Gan()
    plain, chosen = (monitor(metrics=("fd_pixels",), real=loader, model=model) for model in (None, "ema.ema_model"))
    with caplog.at_level("INFO"):
        trainer(plain, max_epochs=1).fit(gan, loader)
    assert "`ema.ema_model` (EMA): `model='ema.ema_model'`" in caplog.text
    sampling = plain.reports[0].protocol["sampling"]
    assert sampling["averages"] == {"ema.ema_model": "model='ema.ema_model'"}
    caplog.clear()
    with caplog.at_level("INFO"):
        trainer(chosen, max_epochs=1).fit(gan, loader)
    assert "averaged weights" not in caplog.text
    sampling = chosen.reports[0].protocol["sampling"]
    assert sampling["model"] == {"name": "ema.ema_model"}
    assert sampling["weights"] == "of model=ema.ema_model"
    assert "averages" not in sampling


@pytest.mark.parametrize("path", ["net", "ema.ema_model", f"{__name__}.part"])
def test_a_path_from_the_command_line_and_yaml(path):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(QualityMonitor, "quality", skip={"real", "held_out"})
    make = getattr(parser, "instantiate", parser.instantiate_classes)
    made = make(parser.parse_args(["--quality.model", path])).quality
    gan = Gan()
    assert part_of(made.model, gan) is (gan.ema.ema_model if "ema." in path else gan.net)


def part(module: Gan) -> nn.Module:
    return module.net
