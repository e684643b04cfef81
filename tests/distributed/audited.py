"""Audits on several processes; each writes what it found to ``<output>/rank<r>.json``."""

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils.data import TensorDataset

from lightning_synthqual import audit


def images(count: int, seed: int) -> TensorDataset:
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, 3, 4, 4), generator=draw) * torch.tensor([1.0, 0.7, 0.4])[:, None, None]
    return TensorDataset((255 * coarse).repeat_interleave(4, 2).repeat_interleave(4, 3).to(torch.uint8))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--world-size", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.world_size > 1:
        dist.init_process_group("gloo", rank=args.rank, world_size=args.world_size)
    found = audit(
        images(40, 0),
        held_out=images(30, 1),
        extractors=["pixels"],
        metrics=["fd", "recall"],
        faults=["contrast", "hue", "blend", "mode_drop"],
        cache_dir=args.output,
    )
    (args.output / f"rank{args.rank}.json").write_text(found.to_json())
    if args.world_size > 1:  # a process whose peer has gone may be aborted while it ends
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
