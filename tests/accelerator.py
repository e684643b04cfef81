"""A pretend GPU: tensors that say they are on ``cuda:0``, and that are refused, copied and waited for as CUDA would.

    with accelerator() as log:
        rows = torch.ones(3, device="cuda")
        rows.sum().item()
    assert log.waits == {"_local_scalar_dense": 1}

The numbers themselves are computed on the CPU. An operator with tensors of both devices raises as on CUDA; operators
whose result the host has to wait for, and copies between the devices, are counted by the operator's name.
"""

import contextlib
import types
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("cuda", 0)
FREE, MEMORY = 8 * 2**30, 16 * 2**30  # bytes, as the pretend driver tells them
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
# How often the host waits for the device inside of an operator.
_WAITS = {
    "_local_scalar_dense": 1,
    "_linalg_check_errors": 1,
    "_linalg_eigh": 1,
    "_linalg_svd": 1,
    "_unique2": 1,
    "bincount": 2,
    "equal": 1,
    "is_nonzero": 1,
    "masked_select": 1,
    "nonzero": 1,
    "unique_consecutive": 1,
    "unique_dim": 1,
}
# What torch.use_deterministic_algorithms refuses on CUDA in some version since 2.6.
NONDETERMINISTIC = frozenset({"kthvalue", "histc", "put_", "grid_sampler_2d_backward", "nll_loss2d_forward"})


@dataclass
class Log:
    """What happened on the device: counts by the name of the operator.

    Attributes:
        waits: How often the host waited for a result, copies to the host not included.
        to_host: Copies from the device, for which the host waits too.
        to_device: Copies to the device, implicit ones (an index on the CPU) included.
        operators: All operators.
    """

    waits: Counter[str] = field(default_factory=Counter)
    to_host: Counter[str] = field(default_factory=Counter)
    to_device: Counter[str] = field(default_factory=Counter)
    operators: Counter[str] = field(default_factory=Counter)
    _tensors: dict[int, "weakref.ref[OnDevice]"] = field(default_factory=dict)

    @property
    def synchronizations(self) -> int:
        """How often the host waited for the device, be it for a result or for a copy."""
        return sum(map(Counter.total, (self.waits, self.to_host, self.to_device)))

    def clear(self) -> None:
        """Forget all counts."""
        for counts in (self.waits, self.to_host, self.to_device, self.operators):
            counts.clear()

    def allocated(self) -> int:
        """Bytes of the tensors that are on the device now."""
        alive = [tensor for tensor in (each() for each in self._tensors.values()) if tensor is not None]
        storages = {each.inner.untyped_storage().data_ptr(): each.inner.untyped_storage() for each in alive}
        return sum(storage.nbytes() for storage in storages.values())

    def add(self, tensor: "OnDevice") -> None:
        """Watch a tensor for as long as it lives."""
        key = id(tensor)
        self._tensors[key] = weakref.ref(tensor, lambda _: self._tensors.pop(key, None))


_log = Log()


class OnDevice(Tensor):
    """A tensor of the pretend device, and the one of the CPU that holds its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnDevice":
        self = Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=DEVICE
        )
        self.inner = inner
        _log.add(self)
        return self

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operator, args, kwargs or {})

    def __repr__(self) -> str:
        return f"OnDevice({self.inner!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnDevice":
        copied = OnDevice(self.inner.clone()).requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copied._is_param = True
        return memo.setdefault(id(self), copied)

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")


class _Operators(TorchDispatchMode):
    """Sees what no tensor of the device takes part in, such as ``torch.zeros(3, device="cuda")``."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # which would import the whole of it

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operator, args, kwargs or {})


def _run(operator: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = operator._schema.name.removeprefix("aten::")
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    mine = [leaf for leaf in leaves if isinstance(leaf, OnDevice)]
    device = kwargs.get("device")
    stays = bool(mine) if device is None else torch.device(device).type == DEVICE.type
    if name in ("_pin_memory", "is_pinned"):
        return args[0] if name == "_pin_memory" else False
    if mine or stays:
        _check(operator, name, args, leaves)
        if kwargs.get("generator") is not None:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        _count(name, args, stays)
    if (stays and device is not None) or mine:
        kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"}
        kwargs |= {"device": torch.device("cpu")} if device is not None else {}
    known = {id(leaf.inner): leaf for leaf in mine}
    found = operator(*_held(args), **_held(kwargs))
    if name == "copy_":
        return args[0]
    if mine and torch.Tag.inplace_view in operator.tags:  # the shape of the tensor that was passed follows
        return return_and_correct_aliasing(operator, args, kwargs, args[0])
    if not stays:
        return found
    if name == "_to_copy" and not mine and any(found is leaf for leaf in leaves):
        found = found.clone()
    return tree_map_only(Tensor, lambda each: known[id(each)] if id(each) in known else OnDevice(each), found)


def _held(tree: Any) -> Any:
    return tree_map_only(OnDevice, lambda each: each.inner, tree)


def _check(operator: Any, name: str, args: Any, leaves: list[Tensor]) -> None:
    """Raise where CUDA would, because tensors are on both devices or results would differ from run to run."""
    if torch.are_deterministic_algorithms_enabled() and name in NONDETERMINISTIC:
        raise RuntimeError(f"{name} does not have a deterministic implementation")
    if name in ("_to_copy", "copy_"):
        return
    indices = [each for each in args[1] if each is not None] if name in _INDEXING else []
    scalars = torch.Tag.pointwise in operator.tags or name in (*_INDEXING[1:], "fill_", "where")
    for leaf in leaves:
        index = isinstance(args[0], OnDevice) and any(leaf is each for each in indices)
        if not (isinstance(leaf, OnDevice) or index or (leaf.dim() == 0 and scalars)):
            raise RuntimeError(f"Expected all tensors to be on the same device, but found {DEVICE} and cpu ({name})")


def _count(name: str, args: Any, stays: bool) -> None:
    _log.operators[name] += 1
    _log.waits.update({name: _WAITS[name]} if name in _WAITS else {})
    if name in ("_to_copy", "copy_"):
        source, stays = (args[0], stays) if name == "_to_copy" else (args[1], isinstance(args[0], OnDevice))
        if isinstance(source, OnDevice) != stays:
            (_log.to_device if stays else _log.to_host)[name] += 1
    if name in _INDEXING:
        indices = [each for each in args[1] if each is not None]
        masks = [each for each in indices if each.dtype == torch.bool]
        # Writing one number where a mask says so needs no positions.
        if masks and (name == "index" or len(indices) > 1 or args[2].numel() > 1):
            _log.waits[f"{name} by a mask"] += 1
        outside = [each for each in indices if not isinstance(each, OnDevice)]
        _log.to_device.update({f"{name} by an index on the CPU": len(outside)} if outside else {})


class _Stream:
    """Work runs at once, so that only the host's waiting for it counts."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def synchronize(self) -> None:
        _log.waits["synchronize"] += 1

    def wait_stream(self, stream: Any) -> None:
        pass

    def wait_event(self, event: Any) -> None:
        pass

    def record_event(self, event: Any = None) -> Any:
        return event or _Event()


class _Event:
    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def record(self, stream: Any = None) -> None:
        pass

    def wait(self, stream: Any = None) -> None:
        pass

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        _log.waits["synchronize"] += 1

    def elapsed_time(self, end: Any) -> float:
        return 1.0


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _states() -> list[Tensor]:
    return [torch.zeros(16, dtype=torch.uint8)]


_DRIVER: dict[str, Any] = {
    "_lazy_init": _nothing,
    "Event": _Event,
    "Stream": _Stream,
    "current_device": lambda: 0,
    "current_stream": _Stream,
    "default_stream": _Stream,
    "device_count": lambda: 1,
    "empty_cache": _nothing,
    "get_device_capability": lambda *_: (9, 0),
    "get_device_name": lambda *_: "pretend",
    "get_device_properties": lambda *_: types.SimpleNamespace(name="pretend", total_memory=MEMORY, major=9, minor=0),
    "get_rng_state_all": _states,
    "is_available": lambda: True,
    "is_bf16_supported": lambda *_, **__: True,
    "is_initialized": lambda: True,
    "manual_seed": _nothing,
    "manual_seed_all": _nothing,
    "max_memory_allocated": lambda *_: _log.allocated(),
    "mem_get_info": lambda *_: (FREE, MEMORY),
    "memory_allocated": lambda *_: _log.allocated(),
    "memory_reserved": lambda *_: _log.allocated(),
    "reset_peak_memory_stats": _nothing,
    "set_device": _nothing,
    "set_rng_state_all": _nothing,
    "stream": lambda _: contextlib.nullcontext(),
    "synchronize": lambda *_: _Stream().synchronize(),
}


@contextlib.contextmanager
def accelerator() -> Iterator[Log]:
    """Make ``cuda`` the pretend device; yields the log of what happens on it."""
    global _log
    _log = Log()
    torch._C._ensureCUDADeviceGuardSet()  # "cuda" without a number is cuda:0, and nobody asks a driver for it
    with contextlib.ExitStack() as stack:
        # torch.tensor(..., device="cuda") is made on the CPU and then copied.
        stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        # A parameter that moves changes its class.
        overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(setattr, torch.backends.cudnn, "enabled", torch.backends.cudnn.enabled)
        torch.backends.cudnn.enabled = False  # whose operators the CPU lacks
        stack.enter_context(mock.patch.multiple(torch.cuda, **_DRIVER))
        stack.enter_context(_Operators())
        yield _log
