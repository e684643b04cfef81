from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from lightning_synthqual.images.advice import check_model
from lightning_synthqual.images.sampling import Sampler


def error_of(module: Any, **attributes: Any) -> str:
    for name, value in attributes.items():
        setattr(module, name, value)
    with pytest.raises((ValueError, RuntimeError)) as caught:
        Sampler(module, owner=SimpleNamespace()).draw(0, range(2))
    return str(caught.value)


class Conditional(nn.Module):
    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return z


class Guided(nn.Module):
    def forward(self, z: Tensor, t: Tensor, context: Tensor) -> Tensor:
        return z


class Autoencoder(nn.Module):
    """Samples by a method of its own, and has a `sample_images` that saves files."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 4, 3)
        self.decoder = nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def sample(self, num_samples: int, current_device: int, **kwargs: Any) -> Tensor:
        return torch.zeros(num_samples, 3, 2, 2)

    def generate(self, x: Tensor) -> Tensor:
        return x

    def sample_images(self) -> None:
        raise AssertionError


class Halves(pl.LightningModule):
    """It has no `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Linear(4, 12)


def test_noise_for_a_transposed_convolution_has_a_height_and_a_width() -> None:
    text = error_of(nn.Sequential(nn.ConvTranspose2d(100, 8, 4)), latent_dim=100)
    assert "Sequential was called as module(z) with z of shape (2, 100), because of `latent_dim=100`" in text
    assert "RuntimeError: Expected 3D" in text
    assert "set `latent_dim=(100, 1, 1)`" in text


def test_a_missing_label_is_named() -> None:
    text = error_of(Conditional(), latent_dim=4)
    assert "missing 1 required positional argument: 'c'" in text
    assert "If `c` are class labels, pass `labels='uniform'` or `labels='data'`" in text


def test_other_missing_arguments_need_a_sampler() -> None:
    text = error_of(Guided(), latent_dim=4)
    assert "with t, context: pass `sampler=callable(module, n, generator)`" in text
    assert "class labels" not in text


def test_a_module_that_takes_images_is_told_from_one_that_takes_noise() -> None:
    text = error_of(Autoencoder(), latent_dim=16)
    assert "z of shape (2, 16)" in text
    assert "begins with a convolution" in text
    assert "pass `model=lambda module: module.decoder`" in text


def test_a_submodule_takes_the_place_of_a_missing_forward() -> None:
    for attributes in ({"latent_dim": 4}, {}):
        assert "pass `model=lambda module: module.generator`" in error_of(Halves(), **attributes)


def test_a_submodule_that_says_its_noise_is_named() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(4, 12))
    module[1].latent_dim = 4
    assert "Its submodule `1` may be what is meant" in error_of(module)


def test_methods_that_sample_are_named_with_the_line_to_paste() -> None:
    text = error_of(Autoencoder())
    assert text.startswith("No way to sample from Autoencoder was found.")
    assert "`sample_images()` cannot be called as sample_images(n, generator)" in text
    assert "`sampler=lambda module, n, generator: module.sample(n, current_device=...)`" in text
    assert "`sampler=lambda module, n, generator: module.generate(n)`" in text
    assert "submodule" not in text  # it has a `forward`


def test_a_method_that_does_not_fit_is_named_when_the_call_with_latents_fails() -> None:
    module = Autoencoder()
    module.encoder = nn.Linear(3, 4)  # type: ignore[assignment]
    text = error_of(module, latent_dim=5)
    assert "Autoencoder was called as module(z) with z of shape (2, 5)" in text
    assert "Its `sample_images()` cannot be called as sample_images(n, generator)." in text
    assert "`sampler=lambda module, n, generator: module.sample(n, current_device=...)`" in text
    assert text.endswith("pass `sampler=callable(module, n, generator)`.")
    assert "sample_images" not in error_of(nn.Linear(3, 4), latent_dim=5)


def test_a_method_gets_the_number_of_images_and_the_generator_where_it_takes_them() -> None:
    class Flow(nn.Module):
        def sample(self, size: int, generator: torch.Generator, steps: int = 3) -> Tensor:
            return torch.zeros(size)

        def sample_log(self, cond: Tensor, batch_size: int = 16) -> Tensor:
            return torch.zeros(batch_size)

        def generate_nothing(self) -> None:
            return None

    text = error_of(Flow())
    assert "generator: module.sample(n, generator=generator)`" in text
    assert "generator: module.sample_log(cond=..., batch_size=n)`" in text
    assert "generate_nothing" not in text


@pytest.mark.parametrize("name", ["nz", "z_dim", "noise_dim", "latent_size"])
def test_other_names_of_the_noises_size_are_found(name: str) -> None:
    assert f"It has `{name}=100`" in error_of(nn.Linear(2, 2), **{name: 100})
    assert f"It has `{name}=7`" in error_of(nn.Linear(2, 2), hparams={name: 7})
    assert "set `latent_dim=(7, 1, 1)`" in error_of(nn.Sequential(nn.ConvTranspose2d(7, 3, 4)), **{name: 7})


def test_a_module_without_any_of_these_gets_no_false_advice() -> None:
    assert error_of(nn.Linear(2, 2)) == (
        "No way to sample from Linear was found. It needs one of: an attribute (or hyperparameter) `latent_dim`, so "
        "that it is called as module(z) with z of shape (n, latent_dim); a method `sample_images(n, generator)`; or "
        "`sampler=callable(module, n, generator)`."
    )
    assert error_of(nn.Linear(2, 2), latent_dim=3) == (
        "Linear was called as module(z) with z of shape (2, 3), because of `latent_dim=3`, and raised RuntimeError: "
        "mat1 and mat2 shapes cannot be multiplied (2x3 and 2x2)."
    )


def test_a_module_given_as_model_is_an_error() -> None:
    check_model(None)
    check_model(lambda module: module)
    with pytest.raises(TypeError, match=r"got a module itself \(Linear\).*`model=lambda pl_module: pl_module.gen"):
        check_model(nn.Linear(1, 1))
