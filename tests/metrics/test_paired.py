"""Generated images against their targets, as a report has it."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lpips import LPIPS
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
)

from lightning_synthqual import Images, compare, evaluate
from lightning_synthqual.extractors import Identity
from lightning_synthqual.extractors.base import Extractor
from lightning_synthqual.extractors.pairs import PairNetwork


class Blur(nn.Module):
    """An autoencoder of a kind: what it makes is its input, smoothed and shifted."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False) + self.shift


@pytest.fixture(scope="module")
def photos() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(21, 3, 6, 6, generator=draw)
    return nn.functional.interpolate(coarse, size=48, mode="bicubic").clamp(0, 1) * 1.6 - 0.8


def uint8(images: Tensor) -> Tensor:
    return ((images + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)


def test_psnr_and_ms_ssim_are_torchmetrics(photos: Tensor, tmp_path: Path) -> None:
    net = Blur()
    report = evaluate(
        None,
        net,
        inputs=TensorDataset(photos, torch.arange(21)),
        metrics=("psnr", "ms_ssim"),
        batch_size=8,
        options={"ppl": {}},
        cache_dir=tmp_path,
    )
    with torch.no_grad():
        made, targets = (uint8(each).double() for each in (net(photos), photos))
    psnr = peak_signal_noise_ratio(made, targets, data_range=255.0, dim=(1, 2, 3), reduction="none")
    betas = torch.tensor((0.0448, 0.2856, 0.3001))
    similarity = multiscale_structural_similarity_index_measure(
        made / 255, targets / 255, data_range=1.0, betas=tuple((betas / betas.sum()).tolist()), reduction="none"
    )
    for name, values in (("psnr", psnr), ("ms_ssim", similarity)):
        assert report.scalars[name] == pytest.approx(values.mean().item(), rel=1e-5)
        assert report.scalars[f"{name}_std"] == pytest.approx(values.std().item() / 21**0.5, rel=1e-4)
        assert report.influences[name].fake.numpy() == pytest.approx((values - values.mean()).numpy(), rel=1e-3)
        assert report.pictures[f"{name}_pairs"].ndim == 3
        assert report.direction(name) == "max"
    assert report.protocol["num_samples"] == 21
    assert report.protocol["metrics"]["ms_ssim"]["ms_ssim_scales"] == 3
    assert report.protocol["sampling"]["kind"] == "inputs"
    assert report.protocol["sampling"]["inputs"]["num_items"] == 21


def test_lpips_is_the_package_s(photos: Tensor, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package asks torchvision for random weights by a deprecated argument
        torch.manual_seed(0)
        reference = LPIPS(net="alex", pnet_rand=True, verbose=False)
    torch.save(reference.state_dict(), tmp_path / "whole.pth")
    net, own = Blur(), {"lpips_alex": {"weights": str(tmp_path / "whole.pth")}}
    report = evaluate(None, net, inputs=TensorDataset(photos), metrics=["lpips"], extractors=own)
    with torch.no_grad():
        made, targets = (uint8(each).float() / 127.5 - 1 for each in (net(photos), photos))
        expected = reference.eval()(made, targets).mean().item()
    assert report.scalars["lpips"] == pytest.approx(expected, rel=1e-5)
    assert report.protocol["metrics"]["lpips"]["networks"] == ["lpips_alex"]


class Embedding(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images.float() / 255, 16).flatten(1)


class EmbeddingDistance(nn.Module):
    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return 1 - torch.cosine_similarity(Embedding()(one), Embedding()(other))


def test_dreamsim_shares_its_network_with_the_metrics_of_features(photos: Tensor, tmp_path: Path) -> None:
    identity = Identity("dreamsim", weights="none", preprocessing="none")
    pair, extractor = PairNetwork(EmbeddingDistance(), identity), Extractor(Embedding(), identity)
    data = TensorDataset(photos)
    alone = evaluate(None, Blur(), inputs=data, metrics=["dreamsim"], extractors={"dreamsim": pair})
    arguments = {"extractors": {"dreamsim": extractor}, "cache_dir": tmp_path}
    beside = evaluate(data, Blur(), inputs=data, metrics=["dreamsim", "fd_dreamsim"], **arguments)
    assert alone.scalars["dreamsim"] == pytest.approx(beside.scalars["dreamsim"], rel=1e-5)
    assert beside.scalars["fd_dreamsim"] > 0


def test_changes_are_paired(photos: Tensor) -> None:
    one, other = (evaluate(None, Blur(shift), inputs=TensorDataset(photos), metrics=["psnr"]) for shift in (0.0, 0.005))
    difference = compare(one, other)["psnr"]
    assert difference.paired
    assert difference.std < 0.5 * one.scalars["psnr_std"]
    elsewhere = evaluate(None, Blur(), inputs=TensorDataset(photos.flip(0)), metrics=["psnr"])
    assert not compare(one, elsewhere)["psnr"].paired


def test_equal_images_have_no_psnr(photos: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    report = evaluate(None, nn.Identity(), inputs=TensorDataset(photos), metrics=["psnr", "ms_ssim"])
    assert report.scalars["ms_ssim"] == pytest.approx(1)
    assert "psnr" not in report.scalars
    assert "psnr is undefined and was skipped" in caplog.text
    assert "psnr_pairs" in report.pictures


def test_targets_of_another_size(photos: Tensor, tmp_path: Path) -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.avg_pool2d(x, (2, 4))

    data = TensorDataset(photos)
    with pytest.raises(ValueError, match=r"image 0 is 24x12, but its target is 48x48 .*Pass `image_size=\(24, 12\)`"):
        evaluate(None, Half(), inputs=data, metrics=["psnr"])
    assert evaluate(None, Half(), inputs=data, metrics=["psnr"], image_size=(24, 12)).scalars["psnr"] > 10


def test_images_too_small_for_ms_ssim() -> None:
    with pytest.raises(ValueError, match="MS-SSIM needs images of at least 11 pixels, but got 8x8"):
        evaluate(None, nn.Identity(), inputs=TensorDataset(torch.rand(4, 3, 8, 8) * 2 - 1), metrics=["ms_ssim"])


def test_the_range_of_targets_is_that_of_real_images(photos: Tensor) -> None:
    class FromUnit(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 - 1 + 0.1

    unit = TensorDataset((photos + 1) / 2)
    found = evaluate(None, FromUnit(), inputs=unit, metrics=["psnr"], real_range=(0, 1)).scalars["psnr"]
    assert found == pytest.approx(26.02, abs=0.1)
    stated = evaluate(None, FromUnit(), inputs=Images(unit, range=(0, 1)), metrics=["psnr"]).scalars["psnr"]
    assert stated == found
    with pytest.raises(ValueError, match=r"Pass `real_range=\(0\.0, 1\.0\)`"):
        evaluate(None, FromUnit(), inputs=unit, metrics=["psnr"])


@pytest.mark.parametrize("inputs", [None, ["a cat", "a dog"]])
def test_targets_are_needed(inputs: Any) -> None:
    message = "psnr compares each generated image with its target, but .*; for similarities to the nearest real images"
    with pytest.raises(ValueError, match=message):
        evaluate(None, nn.Identity(), inputs=inputs, metrics=["psnr"])


def test_finished_images_belong_to_inputs_by_their_order(photos: Tensor) -> None:
    made = TensorDataset(uint8(Blur()(photos)))
    report = evaluate(None, made, inputs=TensorDataset(photos), metrics=["psnr"])
    expected = evaluate(None, Blur(), inputs=TensorDataset(photos), metrics=["psnr"])
    assert report.scalars == expected.scalars
    assert report.protocol["generated"]["inputs"]["num_items"] == 21
    with pytest.raises(ValueError, match="`fake` has 21 images and `inputs` 20 items"):
        evaluate(None, made, inputs=TensorDataset(photos[:20]), metrics=["psnr"])
