"""Exchange between processes; the only file that knows ``torch.distributed``. With one process nothing is exchanged.

Every exchange begins with a flag for failure: if a process failed, all of them raise its error there instead of waiting
for it.
"""

import builtins
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class PeerError(RuntimeError):
    """Another process failed; it is raised again as that process's own error at the end of the stage."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def same_error(self) -> Exception:
        """The error of the other process: of the same builtin type where it is one, with the same message."""
        kind = getattr(builtins, self.kind, RuntimeError)
        usable = isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError)
        return (kind if usable else RuntimeError)(str(self))


class Ranks:
    """The processes that share an evaluation: those of the default process group, or this one alone.

    Attributes:
        rank: Number of this process.
        world_size: Number of processes.
        replica: Number of the copy of the model that this process belongs to: its own, unless ``join_replicas`` says
            otherwise.
        replicas: Number of copies.
        peer: Number of this process among those of its copy.
        peers: Number of processes that have a part of its copy.
        leads_node: Whether it is the first process of its machine.
    """

    def __init__(self) -> None:
        active = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if active else 0
        self.world_size = dist.get_world_size() if active else 1
        self.leads_node = int(os.environ.get("LOCAL_RANK", self.rank)) == 0
        on_gpu = active and "nccl" in str(dist.get_backend())
        self._device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        self.replica, self.replicas = self.rank, self.world_size
        self.peer, self.peers = 0, 1

    def join_replicas(self, replica: int) -> "Ranks":
        """Tell the others which copy of the model this process has a part of; every process calls it.

        Processes of one copy (tensor parallelism) run each forward pass at the same time, on the same noise.

        Args:
            replica: Any number that processes of one copy have in common, and no others.
        """
        copies = self.gather_objects(replica)
        own = copies[self.rank]
        self.replica, self.replicas = sorted(set(copies)).index(own), len(set(copies))
        self.peer, self.peers = copies[: self.rank].count(own), copies.count(own)
        return self

    @contextmanager
    def synchronized(self, stage: str) -> Iterator[None]:
        """A stage that succeeds on every process or raises the same error on every one; stages may be nested.

        Args:
            stage: Name of the stage, for the message.
        """
        failure: Exception | None = None
        try:
            yield
        except PeerError as error:
            raise _raised_everywhere(error.same_error()) from None
        except Exception as error:
            if self.world_size == 1 or getattr(error, "_raised_everywhere", False):
                raise
            failure = error
        try:
            self._check(failure, stage)
        except PeerError as error:
            raise _raised_everywhere(failure or error.same_error()) from None

    def total(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over the processes."""
        if self.world_size == 1:
            return tensor
        self._check(None)
        summed = tensor.to(self._device, copy=True)
        dist.all_reduce(summed)
        return summed.to(tensor.device)

    def gather_rows(self, rows: Tensor | None, positions: list[int], count: int, device: torch.device) -> Tensor:
        """Gather the rows of all processes, in order.

        Args:
            rows: This process's rows (n, ...); ``None`` if it has none and does not know their shape.
            positions: Row numbers in the result.
            count: Number of rows of all processes.
            device: Device of the result.

        Returns:
            (count, ...), the same on every process.
        """
        kind = None if rows is None else [list(rows.shape), str(rows.dtype).removeprefix("torch.")]
        kinds = self.gather_objects(kind)
        shape, dtype = next(kind for kind in kinds if kind is not None)
        if self.world_size == 1 and rows is not None and positions == list(range(count)):
            return rows.to(device)
        full = torch.zeros((count, *shape[1:]), dtype=getattr(torch, dtype), device=device)
        if self.world_size == 1 and rows is not None:
            full[positions] = rows.to(device)
            return full
        sizes = [0 if kind is None else kind[0][0] for kind in kinds]
        padded = full.new_zeros((max(sizes), *shape[1:]))
        places = torch.zeros(max(sizes), dtype=torch.int64)
        if rows is not None:
            padded[: len(rows)] = rows.to(device)
            places[: len(rows)] = torch.tensor(positions, dtype=torch.int64)
        for size, part, place in zip(sizes, self._all_gather(padded), self._all_gather(places), strict=True):
            full[place[:size].to(device)] = part[:size].to(device)
        return full

    def gather_objects(self, value: Any) -> list[Any]:
        """Every process's value, in the order of ranks; the values have to be JSON."""
        if self.world_size == 1:
            return [value]
        self._check(None)
        return self._exchange(value)

    @contextmanager
    def buffers_of_rank_zero(self, modules: list[nn.Module]) -> Iterator[None]:
        """Give every process rank 0's buffers (BatchNorm statistics differ between ranks), and then its own back."""
        unique = {id(buffer): buffer for module in modules for buffer in module.buffers()}
        buffers = [buffer for buffer in unique.values() if self.world_size > 1 and type(buffer) is Tensor]
        own = [buffer.detach().clone() for buffer in buffers]
        try:
            if buffers:
                self._overwrite_by_rank_zero(buffers)
            yield
        finally:
            for buffer, values in zip(buffers, own, strict=True):
                buffer.copy_(values)

    def _overwrite_by_rank_zero(self, tensors: list[Tensor]) -> None:
        self._check(None)
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            group = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.detach().reshape(-1).to(self._device) for tensor in group])
            dist.broadcast(flat, src=0)
            for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(part.view_as(tensor))

    @contextmanager
    def node_leader_first(self) -> Iterator[None]:
        """Let one process of each node go first, so that the others find what it downloaded."""
        if not self.leads_node:
            self._check(None)
        yield
        if self.leads_node:
            self._check(None)

    def _check(self, failure: Exception | None, stage: str = "") -> None:
        """Raise if this process or another one failed."""
        if self.world_size == 1:
            return
        flag = torch.tensor([int(failure is not None)], device=self._device)
        dist.all_reduce(flag)
        if not flag.item():
            return
        message = None if failure is None else [type(failure).__name__, str(failure), stage]
        for rank, received in enumerate(self._exchange(message)):
            if received is not None:
                kind, text, where = received
                raise PeerError(kind, f"[rank {rank}, {where}] {text}") from failure

    def _exchange(self, value: Any) -> list[Any]:
        """All values as JSON in padded byte tensors: nothing is unpickled."""
        content = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)
        length = torch.tensor([len(content)], device=self._device)
        dist.all_reduce(length, op=dist.ReduceOp.MAX)
        padded = torch.full((int(length.item()),), ord(" "), dtype=torch.uint8)
        padded[: len(content)] = content
        return [json.loads(bytes(part.cpu().tolist()).decode()) for part in self._all_gather(padded)]

    def _all_gather(self, tensor: Tensor) -> list[Tensor]:
        tensor = tensor.to(self._device).contiguous()
        parts = [torch.empty_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(parts, tensor)
        return parts


def _raised_everywhere(error: Exception) -> Exception:
    """Mark an error that every process raises, so that an enclosing stage does not report it again."""
    error._raised_everywhere = True  # type: ignore[attr-defined]
    return error
