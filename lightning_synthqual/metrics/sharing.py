"""Results that several metrics of one evaluation have in common: computed by the first that asks, kept for the rest."""

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from torch import Tensor

_T = TypeVar("_T")


class Shared(Generic[_T]):
    """The last result of a computation, kept until each of those that want it has had it.

    So neither it nor the tensors that it is of stay in memory between evaluations.
    """

    def __init__(self) -> None:
        self._tensors: tuple[Tensor, ...] = ()
        self._left: set[Any] = set()
        self._result: _T | None = None

    def take(self, who: Any, everyone: Iterable[Any], tensors: tuple[Tensor, ...], compute: Callable[[], _T]) -> _T:
        """The result for these tensors.

        Args:
            who: Who asks.
            everyone: All who will ask for it, among them who asks.
            tensors: What it is computed from; the same memory counts as the same tensors.
            compute: Function that computes it.
        """
        result = self._result
        if result is None or who not in self._left or not _same(tensors, self._tensors):
            result, self._left = compute(), set(everyone)
            self._result, self._tensors = result, tensors
        self._left.discard(who)
        if not self._left:
            self._result, self._tensors = None, ()
        return result


def _same(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    # Those that are kept are alive, so that their memory can't be another tensor's by now.
    return [_place(tensor) for tensor in one] == [_place(tensor) for tensor in other]


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device
