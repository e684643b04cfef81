from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_synthqual.metrics import (
    cmmd,
    density_coverage,
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from lightning_synthqual.metrics.features import check_features, check_pair

Cloud = Callable[..., Tensor]
Compute = Callable[[Tensor, Tensor], list[Tensor]]

COMPUTE: dict[str, Compute] = {
    "frechet": lambda real, fake: [frechet_distance(real, fake)],
    "kernel": lambda real, fake: list(kernel_distance(real, fake)),
    "rbf": lambda real, fake: list(kernel_distance(real, fake, kernel="rbf")),
    "subsets": lambda real, fake: list(kernel_distance(real, fake, subsets=3, subset_size=5)),
    "cmmd": lambda real, fake: [cmmd(real, fake)],
    "precision_recall": lambda real, fake: list(precision_recall(real, fake)),
    "density_coverage": lambda real, fake: list(density_coverage(real, fake)),
}
every_metric = pytest.mark.parametrize("compute", COMPUTE.values(), ids=COMPUTE)


def spoilt(features: Tensor, value: float) -> Tensor:
    features = features.clone()
    features[4, 1] = features[6, 0] = value
    return features


# What is done to good features, the error, and what its message has to say.
BAD: dict[str, tuple[Callable[[Tensor], Any], type[Exception], str]] = {
    "no rows": (lambda x: x[:0], ValueError, "`{role}` has 0 feature rows, but at least 2"),
    "one row": (lambda x: x[:1], ValueError, "`{role}` has 1 feature rows, but at least 2"),
    "nan": (lambda x: spoilt(x, torch.nan), ValueError, r"`{role}` .*NaN or infinity, first in row 4 \(2 rows in all"),
    "inf": (lambda x: spoilt(x, torch.inf), ValueError, r"`{role}` .*NaN or infinity, first in row 4 \(2 rows in all"),
    "-inf": (lambda x: spoilt(x, -torch.inf), ValueError, r"`{role}` .*NaN or infinity, first in row 4"),
    "int64": (lambda x: x.long(), ValueError, "`{role}` .*floating point tensor, but got torch.int64"),
    "uint8": (lambda x: x.byte(), ValueError, "`{role}` .*floating point tensor, but got torch.uint8"),
    "bool": (lambda x: x > 0, ValueError, "`{role}` .*floating point tensor, but got torch.bool"),
    "complex": (lambda x: x + 0j, ValueError, "`{role}` .*floating point tensor, but got torch.complex128"),
    "numpy": (lambda x: x.numpy(), TypeError, "`{role}` .*floating point tensor, but got ndarray"),
    "list": (lambda x: x.tolist(), TypeError, "`{role}` .*floating point tensor, but got list"),
    "1-D": (lambda x: x[:, 0], ValueError, r"`{role}` .*shape \(N, D\), but got \(9,\)"),
    "3-D": (lambda x: x[:, :, None], ValueError, r"`{role}` .*shape \(N, D\), but got \(9, 3, 1\)"),
    "no columns": (lambda x: x[:, :0], ValueError, r"`{role}` .*shape \(N, D\), but got \(9, 0\)"),
}


@pytest.mark.parametrize("role", ["real", "fake"])
@pytest.mark.parametrize(("spoil", "error", "message"), BAD.values(), ids=BAD)
def test_bad_features_are_refused(
    cloud: Cloud, role: str, spoil: Callable[[Tensor], Any], error: type[Exception], message: str
) -> None:
    features: dict[str, Any] = {"real": cloud(0, 9, 3), "fake": cloud(1, 9, 3)}
    features[role] = spoil(features[role])
    with pytest.raises(error, match=message.format(role=role)):
        check_pair(features["real"], features["fake"])


@every_metric
def test_every_function_has_the_gate(cloud: Cloud, compute: Compute) -> None:
    real, fake = cloud(0, 9, 3), cloud(1, 9, 3)
    with pytest.raises(ValueError, match=r"`real` .*NaN or infinity, first in row 4"):
        compute(spoilt(real, torch.nan), fake)
    with pytest.raises(ValueError, match=r"`fake` .*NaN or infinity, first in row 4"):
        compute(real, spoilt(fake, torch.inf))
    with pytest.raises(ValueError, match="equally many columns, but got D=3 and D=4"):
        compute(real, cloud(1, 9, 4))


@every_metric
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_numbers_are_float64_and_those_of_float64_features(cloud: Cloud, compute: Compute, dtype: torch.dtype) -> None:
    real, fake = cloud(0, 20, 3).to(dtype), cloud(1, 15, 3, centre=0.5).to(dtype)
    values = compute(real, fake)
    assert [(value.dtype, value.shape) for value in values] == [(torch.float64, ())] * len(values)
    assert values == compute(real.double(), fake.double())


@every_metric
def test_the_sets_may_have_different_precision(cloud: Cloud, compute: Compute) -> None:
    real, fake = cloud(0, 20, 3).half(), cloud(1, 15, 3).float()
    assert compute(real, fake) == compute(real.double(), fake.double())


@every_metric
def test_arguments_are_left_alone(cloud: Cloud, compute: Compute) -> None:
    real, fake = cloud(0, 20, 3, centre=2.0), cloud(1, 15, 3)
    before = real.clone(), fake.clone()
    compute(real, fake)
    assert torch.equal(real, before[0])
    assert torch.equal(fake, before[1])


@every_metric
def test_layout_in_memory_does_not_matter(cloud: Cloud, compute: Compute) -> None:
    real, fake = cloud(0, 20, 3), cloud(1, 15, 3, centre=0.5)
    strided = real.T.contiguous().T, fake.repeat_interleave(2, dim=0)[::2]
    expected = [value.item() for value in compute(real, fake)]
    assert [value.item() for value in compute(*strided)] == pytest.approx(expected, rel=1e-9)


@every_metric
def test_no_graph_is_recorded(cloud: Cloud, compute: Compute) -> None:
    values = compute(cloud(0, 20, 3).requires_grad_(), cloud(1, 15, 3).requires_grad_())
    assert not any(value.requires_grad for value in values)


def test_good_features_pass_unchanged(cloud: Cloud) -> None:
    real, fake = cloud(0, 2, 1), cloud(1, 5, 1)
    assert torch.equal(check_features(real, "real"), real)
    assert all(torch.equal(*both) for both in zip(check_pair(real, fake), (real, fake), strict=True))


@every_metric
def test_a_collapsed_generator_has_finite_values(cloud: Cloud, compute: Compute) -> None:
    real = cloud(0, 40, 6)
    for points in (torch.full((1, 6), 3.3).double(), real[:1], torch.zeros(1, 6), real[:2]):
        assert all(value.isfinite() for value in compute(real, points.repeat(30 // len(points), 1)))


def test_fewest_rows_can_be_chosen(cloud: Cloud) -> None:
    assert len(check_features(cloud(0, 1, 3), "real", least=1)) == 1
    with pytest.raises(ValueError, match="0 feature rows, but at least 1"):
        check_features(cloud(0, 1, 3)[:0], "real", least=1)
