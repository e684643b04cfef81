import copy
import logging
import random
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from lightning_synthqual.images.state import undisturbed


class Adapted(nn.Module):
    """Merges its adapter into its weight in eval mode, as LoRA layers do, and undoes it in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4), requires_grad=False)
        self.adapter = nn.Parameter(torch.randn(4, 4))
        self.merged = False
        self.switches: list[bool] = []

    def train(self, mode: bool = True) -> "Adapted":
        super().train(mode)
        if self.merged == mode:
            self.weight.data += self.adapter.data * (-1 if mode else 1)
            self.merged = not mode
        return self


class Stateful(nn.Module):
    """Everything that a forward pass may change."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.tied = self.linear
        self.norm = nn.BatchNorm1d(4)
        self.spectral = parametrizations.spectral_norm(nn.Linear(4, 4))
        self.weighted = parametrizations.weight_norm(nn.Linear(4, 4))
        with pytest.warns(FutureWarning):
            self.old_norm = nn.utils.weight_norm(nn.Linear(4, 4))
        self.frozen = nn.Sequential(nn.BatchNorm1d(4)).eval()
        self.register_buffer("average", torch.zeros(4))
        self.register_buffer("replaced", torch.zeros(4))
        self.register_buffer("expanded", torch.zeros(1).expand(4))
        self.register_buffer("missing", None)
        self.plain = torch.zeros(3)
        self.array = np.zeros(3)
        self.calls = 0
        self.word = "before"
        self.cached: Any = None
        self.shape = (1, 2)
        self.lists: list[Any] = [1, torch.zeros(2)]
        self.dicts = {"n": 0, "t": torch.zeros(2)}
        self.sets = {1}
        self.queue = deque([1], maxlen=2)
        self.torch_dice = torch.Generator().manual_seed(1)
        self.dice = [np.random.default_rng(1), np.random.RandomState(1), random.Random(1)]

    def forward(self, x: Tensor) -> Tensor:
        self.norm.train()  # stays in train mode
        x = self.weighted(self.old_norm(self.spectral(self.norm(self.linear(x)))))
        self.average.lerp_(x.detach().mean(0), 0.5)
        self.replaced = self.replaced + 1
        self.missing = torch.ones(1)
        self.plain += 1
        self.array += 1
        self.calls += 1
        self.word, self.cached, self.shape = "after", torch.ones(1), (3,)
        self.appeared = True
        self.lists[0] = 2
        self.lists[1] += 1
        self.dicts["n"] += 1
        self.dicts["t"] += 1
        self.sets.clear()
        self.queue += [3, 4]  # pushes out what was there
        noise = torch.rand(4, generator=self.torch_dice) + self.dice[0].random() + self.dice[1].rand()
        return x + noise + self.dice[2].random()


def identities(module: nn.Module) -> list[int]:
    return [id(each) for each in (*module.parameters(), *module.buffers(), *vars(module).values())]


@pytest.mark.parametrize("fails", [False, True])
def test_everything_that_a_forward_pass_changes_is_restored(fails: bool, contents: Any) -> None:
    torch.manual_seed(0)
    module = Stateful()
    module(torch.randn(5, 4))
    module.linear.weight.grad = torch.ones(4, 4)
    module.norm.eval()
    before, same = contents(module), identities(module)
    with suppress(KeyError), torch.no_grad(), undisturbed(module, module.linear):
        assert not module.training
        module(torch.randn(5, 4))
        assert contents(module) != before
        if fails:
            raise KeyError
    assert contents(module) == before
    assert identities(module) == same


def test_repeated_samples_agree() -> None:
    torch.manual_seed(0)
    module, x = Stateful(), torch.randn(5, 4)
    found = []
    for _ in range(3):
        with torch.no_grad(), undisturbed(module):
            found += [module(x), module(x)]
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[5])
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("frozen", [False, True])
def test_weights_merged_in_eval_mode_are_restored_to_the_bit(frozen: bool, contents: Any) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(Adapted(), nn.Sequential(Adapted(), Adapted()))
    if frozen:
        module[1][0].eval()
    before = contents(module)
    with undisturbed(module):
        assert all(each.merged for each in (module[0], *module[1]))
    assert contents(module) == before


def test_modules_leave_eval_mode_by_their_own_method() -> None:
    class External(nn.Module):
        modes: list[bool] = []

        def train(self, mode: bool = True) -> "External":
            self.modes.append(mode)
            return super().train(mode)

    with undisturbed(nn.Sequential(External())):
        pass
    assert External.modes == [False, True]


def test_a_module_that_cannot_leave_eval_mode_is_restored_all_the_same(contents: Any) -> None:
    class Stuck(nn.Linear):
        def train(self, mode: bool = True) -> "Stuck":
            if mode:
                raise KeyError("stuck")
            return super().train(mode)

    module = nn.Sequential(nn.Linear(1, 1), Stuck(1, 1), nn.Linear(1, 1))
    before = contents(module)
    with pytest.raises(KeyError, match="stuck"), torch.no_grad(), undisturbed(module):
        module[0].weight += 1
    assert contents(module) == before


def test_a_graph_that_the_training_keeps_stays_usable() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    loss = module(torch.randn(3, 2)).sum()
    with torch.no_grad(), undisturbed(module):
        module(torch.randn(3, 2))
    loss.backward()
    assert module[0].weight.grad is not None


def test_signs_of_zeros_and_nan_are_restored(contents: Any) -> None:
    module = nn.Linear(4, 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.0, -0.0, float("nan"), float("inf")]]))
    before = contents(module)
    with undisturbed(module):
        module.weight.data.neg_()
    assert contents(module) == before


def test_a_module_that_the_sampler_casts_replaces_freezes_or_differentiates_is_restored(contents: Any) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    before, same = contents(module), identities(module)
    with undisturbed(module):
        module(torch.randn(4, 2)).sum().backward()
        module.half().requires_grad_(False)
        module[2] = nn.Identity()
        module[0].bias = nn.Parameter(torch.zeros(2))
    assert contents(module) == before
    assert identities(module) == same
    assert all(parameter.grad is None for parameter in module.parameters())


def test_buffers_made_in_inference_mode_are_restored() -> None:
    module = nn.Linear(2, 2)
    with torch.inference_mode():
        module.register_buffer("average", torch.zeros(2))
    with undisturbed(module), torch.inference_mode():
        module.average += 1
    assert module.average.tolist() == [0, 0]


def test_sparse_and_meta_tensors_are_no_obstacle() -> None:
    module = nn.Module()
    module.register_buffer("sparse", torch.eye(3).to_sparse())
    module.register_buffer("meta", torch.zeros(3, device="meta"))
    module.register_buffer("small", torch.zeros(3, dtype=torch.bfloat16))
    with undisturbed(module):
        module.sparse *= 2
        module.small += 1
    assert torch.equal(module.sparse.to_dense(), torch.eye(3))
    assert module.small.sum() == 0


@pytest.mark.filterwarnings("ignore:`torch.jit.script`")
def test_torchscript_modules_are_restored() -> None:
    module = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    before = copy.deepcopy(module.state_dict())
    with torch.no_grad(), undisturbed(module):
        assert not module.training
        module.train()(torch.randn(4, 2))
        next(iter(module.parameters())).add_(1)
    assert module.training
    assert all(torch.equal(one, before[name]) for name, one in module.state_dict().items())


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_modules_are_not_initialised() -> None:
    module = nn.Sequential(nn.ReLU(), nn.LazyLinear(3))
    torch.manual_seed(5)
    message = r"`1` \(LazyLinear\) has no weights yet.*Call the module once before"
    with pytest.raises(ValueError, match=message), undisturbed(module):
        module(torch.zeros(1, 2))
    assert isinstance(module[1], nn.LazyLinear)
    module(torch.zeros(1, 2))  # as the training does
    torch.manual_seed(5)
    expected = nn.LazyLinear(3)
    expected(torch.zeros(1, 2))
    assert torch.equal(module[1].weight, expected.weight)
    with undisturbed(module):
        module(torch.zeros(1, 2))


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_modules_that_sampling_does_not_call_are_no_fault() -> None:
    module = nn.ModuleDict({"critic": nn.LazyLinear(3), "generator": nn.Linear(2, 2)})
    with undisturbed(module):
        module["generator"](torch.zeros(1, 2))
    assert isinstance(module["critic"], nn.LazyLinear)
    assert len(module["critic"]._forward_pre_hooks) == 1  # torch's own


def test_counters_of_samplers_and_data_sets_are_restored_and_their_files_stay_open() -> None:
    class Source:
        def __init__(self) -> None:
            self.reads, self.name, self.file, self.path = 0, None, None, "a"

        def __call__(self, *arguments: Any) -> None:
            self.reads, self.name, self.file = self.reads + 1, "read", self.file or [1]

    source = Source()
    with undisturbed(source, None, "text"):
        source()
        source()
    assert (source.reads, source.name) == (0, None)
    assert source.file == [1]


def test_what_is_only_added_to_a_container_stays() -> None:
    module = nn.Identity()
    module.lists, module.dicts, module.sets = [1], {"a": 1}, {1}
    with undisturbed(module):
        module.lists += [2]
        module.dicts["b"] = 2
        module.sets.add(2)
    assert (module.lists, module.dicts, module.sets) == ([1, 2], {"a": 1, "b": 2}, {1, 2})


def test_modes_of_several_modules_are_switched_and_restored() -> None:
    network = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.BatchNorm1d(1), nn.Dropout()), nn.ReLU())
    other = nn.Linear(1, 1).eval()
    network[1].eval()
    network[1][1].train()
    flags = [part.training for part in network.modules()]
    assert len(set(flags)) == 2
    with undisturbed(network, other, network[0], "no module"):
        assert not any(part.training for part in network.modules())
    assert [part.training for part in network.modules()] == flags
    assert not other.training


def test_the_cost_is_logged_once_for_a_module(caplog: pytest.LogCaptureFixture) -> None:
    module = nn.Linear(1000, 1000, bias=False)
    with caplog.at_level(logging.INFO, "lightning_synthqual"):
        for _ in range(3):
            with undisturbed(module):
                pass
    [record] = caplog.records
    assert "4.0 MB of weights and buffers of Linear" in record.getMessage()


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Any]:
    """A device mesh of this process alone."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.slow
def test_sharded_weights_are_restored_shard_by_shard(mesh: Any) -> None:
    from torch.distributed.fsdp import fully_shard

    module = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 8)), nn.Linear(8, 2))
    fully_shard(module[1], mesh=mesh)
    fully_shard(module, mesh=mesh)
    same, before = identities(module), [parameter.to_local().clone() for parameter in module.parameters()]
    with torch.no_grad():
        module(torch.randn(2, 4))  # leaves the outermost module's weights gathered
        assert not hasattr(module[0].weight, "to_local")
        with undisturbed(module):
            module(torch.randn(2, 4))
            module.reshard()
            for parameter in module.parameters():
                parameter.add_(1)
    assert identities(module) == same
    assert all(torch.equal(one.to_local(), other) for one, other in zip(module.parameters(), before, strict=True))
    module(torch.randn(2, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
