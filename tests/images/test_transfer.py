import threading
import time
from collections.abc import Iterator

import pytest
import torch

from lightning_synthqual.images.transfer import run_ahead, to_device


def test_the_next_call_is_made_while_a_result_is_used() -> None:
    called = [threading.Event() for _ in range(3)]
    threads = set()

    def note(number: int) -> int:
        threads.add(threading.get_ident())
        called[number].set()
        return 10 * number

    results = run_ahead(note, range(3))
    assert next(results) == (0, 0)
    assert called[1].wait(5)
    assert not called[2].is_set()
    assert [*results] == [(1, 10), (2, 20)]
    assert threads.isdisjoint({threading.get_ident()})


def test_nothing_is_called_for_no_arguments() -> None:
    assert list(run_ahead(lambda _: 1 / 0, [])) == []


def test_an_error_is_raised_where_its_result_is_due() -> None:
    results = run_ahead(lambda number: 1 / number, [2, 0, 1])
    assert next(results) == (2, 0.5)
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("used", [0, 1, 3])
def test_no_thread_is_left(used: int) -> None:
    before = threading.active_count()
    results = run_ahead(lambda number: time.sleep(0.001 * number), range(3))
    for _ in range(used):
        next(results)
    assert isinstance(results, Iterator)
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_a_tensor_that_is_there_stays_itself() -> None:
    tensor = torch.zeros(3)
    assert to_device(tensor, torch.device("cpu")) is tensor
    assert to_device(tensor, torch.device("meta")).is_meta
