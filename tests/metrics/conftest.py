"""Feature sets that the metric tests share, and processes played by threads."""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lightning_synthqual.metrics.shard import Shard

Array = NDArray[Any]

# sha256 of the float32 bytes of the real, fake and held-out rows of each golden case (public set, seeds 1001 to 1006).
# The expected values in the tests are what other implementations print on exactly these arrays; versions used: torch-
# fidelity 0.4.0, torchmetrics 1.9.0, prdc 0.2, k-diffusion 4601bf0, torch 2.15, numpy 2.4.6.
_GOLDEN_DIGESTS = {
    "A": (
        "560f7d6b14ae4590a3a15d7c50e07d8a9872ecd757fa66d1af34e865f6859beb",
        "1528826aaa17b23fbf1e68c4c9f74ddad7bc3d4a4c56d87e1e7b23a525992604",
        "87aae48634a329dc68b3ff695dee941dfb9fcba89c2c4534c65590dd395d2882",
    ),
    "B": (
        "62414ac8e827a72d5082042089106ad511220bfe7db6d33709d9fc27414ac0c4",
        "4aac67d6bc169a8403e08b6820353ea0411f9f54b93be6c4a9c1d90003227a20",
        "cf41d290e1a89a3179cd8f4e9494fd6bb1e44375bb6146e695a7c08dfbbe10fb",
    ),
    "C": (
        "7cf78b98238cbae86f80f74e8236e68a67cf87a419f403878aecb1a49a23479b",
        "93bcc82f352b3c6053fe96e89d9ed84c789b8416a40a1913ed0876a022131fa6",
        "8f4b0d822c1cd4397855f3a1266bea8a95e2aac69ad0f858e741ff62e76169b8",
    ),
    "D": (
        "a3d4afa9fc30747319955bec8d85058cb8c2d887451f3745afe3aacd04b6b5ed",
        "772be65a96dfe687823ddc5dd103acfb7c3726720358f6511b9d80d328190282",
        "05d83119d54ad439774399d9c9a896de6d60375ddd9d57fcd41e4fa40e4c5227",
    ),
    "E": (
        "7752a468db5c89e6dd5469551700be583d4a1e7b3e0d01c8015d95ed9354d99f",
        "3e1b2c64bce2d4ac703266335addcfdd6e9f6709c903ac9c32bbae1465b0445f",
        "1f02f4781a41be8103e84d15295e262b2ab7b30582c89dd049fa2197c3b65c54",
    ),
    "F": (
        "fdccec68e877faac02df14fa465e0e2eca52e6e198eee5f113fb9d310e99dd80",
        "e375998c6bba2ad885b844e990505c0e5506caf14414c979ff8c601f158c6bc0",
        "9d2642ca9216a28a4951b0e6f3ee5d39e649502133d9359db3a692e899463973",
    ),
}


def _on_grid(values: Array) -> Array:
    """Round to multiples of 2**-14, which hides how a machine orders its sums."""
    return (np.round(values * 2.0**14) / 2.0**14).astype(np.float32)


def _shifted_gaussian(draw: RandomState) -> tuple[Array, ...]:
    mixing = 0.3 * draw.randn(64, 64) + np.eye(64)
    fake_mixing = mixing + 0.05 * draw.randn(64, 64)
    shift = 0.4 * draw.randn(64)
    real = draw.randn(500, 64) @ mixing
    fake = draw.randn(400, 64) @ fake_mixing + shift
    return real, fake, draw.randn(300, 64) @ mixing


def _half_zeros(draw: RandomState) -> tuple[Array, ...]:
    mixing = 0.05 * draw.randn(256, 256) + 0.3 * np.eye(256)
    bias = 0.4 * draw.randn(256)
    real = draw.randn(1000, 256) @ mixing + bias
    fake = 1.1 * (draw.randn(1000, 256) @ mixing) + bias + 0.05
    held_out = draw.randn(500, 256) @ mixing + bias
    return tuple(np.maximum(rows, 0.0) for rows in (real, fake, held_out))


def _fewer_rows_than_columns(draw: RandomState) -> tuple[Array, ...]:
    mixing = 0.03 * draw.randn(512, 512) + 0.1 * np.eye(512)
    shift = 0.05 * draw.randn(512)
    real = draw.randn(300, 512) @ mixing
    fake = 0.9 * (draw.randn(300, 512) @ mixing) + shift
    return real, fake, draw.randn(200, 512) @ mixing


def _collapsed(draw: RandomState) -> tuple[Array, ...]:
    mixing = 0.3 * draw.randn(64, 64) + np.eye(64)
    real = _on_grid(0.5 * (draw.randn(500, 64) @ mixing))
    fake = real[7] + 1e-3 * draw.randn(500, 64)
    return real, fake, 0.5 * (draw.randn(300, 64) @ mixing)


def _copied(draw: RandomState) -> tuple[Array, ...]:
    centres = 3.0 * draw.rand(3, 64)

    def rows(count: int) -> Array:
        return _on_grid(np.maximum(centres[np.arange(count) % 3] + 0.5 * draw.randn(count, 64), 0.0))

    real = rows(600)
    copies = real[draw.permutation(600)[:300]]
    fake = np.concatenate([copies, rows(300)])
    return real, fake, rows(450)


def _integers(draw: RandomState) -> tuple[Array, ...]:
    real = draw.randint(0, 4, (40, 3))
    fake = draw.randint(0, 4, (40, 3)) + np.array([1, 0, 0])
    return real, fake, draw.randint(0, 4, (30, 3))


_GOLDEN_RECIPES = {
    "A": _shifted_gaussian,
    "B": _half_zeros,
    "C": _fewer_rows_than_columns,
    "D": _collapsed,
    "E": _copied,
    "F": _integers,
}


@cache
def _golden(case: str) -> tuple[Tensor, ...]:
    seed = 1001 + "ABCDEF".index(case)
    arrays = [np.ascontiguousarray(_on_grid(rows)) for rows in _GOLDEN_RECIPES[case](RandomState(seed))]
    digests = tuple(hashlib.sha256(array.tobytes()).hexdigest() for array in arrays)
    assert digests == _GOLDEN_DIGESTS[case], f"golden case {case} was not rebuilt exactly"
    return tuple(torch.from_numpy(array) for array in arrays)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], tuple[Tensor, ...]]:
    """``golden("A")``: real, fake and held-out float32 rows of a golden case, checked against their digests."""
    return _golden


def _cloud(seed: int, count: int, dimension: int, *, centre: float = 0.0, spread: float = 1.0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    mixing = torch.eye(dimension, dtype=torch.float64)
    mixing += 0.3 * torch.randn(dimension, dimension, generator=draw, dtype=torch.float64)
    rows = torch.randn(count, dimension, generator=draw, dtype=torch.float64)
    return centre + spread * rows @ mixing


@pytest.fixture(scope="session")
def cloud() -> Callable[..., Tensor]:
    """``cloud(seed, count, dimension, centre=, spread=)``: correlated Gaussian rows, float64."""
    return _cloud


@pytest.fixture(params=["more rows", "fewer rows", "collapsed", "copied", "duplicated", "float16"])
def pair(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    """Real and fake rows, equally many, of the kinds that implementations stumble over."""
    dimension = 150 if request.param == "fewer rows" else 24
    real, fake = _cloud(1, 100, dimension), _cloud(2, 100, dimension, centre=0.2, spread=1.1)
    if request.param == "collapsed":
        fake = real[7] + 1e-3 * fake
    elif request.param == "copied":
        fake = torch.cat([real[:30], fake[30:]])
    elif request.param == "duplicated":
        real, fake = real[:50].repeat(2, 1), fake[:50].repeat(2, 1)
    elif request.param == "float16":
        real, fake = real.half(), fake.half()
    return real, fake


def _in_shards(world_size: int, compute: Callable[[Shard], Any]) -> list[Any]:
    parts: list[Tensor] = [torch.empty(0)] * world_size
    barrier = threading.Barrier(world_size, timeout=30)

    def total(rank: int, part: Tensor) -> Tensor:
        parts[rank] = part
        barrier.wait()
        summed = torch.stack(parts).sum(dim=0)
        barrier.wait()
        return summed

    def process(rank: int) -> Any:
        try:
            return compute(Shard(rank, world_size, partial(total, rank)))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(process, range(world_size)))


@pytest.fixture(scope="session")
def in_shards() -> Callable[[int, Callable[[Shard], Any]], list[Any]]:
    """``in_shards(3, compute)``: what ``compute(shard)`` returns in each of three threads that sum like processes."""
    return _in_shards


def _left_out(value: Callable[[Tensor], Tensor], rows: Tensor, influences: Tensor) -> float:
    count, whole = len(rows), value(rows)
    changes = torch.stack([value(torch.cat([rows[:i], rows[i + 1 :]])) - whole for i in range(count)])
    assert influences.dtype == torch.float64
    assert influences.shape == (count,)
    assert abs(influences.mean().item()) < 1e-9 * influences.abs().max().item()
    return float((changes * (count - 1) + influences).norm() / influences.norm())


@pytest.fixture(scope="session")
def left_out() -> Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], float]:
    """``left_out(value, rows, influences)``: how far influences are from what each row changes when it is left out.

    The root mean square of the differences over that of the influences, which must be of mean zero.
    """
    return _left_out


class Averages(nn.Module):
    """Box averages as features."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images.float(), 6).flatten(1)


class RealAndGenerated:
    """Smooth images, 24 x 24: training, held-out, and generated ones of which the first five are copies."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        coarse = torch.randint(0, 256, (150, 3, 5, 5), generator=draw).float()
        images = nn.functional.interpolate(coarse, size=24, mode="bicubic").clamp(0, 255).round().to(torch.uint8)
        self.train, self.held_out = images[:70], images[70:110]
        self.fake = torch.cat([self.train[10:15], images[110:]])
        self.tensors = self.train, self.held_out, self.fake

    def embed(self, images: Tensor) -> Tensor:
        """The features of the extractor ``mine``."""
        return Averages()(images)

    def arguments(self, folder: Path, **changes: Any) -> dict[str, Any]:
        """Arguments of ``evaluate``: the images, and the extractor ``mine``."""
        real, held_out, fake = map(TensorDataset, self.tensors)
        own = {"extractors": {"mine": Averages()}, "cache_dir": str(folder)}
        return {"real": real, "held_out": held_out, "fake": fake, **own, **changes}


@pytest.fixture(scope="session")
def three_sets() -> RealAndGenerated:
    """Training, held-out and generated images of which five are copies, and the arguments to evaluate them."""
    return RealAndGenerated()
