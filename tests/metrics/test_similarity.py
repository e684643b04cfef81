import hashlib
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from accelerator import accelerator
from skimage.measure import shannon_entropy as skimage_entropy
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from lightning_synthqual.metrics import ms_ssim, psnr, shannon_entropy
from lightning_synthqual.metrics.similarity import ms_ssim_scales

# seed, height, width, block, amplitude, sha256 of both pictures; MS-SSIM and PSNR as torchmetrics 1.9.0 prints them on
# float64 in [0, 1], entropies as scikit-image 0.26.0 does channel by channel, averaged.
GOLDEN = [
    (
        (1051, 192, 192, 8, 30),
        "33b3625d81f9923a2c099fea048a0532d6063a6d23a481125c3a55ee4a9b53ba",
        "24d8a780afb3feaf644943574f9633edab048557013ab93333ad0da3255db2b0",
        (0.9843799402261072, 23.45817902374313, 7.630308088738715, 7.874537859829012),
    ),
    (
        (1052, 256, 192, 16, 60),
        "2f2830f2c064600938779005b75b77a99981e1cab9e2ec0468820e4ac42cd426",
        "07253733734da910ab5446c4e8f8427a7ed87f4ac32e840c2ca13bcdf40f9ba2",
        (0.9048126911693369, 17.823987850280933, 6.9832133252913, 7.649727702518493),
    ),
    (
        (1053, 192, 256, 4, 5),
        "a027f3a083f16c3c8939f73176ad3a8f3af71717b41bcff68841a5f0f9af1904",
        "902fcfd8c6547f841e455bba597c920eecf8770420258b7e521c12cdb09b4aaa",
        (0.9997776449367364, 38.207246067292324, 7.935937483894172, 7.986630584097753),
    ),
]


@cache
def pair(seed: int, height: int, width: int, block: int, amplitude: int) -> tuple[Tensor, Tensor]:
    draw = np.random.RandomState(seed)
    blocks = draw.randint(0, 256, (height // block, width // block, 3))
    base = np.kron(blocks, np.ones((block, block, 1), dtype=np.int64))
    other = np.clip(base + draw.randint(-amplitude, amplitude + 1, base.shape), 0, 255)
    first, second = (torch.from_numpy(image.astype(np.uint8)).permute(2, 0, 1)[None] for image in (base, other))
    return first, second


@pytest.mark.parametrize(("recipe", "first", "second", "expected"), GOLDEN)
def test_golden(recipe: tuple[int, ...], first: str, second: str, expected: tuple[float, ...]) -> None:
    a, b = pair(*recipe)
    for image, digest in ((a, first), (b, second)):
        assert hashlib.sha256(image[0].permute(1, 2, 0).contiguous().numpy().tobytes()).hexdigest() == digest
    similarity, ratio, first_entropy, second_entropy = expected
    assert ms_ssim(b, a).tolist() == pytest.approx([similarity], abs=1e-5)
    assert psnr(b, a).tolist() == pytest.approx([ratio], abs=1e-4)
    assert shannon_entropy(torch.cat([b.flip(2), b])).tolist() == pytest.approx([second_entropy] * 2, abs=1e-9)
    assert shannon_entropy(a).tolist() == pytest.approx([first_entropy], abs=1e-9)


@pytest.mark.parametrize("function", [psnr, ms_ssim])
def test_one_number_a_pair_whatever_the_others(function: Any) -> None:
    pictures = torch.rand(5, 3, 48, 40, generator=torch.Generator().manual_seed(0))
    others = (pictures + 0.1 * torch.rand(5, 1, 48, 40, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    together = function(pictures, others)
    assert together.shape == (5,)
    assert together.dtype == torch.float64
    alone = [function(pictures[i : i + 1], others[i : i + 1]).item() for i in range(5)]
    assert together.tolist() == pytest.approx(alone, rel=1e-9)


@pytest.mark.parametrize("function", [psnr, ms_ssim])
def test_uint8_and_floats_are_the_same(function: Any) -> None:
    a, b = (torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(s)).byte() for s in (0, 1))
    expected = function(a, b).tolist()
    assert function(a.double() / 255, b.double() / 255).tolist() == pytest.approx(expected, rel=1e-9)
    assert shannon_entropy(a.float() / 255).tolist() == shannon_entropy(a).tolist()


def test_psnr_agrees_with_scikit_image() -> None:
    a, b = (torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (0, 1))
    assert psnr(a, b).item() == pytest.approx(peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=1.0), rel=1e-9)
    assert psnr(a, a).item() == torch.inf


@pytest.mark.parametrize(("side", "scales"), [(11, 1), (21, 1), (22, 2), (44, 3), (98, 3), (99, 4), (175, 4), (176, 5)])
def test_small_pictures_have_fewer_scales(side: int, scales: int) -> None:
    assert ms_ssim_scales(side, side + 7) == ms_ssim_scales(side + 7, side) == scales
    a = torch.rand(2, 3, side, side + 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    b = (0.8 * a + 0.1).clamp(0, 1)
    betas = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)[:scales]
    if scales < 5:
        betas = tuple(beta / sum(betas) for beta in betas)
    expected = multiscale_structural_similarity_index_measure(a, b, data_range=1.0, betas=betas, reduction="none")
    assert ms_ssim(a, b).tolist() == pytest.approx(expected.flatten().tolist(), rel=1e-9)
    assert ms_ssim(a, a).tolist() == pytest.approx([1.0, 1.0])


def test_many_pictures_are_compared_in_blocks() -> None:
    a = torch.rand(35, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    assert ms_ssim(a, a.flip(0)).shape == (35,)


def test_entropy_agrees_with_scikit_image() -> None:
    pictures = (256 * torch.rand(4, 3, 9, 11, generator=torch.Generator().manual_seed(0)) ** 3).floor().byte()
    expected = [np.mean([skimage_entropy(channel, base=2) for channel in image]) for image in pictures.numpy()]
    assert shannon_entropy(pictures).tolist() == pytest.approx(expected, abs=1e-9)


def test_entropy_knows_no_more_than_eight_bits() -> None:
    plain = torch.full((1, 3, 16, 16), 7, dtype=torch.uint8)
    every = torch.arange(256).view(1, 1, 16, 16).byte()
    assert shannon_entropy(plain).item() == 0.0
    assert shannon_entropy(every).item() == pytest.approx(8.0, rel=1e-12)


@pytest.mark.parametrize("function", [psnr, ms_ssim, lambda a, b: shannon_entropy(a)])
@pytest.mark.parametrize(
    ("picture", "error", "message"),
    [
        (torch.zeros(3, 16, 16), ValueError, r"shape \(N, C, H, W\), none of them 0, but got \(3, 16, 16\)"),
        (torch.zeros(0, 3, 16, 16), ValueError, r"but got \(0, 3, 16, 16\)"),
        (torch.zeros(1, 3, 16, 16).int(), ValueError, "uint8 or floating point, but got torch.int32"),
        (torch.full((2, 3, 16, 16), 1.5), ValueError, r"beyond \[0, 1\], first in image 0"),
        (torch.full((2, 3, 16, 16), torch.nan), ValueError, "NaN or beyond"),
        (np.zeros((1, 3, 16, 16)), TypeError, "tensor of images, but got ndarray"),
    ],
)
def test_bad_pictures(function: Any, picture: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        function(picture, picture)


@pytest.mark.parametrize("function", [psnr, ms_ssim])
def test_unlike_shapes(function: Any) -> None:
    with pytest.raises(ValueError, match="the same shape"):
        function(torch.zeros(1, 3, 16, 16), torch.zeros(2, 3, 16, 16))


def test_too_small_for_one_scale() -> None:
    with pytest.raises(ValueError, match="at least 11 pixels, but got 10x40"):
        ms_ssim(torch.zeros(1, 3, 10, 40), torch.zeros(1, 3, 10, 40))


def test_windows_are_copied_to_a_device_once() -> None:
    draw = torch.Generator().manual_seed(0)
    copies = []
    with torch.no_grad(), accelerator() as log:
        for count in (2, 40):
            pictures = torch.rand(count, 1, 24, 32, generator=draw).cuda()
            log.clear()
            ms_ssim(pictures, pictures)
            copies.append(log.to_device.total())
    assert copies[0] == copies[1] <= 5
