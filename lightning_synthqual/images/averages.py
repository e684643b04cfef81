"""Averaged weights that a module keeps itself, so that they can be named where the module's own are scored."""

import inspect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

_NAMED = re.compile(r"ema|.+_ema|ema_.+")
_AVERAGING = re.compile(r"AveragedModel|Ema|EMA")  # classes that hold the average as their `module`
_SHADOWS = ("store", "copy_to", "restore")  # methods of objects that hold averages beside the module


class Average(NamedTuple):
    """Averaged weights.

    Args:
        path: Their attribute path in the module.
        kind: What keeps them.
        line: The argument of `QualityMonitor` or `evaluate` that scores them.
    """

    path: str
    kind: str
    line: str


def find_averages(module: nn.Module) -> list[Average]:
    """Find the averaged weights that a module keeps itself.

    Known are the ``EMA`` of ema_pytorch (any module that has an ``ema_model``), torch's ``AveragedModel`` and timm's
    ``ModelEma``, objects with the methods ``store``, ``copy_to`` and ``restore`` (``LitEma``, torch_ema, diffusers'
    ``EMAModel``), and modules whose attribute is called ``ema``, ``*_ema`` or ``ema_*`` and that have the same
    parameters as another part.

    Args:
        module: The LightningModule.

    Returns:
        What was found, outermost first; what lies within another average is left out.

    Example:
        >>> gan = nn.Module()
        >>> gan.generator, gan.generator_ema = nn.Linear(2, 3), nn.Linear(2, 3)
        >>> [average.line for average in find_averages(gan)]
        ["model='generator_ema'"]
    """
    return list(_search(module, module, ""))


def named_averages(module: nn.Module, model: Any) -> dict[str, Any]:
    """What the protocol says of averages that are not asked for: the line that would score each, by its path.

    Args:
        module: The LightningModule.
        model: The ``model=`` that was given; where one was, nothing is said.
    """
    found = find_averages(module) if model is None else []
    return {"averages": {average.path: average.line for average in found}} if found else {}


def averages_message(module: nn.Module, model: Any) -> str | None:
    """What to say of averages that are not asked for; the arguments are those of `named_averages`."""
    found = find_averages(module) if model is None else []
    if not found:
        return None
    where = "; ".join(f"`{average.path}` ({average.kind}): `{average.line}`" for average in found)
    return (
        "The module keeps averaged weights, and scores are of the module as it is, which samples from them only if its "
        f"own code does. To score the averaged ones: {where}."
    )


def _search(root: nn.Module, module: nn.Module, prefix: str) -> Iterator[Average]:
    for name, value in _members(module):
        path = f"{prefix}{name}"
        found = _average(root, path, name, value)
        if found is not None:
            yield found
        elif isinstance(value, nn.Module):
            yield from _search(root, value, f"{path}.")


def _members(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The parts of a module, and its attributes that keep averages without being modules."""
    yield from module.named_children()
    yield from ((name, value) for name, value in vars(module).items() if name[:1] != "_" and _has_shadows(value))


def _average(root: nn.Module, path: str, name: str, value: Any) -> Average | None:
    """The average that an attribute keeps, if it does."""
    kind = type(value).__name__
    if _has_shadows(value):
        return Average(path, kind, _line_for_shadows(root, path, value))
    inner = _inner(value)
    named = _NAMED.fullmatch(name) and not isinstance(value, nn.ModuleList | nn.ModuleDict)
    if inner is None and named and _has_twin(root, value):
        return Average(path, kind, f"model={path!r}")
    return None if inner is None else Average(f"{path}.{inner}", kind, f"model={f'{path}.{inner}'!r}")


def _inner(value: Any) -> str | None:
    """The attribute in which a known kind of module holds the average."""
    if isinstance(getattr(value, "ema_model", None), nn.Module):
        return "ema_model"
    averaged = any(_AVERAGING.search(kind.__name__) for kind in type(value).__mro__)
    return "module" if averaged and isinstance(getattr(value, "module", None), nn.Module) else None


def _has_shadows(value: Any) -> bool:
    return all(callable(getattr(type(value), method, None)) for method in _SHADOWS)


def _has_twin(root: nn.Module, module: nn.Module) -> bool:
    """Whether another part has parameters of the same shapes: an average is one of something."""
    return _find_part(root, _shapes(list(module.parameters())), module) is not None


def _find_part(root: nn.Module, shapes: list[torch.Size], besides: Any = None) -> str | None:
    """The path of the outermost part whose parameters have these shapes."""
    if not shapes:
        return None
    inside = set(besides.modules()) if isinstance(besides, nn.Module) else set()
    parts = ((path, part) for path, part in root.named_modules() if path and part not in inside)
    return next((path for path, part in parts if _shapes(list(part.parameters())) == shapes), None)


def _shapes(tensors: list[Any]) -> list[torch.Size]:
    return [tensor.shape for tensor in tensors if isinstance(tensor, torch.Tensor)]


def _line_for_shadows(root: nn.Module, path: str, value: Any) -> str:
    """The line for averages that are in no module: a function that puts them into a copy of the part they are of."""
    buffers = [each for each in value.buffers() if each.ndim] if isinstance(value, nn.Module) else []
    part = _find_part(root, _shapes(getattr(value, "shadow_params", None) or buffers), value) or "PART"
    takes_parameters = "param" in next(iter(inspect.signature(value.copy_to).parameters), "")
    target = "net.parameters()" if takes_parameters else "net"
    return (
        "model=averaged, with `def averaged(module): "
        f"net = copy.deepcopy(module.{part}); module.{path}.copy_to({target}); return net`"
    )
