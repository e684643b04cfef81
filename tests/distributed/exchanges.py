"""What processes tell each other, and how often; each writes what it found to ``<output>/rank<r>.json``."""

import argparse
import gc
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import TensorDataset

from lightning_synthqual import Metric, distributed
from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.evaluation.plan import make_plan
from lightning_synthqual.evaluation.reference import open_real
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.images.sampling import Sampler
from lightning_synthqual.metrics.shard import tile_size

METRICS = ("fd", "kd", "precision", "recall", "density", "coverage", "memorization")
CALLS: Counter[str] = Counter()


class Generator(nn.Module):
    latent_dim = 3 * 8 * 8

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(z * self.scale).view(-1, 3, 8, 8)


def counted(name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    CALLS[name] += 1
    return function(*args, **kwargs)


def count_calls() -> None:
    for name in ("all_reduce", "all_gather", "all_gather_into_tensor", "all_gather_object", "broadcast", "barrier"):
        setattr(dist, name, partial(counted, name, getattr(dist, name)))


def told(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def sums(ranks: Ranks) -> list[bool]:
    whole = ranks.world_size * (ranks.world_size + 1) // 2
    found = []
    for shape in ((), (3,), (0,), (200, 300)):
        for dtype in (torch.float64, torch.float32, torch.int64):
            summed = ranks.total(torch.full(shape, ranks.rank + 1, dtype=dtype))
            found.append(torch.equal(summed, torch.full(shape, whole, dtype=dtype)))
    return found


def rows(ranks: Ranks) -> list[bool]:
    distributed._CHUNK = 4096  # a few rows
    found = []
    for count, width in ((1, 2), (7, 3), (1000, 40), (301, 500)):
        for dtype in (torch.float32, torch.uint8):
            whole = torch.arange(count * width).view(count, width).to(dtype)
            own = list(range(ranks.rank, count, ranks.world_size))[::-1]
            gathered = ranks.gather_rows(whole[own] if own else None, own, count, torch.device("cpu"))
            found.append(torch.equal(gathered, whole))
    return found


def objects(ranks: Ranks) -> bool:
    values = [{"text": "é\n" * 100_000 * rank} for rank in range(ranks.world_size)]
    return ranks.gather_objects(values[ranks.rank]) == values


def nested_fault(ranks: Ranks) -> None:
    with ranks.synchronized("outer"):
        with ranks.synchronized("inner"):
            if ranks.rank == 1:
                raise OSError("disk on fire")
        ranks.total(torch.zeros(200, 300))


def attempts(ranks: Ranks) -> list[dict[str, str]]:
    """Five attempts, of which the second fails on one process, the third on another, the last on one."""
    own = {}
    with ranks.synchronized("outer"):
        for number in range(5):
            try:
                with ranks.attempt(f"attempt {number}"):
                    if number in (0, 3):
                        ranks.total(torch.zeros(3))
                    if (number, ranks.rank) in ((1, 0), (2, 1), (4, 1)):
                        raise ArithmeticError(str(number))
                own[f"attempt {number}"] = "succeeded"
            except ArithmeticError as error:
                own[f"attempt {number}"] = str(error)
        return [own, {name: str(error) for name, error in ranks.failed_attempts().items()}]


def fault_of_all_while_one_is_in_an_attempt(ranks: Ranks) -> None:
    with ranks.synchronized("outer"):
        for number in range(3):
            try:
                with ranks.attempt(f"attempt {number}"):
                    if number == 2 and ranks.rank == 1:
                        raise ArithmeticError("only here")
            except ArithmeticError:
                pass
            if number == 1 and ranks.rank == 0:
                raise OSError("disk on fire")
        ranks.failed_attempts()


def different_calls(ranks: Ranks) -> None:
    with ranks.synchronized("outer"):
        if ranks.rank == 0:
            ranks.gather_objects(1)
        else:
            ranks.total(torch.zeros(2))


def different_shapes(ranks: Ranks) -> None:
    with ranks.synchronized("outer"):
        ranks.total(torch.zeros(2 + ranks.rank))


@contextmanager
def pretend_nccl() -> Iterator[Any]:
    """NCCL on a pretend accelerator: it takes tensors that are there, and no others."""
    from accelerator import OnDevice, accelerator

    def take(value: Any) -> Any:
        assert all(isinstance(each, OnDevice) for each in (value if isinstance(value, list) else [value]))
        return [each.inner for each in value] if isinstance(value, list) else value.inner

    def taking(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *tensors, **kwargs: function(*map(take, tensors), **kwargs)

    with ExitStack() as stack:
        for name in ("all_reduce", "all_gather", "broadcast"):
            stack.enter_context(mock.patch.object(dist, name, taking(getattr(dist, name))))
        stack.enter_context(mock.patch.object(dist, "get_backend", return_value="nccl"))
        yield stack.enter_context(accelerator())


def on_accelerator(cache: str) -> dict[str, Any]:
    with pretend_nccl() as log:
        found = evaluations(Ranks(), cache, "cuda")
        gc.collect()
        return {**found, "bytes left": log.allocated()}


def evaluations(ranks: Ranks, cache: str, device: str = "cpu") -> dict[str, Any]:
    """Collectives of the first and of a later evaluation, and their scores."""
    draw = torch.Generator().manual_seed(1)
    real, held_out = (TensorDataset(torch.rand(count, 3, 8, 8, generator=draw) * 2 - 1) for count in (101, 77))
    plan = make_plan([f"{name}_wavelet" for name in METRICS], cache_dir=cache)
    sampler = Sampler(Generator().to(device), device=device)
    evaluator = Evaluator(
        Workspace(plan, ranks, device), *open_real(plan, real, held_out), sampler=sampler, num_samples=90
    )
    counts, scores = [], []
    for _ in range(2):
        CALLS.clear()
        scores.append(evaluator.evaluate(sampler, 90).scalars)
        counts.append(CALLS.total())
    return {"collectives": counts, "scores": scores}


class Hungry(Metric):
    """It needs more memory than there is on one process, unless tiles are small."""

    rank = 0
    tried: ClassVar[list[int]] = []

    def score(self, state: torch.Tensor, fake: torch.Tensor) -> float:
        side = tile_size(64)
        self.tried.append(side)
        if self.rank == 1 and side > 1000:
            raise torch.OutOfMemoryError("no memory on fire")
        return float(side)


def want_of_memory(ranks: Ranks, cache: str) -> dict[str, Any]:
    Hungry.rank = ranks.rank
    plan = make_plan(["kd_wavelet", Hungry("hungry", extractor="wavelet")], cache_dir=cache)
    draw = torch.Generator().manual_seed(1)
    real, fake = (TensorDataset(torch.rand(count, 3, 8, 8, generator=draw) * 2 - 1) for count in (31, 21))
    evaluator = Evaluator(Workspace(plan, ranks), ImageSet(real, "real"))
    scalars = evaluator.evaluate_images(ImageSet(fake, "fake")).scalars
    return {"scalars": sorted(scalars), "tried": Hungry.tried, "failures": list(evaluator.failures)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--world-size", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--accelerator", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.world_size > 1:
        timeout = timedelta(seconds=30)
        dist.init_process_group("gloo", rank=args.rank, world_size=args.world_size, timeout=timeout)
    count_calls()
    ranks = Ranks()
    found: dict[str, Any] = {}
    if not args.accelerator:
        found["evaluations"] = evaluations(ranks, str(args.output / "cache"))
    if args.accelerator:
        found = {"evaluations": on_accelerator(str(args.output / "cache"))}
    elif args.world_size > 1:
        found |= {function.__name__: function(ranks) for function in (sums, rows, objects)}
        faults = (nested_fault, attempts, fault_of_all_while_one_is_in_an_attempt, different_calls, different_shapes)
        for function in faults:
            found[function.__name__] = told(lambda: function(ranks))  # noqa: B023 - called at once
        found["want_of_memory"] = want_of_memory(ranks, str(args.output / "cache"))
        found["still in step"] = ranks.gather_objects(ranks.rank)
    (args.output / f"rank{args.rank}.json").write_text(json.dumps(found))
    if args.world_size > 1:  # a process whose peer has gone may be aborted while it ends
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
