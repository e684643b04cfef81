"""Faults of the pixels of one image.

Each function takes an image, uint8 (3, H, W), the dose and the image's generator, and returns grey levels as floats of
the same shape; `rounded` makes an image of them again. Grey images stay grey under all of them. One image at a time,
so that an image never depends on the batch that it is in.
"""

import math
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

_OVERLAP = (1.0, 2.0)  # how many inputs reach an even and an odd output of a transposed convolution: kernel 3, stride 2


def rounded(values: Tensor) -> Tensor:
    """Grey levels as uint8, limited to 0 to 255."""
    return values.round().clamp(0, 255).to(torch.uint8)


def blur(image: Tensor, dose: float, generator: torch.Generator) -> Tensor:
    """Gaussian blur; the dose is its standard deviation in pixels, borders are reflected."""
    rows, columns = (_smoothing(size, dose) for size in image.shape[1:])
    return (rows @ image.double() @ columns.T).float()


def _smoothing(size: int, sigma: float) -> Tensor:
    """The blur along one axis as a matrix (size, size)."""
    reach = math.ceil(4 * sigma)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    period = max(2 * (size - 1), 1)
    sources = (torch.arange(size)[:, None] + offsets).remainder(period)
    sources = torch.minimum(sources, period - sources) if size > 1 else torch.zeros_like(sources)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, sources, (weights / weights.sum()).expand(size, -1))


def noise(image: Tensor, dose: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise, ``v + dose * n``: the dose is its standard deviation in grey levels.

    Each channel has noise of its own, but those of a grey image have the same.
    """
    drawn = torch.randn(image.shape, generator=generator)
    return image + dose * (drawn[:1] if _is_grey(image) else drawn)


def jpeg(image: Tensor, dose: float, generator: torch.Generator) -> Tensor:
    """JPEG of quality ``100 - dose``."""
    file = BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(file, "JPEG", quality=round(100 - dose))
    pixels = np.array(Image.open(file).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float()


def gamma(image: Tensor, dose: float, generator: torch.Generator) -> Tensor:
    """Darker tones, ``255 * (v / 255) ** (1 + dose)``."""
    return 255 * (image / 255) ** (1 + dose)


def contrast(image: Tensor, dose: float, generator: torch.Generator) -> Tensor:
    """Less contrast, ``mean + (1 - dose) * (v - mean)``; the mean is that of the image."""
    mean = image.double().mean().float()
    return mean + (1 - dose) * (image - mean)


def hue(image: Tensor, dose: float, generator: torch.Generator) -> Tensor:
    """Colours turned by ``dose`` degrees about the grey axis of RGB; the mean of the channels stays as it was."""
    angle = math.radians(dose)
    own = (1 + 2 * math.cos(angle)) / 3
    left, right = (1 / 3 - 2 / 3 * math.cos(angle + sign * math.pi / 3) for sign in (-1, 1))
    turn = torch.tensor([[own, left, right], [right, own, left], [left, right, own]], dtype=torch.float64)
    return torch.einsum("cd,dhw->chw", turn, image.double()).float()


def grey(image: Tensor, dose: float, generator: torch.Generator) -> Tensor:
    """Less colour, ``(1 - dose) * v + dose * mean``; the mean is that of a pixel's channels. 1: no colour."""
    return (1 - dose) * image + dose * image.float().mean(0, keepdim=True)


def rotation(image: Tensor, dose: float, generator: torch.Generator) -> Tensor:
    """Turned clockwise by ``dose`` degrees about the centre, bilinear, borders reflected."""
    angle = math.radians(dose)
    cosine, sine = math.cos(angle), math.sin(angle)
    return _moved(image, [[cosine, sine, 0.0], [-sine, cosine, 0.0]])


def mirror(image: Tensor, dose: float, generator: torch.Generator) -> Tensor:
    """Left and right exchanged in a share ``dose`` of the images."""
    return image.flip(2).float() if _is_affected(dose, generator) else image.float()


def shift(image: Tensor, dose: float, generator: torch.Generator) -> Tensor:
    """Moved by ``dose`` pixels to the right, bilinear, borders reflected."""
    return _moved(image, [[1.0, 0.0, -dose], [0.0, 1.0, 0.0]])


def zoom(image: Tensor, dose: float, generator: torch.Generator) -> Tensor:
    """Enlarged by the factor ``1 + dose`` about the centre, bilinear; the size in pixels stays."""
    return _moved(image, [[1 / (1 + dose), 0.0, 0.0], [0.0, 1 / (1 + dose), 0.0]])


def checkerboard(image: Tensor, dose: float, generator: torch.Generator) -> Tensor:
    """The pattern of upsampling by a transposed convolution, ``v * (1 + dose * p)``.

    The pattern ``p`` has mean 0 and RMS 1. It is the uneven overlap of a kernel of 3 with a stride of 2: of each two by
    two pixels one is reached by 1 input, two by 2 and one by 4.
    """
    overlap = torch.tensor(_OVERLAP)
    cell = torch.outer(overlap, overlap)
    cell = (cell - cell.mean()) / cell.std(correction=0)
    height, width = image.shape[1:]
    pattern = cell.repeat(-(-height // 2), -(-width // 2))[:height, :width]
    return image * (1 + dose * pattern)


def banding(image: Tensor, dose: float, generator: torch.Generator) -> Tensor:
    """Fewer grey levels: ``2 ** (8 - dose)`` that are equally far apart, from 0 to 255."""
    steps = max(round(2 ** (8 - dose)) - 1, 1)
    return (image / 255 * steps).round() / steps * 255


def occlusion(image: Tensor, dose: float, generator: torch.Generator) -> Tensor:
    """A black rectangle of the image's shape, which covers a share ``dose`` of its area, at a random place."""
    place = torch.rand(2, generator=generator).tolist()
    covered = image.float()
    sizes = [max(1, round(size * dose**0.5)) for size in image.shape[1:]]
    top, left = (round(at * (whole - size)) for at, whole, size in zip(place, image.shape[1:], sizes, strict=True))
    covered[:, top : top + sizes[0], left : left + sizes[1]] = 0
    return covered


def _is_grey(image: Tensor) -> bool:
    return bool((image == image[:1]).all())


def _is_affected(share: float, generator: torch.Generator) -> bool:
    """Whether an image is among a share of all; those of a smaller share are among those of a larger one."""
    return float(torch.rand((), generator=generator)) < share


def _moved(image: Tensor, source: list[list[float]]) -> Tensor:
    """Each pixel is taken from where the affine map ``source`` (2, 3) puts it, in pixels from the centre."""
    height, width = image.shape[1:]
    down, right = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) - (height - 1) / 2,
        torch.arange(width, dtype=torch.float64) - (width - 1) / 2,
        indexing="ij",
    )
    places = torch.stack([right, down, torch.ones_like(right)], -1) @ torch.tensor(source, dtype=torch.float64).T
    scale = torch.tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)], dtype=torch.float64)
    grid = (places * scale)[None]
    found = functional.grid_sample(image[None].double(), grid, padding_mode="reflection", align_corners=True)
    return found[0].float()
