import time
from typing import Any

import pytest
import torch

from lightning_synthqual.timing import Stopwatch


def test_seconds_of_each_work_are_added_up() -> None:
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(3):
        time.sleep(0.01)
        watch.lap("slow")
        watch.lap("quick")
    seconds = watch.seconds()
    assert seconds["slow"] >= 0.03 > seconds["quick"] >= 0
    assert list(seconds) == ["slow", "quick"]


class Event:
    """An event of a device that is two seconds further at each."""

    clock = 0.0
    waited = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.time = -1.0

    def record(self, stream: Any) -> None:
        assert stream == "the stream"
        Event.clock += 2.0
        self.time = Event.clock

    def synchronize(self) -> None:
        Event.waited += 1

    def elapsed_time(self, end: "Event") -> float:
        return 1000 * (end.time - self.time)


def test_on_cuda_the_device_notes_the_times_and_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the stream")
    watch = Stopwatch(torch.device("cuda", 0))
    for work in ("sampling", "extraction", "sampling", "extraction", "extraction"):
        watch.lap(work)
    assert Event.waited == 0
    assert watch.seconds() == {"sampling": 4.0, "extraction": 6.0}
    assert Event.waited == 1
