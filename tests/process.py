"""What the scripts of the tests have in common: one process among several, and what it has found."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def main(find: Callable[[int, int, Path], Any]) -> None:
    """Join the other processes and write to ``rank<r>.json`` what ``find(rank, world_size, output)`` returns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--world-size", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.world_size > 1:
        dist.init_process_group("gloo", rank=args.rank, world_size=args.world_size)
    (args.output / f"rank{args.rank}.json").write_text(json.dumps(find(args.rank, args.world_size, args.output)))
    if args.world_size > 1:  # a process whose peer has gone may be aborted while it ends
        dist.barrier()
        dist.destroy_process_group()
