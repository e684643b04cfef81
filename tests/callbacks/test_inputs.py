"""Generators that are conditioned on items, while they train: an image-to-image net and an autoencoder."""

import random

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_synthqual import Images, evaluate
from lightning_synthqual.evaluation.plan import make_plan
from lightning_synthqual.evaluation.sets import open_inputs


class Pairs(Dataset):
    """Edges (one channel) and photos, shifted at random: an augmentation that draws from the global generators."""

    def __init__(self, count: int, seed: int, shift: bool = True) -> None:
        draw = torch.Generator().manual_seed(seed)
        coarse = torch.rand(count, 3, 4, 4, generator=draw) * 2 - 1
        self.photos = nn.functional.interpolate(coarse, 12, mode="bilinear")
        self.shift = shift

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rolls = [random.randrange(3) + np.random.randint(3), int(torch.randint(3, ()))]  # noqa: NPY002
        photo = self.photos[index].roll(rolls, (1, 2)) if self.shift else self.photos[index]
        return photo.mean(0, keepdim=True), photo


class ImageToImage(pl.LightningModule):
    """Edges to photos; its training draws from every generator."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.net(x))

    def training_step(self, batch, batch_idx):
        edges, photos = batch
        noise = random.random() * np.random.rand() * torch.randn_like(edges)  # noqa: NPY002
        return (self(edges + 0.1 * noise) - photos).square().mean()

    def validation_step(self, batch, batch_idx):
        return None

    def test_step(self, batch, batch_idx):
        return None

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


METRICS = ("fd_wavelet", "psnr", "ms_ssim")


def fit(trainer, *callbacks, **options):
    pl.seed_everything(3, verbose=False)
    net = ImageToImage()
    made = trainer(*callbacks, **options)
    made.fit(net, DataLoader(Pairs(24, 0), 8, shuffle=True), DataLoader(Pairs(19, 1), 4))
    return net, made, [random.random(), np.random.rand(), torch.rand(()).item()]  # noqa: NPY002


def test_an_image_to_image_net_is_scored_on_the_validation_data(trainer, monitor):
    quality = monitor(real=Images(None, key=1), inputs="val", metrics=METRICS, num_samples=10_000)
    net, _, numbers = fit(trainer, quality)
    plain, _, expected = fit(trainer)
    assert numbers == expected
    assert all(torch.equal(one, other) for one, other in zip(net.parameters(), plain.parameters(), strict=True))
    first, second = quality.reports
    assert second.scalars["psnr"] > first.scalars["psnr"]
    assert {"fd_wavelet", "psnr", "psnr_std", "psnr_change", "psnr_change_std", "ms_ssim"} <= set(second.scalars)
    assert second.protocol["change"]["paired"] == ["fd_wavelet", "psnr", "ms_ssim"]
    assert second.protocol["num_samples"] == 19
    sampling = second.protocol["sampling"]
    assert (sampling["kind"], sampling["inputs"]["given"]) == ("inputs", "the trainer's val data")
    assert second.protocol["reference"]["key"] == 1
    real = Images(Pairs(24, 0), key=1)
    again = evaluate(real, net, inputs=Pairs(19, 1), metrics=METRICS, batch_size=16)
    assert {name: second.scalars[name] for name in METRICS} == pytest.approx(
        {name: again.scalars[name] for name in METRICS}, rel=1e-9
    )


def test_validate_and_test_have_inputs_of_their_own(trainer, monitor):
    net = ImageToImage()
    quality = monitor(real=Images(Pairs(24, 0), key=1), inputs="test", metrics=("psnr",), num_samples=5)
    trainer(quality).test(net, DataLoader(Pairs(9, 2), 3), verbose=False)
    assert quality.reports[-1].protocol["sampling"]["inputs"]["given"] == "the trainer's test data"
    expected = evaluate(None, net, inputs=Pairs(9, 2), metrics=("psnr",), num_samples=5, batch_size=16)
    assert quality.reports[-1].scalars["psnr"] == pytest.approx(expected.scalars["psnr"])


def test_a_stage_without_data_and_items_that_are_too_few(trainer, monitor):
    with pytest.raises(ValueError, match="`inputs='test'` needs the trainer's test data, but there are none"):
        fit(trainer, monitor(real=Images(None, key=1), inputs="test", metrics=("psnr",)))
    with pytest.raises(ValueError, match=r"`num_samples=50`, but `inputs` has 19 items.*`repeat_inputs=True`"):
        fit(trainer, monitor(real=Images(None, key=1), inputs="val", metrics=("psnr",)))
    quality = monitor(real=Images(None, key=1), inputs="val", metrics=("psnr",), repeat_inputs=True)
    fit(trainer, quality, max_epochs=1)
    assert quality.reports[0].protocol["sampling"]["inputs"]["repeated"]


def test_a_smoke_test_uses_a_few_items(trainer, monitor):
    quality = monitor(real=Images(None, key=1), inputs="val", metrics=("psnr",), num_samples=19)
    fit(trainer, quality, fast_dev_run=True)
    assert quality.reports[0].protocol["num_samples"] == 16


def test_the_first_entry_of_a_pair_is_not_taken_for_the_real_image(trainer, monitor):
    message = r"fd_wavelet compares .* but `real` is missing.*Pass `real=Images\({}, key=1\)` to compare with targets"
    with pytest.raises(ValueError, match=message.format("None")):
        fit(trainer, monitor(inputs="val", metrics=METRICS, num_samples=19))
    with pytest.raises(ValueError, match=message.format("data")):
        evaluate(None, ImageToImage(), inputs=Pairs(19, 1), metrics=METRICS)


def test_an_autoencoder_takes_the_trainer_s_labelled_images_as_they_are(trainer, monitor, labelled):
    class Autoencoder(ImageToImage):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Conv2d(3, 3, 3, 1, 1)

        def training_step(self, batch, batch_idx):
            return (self(batch[0]) - batch[0]).square().mean()

    quality = monitor(inputs="train", metrics=("fd_wavelet", "psnr"), num_samples=10_000)
    trainer(quality, max_epochs=1).fit(Autoencoder(), DataLoader(labelled, 16))
    assert quality.reports[0].protocol["num_samples"] == 61
    assert quality.reports[0].scalars["psnr"] > 0


def test_plans_that_read_no_targets_do_not_look_at_them():
    plan = make_plan(["fd_wavelet"])
    inputs = open_inputs(plan, [(torch.zeros(1, 4, 4), torch.full((3, 4, 4), 300.0))] * 3, "photos")
    assert inputs is not None
    assert len(inputs) == 3
