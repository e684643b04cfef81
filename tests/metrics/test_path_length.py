"""The golden values were printed by StyleGAN3's code on arrays made up from seeds, which are made here again."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import RandomState
from torch import Tensor

from lightning_synthqual.metrics import filter_percentiles, slerp
from lightning_synthqual.metrics.path_length import crop_middle, path_length, shrink, shrink_factor

law = settings(derandomize=True, deadline=None)


def on_grid(values: np.ndarray) -> Tensor:
    return torch.from_numpy((np.round(np.asarray(values, np.float64) * 2.0**14) / 2.0**14).astype(np.float32))


@pytest.fixture(scope="module")
def latents() -> tuple[Tensor, Tensor, Tensor]:
    draw = RandomState(1021)
    a, b, t = on_grid(draw.randn(16, 512)), on_grid(draw.randn(16, 512)), on_grid(draw.rand(16, 1))
    return a[:14], b[:14], t[:14]


ROW_SUMS = [
    -0.6430109602101932, 1.7473549302180431, -0.45400100104714025, -2.4285267700255875, -0.0330599374083157,
    -0.12251491241411258, 0.03503804347440076, -0.7787802263309684, -0.6247633034257876, -0.6814572463559857,
    -0.933991761787105, -2.014135101412487, -0.3221156402243828, -0.1365791565240036,
]  # fmt: skip
COLUMNS = [0, 1, 2, 127, 255, 510, 511]
FIRST_ROW = [0.04632667806348956, 0.03159336235205133, -0.06412091018758687, 0.07790338798527632,
             -0.00881833530672161, -0.079428123494, -0.046451933202837414]  # fmt: skip
LAST_ROW = [-0.060182304775255685, 0.027622305160034125, 0.005288486555983309, 0.029950061574359647,
            -0.05272198650121415, -0.02874499521885682, 0.02324420815848429]  # fmt: skip


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-6)])
def test_golden_slerp(latents: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype, tolerance: float) -> None:
    a, b, t = (each.to(dtype) for each in latents)
    points = slerp(a, b, t)
    assert points.dtype == dtype
    assert points[0, COLUMNS].tolist() == pytest.approx(FIRST_ROW, abs=tolerance)
    assert points[13, COLUMNS].tolist() == pytest.approx(LAST_ROW, abs=tolerance)
    assert points.sum(dim=1).tolist() == pytest.approx(ROW_SUMS, abs=100 * tolerance)
    assert points.norm(dim=1).tolist() == pytest.approx([1.0] * 14, abs=10 * tolerance)


def test_slerp_takes_numbers_and_columns(latents: tuple[Tensor, Tensor, Tensor]) -> None:
    a, b, _ = latents
    assert torch.equal(slerp(a, b, 0.25), slerp(a, b, torch.full((14,), 0.25)))
    torch.testing.assert_close(slerp(a, b, 0.0), a / a.norm(dim=1, keepdim=True))
    torch.testing.assert_close(slerp(a, b, 1.0), b / b.norm(dim=1, keepdim=True))


@law
@given(seed=st.integers(0, 2**31), dimension=st.integers(2, 40), t=st.floats(0, 0.9))
def test_steps_on_the_sphere_are_in_proportion(seed: int, dimension: int, t: float) -> None:
    a, b = torch.randn(2, 5, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    whole = torch.acos(torch.nn.functional.cosine_similarity(a, b).clamp(-1, 1))
    step = torch.acos((slerp(a, b, t) * slerp(a, b, t + 0.1)).sum(dim=1).clamp(-1, 1))
    torch.testing.assert_close(step, 0.1 * whole, rtol=1e-6, atol=1e-7)


def test_latents_on_one_line() -> None:
    a = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = a / a.norm(dim=1, keepdim=True)
    torch.testing.assert_close(slerp(a, 2 * a, 0.3), unit)
    torch.testing.assert_close(slerp(a, -a, 0.0), unit)
    torch.testing.assert_close(slerp(a, -a, 1.0), -unit)
    quarter = torch.acos((slerp(a, -a, 0.25) * unit).sum(dim=1))
    torch.testing.assert_close(quarter, torch.full((3,), torch.pi / 4, dtype=torch.float64))


def test_zeros_have_no_direction() -> None:
    a = torch.ones(3, 4)
    b = a.clone()
    b[1] = 0
    with pytest.raises(ValueError, match="Row 1 of `b` is a latent of zeros"):
        slerp(a, b, 0.5)


@pytest.mark.parametrize(
    ("resolution", "seed", "crop", "side", "total", "squares", "position", "value"),
    [
        (256, 1022, False, 256, 49987294.39453125, 8485339580.519485, (0, 0, 88, 42), 150.41015625),
        (256, 1022, True, 128, 12462075.1171875, 2112932428.7956238, (1, 1, 4, 81), 105.5859375),
        (512, 1023, False, 256, 49909027.07519531, 6867236128.87423, (0, 2, 166, 197), 127.998046875),
        (512, 1023, True, 128, 12477290.698242188, 1716307081.8504095, (1, 1, 62, 13), 142.44140625),
        (1024, 1024, False, 256, 49930948.42163086, 6473333328.631224, (1, 2, 4, 255), 144.80712890625),
        (1024, 1024, True, 128, 12491720.423583984, 1620596564.3968866, (1, 2, 67, 85), 99.422607421875),
    ],
)
def test_golden_crop_and_shrinking(
    resolution: int,
    seed: int,
    crop: bool,
    side: int,
    total: float,
    squares: float,
    position: tuple[int, ...],
    value: float,
) -> None:
    levels = RandomState(seed).randint(0, 256, (2, 3, resolution, resolution)).astype(np.float32)
    images = (torch.from_numpy(levels) / 128 - 1 + 1) * (255 / 2)
    shrunk = shrink(crop_middle(images) if crop else images, shrink_factor(resolution, resolution))
    assert shrunk.shape == (2, 3, side, side)
    assert shrunk.double().sum().item() == pytest.approx(total, rel=1e-6)
    assert shrunk.double().square().sum().item() == pytest.approx(squares, rel=1e-6)
    assert shrunk[position].item() == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize(("size", "factor"), [((32, 32), 1), ((511, 700), 1), ((512, 900), 2), ((1000, 1000), 3)])
def test_sizes_that_are_no_powers_of_two(size: tuple[int, int], factor: int) -> None:
    assert shrink_factor(*size) == factor
    assert shrink(torch.ones(1, 3, *size), factor).shape[2:] == (size[0] // factor, size[1] // factor)


@pytest.mark.parametrize(
    ("count", "kept", "mean", "low", "high"),
    [
        (1000, 982, 38.60613578363737, 1.3057113885879517, 406.0671691894531),
        (1234, 1210, 37.78173963373358, 1.2787384986877441, 417.55816650390625),
        (50, 50, 32.37846304893494, 2.442727565765381, 127.67803192138672),
    ],
)
def test_golden_filter(count: int, kept: int, mean: float, low: float, high: float) -> None:
    noise = on_grid(RandomState(1027).randn(count)).double()
    distances = torch.exp(1.2 * noise + 3.0).float()
    found = filter_percentiles(distances)
    assert len(found) == kept
    assert (found.min().item(), found.max().item()) == (low, high)
    assert found.double().mean().item() == pytest.approx(mean, rel=1e-6)
    assert path_length(distances * 1e-4**2, 1e-4).value.item() == pytest.approx(mean, rel=1e-6)


def test_golden_distances() -> None:
    rows = on_grid(0.05 * RandomState(1026).randn(12, 200))
    squared = (rows[:6] - rows[6:]).square().sum(dim=1)
    expected = [110937776.0, 94982432.0, 90190928.0, 102225408.0, 105137992.0, 71684096.0]
    for distance, value in zip(squared, expected, strict=True):
        assert path_length(distance.repeat(2), 1e-4).value.item() == pytest.approx(value, rel=1e-5)


def test_the_standard_error_is_the_spread_of_many_draws() -> None:
    draw = torch.Generator().manual_seed(0)
    lengths = [path_length(torch.exp(torch.randn(400, generator=draw)), 1.0) for _ in range(500)]
    spread = torch.stack([length.value for length in lengths]).std().item()
    assert torch.stack([length.std for length in lengths]).mean().item() == pytest.approx(spread, rel=0.1)


def test_the_standard_error_is_that_of_a_trimmed_mean() -> None:
    distances = torch.exp(torch.randn(400, generator=torch.Generator().manual_seed(0)))
    kept = filter_percentiles(distances.double())
    moved = distances.double().clamp(kept.min(), kept.max())
    expected = moved.std().item() / (len(kept) / 400 * 400**0.5)
    assert path_length(distances, 1.0).std.item() == pytest.approx(expected, rel=1e-12)


def test_influences_are_what_leaving_a_pair_out_changes(
    left_out: Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], float],
) -> None:
    distances = torch.exp(torch.randn(200, generator=torch.Generator().manual_seed(0)))
    found = path_length(distances, 0.5)
    assert len(found.real) == 0
    assert left_out(lambda rest: path_length(rest, 0.5).value, distances, found.fake) < 0.05


@pytest.mark.parametrize(
    ("distances", "message"),
    [
        (torch.tensor([1.0, torch.nan]), "1 of 2 distances are NaN or infinite"),
        (torch.ones(2, 2), r"must be of shape \(N,\)"),
        (torch.ones(0), r"must be of shape \(N,\)"),
    ],
)
def test_bad_distances(distances: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        filter_percentiles(distances)
