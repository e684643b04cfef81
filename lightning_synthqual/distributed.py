"""Exchange between processes; the only file that knows ``torch.distributed``. With one process nothing is exchanged.

Every exchange begins with one message of the same size from each process to all. It says what the process does next and
whether it failed, and holds its data where they are few. So nobody waits for a process that failed: its error comes in
the place of its data, and all of them raise it.
"""

import builtins
import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn

Action = Literal["finish a stage", "exchange values", "sum a tensor", "gather rows", "take over buffers", "take turns"]

_ACTIONS: tuple[Action, ...] = get_args(Action)
_HEADER = struct.Struct("<QBB")  # length of the content, number of the action, whether the process failed
_MESSAGES = 2**17  # bytes of the messages of all processes together
_LEAST_MESSAGE = 2**11  # bytes of one of them
_CHUNK = 2**26  # bytes of a process's rows that are sent at once


class PeerError(RuntimeError):
    """Another process failed; it is raised again as that process's own error at the end of the stage."""

    def __init__(self, kind: str, message: str, stage: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.stage = stage

    def same_error(self) -> Exception:
        """The error of the other process: of the same builtin type where it is one, with the same message."""
        if self.kind == torch.OutOfMemoryError.__name__:
            return torch.OutOfMemoryError(str(self))
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
        self._room = max(_LEAST_MESSAGE, _MESSAGES // self.world_size) - _HEADER.size
        self._open_stages = 0
        self._attempt: int | None = None  # the one that this process is in
        self._forget()

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

        A stage within another one ends without an exchange where it succeeds. A process that has left it hears that it
        failed elsewhere in the next exchange, at the latest at the end of the outermost stage.

        Args:
            stage: Name of the stage, for the message.
        """
        self._open_stages += 1
        try:
            with self._announcing(stage):
                yield
                if self._open_stages == 1:
                    self._exchange("finish a stage")
        finally:
            self._open_stages -= 1
            if not self._open_stages:
                self._forget()

    @contextmanager
    def attempt(self, stage: str) -> Iterator[None]:
        """A stage after whose failure the others go on, on every process.

        It ends without an exchange, so that processes hear later that it failed elsewhere: from ``failed_attempts``,
        which every process has to call after the last attempt.

        Args:
            stage: Name of the stage.
        """
        self._attempts += 1
        if self._attempts in self._failed:
            raise _raised_everywhere(self._failed[self._attempts].same_error())
        self._attempt = self._attempts
        try:
            with self._announcing(stage):
                yield
        finally:
            self._attempt = None

    def failed_attempts(self) -> dict[str, Exception]:
        """Errors of the attempts that failed on any process, by the name of the stage; the same on every process."""
        self._exchange("finish a stage")
        failed = {error.stage: error.same_error() for error in self._failed.values()}
        self._failed.clear()
        return failed

    @contextmanager
    def _announcing(self, stage: str) -> Iterator[None]:
        """Tell the other processes if this one fails, and raise their errors as their own."""
        try:
            yield
        except PeerError as error:
            raise _raised_everywhere(error.same_error()) from None
        except Exception as error:
            if self.world_size == 1 or getattr(error, "_raised_everywhere", False):
                raise
            with suppress(PeerError):  # it may be this process's own
                self._exchange("finish a stage", failure=error, stage=stage)
            _raised_everywhere(error)
            raise

    def total(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over the processes."""
        if self.world_size == 1:
            return tensor
        few = _size(tensor) <= self._room // 2
        facts = json.dumps([list(tensor.shape), _dtype(tensor)])
        summed = tensor.to(self._device, copy=True) if not few else tensor
        messages = self._exchange("sum a tensor", _framed(facts, _to_bytes(tensor) if few else b""))
        kinds, contents = zip(*map(_unframed, messages), strict=True)
        if len(set(kinds)) > 1:
            raise self._out_of_step(f"sums tensors of {each}" for each in kinds)
        if not few:
            dist.all_reduce(summed)
            return summed.to(tensor.device)
        first, *others = (_from_bytes(content, tensor.dtype).view(tensor.shape) for content in contents)
        return sum(others, start=first).to(tensor.device)

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
        places = torch.tensor(positions, dtype=torch.int64)
        if self.world_size == 1:
            assert rows is not None
            return _in_place(rows, places, count, device)
        few = rows is None or _size(rows) + _size(places) <= self._room // 2
        facts = None if rows is None else [list(rows.shape[1:]), _dtype(rows)]
        content = _to_bytes(places) + _to_bytes(rows) if few and rows is not None else b""
        messages = self._exchange("gather rows", _framed(json.dumps([few, len(places), facts]), content))
        kinds, contents = zip(*((json.loads(kind), content) for kind, content in map(_unframed, messages)), strict=True)
        shape, name = next(facts for _, _, facts in kinds if facts is not None)
        full = torch.zeros((count, *shape), dtype=getattr(torch, name), device=device)
        if not all(few for few, _, _ in kinds):
            self._gather_many(full, rows, places, max(number for _, number, _ in kinds))
            return full
        for (_, number, _), content in zip(kinds, contents, strict=True):
            cut = number * places.element_size()
            part = _from_bytes(content[cut:], full.dtype).view(number, *shape)
            full[_from_bytes(content[:cut], places.dtype).to(device)] = part.to(device)
        return full

    def _gather_many(self, full: Tensor, rows: Tensor | None, places: Tensor, most: int) -> None:
        """Write the rows of all processes into ``full``, a chunk of each at a time.

        Args:
            full: The result (N, ...).
            rows: This process's rows.
            places: Their numbers.
            most: Number of rows of the process with most of them.
        """
        step = min(most, max(1, _CHUNK // _size(full[:1])))
        chunk = torch.zeros((step, *full.shape[1:]), dtype=full.dtype, device=self._device)
        parts = [torch.empty_like(chunk) for _ in range(self.world_size)]
        # Only now, as the memory for it is there, may nobody fail until the last chunk.
        every = [_from_bytes(each, places.dtype) for each in self._exchange("gather rows", _to_bytes(places))]
        for start in range(0, most, step):
            own = full[:0] if rows is None else rows[start : start + step]
            chunk[: len(own)] = own.to(self._device)
            dist.all_gather(parts, chunk)
            for part, numbers in zip(parts, every, strict=True):
                where = numbers[start : start + step].to(full.device)
                full[where] = part[: len(where)].to(full.device)

    def gather_objects(self, value: Any) -> list[Any]:
        """Every process's value, in the order of ranks; the values have to be JSON."""
        if self.world_size == 1:
            return [value]
        return [json.loads(part) for part in self._exchange("exchange values", json.dumps(value).encode())]

    def share_rank_zeros(self, tensors: list[Tensor]) -> None:
        """Overwrite tensors, equally many of the same shapes on every process, by those of rank 0."""
        if self.world_size > 1 and tensors:
            self._overwrite_by_rank_zero(tensors)

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
        flat = torch.cat([tensor.detach().reshape(-1).view(torch.uint8).to(self._device) for tensor in tensors])
        few = _size(flat) <= self._room
        received = self._exchange("take over buffers", _to_bytes(flat) if few and self.rank == 0 else b"")
        if few:
            flat = _from_bytes(received[0], torch.uint8)
        else:
            dist.broadcast(flat, src=0)
        for tensor, part in zip(tensors, flat.split([_size(tensor) for tensor in tensors]), strict=True):
            tensor.copy_(part.clone().view(tensor.dtype).view_as(tensor))  # a part itself begins at any byte

    @contextmanager
    def node_leader_first(self) -> Iterator[None]:
        """Let one process of each node go first, so that the others find what it downloaded."""
        if not self.leads_node:
            self._exchange("take turns")
        yield
        if self.leads_node:
            self._exchange("take turns")

    def _exchange(
        self, action: Action, content: bytes = b"", *, failure: Exception | None = None, stage: str = ""
    ) -> list[bytes]:
        """The contents of all processes in the order of ranks; nothing is unpickled.

        Args:
            action: What this process is about to do.
            content: What it sends.
            failure: The error that it sends instead.
            stage: Name of the stage that failed.

        Raises:
            PeerError: If a process failed, this one or another.
            RuntimeError: If processes do different things.
        """
        if self.world_size == 1:
            return [content]
        if self._fatal is not None:
            raise self._fatal
        if failure is not None:
            content = json.dumps([type(failure).__name__, str(failure), stage, self._attempt]).encode()
        head = _HEADER.pack(len(content), _ACTIONS.index(action), failure is not None)
        messages = self._all_gather(head + content[: self._room], _HEADER.size + self._room)
        lengths, actions, failed = zip(*map(_HEADER.unpack_from, messages), strict=True)
        contents = [message[_HEADER.size :] for message in messages]
        if max(lengths) > self._room:
            contents = self._all_gather(content, max(lengths))
        contents = [each[:length] for each, length in zip(contents, lengths, strict=True)]
        if any(failed):
            self._raise_failure({rank: contents[rank] for rank in range(self.world_size) if failed[rank]})
            return self._exchange(action, content)
        if len(set(actions)) > 1:
            raise self._out_of_step(f"is about to {_ACTIONS[each]}" for each in actions)
        return contents

    def _forget(self) -> None:
        """Begin anew, as all processes do at the end of an outermost stage, which some may have left early."""
        self._fatal: PeerError | None = None
        self._attempts = 0
        self._failed: dict[int, PeerError] = {}

    def _raise_failure(self, failures: Mapping[int, bytes]) -> None:
        """Take in what failed processes send; raise, unless all of it is about attempts that this one has left."""
        for rank, content in failures.items():
            kind, text, stage, attempt = json.loads(content)
            error = PeerError(kind, f"[rank {rank}, {stage}] {text}", stage)
            if attempt is None:
                self._fatal = error
                break
            self._failed.setdefault(attempt, error)
        fatal, self._fatal = self._fatal, self._fatal if self._open_stages else None
        if fatal is not None:
            raise fatal
        if self._attempt in self._failed:
            raise self._failed[self._attempt]

    def _all_gather(self, content: bytes, size: int) -> list[bytes]:
        padded = torch.zeros(size, dtype=torch.uint8)
        padded[: len(content)] = _from_bytes(content, torch.uint8)
        every = torch.empty((self.world_size, size), dtype=torch.uint8, device=self._device)
        dist.all_gather(list(every.unbind()), padded.to(self._device))
        return [row.tobytes() for row in every.cpu().numpy()]

    def _out_of_step(self, what: Iterator[str]) -> Exception:
        found = ", ".join(f"rank {rank} {each}" for rank, each in enumerate(what))
        return _raised_everywhere(
            RuntimeError(
                f"The processes are out of step: {found}. What a sampler, a metric or a network does must not depend "
                "on the rank."
            )
        )


def _raised_everywhere(error: Exception) -> Exception:
    """Mark an error that every process raises, so that an enclosing stage does not report it again."""
    error._raised_everywhere = True  # type: ignore[attr-defined]
    return error


def _in_place(rows: Tensor, places: Tensor, count: int, device: torch.device) -> Tensor:
    """All rows in the order of their places, where one process has them."""
    if torch.equal(places, torch.arange(count)):
        return rows.to(device)
    full = rows.new_zeros((count, *rows.shape[1:]), device=device)
    full[places.to(device)] = rows.to(device)
    return full


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _framed(facts: str, content: bytes) -> bytes:
    """A line of JSON, and any bytes after it."""
    return facts.encode() + b"\n" + content


def _unframed(message: bytes) -> tuple[str, bytes]:
    facts, _, content = message.partition(b"\n")
    return facts.decode(), content


def _to_bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()


def _from_bytes(content: bytes, dtype: torch.dtype) -> Tensor:
    """A tensor (n,) on the CPU."""
    if not content:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(bytearray(content), dtype=dtype)
