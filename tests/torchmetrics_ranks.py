"""Two processes that share the images of a metric; each writes what it found to ``<output>/rank<r>.json``."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from lightning_synthqual.torchmetrics import QualityMetric

NAMES = ("fd_wavelet", "kd_wavelet", "recall_wavelet", "coverage_wavelet")
COLLECTIVES = ("all_gather", "all_reduce", "broadcast", "barrier", "all_gather_into_tensor", "all_gather_object")


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 16, 16), generator=draw).to(torch.uint8)


def fill(name: str, real: torch.Tensor, fake: torch.Tensor, size: int = 8) -> QualityMetric:
    metric = QualityMetric(name)
    for images, is_real in ((real, True), (fake, False)):
        for part in images.split(size) if len(images) else ():
            metric.update(part, real=is_real)
    return metric


def count_collectives() -> list[int]:
    counts = [0]

    def counted(function):
        def call(*args, **kwargs):
            counts[0] += 1
            return function(*args, **kwargs)

        return call

    for name in COLLECTIVES:
        setattr(dist, name, counted(getattr(dist, name)))
    return counts


def main(output: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    real, fake = pictures(70), pictures(53, seed=1) // 8 * 7
    uneven = (real[:50], fake[:13]) if rank == 0 else (real[50:], fake[13:])
    idle = (real, fake[:0]) if rank == 0 else (real[:0], fake)
    counts, collectives = count_collectives(), []
    for size in (100, 3):
        before = counts[0]
        metric = fill(NAMES[0], *uneven, size=size)
        metric.compute()
        collectives.append(counts[0] - before)
    found = {
        "collectives": collectives,
        "own": [sum(map(len, part)) // int(metric.width) for part in (metric.real, metric.fake)],
        "uneven": {name: fill(name, *uneven).compute().item() for name in NAMES},
        "idle": {name: fill(name, *idle).compute().item() for name in NAMES},
    }
    (output / f"rank{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
