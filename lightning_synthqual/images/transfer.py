"""Work that goes on while a device computes: copies to it, and calls in a thread."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

_A = TypeVar("_A")
_B = TypeVar("_B")


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; from the host to CUDA without waiting for what the device has to do before."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def run_ahead(function: Callable[[_A], _B], arguments: Iterable[_A]) -> Iterator[tuple[_A, _B]]:
    """Call a function in a thread, one call ahead of whoever uses the results.

    Args:
        function: Function that must not depend on what its caller does meanwhile, on global generators least of all.
        arguments: Arguments of its calls.

    Yields:
        Each argument with its result; an error of the function is raised where its result is due.

    Example:
        >>> list(run_ahead(str, [1, 2]))
        [(1, '1'), (2, '2')]
    """
    waiting: tuple[_A, Future[_B]] | None = None
    with ThreadPoolExecutor(max_workers=1) as thread:
        for argument in arguments:
            upcoming = argument, thread.submit(function, argument)
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = upcoming
        if waiting is not None:
            yield waiting[0], waiting[1].result()
