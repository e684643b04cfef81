"""What an accelerator makes of an evaluation: the section ``device`` of ``bench.py``.

Times end when the device has finished its work. On a CPU everything runs too, which shows that it does, but means
little.
"""

import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from metrics import MIB, features, resident
from torch import Tensor

from lightning_synthqual.extractors import load
from lightning_synthqual.metrics.base import Metric
from lightning_synthqual.metrics.catalogue import metrics_by_name
from lightning_synthqual.metrics.views import Runtime

PRECISIONS = ("float32", "tf32", "bfloat16")
SCORED = ("fid", "kid", "precision", "recall", "density", "coverage")


def wait(device: str) -> None:
    """Until the device has finished what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], Any], device: str, turns: int) -> float:
    """Median of the seconds of some turns, after one that does not count."""
    work()
    taken = []
    for _ in range(turns):
        wait(device)
        started = time.perf_counter()
        work()
        wait(device)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def forwards(args: Namespace, pixels: Tensor) -> None:
    """Images a second of the Inception network in each precision, beside torch-fidelity's."""
    count = len(pixels)
    print(f"\nforward pass of {count} images in batches of 64{'':<16}{'images/s':>12}")
    for name in PRECISIONS:
        try:
            network = load("inception", weights=args.weights, device=args.device, precision=name)
        except ValueError as error:
            print(f"{name:<58}not here: {error}")
            continue
        batches = pixels.split(64)
        taken = seconds(lambda run=network, parts=batches: [run(part) for part in parts], args.device, args.turns)  # type: ignore[misc]
        print(f"{name:<58}{count / taken:12.1f}", flush=True)
    for tf32 in (True, False):
        taken = seconds(fidelity(args, pixels, tf32), args.device, args.turns)
        print(
            f"torch-fidelity, float32, TF32 convolutions {'on' if tf32 else 'off':<15}{count / taken:12.1f}", flush=True
        )


def fidelity(args: Namespace, pixels: Tensor, tf32: bool) -> Callable[[], None]:
    """torch-fidelity's forward pass of the same network; TF32 convolutions are torch's default."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    outputs = ["2048", "logits_unbiased"]
    network = FeatureExtractorInceptionV3("inception-v3-compat", outputs, str(args.weights)).to(args.device)

    def run() -> None:
        with torch.no_grad(), convolutions(tf32):
            for batch in pixels.split(64):
                network(batch)

    return run


@contextmanager
def convolutions(tf32: bool) -> Iterator[None]:
    """Whether convolutions may use TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def scores(args: Namespace) -> None:
    """Seconds of each metric's arithmetic at full size."""
    rows = args.device_rows
    real, fake = (features(seed, rows, 2048).to(args.device) for seed in (1, 2))
    runtime = Runtime(device=torch.device(args.device))
    metrics = [each.with_runtime(runtime) for each in metrics_by_name(SCORED, ["inception"])]
    print(f"\nscoring {rows} generated against {rows} real rows of 2048 columns\n{'':<46}{'prepare':>12}{'score':>12}")
    total = 0.0
    for metric in metrics:
        prepared, score = of_metric(metric, real, fake, args.device)
        total += score
        print(f"{' '.join(metric.names):<46}{prepared:10.2f} s{score:10.2f} s", flush=True)
    print(f"{'all':<46}{'':>12}{total:10.2f} s")


def of_metric(metric: Metric, real: Tensor, fake: Tensor, device: str) -> tuple[float, float]:
    """Seconds of preparing the reference and of scoring, each done once."""
    wait(device)
    started = time.perf_counter()
    state = metric.prepare(real)
    wait(device)
    prepared = time.perf_counter()
    metric.score(state, fake)
    wait(device)
    return prepared - started, time.perf_counter() - prepared


def memory(args: Namespace, evaluate: Callable[[], Any]) -> None:
    """Memory between and during evaluations: on the device, else of the process."""
    on_device = torch.device(args.device).type == "cuda"

    def used() -> float:
        return (torch.cuda.memory_allocated() if on_device else resident()) / MIB

    before = used()
    print(f"\nMiB {'on the device' if on_device else 'of the process'}\nbefore the first evaluation: {before:.0f}")
    for number in (1, 2):
        if on_device:
            torch.cuda.reset_peak_memory_stats()
        evaluate()
        peak = f"at most {torch.cuda.max_memory_allocated() / MIB:.0f}, " if on_device else ""
        print(f"evaluation {number}: {peak}after it {used():.0f}", flush=True)


def offloading(args: Namespace) -> None:
    """What it costs to bring a network and features to the device and to take them away again."""
    network = load("inception", weights=args.weights, device=args.device)
    rows = features(1, min(args.device_rows, 50_000), 2048)
    pinned = rows.pin_memory() if torch.cuda.is_available() else rows

    def there_and_back() -> None:
        network.to("cpu")
        network.to(args.device)

    print(f"\n{'there and back: the network':<46}{seconds(there_and_back, args.device, args.turns) * 1e3:10.1f} ms")
    for name, source in (("pageable", rows), ("pinned", pinned)):
        taken = seconds(lambda each=source: each.to(args.device, non_blocking=True), args.device, args.turns)  # type: ignore[misc]
        print(f"{f'to the device: {len(rows)} rows, {name}':<46}{taken * 1e3:10.1f} ms", flush=True)
