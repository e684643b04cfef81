"""How fast an evaluation is, beside the extractor's forward pass alone and beside other tools, all in one run.

    python tests/benchmarks/bench.py [--n 512] [--device cpu] [--peers] [--sections evaluation ...]

Sections: ``evaluation`` (the whole of it), ``scoring`` (the arithmetic alone), ``processes`` (one process against two,
of one thread each), ``precision`` (what faster precisions cost in speed and in scores), ``growth`` (time and memory
against the number of samples), ``readers`` (a folder of PNG read by processes), ``start`` (from ``fit`` to the first
batch), ``device`` (what an accelerator does, with ``--device cuda``). Without ``--weights`` the Inception network has
random weights, which take as long as trained ones. Times are medians of several turns, taken in rotation, so that a
busy machine is busy for all. Memory is the growth of the process (Linux), or what CUDA has allocated at most.
"""

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import device as on_device
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from metrics import MIB, against_peers, features, measured, rotate
from reading import readers, start
from torch import Tensor, nn
from torch.utils.data import Dataset

from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.evaluation.plan import make_plan
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.extractors import load
from lightning_synthqual.extractors.inception import InceptionNetwork
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.images.sampling import Sampler
from lightning_synthqual.precision import NETWORK_PRECISIONS, has_tf32

METRICS = ("fid", "kid", "isc", "precision", "recall")
THREE = ("fid", "kid", "isc")
SIDE = 64
Work = Callable[[], Any]


class Images(Dataset[Tensor]):
    """Smooth images with some grain, uint8 (3, 64, 64), drawn by number."""

    def __init__(self, count: int, seed: int, contrast: float) -> None:
        draw = torch.Generator().manual_seed(seed)
        coarse = torch.rand(count, 3, 8, 8, generator=draw) * contrast
        smooth = nn.functional.interpolate(coarse, size=SIDE, mode="bicubic")
        grain = 0.05 * torch.randn(count, 1, SIDE, SIDE, generator=draw)
        self.pixels = ((smooth + grain).clamp(0, 1) * 255).to(torch.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self.pixels[index]


class Replayed(nn.Module):
    """A generator that costs nothing: it hands out finished images."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images
        self.shown = 0

    def sample_images(self, count: int, generator: torch.Generator) -> Tensor:
        start = self.shown % len(self.images)
        self.shown += count
        return self.images[start : start + count]


def random_weights(folder: Path) -> Path:
    """A state dict of the FID network, with activations that neither vanish nor explode."""
    torch.manual_seed(0)
    network = InceptionNetwork()
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight)
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        network.train()(Images(4, 3, 0.5).pixels)
    torch.save(network.trunk.state_dict(), folder / "random.pth")
    return folder / "random.pth"


def show(title: str, found: Mapping[str, tuple[float, float]], count: int, floor: str) -> None:
    """Print a row a work, with its ratio to the floor."""
    print(f"\n{title}\n{'':<58}{'seconds':>9}{'images/s':>10}{'MiB':>8}{'x floor':>9}")
    for name, (seconds, memory) in found.items():
        print(
            f"{name:<58}{seconds:9.2f}{count / seconds:10.1f}{memory:8.0f}{seconds / found[floor][0]:9.2f}", flush=True
        )


def evaluator_of(
    args: argparse.Namespace, real: Dataset[Tensor], cache: str, metrics: tuple[str, ...] = METRICS, **inception: Any
) -> Evaluator:
    """An evaluator of the Inception metrics that has read the real images."""
    extractors = {"inception": {"weights": str(args.weights), **inception}}
    plan = make_plan(metrics, extractors=extractors, cache_dir=cache, batch_size=64)
    return Evaluator(Workspace(plan, Ranks(), args.device), ImageSet(real, "real"))


def evaluation(args: argparse.Namespace) -> None:
    """The whole of an evaluation."""
    real, fake = Images(args.n, 0, 1.0), Images(args.n, 1, 0.9)
    pixels = fake.pixels.to(args.device)
    network = load("inception", weights=args.weights, device=args.device)
    prepared = evaluator_of(args, real, tempfile.mkdtemp())
    three = evaluator_of(args, real, tempfile.mkdtemp(), THREE)

    def forward() -> None:
        for batch in pixels.split(64):
            network(batch)
        _wait(args)

    def first() -> None:
        evaluator_of(args, real, tempfile.mkdtemp()).evaluate(Sampler(Replayed(pixels)), args.n)

    floor = "extractor's forward pass of the generated images"
    works: dict[str, Work] = {
        floor: forward,
        "first evaluation: fid kid isc precision recall": first,
        "later evaluation: fid kid isc precision recall": lambda: prepared.evaluate(Sampler(Replayed(pixels)), args.n),
        "later evaluation: fid kid isc": lambda: three.evaluate(Sampler(Replayed(pixels)), args.n),
    }
    if args.peers:
        works |= torchmetrics_works(args, real.pixels, fake.pixels) | fidelity_works(args, real, fake)
    forward()
    show(f"{args.n} generated against {args.n} real images of {SIDE}x{SIDE}", rotate(works, args.turns), args.n, floor)


def torchmetrics_works(args: argparse.Namespace, real: Tensor, fake: Tensor) -> dict[str, Work]:
    """FID, KID and IS of torchmetrics with the reals kept, each with its own network, and as far as can be shared."""
    from torchmetrics.image import FrechetInceptionDistance, InceptionScore, KernelInceptionDistance
    from torchmetrics.image.fid import NoTrainInceptionV3
    from torchmetrics.wrappers import FeatureShare

    def network(output: str) -> nn.Module:
        return NoTrainInceptionV3("inception-v3-compat", [output], str(args.weights)).to(args.device)

    def metrics(pool: Callable[[], nn.Module]) -> list[Any]:
        fid = FrechetInceptionDistance(pool(), reset_real_features=False)
        kid = KernelInceptionDistance(pool(), reset_real_features=False, subset_size=min(1000, args.n))
        return [metric.to(args.device) for metric in (fid, kid, InceptionScore(network("logits_unbiased")))]

    def run(measures: list[Any]) -> None:
        for measure in measures:
            measure.reset()
            for batch in fake.split(64):
                batch = batch.to(args.device)
                measure.update(batch) if isinstance(measure, InceptionScore) else measure.update(batch, real=False)
            measure.compute()
        _wait(args)

    separate = metrics(lambda: network("2048"))
    pool = network("2048")
    fid, kid, score = metrics(lambda: pool)
    shared = FeatureShare([fid, kid])
    for batch in real.split(64):
        for measure in separate[:2]:
            measure.update(batch.to(args.device), real=True)
        shared.update(batch.to(args.device), real=True)

    def run_shared() -> None:
        shared.reset()
        for batch in fake.split(64):
            shared.update(batch.to(args.device), real=False)
        shared.compute()
        run([score])

    return {
        "torchmetrics: FID, KID, IS, reals kept": lambda: run(separate),
        "torchmetrics: the same, FID and KID in FeatureShare": run_shared,
    }


def fidelity_works(args: argparse.Namespace, real: Dataset[Tensor], fake: Dataset[Tensor]) -> dict[str, Work]:
    """ISC, FID and KID of torch-fidelity, the real features and statistics cached, and its forward pass alone."""
    import torch_fidelity
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    common = {
        "feature_extractor": "inception-v3-compat",
        "feature_extractor_weights_path": str(args.weights),
        "cuda": torch.device(args.device).type == "cuda",
        "batch_size": 64,
        "cache_root": tempfile.mkdtemp(),
        "input2_cache_name": "real",
        "kid_subset_size": min(1000, args.n),
        "verbose": False,
        "save_cpu_ram": True,
    }
    outputs = ["2048", "logits_unbiased"]
    extractor = FeatureExtractorInceptionV3("inception-v3-compat", outputs, str(args.weights)).to(args.device)

    def run(**more: bool) -> None:
        torch_fidelity.calculate_metrics(input1=fake, input2=real, **common, **more)

    def forward() -> None:
        with torch.no_grad():
            for batch in fake.pixels.to(args.device).split(64):  # type: ignore[attr-defined]
                extractor(batch)
        _wait(args)

    run(isc=True, fid=True, kid=True)
    return {
        "torch-fidelity's forward pass": forward,
        "torch-fidelity: isc fid kid, real features cached": lambda: run(isc=True, fid=True, kid=True),
    }


def scoring(args: argparse.Namespace) -> None:
    """The arithmetic alone."""
    for rows in args.rows:
        for columns in args.columns:
            print(f"\n{rows} real and {rows} generated rows of {columns} columns")
            against_peers(features(1, rows, columns), features(2, rows, columns))


def processes(args: argparse.Namespace) -> None:
    """One process of one thread, and two."""
    found = {}
    for world in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(_worker, (world, args, folder), nprocs=world)
            found[world] = float((Path(folder) / "seconds").read_text())
    print(f"\nlater evaluation of {args.n} images, one thread a process")
    for world, seconds in found.items():
        print(f"{world} process{'es' * (world > 1):<3} {seconds:8.2f} s  {seconds / found[1]:.2f} of one")


def _worker(rank: int, world: int, args: argparse.Namespace, folder: str) -> None:
    logging.disable(logging.WARNING)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517", "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    evaluator = evaluator_of(args, Images(args.n, 0, 1.0), f"{folder}/cache")
    pixels = Images(args.n, 1, 0.9).pixels
    seconds = []
    for _ in range(args.turns):
        dist.barrier()
        started = time.perf_counter()
        evaluator.evaluate(Sampler(Replayed(pixels)), args.n)
        dist.barrier()
        seconds.append(time.perf_counter() - started)
    if rank == 0:
        (Path(folder) / "seconds").write_text(str(statistics.median(seconds)))
    dist.destroy_process_group()


def precision(args: argparse.Namespace) -> None:
    """What faster precisions cost in speed and in scores."""
    real, other, fake = Images(args.n, 0, 1.0), Images(args.n, 2, 1.0), Images(args.n, 1, 0.9)
    exact: Tensor | None = None
    base: dict[str, float] = {}
    print(f"\n{args.n} images; relative change of features, and of scores: real against real; real against generated")
    for name in NETWORK_PRECISIONS:
        if name == "tf32" and not has_tf32(torch.device(args.device)):
            print("tf32: not on this device")
            continue
        network = load("inception", weights=args.weights, device=args.device, precision=name)
        batches = fake.pixels.to(args.device).split(64)
        network(batches[0])
        started = time.perf_counter()
        rows = torch.cat([network(batch)["pool"] for batch in batches])
        _wait(args)
        speed = args.n / (time.perf_counter() - started)
        exact = rows if exact is None else exact
        evaluator = evaluator_of(args, real, tempfile.mkdtemp(), METRICS, precision=name)
        scores = [evaluator.evaluate_images(ImageSet(each, "fake")).scalars for each in (other, fake)]
        changed = float((rows - exact).norm() / exact.norm())
        print(f"{name:<10}{speed:8.1f} images/s   features {changed:.1e}")
        for metric in METRICS:
            values = [score[metric] for score in scores]
            base.setdefault(metric, values[1])
            errors = [score.get(f"{metric}_std", 0.0) for score in scores]
            both = "   ".join(f"{value:10.5g} ± {error:.2g}" for value, error in zip(values, errors, strict=True))
            print(f"    {metric:<10}{both}   {(values[1] - base[metric]) / base[metric]:+.2%}")


class Cheap(nn.Module):
    """2048 features of box averages, at no cost worth naming."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(3 * 64, 2048)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) to (N, 2048)."""
        mixed: Tensor = self.mix(nn.functional.adaptive_avg_pool2d(images.float() / 255, 8).flatten(1))
        return mixed


def growth(args: argparse.Namespace) -> None:
    """Time and memory of sampling, extraction and Fréchet distance against the number of samples."""
    torch.manual_seed(0)
    network = Cheap()
    print(f"\n{'samples':>8}{'seconds':>9}{'us a sample':>13}{'MiB':>7}{'of it features':>16}")
    for count in (2_000, 10_000, 50_000):
        plan = make_plan(("fd_cheap",), extractors={"cheap": network}, cache_dir=tempfile.mkdtemp())
        workspace = Workspace(plan, Ranks(), args.device)
        evaluator = Evaluator(workspace, ImageSet(Images(2_500, 0, 1.0), "real"))
        pixels = Images(2_000, 1, 0.9).pixels
        sampler = Sampler(Replayed(pixels.repeat_interleave(1, 0)), function=_endless(pixels))
        evaluator.evaluate(sampler, 200)
        seconds, memory = measured(lambda run=evaluator, draw=sampler, n=count: run.evaluate(draw, n))  # type: ignore[misc]
        rows = count * 2048 * 4 / MIB
        print(f"{count:8}{seconds:9.2f}{seconds / count * 1e6:13.0f}{memory:7.0f}{rows:16.0f}", flush=True)


def _endless(pixels: Tensor) -> Callable[[Any, int, torch.Generator], Tensor]:
    def draw(module: Any, count: int, generator: torch.Generator) -> Tensor:
        return pixels[torch.randint(len(pixels), (count,), generator=generator)]

    return draw


def _wait(args: argparse.Namespace) -> None:
    if torch.device(args.device).type == "cuda":
        torch.cuda.synchronize()


def device(args: argparse.Namespace) -> None:
    """Forward passes, scoring at full size, memory, and moving to the device and back."""
    real, fake = Images(args.n, 0, 1.0), Images(args.n, 1, 0.9)
    on_device.forwards(args, fake.pixels.to(args.device))
    on_device.scores(args)
    evaluator = evaluator_of(args, real, tempfile.mkdtemp(), on_device.SCORED)
    on_device.memory(args, lambda: evaluator.evaluate(Sampler(Replayed(fake.pixels.to(args.device))), args.n))
    on_device.offloading(args)


SECTIONS = {work.__name__: work for work in (evaluation, scoring, processes, precision, growth, readers, start, device)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time an evaluation beside its floor and beside other tools.")
    parser.add_argument("--n", type=int, default=512, help="images a set")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peers", action="store_true", help="time torchmetrics and torch-fidelity beside it")
    parser.add_argument("--weights", type=Path, help="of the FID network; default: random ones")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 10_000], help="of the scoring section")
    parser.add_argument("--columns", type=int, nargs="+", default=[64, 768, 2048], help="of the scoring section")
    parser.add_argument("--pictures", type=int, default=2_000, help="of the readers section")
    parser.add_argument("--side", type=int, default=512, help="of its pictures")
    parser.add_argument("--workers", type=int, nargs="+", default=[2], help="of the readers section")
    parser.add_argument("--device-rows", type=int, default=50_000, help="rows that the section device scores")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=["evaluation"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.disable(logging.WARNING)  # that the weights are random is known
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__}, {args.threads} threads, {args.device}, Python {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory() as folder:
        args.weights = args.weights or random_weights(Path(folder))
        for name in args.sections:
            SECTIONS[name](args)


if __name__ == "__main__":
    main()
