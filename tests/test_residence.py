"""What is on the device between evaluations."""

import gc
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from accelerator import accelerator
from torch import nn
from torch.utils.data import TensorDataset

from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.evaluation.plan import make_plan
from lightning_synthqual.evaluation.reference import open_real
from lightning_synthqual.evaluation.workspace import SharedCache, Workspace
from lightning_synthqual.extractors import Identity
from lightning_synthqual.extractors.pairs import PairNetwork
from lightning_synthqual.images.sampling import Sampler
from lightning_synthqual.residence import Residence

METRICS = ("fd_mine", "kd_mine", "recall_mine", "memorization_mine", "kd_pixels", "pairs_mine")
OPTIONS = {"pairs": {"metrics": ("psnr", "lpips_vgg"), "num_images": 8}, "feature_space": {"methods": ("pca",)}}


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(192, 40, bias=False)
        nn.init.orthogonal_(self.linear.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(images.flatten(1).float() / 255)


class Difference(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", torch.ones(3, 1, 1))

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return ((one.float() - other.float()) * self.weights).abs().mean(dim=(1, 2, 3))


class Generator(nn.Module):
    latent_dim = 192

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(z).view(-1, 3, 8, 8)


def prepared(
    cache: Any, device: str, keep: bool = False, metrics: tuple[str, ...] = METRICS
) -> tuple[Evaluator, Sampler]:
    draw = torch.Generator().manual_seed(1)
    real, held_out = (TensorDataset(torch.rand(count, 3, 8, 8, generator=draw) * 2 - 1) for count in (21, 19))
    pair = PairNetwork(Difference(), Identity("difference", "none", "none"))
    plan = make_plan(
        metrics,
        extractors={"mine": Network(), "lpips_vgg": pair},
        options=OPTIONS,
        cache_dir=str(cache),
        keep_on_device=keep,
    )
    sampler = Sampler(Generator(), device=device)
    workspace = Workspace(plan, Ranks(), device)
    return Evaluator(workspace, *open_real(plan, real, held_out), sampler=sampler, num_samples=18), sampler


@pytest.mark.parametrize("keep", [False, True])
def test_nothing_is_on_the_device_between_evaluations_unless_it_was_asked_to_stay(tmp_path, keep):
    expected = [evaluator.evaluate(sampler, 18).scalars for evaluator, sampler in [prepared(tmp_path, "cpu")]]
    with accelerator() as log:
        evaluator, sampler = prepared(tmp_path, "cuda", keep)
        held = []
        for _ in range(2):
            gc.collect()
            held.append(log.allocated())
            report = evaluator.evaluate(sampler, 18)
            assert evaluator.failures == {}
            assert report.scalars == pytest.approx(expected[0], rel=1e-5, abs=1e-7)
        gc.collect()
        held.append(log.allocated())
    assert all(held) if keep else held == [0, 0, 0]


def test_nothing_stays_after_an_evaluation_that_failed(tmp_path):
    with accelerator() as log:
        evaluator, sampler = prepared(tmp_path, "cuda", metrics=("fd_mine",))
        with pytest.raises(RuntimeError, match="no images"):
            evaluator.evaluate(Sampler(Generator(), function=broken, device="cuda"), 18)
        gc.collect()
        assert log.allocated() == 0
        assert evaluator.evaluate(sampler, 18).scalars


def test_real_features_are_put_together_on_the_host(tmp_path, monkeypatch):
    devices = []
    save = SharedCache.save

    def spy(self, fingerprint, identity, tensors, **kwargs):
        devices.extend((identity.name, each.device.type) for each in tensors.values())
        return save(self, fingerprint, identity, tensors, **kwargs)

    monkeypatch.setattr(SharedCache, "save", spy)
    with accelerator():
        prepared(tmp_path, "cuda", metrics=("kd_mine", "kd_pixels"))
    assert {("mine", "cpu"), ("pixels", "cpu")} <= set(devices)
    assert ("mine", "cuda") not in devices


def broken(module: Any, n: int, generator: torch.Generator) -> torch.Tensor:
    raise RuntimeError("no images")


class Pair(NamedTuple):
    one: torch.Tensor
    other: Any


@dataclass(frozen=True)
class Frozen:
    rows: torch.Tensor
    name: str = "frozen"


def test_states_leave_and_come_back_as_they_were():
    with accelerator() as log:
        device = torch.device("cuda", 0)
        residence = Residence(device)
        stored, linear = torch.arange(6.0).view(3, 2), nn.Linear(2, 2)
        rows = residence.here(stored)
        assert residence.here(stored) is rows
        on_cpu, parts = torch.ones(2), range(3)
        state = [Pair(rows, {"sums": rows + 1, "cpu": on_cpu}), Frozen(rows * 2), parts, linear.to(device)]
        left = residence.leave(state)
        del state, rows
        residence.release()
        gc.collect()
        assert log.allocated() == 0
        again = residence.enter(left)
        assert type(again[0]) is Pair
        assert type(again[1]) is Frozen
        assert again[0].one.device == again[1].rows.device == device
        assert again[0].other["cpu"] is on_cpu
        assert again[2] is parts
        assert again[3].weight.device == device
        assert torch.equal(again[1].rows.cpu(), stored * 2)
        assert residence.leave(again)[0].one.what is stored  # no copy of what was on the CPU before
        del again
        residence.release()
        gc.collect()
        assert log.allocated() == 0


def test_on_the_cpu_nothing_is_looked_at():
    residence, state = Residence(torch.device("cpu")), object()
    rows = torch.ones(2)
    assert residence.leave(state) is state
    assert residence.enter(state) is state
    assert residence.here(rows) is rows
