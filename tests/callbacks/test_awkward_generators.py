"""Generators that an evaluation could disturb are trained twice, with and without the callback: nothing differs."""

import copy
import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lightning_synthqual import evaluate

_LIGHTNINGS = frozenset(vars(pl.LightningModule()))


class Generator(pl.LightningModule):
    """Trains ``body`` towards the data's mean; subclasses are awkward in one way each."""

    latent_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 48))

    def noise(self, z: Tensor) -> Tensor:
        return z

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.body(self.noise(z))).view(-1, 3, 4, 4)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = (self(torch.randn(8, 4)) - batch[0].mean(0)).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-2)


class BatchNormStaysInTrainMode(Generator):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def noise(self, z: Tensor) -> Tensor:
        return self.norm.train()(z)


class AverageInForward(Generator):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("w_avg", torch.zeros(4))

    def noise(self, z: Tensor) -> Tensor:
        self.w_avg.lerp_(z.detach().mean(0), 0.1)
        return z + self.w_avg


class BufferReplaced(AverageInForward):
    def noise(self, z: Tensor) -> Tensor:
        self.w_avg = self.w_avg + z.detach().mean(0)
        return z + self.w_avg


class CounterInBuffer(Generator):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def noise(self, z: Tensor) -> Tensor:
        self.calls += 1
        return z / self.calls


class CounterInPython(Generator):
    calls = 0

    def noise(self, z: Tensor) -> Tensor:
        self.calls += 1
        return z / self.calls


class PlainTensorAndContainers(Generator):
    def __init__(self) -> None:
        super().__init__()
        self.mean, self.counts, self.recent = torch.zeros(4), {"calls": 0}, deque([0.0], maxlen=3)

    def noise(self, z: Tensor) -> Tensor:
        self.mean += z.detach().mean(0)
        self.counts["calls"] += 1
        self.recent += z[:3, 0].tolist()
        return z + self.mean / self.counts["calls"] + sum(self.recent)


class CacheOfTheFirstCall(Generator):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.cached = nn.Parameter(torch.ones(4)), None

    def noise(self, z: Tensor) -> Tensor:
        if self.cached is None:
            self.cached = self.scale.detach() + z.mean().detach()
        return z * self.cached


class Merging(nn.Linear):
    """A LoRA layer that merges its adapter in eval mode."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.weight.requires_grad_(False)
        self.adapter, self.merged = nn.Parameter(torch.randn(4, 4)), False

    def train(self, mode: bool = True) -> "Merging":
        super().train(mode)
        if self.merged == mode:
            self.weight.data += self.adapter.data * (-1 if mode else 1)
            self.merged = not mode
        return self

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) + (0 if self.merged else z @ self.adapter.T)


class MergesInEvalMode(Generator):
    def __init__(self) -> None:
        super().__init__()
        self.merging, self.frozen = Merging(), Merging().eval().requires_grad_(False)

    def noise(self, z: Tensor) -> Tensor:
        return self.frozen(self.merging(z))


class DropsAlways(Generator):
    def noise(self, z: Tensor) -> Tensor:
        return functional.dropout(z, 0.3) + random.random() + np.random.rand()  # noqa: NPY002


class Normalised(Generator):
    def __init__(self) -> None:
        super().__init__()
        self.first = parametrizations.spectral_norm(nn.Linear(4, 4))
        self.second = parametrizations.weight_norm(nn.Linear(4, 4))
        self.third = nn.utils.spectral_norm(nn.Linear(4, 4))

    def noise(self, z: Tensor) -> Tensor:
        for layer in (self.first, self.second, self.third):
            z = layer.train()(z)
        return z


class HoldsGenerators(Generator):
    def __init__(self) -> None:
        super().__init__()
        self.dice = torch.Generator().manual_seed(1)
        self.others = [np.random.default_rng(1), np.random.RandomState(1), random.Random(1)]

    def noise(self, z: Tensor) -> Tensor:
        numpy, old, python = self.others
        return z + torch.randn(4, generator=self.dice) + numpy.random() + old.rand() + python.random()


class AverageAsSubmodule(Generator):
    def __init__(self) -> None:
        super().__init__()
        self.average = copy.deepcopy(self.body).requires_grad_(False)

    def forward(self, z: Tensor) -> Tensor:
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.body.parameters(), strict=True):
                mean.lerp_(value, 0.1)
        return torch.tanh(self.body(z) + self.average(z)).view(-1, 3, 4, 4)


class TiedWeights(Generator):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.other.weight = self.one.weight

    def noise(self, z: Tensor) -> Tensor:
        if not self.training:
            self.one.weight.data *= 0.5
        return self.other(self.one(z))


class OwnCall(Generator):
    """As a compiled module, whose calls do more than forward."""

    def __init__(self) -> None:
        super().__init__()
        self.compiled: Any = None

    def __call__(self, *inputs: Any) -> Any:
        self.compiled = self.compiled or (len(inputs[0]), torch.rand(4))
        return super().__call__(inputs[0] + self.compiled[1])


class PartlyInEvalMode(Generator):
    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5)).eval()
        self.mixed = nn.Sequential(nn.Dropout(0.5)).eval()
        self.mixed[0].train()

    def noise(self, z: Tensor) -> Tensor:
        return self.mixed(self.frozen(z))


class InitialisedBefore(Generator):
    def __init__(self) -> None:
        super().__init__()
        self.lazy = nn.LazyLinear(4)
        self.lazy(torch.zeros(1, 4))

    def noise(self, z: Tensor) -> Tensor:
        return self.lazy(z)


class Augmented(Dataset):
    def __init__(self, images: Tensor) -> None:
        self.images, self.dice, self.reads = images, np.random.default_rng(2), 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor]:
        self.reads += 1
        return (self.images[index] * self.dice.uniform(0.9, 1.0) / self.reads,)


class Shuffled(IterableDataset):
    def __init__(self, images: Tensor) -> None:
        self.images, self.dice, self.epoch = images, random.Random(2), 0

    def __iter__(self) -> Iterator[tuple[Tensor]]:
        self.epoch += 1
        for index in self.dice.sample(range(len(self.images)), len(self.images)):
            yield (self.images[index] / self.epoch,)


class HoldingSampler:
    """A sampler with a state of its own that does to the module whatever it likes."""

    def __init__(self) -> None:
        self.dice, self.calls = torch.Generator().manual_seed(8), 0

    def __call__(self, module: Any, n: int, generator: torch.Generator) -> Tensor:
        self.calls += 1
        z = torch.randn(n, 4, generator=self.dice)
        module.requires_grad_(False).double()
        images = module(z.double()) / self.calls
        module.body[1] = nn.Identity()
        return images.float()


def guided(module: Any, n: int, generator: torch.Generator) -> Tensor:
    """Follows a gradient, by ``backward``."""
    z = torch.randn(n, 4, generator=generator, requires_grad=True)
    with torch.enable_grad():
        module(z).sum().backward()
    return module(z.detach() + z.grad)


def average_of(module: Any) -> nn.Module:
    return nn.Sequential(module.average, nn.Tanh(), nn.Unflatten(1, (3, 4, 4)))


class Case(NamedTuple):
    module: type[Generator]
    data: Callable[[Tensor], Any] = TensorDataset
    arguments: Callable[[], dict[str, Any]] = dict


QUICK = [
    Case(AverageInForward),
    Case(MergesInEvalMode),
    Case(HoldsGenerators, Augmented),
    Case(Generator, arguments=lambda: {"sampler": HoldingSampler()}),
]
SLOW = [
    *map(Case, [BatchNormStaysInTrainMode, BufferReplaced, CounterInBuffer, CounterInPython, PlainTensorAndContainers]),
    *map(Case, [CacheOfTheFirstCall, DropsAlways, Normalised, AverageAsSubmodule, TiedWeights, OwnCall]),
    *map(Case, [PartlyInEvalMode, InitialisedBefore]),
    Case(Generator, Shuffled),
    Case(Generator, arguments=lambda: {"sampler": guided}),
    Case(AverageAsSubmodule, arguments=lambda: {"model": average_of}),
]


def train(case: Case, contents: Any, trainer: Any, monitor: Any = None) -> dict[str, Any]:
    """Train a case and return all that could differ."""
    pl.seed_everything(3, verbose=False)
    module, data = case.module(), case.data(torch.rand(32, 3, 4, 4) * 2 - 1)
    losses = Losses()
    callbacks = [losses] if monitor is None else [monitor(data), losses]
    run = trainer(*callbacks, max_epochs=2)
    run.fit(module, DataLoader(data, 8, shuffle=not isinstance(data, IterableDataset)))
    attributes = {name: value for name, value in vars(module).items() if name not in _LIGHTNINGS}
    return {
        "losses": losses.values,
        "modes": [part.training for part in module.modules()],
        "modules": {name: contents(part) for name, part in module.named_children()},
        "own tensors": contents([*module.parameters(), *module.buffers()]),
        "attributes": contents(attributes),
        "optimizer": contents(run.optimizers[0].state_dict()),
        "data": contents(vars(data)),
        "global generators": contents([random.getstate(), torch.get_rng_state(), np.random.get_state()]),  # noqa: NPY002
    }


class Losses(pl.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.values.append(trainer.callback_metrics["loss"].item())


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.slow if case in SLOW else ()) for case in (*QUICK, *SLOW)],
    ids=lambda case: "-".join((case.module.__name__, case.data.__name__, *case.arguments())),
)
def test_the_training_is_the_same_with_and_without_the_callback(case, contents, monitor, trainer):
    common = {"metrics": ("kd_pixels",), "num_samples": 20, "batch_size": 8, "every_n_train_batches": 2}
    made: list[Any] = []

    def make(real: Any) -> Any:
        made.append(monitor(real=real, **common, **case.arguments()))
        return made[-1]

    watched = train(case, contents, trainer, make)
    assert len(made[0].reports) == 4
    alone = train(case, contents, trainer)
    for name, value in alone.items():
        assert watched[name] == value, name


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow if case in SLOW else ())
        for case in (*QUICK, *SLOW)
        if case.data is TensorDataset and "model" not in case.arguments()
    ],
    ids=lambda case: "-".join((case.module.__name__, *case.arguments())),
)
def test_repeated_evaluations_agree(case):
    torch.manual_seed(0)
    module, real = case.module(), TensorDataset(torch.rand(32, 3, 4, 4) * 2 - 1)
    common = {"metrics": ["kd_pixels"], "num_samples": 20, "batch_size": 8, **case.arguments()}
    found = [evaluate(real, module, **common) for _ in range(3)]
    assert found[0].scalars == found[1].scalars == found[2].scalars
