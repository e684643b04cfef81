"""Sampling leaves no trace: what it may change is saved before and restored afterwards."""

import logging
import random
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_synthqual.images.holdings import (
    LARGEST,
    MODULE_INTERNALS,
    Holdings,
    attributes,
    counters,
    is_simple,
    search,
)

_log = logging.getLogger(__name__)
_announced: WeakSet[nn.Module] = WeakSet()
_REGISTERED = ("_parameters", "_buffers", "_modules")
_CONTAINERS = (list, dict, set, deque, OrderedDict, defaultdict)
Restore = Callable[[], Any]


@contextmanager
def undisturbed(*objects: Any) -> Iterator[None]:
    """Switch modules to eval mode, and restore everything that is found in ``objects`` afterwards.

    Restored, also after an exception:

    * Parameters and buffers, to the bit, from a copy in the host's memory: of this process's shard where the model is
      sharded, once where weights are tied. `Parameter` objects, buffers that were replaced, ``requires_grad`` and which
      tensor is a parameter's ``grad``.
    * The mode of each module: first by its own ``train(mode)``, so that modules that do more than to set a flag (LoRA
      layers that merge their weights) undo it, then each flag by itself.
    * The other attributes of modules: which object each one is; the values of tensors and arrays, also in lists,
      tuples and dicts of up to 1000 elements; the elements of lists, dicts, sets and deques, unless elements were only
      added (as to a record of calls).
    * Random generators (torch's, numpy's, python's) that modules, samplers and data sets hold as attributes, in
      containers, or in the closure of a function.
    * Numbers, strings and ``None`` that data sets and callable objects hold as attributes.

    Not restored:

    * Objects of other classes that modules, samplers or data sets hold, such as a noise scheduler or a helper that
      keeps an average; containers within containers; containers of data sets and samplers.
    * What is added to an existing ``grad`` by a sampler that calls ``backward``.
    * Variables of functions, global variables and class attributes, but for the random generators that the sampler
      names.
    * The position of a stream that a data set reads from, and the state of data sets in worker processes.
    * Attributes of TorchScript modules other than parameters and buffers, and state inside C++ extensions.
    * Hooks that a sampler registers and does not remove.

    A lazy module (``LazyLinear``) is not initialised in here, because its weights would come from the evaluation's
    seed.

    Args:
        objects: Modules, samplers, data sets; modules among them are switched to eval mode, a parent before its child.

    Raises:
        ValueError: If a lazy module is called that has no weights yet.
    """
    roots = [each for each in objects if isinstance(each, nn.Module)]
    with ExitStack() as stack:
        _gathered_weights_released(roots)
        held = search(objects)
        # The stack is unwound from its end: the modes first, because a module's own `train` may change all the others.
        for restore in (*_of_generators(held), *_of_counters(held), *_of_tensors(held, roots), *_of_entries(held)):
            stack.callback(restore)
        stack.callback(_restore_modes, [(part, part.training) for part in held.modules])
        stack.callback(_gathered_weights_released, roots)
        for handle in _refuse_lazy_modules(roots):
            stack.callback(handle.remove)
        for root in roots:
            root.eval()
        yield


def _of_generators(held: Holdings) -> Iterator[Restore]:
    for generator in held.generators:
        if isinstance(generator, torch.Generator):
            yield partial(generator.set_state, generator.get_state())
        elif isinstance(generator, np.random.Generator):
            bits = generator.bit_generator
            yield partial(setattr, bits, "state", bits.state)
        elif isinstance(generator, np.random.RandomState):
            yield partial(generator.set_state, generator.get_state())
        elif isinstance(generator, random.Random):
            yield partial(generator.setstate, generator.getstate())


def _of_counters(held: Holdings) -> Iterator[Restore]:
    for each in held.others:
        yield partial(_restore_counters, each, counters(each))


def _restore_counters(value: Any, saved: dict[str, Any]) -> None:
    current = getattr(value, "__dict__", {})
    for name, was in saved.items():
        if name in current and is_simple(current[name]) and current[name] is not was:
            current[name] = was


def _of_tensors(held: Holdings, roots: list[nn.Module]) -> Iterator[Restore]:
    """Values of tensors and arrays; the cost of their copies is logged once for a model."""
    started, copied = time.perf_counter(), 0
    for part in held.modules:
        for parameter in part.parameters(recurse=False):
            yield partial(_restore_gradient_state, parameter, parameter.requires_grad, parameter.grad)
    for values in _values(held.modules):
        copied += values.nbytes if isinstance(values, np.ndarray) else values.numel() * values.element_size()
        yield _saved_array(values) if isinstance(values, np.ndarray) else _saved_tensor(values)
    if not _announced.issuperset(roots):
        _announced.update(roots)
        names = ", ".join(dict.fromkeys(type(root).__name__ for root in roots))
        seconds = time.perf_counter() - started
        _log.info(
            "%.1f MB of weights and buffers of %s are copied before each sampling and restored afterwards (%.2f s)",
            copied / 1e6,
            names,
            seconds,
        )


def _values(modules: list[nn.Module]) -> Iterable[Any]:
    """Each tensor and array of the modules once, if it has values."""
    found: dict[int, Any] = {}
    for part in modules:
        for value in (*part.parameters(recurse=False), *part.buffers(recurse=False), *attributes(part).values()):
            inner = value if type(value) in (*_CONTAINERS, tuple) and len(value) <= LARGEST else [value]
            for each in inner.values() if isinstance(inner, dict) else inner:
                if isinstance(each, Tensor | np.ndarray):
                    found[id(each)] = each
    return [each for each in found.values() if not _is_empty(each)]


def _is_empty(value: Any) -> bool:
    return isinstance(value, Tensor) and (is_lazy(value) or value.is_meta)


def _saved_array(array: np.ndarray[Any, Any]) -> Restore:
    return partial(np.copyto, array, array.copy()) if array.flags.writeable else lambda: None


def _saved_tensor(tensor: Tensor) -> Restore:
    with torch.no_grad():
        local = _local(tensor)
        return partial(_restore_tensor, tensor, local.detach().to("cpu", copy=True), local.device)


def _restore_tensor(tensor: Tensor, saved: Tensor, device: torch.device) -> None:
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        local = _local(tensor)
        kept = (local.shape, local.dtype, local.device) == (saved.shape, saved.dtype, device)
        if not kept or local.layout is not torch.strided:  # cast or moved by the sampler, or sparse
            tensor.data = saved.to(device)
            return
        if saved.numel() and not local.untyped_storage().nbytes():
            return  # gathered weights that were released: their shards are restored
        # `data` has a version counter of its own: a graph that the training keeps stays usable.
        local.data.copy_(saved)


def _local(tensor: Tensor) -> Tensor:
    """What this process has of a tensor: its shard, and of an expanded tensor one of the slices that share memory."""
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    if local.layout is torch.strided:
        for dimension, stride in enumerate(local.stride()):
            local = local.narrow(dimension, 0, 1) if stride == 0 and local.shape[dimension] > 1 else local
    return local


def _restore_gradient_state(parameter: Tensor, requires_grad: bool, grad: Tensor | None) -> None:
    if parameter.requires_grad != requires_grad:
        parameter.requires_grad_(requires_grad)
    if parameter.grad is not grad:
        parameter.grad = grad


def _of_entries(held: Holdings) -> Iterator[Restore]:
    """Which objects are a module's parameters, buffers, submodules and attributes."""
    for part in held.modules:
        for value in attributes(part).values():
            if type(value) in _CONTAINERS:
                yield partial(_restore_elements, value, value.copy())
        yield partial(_restore_attributes, part, attributes(part))
        for name in _REGISTERED:
            entries = vars(part).get(name)
            if isinstance(entries, dict):
                yield partial(_restore_entries, entries, entries.copy())


def _restore_entries(entries: dict[str, Any], saved: dict[str, Any]) -> None:
    if [*map(id, entries.values())] != [*map(id, saved.values())] or entries.keys() != saved.keys():
        entries.clear()
        entries.update(saved)


def _restore_elements(value: Any, saved: Any) -> None:
    if not _begins_with(value, saved):
        value.clear()
        (value.update if isinstance(value, dict | set) else value.extend)(saved)


def _begins_with(value: Any, saved: Any) -> bool:
    """Whether nothing but additions distinguishes a container from what it was."""
    if isinstance(value, set):
        return bool(value >= saved)
    if isinstance(value, dict):
        return all(name in value and value[name] is each for name, each in saved.items())
    return len(value) >= len(saved) and all(one is other for one, other in zip(value, saved, strict=False))


def _restore_attributes(part: nn.Module, saved: dict[str, Any]) -> None:
    current = vars(part)
    for name in [name for name in current if name not in MODULE_INTERNALS and name not in saved]:
        del current[name]
    for name, value in saved.items():
        if name not in current or current[name] is not value:
            current[name] = value


def _restore_modes(modes: list[tuple[nn.Module, bool]]) -> None:
    try:
        for part, training in modes:
            if part.training != training:
                part.train(training)
    finally:
        for part, training in modes:
            if part.training != training:
                part.training = training


def _gathered_weights_released(roots: list[nn.Module]) -> None:
    """Let sharded modules have their shards as parameters: FSDP2 leaves its outermost module gathered after a call."""
    for part in (part for root in roots for part in root.modules()):
        if any(base.__name__ == "FSDPModule" for base in type(part).__mro__):
            part.reshard()  # type: ignore[operator]


def _refuse_lazy_modules(roots: list[nn.Module]) -> Iterator[Any]:
    for root in roots:
        for name, part in root.named_modules():
            if any(map(is_lazy, (*part.parameters(recurse=False), *part.buffers(recurse=False)))):
                yield part.register_forward_pre_hook(partial(_refuse, name), prepend=True)


def _refuse(name: str, module: nn.Module, inputs: Any) -> None:
    raise ValueError(
        f"`{name}` ({type(module).__name__}) has no weights yet. The evaluation does not initialise it, because its "
        "weights would then come from the evaluation's seed. Call the module once before the training, for example at "
        "the end of its `__init__`: `self(torch.zeros(1, latent_dim))`."
    )
