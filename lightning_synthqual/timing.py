"""Seconds of work that a device does later than it is asked to."""

import time
from typing import Any

import torch


class Stopwatch:
    """Adds up the seconds of several kinds of work that follow each other.

    On CUDA the device notes the times itself, as it gets there; elsewhere the clock is read.

    Args:
        device: The device that works.

    Example:
        >>> watch = Stopwatch(torch.device("cpu"))
        >>> watch.lap("reading")
        >>> sorted(watch.seconds())
        ['reading']
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[tuple[str, Any]] = [("", self._now())]

    def lap(self, work: str) -> None:
        """Say what has been done since the last lap."""
        self._marks.append((work, self._now()))

    def seconds(self) -> dict[str, float]:
        """The seconds of each kind of work; waits until the device has done all of it."""
        if self._device.type == "cuda":
            self._marks[-1][1].synchronize()
        found: dict[str, float] = {}
        for (_, before), (work, after) in zip(self._marks, self._marks[1:], strict=False):
            spent = before.elapsed_time(after) / 1000 if self._device.type == "cuda" else after - before
            found[work] = found.get(work, 0.0) + spent
        return found

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event
