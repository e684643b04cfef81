"""Averages that a module keeps itself are found, with the line that scores them."""

import copy

import pytest
import torch
from timm.utils import ModelEmaV2, ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel

from lightning_synthqual.images.averages import find_averages


class EMA(nn.Module):
    """The shape of ema_pytorch's."""

    def __init__(self, model: nn.Module, include_online_model: bool = True) -> None:
        super().__init__()
        if include_online_model:
            self.online_model = model
        else:
            self.online = [model]
        self.ema_model = copy.deepcopy(model).requires_grad_(False)
        self.register_buffer("step", torch.tensor(0))


class LitEma(nn.Module):
    """The shape of latent-diffusion's: buffers, and no module to call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.m_name2s_name = {}
        self.register_buffer("decay", torch.tensor(0.9))
        self.register_buffer("num_updates", torch.tensor(0))
        for name, parameter in model.named_parameters():
            self.m_name2s_name[name] = name.replace(".", "")
            self.register_buffer(name.replace(".", ""), parameter.detach().clone())

    def copy_to(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            parameter.data.copy_(getattr(self, self.m_name2s_name[name]))

    def store(self, parameters) -> None: ...

    def restore(self, parameters) -> None: ...


class Shadows:
    """The shape of torch_ema's and diffusers': no module at all."""

    def __init__(self, parameters) -> None:
        self.shadow_params = [parameter.detach().clone() for parameter in parameters]

    def copy_to(self, parameters) -> None:
        for parameter, shadow in zip(parameters, self.shadow_params, strict=True):
            parameter.data.copy_(shadow)

    def store(self, parameters) -> None: ...

    def restore(self, parameters) -> None: ...


class Gan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
        self.critic = nn.Linear(4, 1)


@pytest.mark.parametrize(
    ("name", "keep", "path"),
    [
        ("ema", EMA, "ema.ema_model"),
        ("smooth", lambda net: EMA(net, include_online_model=False), "smooth.ema_model"),
        ("swa", AveragedModel, "swa.module"),
        ("second", ModelEmaV2, "second.module"),
        ("ema", ModelEmaV3, "ema.module"),
        ("net_ema", copy.deepcopy, "net_ema"),
        ("ema_net", copy.deepcopy, "ema_net"),
        ("ema", copy.deepcopy, "ema"),
    ],
)
def test_modules_are_named_by_the_path_that_scores_them(name, keep, path):
    gan = Gan()
    setattr(gan, name, keep(gan.net))
    (found,) = find_averages(gan)
    assert (found.path, found.line) == (path, f"model={path!r}")


@pytest.mark.parametrize(("name", "keep"), [("model_ema", LitEma), ("shadow", lambda net: Shadows(net.parameters()))])
def test_of_shadows_the_line_is_a_function_that_works(name, keep):
    gan = Gan()
    setattr(gan, name, keep(gan.net))
    kept = [parameter.clone() for parameter in gan.net.parameters()]
    for parameter in gan.net.parameters():
        parameter.data.add_(1)
    (found,) = find_averages(gan)
    assert found.path == name
    code = found.line.partition("`")[2].rstrip("`")
    scope = {"copy": copy}
    exec(code, scope)
    averaged = scope["averaged"](gan)
    assert all(torch.equal(one, other) for one, other in zip(averaged.parameters(), kept, strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(gan.net.parameters(), kept, strict=True))


def test_of_several_averages_each_is_named():
    gan = Gan()
    gan.ema_models = nn.ModuleList([EMA(gan.net, include_online_model=False) for _ in range(2)])
    assert [found.path for found in find_averages(gan)] == ["ema_models.0.ema_model", "ema_models.1.ema_model"]


def test_averages_of_parts_are_found_and_what_is_none_is_not():
    gan = Gan()
    gan.inner = nn.Module()
    gan.inner.decoder_ema = copy.deepcopy(gan.net)
    gan.ema_loss, gan.use_ema, gan.ema_head = nn.MSELoss(), True, nn.Linear(7, 7)  # no weights; no module; of nothing
    assert [average.path for average in find_averages(gan)] == ["inner.decoder_ema"]
