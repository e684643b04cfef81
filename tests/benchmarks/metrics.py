"""How long the metrics take and how much memory, beside the implementations that they agree with.

    python tests/benchmarks/metrics.py [--rows 10000] [--columns 2048] [--threads 2] [--scale | --search]

Everything is measured in one process, one after the other, on features made up like those of the Inception network.
What depends on the reference alone is prepared beforehand, as it is in training. Memory is the growth of the process
(Linux only). With ``--scale`` the metrics alone are run, which takes a while: 50000 rows by default. With ``--search``
the neighbours of 10000 generated rows are sought in 100000 others, of 1792 columns (those of DreamSim) by default.
"""

import argparse
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import calculate_precision_recall_full
from torchmetrics.image.fid import _compute_fid

from lightning_synthqual.metrics import cmmd, density_coverage, kernel_distance, nearest_neighbors, precision_recall
from lightning_synthqual.metrics.frechet import (
    distance_to_gaussian,
    distance_to_moments,
    distance_with_error,
    fit_gaussian,
    moments,
)
from lightning_synthqual.metrics.kernel import Kernel, exact_distance, within_sums
from lightning_synthqual.metrics.manifold import manifold_membership
from lightning_synthqual.metrics.neighbors import squared_radii
from lightning_synthqual.metrics.shard import MEMORY

PAGE, MIB, TURNS = 4096, 2**20, 3
_DENSE = 20_000  # rows whose matrices of distances fit into memory, and that are measured more than once


def features(seed: int, rows: int, columns: int) -> Tensor:
    """Non-negative rows with some strong directions and noise."""
    directions = torch.randn(64, columns, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed)
    strong = 0.1 * torch.randn(rows, 64, generator=draw) @ directions
    noise = torch.empty(rows, columns)
    for part in range(0, rows, 1000):
        noise[part : part + 1000].normal_(0.02 * seed, 0.3, generator=draw)
    return strong.add_(noise).relu_()


def resident() -> int:
    """Bytes of this process in memory, 0 where the system does not tell."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * PAGE if path.exists() else 0


def rotate(works: Mapping[str, Callable[[], Any]], turns: int) -> dict[str, tuple[float, float]]:
    """The median of the seconds of each work, and the most memory that it took, MiB."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(turns):
        for name, work in works.items():
            torch.cuda.reset_peak_memory_stats() if torch.cuda.is_available() else None
            seconds, memory = measured(work)
            if torch.cuda.is_available():
                memory = torch.cuda.max_memory_allocated() / MIB
            found[name].append((seconds, memory))
    return {
        name: (statistics.median(seconds for seconds, _ in each), max(memory for _, memory in each))
        for name, each in found.items()
    }


def measured(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds, and MiB by which the process grew at most."""
    before = peak = resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    try:
        work()
    finally:
        seconds = time.perf_counter() - started
        done.set()
        watcher.join()
    return seconds, (max(peak, resident()) - before) / MIB


def compare(
    name: str, ours: Callable[[], Any], theirs: Callable[[], Any] | None, peer: str = "", turns: int = TURNS
) -> None:
    """Print the best of some turns, taken alternately, so that a busy machine is busy for both."""
    found = [(measured(ours), measured(theirs) if theirs else None) for _ in range(turns if theirs else 1)]
    seconds, memory = _best([mine for mine, _ in found])
    line = f"{name:<52} {seconds:8.2f} s {memory:7.0f} MiB"
    if theirs is not None:
        their_seconds, their_memory = _best([their for _, their in found if their])
        line += f"   {peer:<32} {their_seconds:8.2f} s {their_memory:7.0f} MiB   {their_seconds / seconds:5.1f} x"
    print(line, flush=True)


def dense_cmmd(real: Tensor, fake: Tensor) -> Tensor:
    """The published formula on whole matrices, in float64."""

    def mean(x: Tensor, y: Tensor) -> Tensor:
        squared = (x * x).sum(dim=1)[:, None] + (y * y).sum(dim=1) - 2 * x @ y.T
        return torch.exp(squared / -200).mean()

    real, fake = real.double(), fake.double()
    return 1000 * (mean(real, real) + mean(fake, fake) - 2 * mean(real, fake))


def _best(turns: list[tuple[float, float]]) -> tuple[float, float]:
    """The least time, and the most memory: what a turn leaves behind the next one does not ask for."""
    return min(seconds for seconds, _ in turns), max(memory for _, memory in turns)


def against_peers(real: Tensor, fake: Tensor) -> None:
    """Each metric beside its peer; peers that hold whole matrices of distances sit out where these would not fit."""
    gaussian, few = fit_gaussian(real), fake[:512]
    dense = max(len(real), len(fake)) <= _DENSE
    turns = TURNS if dense else 1
    mean, covariance = moments(fake)
    theirs = [(rows.double().mean(dim=0), rows.double().T.cov()) for rows in (real, fake, few)]
    compare(
        "Fréchet, from moments",
        lambda: distance_to_moments(gaussian, mean, covariance),
        lambda: _compute_fid(*theirs[0], *theirs[1]),
        "torchmetrics, from moments",
    )
    compare(
        "Fréchet, from features",
        lambda: distance_to_gaussian(gaussian, fake),
        lambda: _compute_fid(*theirs[0], fake.double().mean(dim=0), fake.double().T.cov()),
        "torchmetrics, from features",
    )
    compare(
        "Fréchet, 512 rows, from features",
        lambda: distance_to_gaussian(gaussian, few),
        lambda: _compute_fid(*theirs[0], *theirs[2]),
        "torchmetrics, from moments",
    )
    compare("Fréchet with standard error", lambda: distance_with_error(gaussian, real, fake), None)
    sums, size = within_sums(real, Kernel()), min(1000, len(fake))
    compare(
        "KID, exact, with standard error",
        lambda: exact_distance(real, fake, Kernel(), real_sums=sums),
        lambda: kid_features_to_metric(fake, real, kid_subsets=100, kid_subset_size=size, rng_seed=0, verbose=False),
        f"torch-fidelity, 100 x {size}",
        turns,
    )
    radii = squared_radii(real, 3)
    compare(
        "precision and recall",
        lambda: manifold_membership(real, radii, fake, squared_radii(fake, 3)),
        (lambda: calculate_precision_recall_full(fake, real)) if dense else None,
        "torch-fidelity",
    )
    brute = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(real.numpy())
    compare(
        "two nearest neighbours",
        lambda: nearest_neighbors(fake, real, k=2),
        lambda: brute.kneighbors(fake.numpy()),
        "scikit-learn, float32",
        turns,
    )
    unit_real, unit_fake = (torch.nn.functional.normalize(rows) for rows in (real, fake))
    compare(
        "CMMD",
        lambda: cmmd(unit_real, unit_fake),
        (lambda: dense_cmmd(unit_real, unit_fake)) if dense else None,
        "whole matrices",
    )


def alone(real: Tensor, fake: Tensor) -> None:
    compare("kernel_distance", lambda: kernel_distance(real, fake), None)
    compare("cmmd", lambda: cmmd(real, fake), None)
    compare("precision_recall", lambda: precision_recall(real, fake), None)
    compare("density_coverage", lambda: density_coverage(real, fake), None)
    compare("nearest_neighbors", lambda: nearest_neighbors(fake, real, k=3), None)
    compare("Fréchet with standard error", lambda: distance_with_error(fit_gaussian(real), real, fake), None)


def search(references: Tensor, queries: Tensor) -> None:
    """Two nearest neighbours, as the memorization metrics need them."""
    print(f"tiles take at most {MEMORY / MIB:.0f} MiB, whatever the number of rows")
    theirs = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(references.numpy())
    compare(
        "two nearest neighbours",
        lambda: nearest_neighbors(queries, references, k=2),
        lambda: theirs.kneighbors(queries.numpy()),
        "scikit-learn, float32",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of the metrics.")
    parser.add_argument("--rows", type=int, help="rows a set; default: 10000, or 50000 with --scale")
    parser.add_argument("--columns", type=int, help="default: 2048, or 1792 with --search")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scale", action="store_true", help="the metrics alone, at full size")
    parser.add_argument("--search", action="store_true", help="nearest neighbours in ten times as many rows")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = arguments.rows or (50_000 if arguments.scale else 10_000)
    columns = arguments.columns or (1792 if arguments.search else 2048)
    real_rows = 10 * rows if arguments.search else rows
    print(f"{real_rows} real and {rows} generated rows of {columns} columns, {arguments.threads} threads")
    real, fake = features(1, real_rows, columns), features(2, rows, columns)
    (search if arguments.search else alone if arguments.scale else against_peers)(real, fake)


if __name__ == "__main__":
    main()
