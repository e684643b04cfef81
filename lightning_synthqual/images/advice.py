"""What to do when a module cannot be sampled from: the texts of errors, with a line to paste where one is known."""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from lightning_synthqual.images.callables import can_be_called, signature_of

_OTHER_NAMES = ("nz", "z_dim", "dim_z", "noise_dim", "latent_size", "z_size")
COUNT_NAMES = ("n", "num", "count", "num_samples", "n_samples", "num_images", "batch_size", "bs")
_GENERATOR_NAMES = r"(net_?)?g|g_?ema|gen|generator\w*|decoder"
_NOT_THE_USERS = ("torch", "lightning", "pytorch_lightning", "lightning_fabric", "builtins")
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LABEL_NAMES = ("c", "y", "label", "labels", "class", "classes", "cls", "class_labels", "target", "cond", "condition")


def setting(name: str, *owners: Any) -> Any:
    """An attribute, or a hyperparameter, of the first of ``owners`` that has it."""
    for owner in owners:
        if getattr(owner, name, None) is not None:
            return getattr(owner, name)
        hparams = getattr(owner, "hparams", None)
        value = hparams.get(name) if isinstance(hparams, Mapping) else getattr(hparams, name, None)
        if value is not None:
            return value
    return None


def no_way_to_sample(module: Any, owner: Any) -> str:
    """The error for a module that has neither `latent_dim` nor a `sample_images` that fits."""
    text = [
        f"No way to sample from {type(module).__name__} was found.",
        *_method_that_does_not_fit(module),
        *_sampling_methods(module),
        *_other_names(module, owner),
        *_submodules(module, by_name=_has_no_forward(module)),
    ]
    text.append(
        "It needs one of: an attribute (or hyperparameter) `latent_dim`, so that it is called as module(z) with z of "
        "shape (n, latent_dim); a method `sample_images(n, generator)`; or `sampler=callable(module, n, generator)`."
    )
    return " ".join(text)


def failed_call(module: Any, latent_dim: Any, inputs: tuple[Tensor, ...], error: Exception) -> str:
    """The error for a module that raised ``error`` when it was called with latents, and perhaps labels."""
    names = "z" if len(inputs) == 1 else "z, labels"
    shapes = " and ".join(
        f"{name} of shape {tuple(each.shape)}" for name, each in zip(("z", "labels"), inputs, strict=False)
    )
    text = [
        f"{type(module).__name__} was called as module({names}) with {shapes}, because of `latent_dim={latent_dim!r}`, "
        f"and raised {type(error).__name__}: {str(error).rstrip('.')}."
    ]
    advice = [*_shape_advice(module, inputs[0], str(error)), *_argument_advice(str(error))]
    methods = list(_method_that_does_not_fit(module))
    if methods:
        methods += [*_sampling_methods(module), "Or pass `sampler=callable(module, n, generator)`."]
    return " ".join((*text, *methods, *(advice or _submodules(module, by_name=_has_no_forward(module)))))


def generator_elsewhere(what: str, error: Exception) -> RuntimeError:
    """The error for a sampler that asks another device for numbers from its CPU generator."""
    return RuntimeError(
        f"{what} asked another device for numbers from the generator it was given, which is a CPU generator so that "
        f"samples do not depend on the hardware ({error}). Draw on the CPU and move: "
        "`torch.randn(n, dim, generator=generator).to(device)`."
    )


def check_model(model: Any) -> None:
    """Raise if ``model=`` is the module itself instead of a function that returns it.

    Raises:
        TypeError: If it is a module.
    """
    if isinstance(model, nn.Module):
        raise TypeError(
            f"`model` must be a callable model(pl_module) -> module, but got a module itself ({type(model).__name__}). "
            "Pass a function that finds it, for example `model=lambda pl_module: pl_module.generator`."
        )


def _method_that_does_not_fit(module: Any) -> Iterator[str]:
    method = getattr(module, "sample_images", None)
    if callable(method) and not can_be_called(method, "n", "generator"):
        names = ", ".join(getattr(signature_of(method), "parameters", {}))
        yield f"Its `sample_images({names})` cannot be called as sample_images(n, generator)."


def _shape_advice(module: Any, z: Tensor, error: str) -> Iterator[str]:
    if z.ndim == 2 and ("conv_transpose" in error or _begins_transposed(module)):
        yield (
            "The generator begins with a transposed convolution, which takes noise of shape (n, channels, height, "
            f"width): set `latent_dim=({z.shape[1]}, 1, 1)`."
        )
    elif re.search(r"input to conv\d", error):
        yield (
            "The module begins with a convolution, as one that takes images does: give the part that takes noise by "
            "`model=`, or call the module yourself by `sampler=callable(module, n, generator)`."
        )
        yield from _submodules(module, by_name=True)


def _begins_transposed(module: Any) -> bool:
    """Whether the first layer that has parameters is a transposed convolution."""
    parts = module.modules() if isinstance(module, nn.Module) else ()
    with_weights = (part for part in parts if next(part.parameters(recurse=False), None) is not None)
    return isinstance(next(with_weights, None), _TRANSPOSED)


def _has_no_forward(module: Any) -> bool:
    """Whether the user has written no `forward`: a LightningModule has one that only raises."""
    return isinstance(module, nn.Module) and _package(type(module).forward) in _NOT_THE_USERS


def _package(function: Any) -> str:
    return str(getattr(function, "__module__", "")).partition(".")[0]


def _argument_advice(error: str) -> Iterator[str]:
    missing = re.search(r"missing \d+ required (?:positional|keyword-only) arguments?: (.+)", error)
    if missing is None:
        return
    names = re.findall(r"'(\w+)'", missing[1])
    if len(names) == 1 and names[0] in _LABEL_NAMES:
        yield f"If `{names[0]}` are class labels, pass `labels='uniform'` or `labels='data'` for module(z, labels)."
    else:
        yield f"Call the module yourself, with {', '.join(names)}: pass `sampler=callable(module, n, generator)`."


def _sampling_methods(module: Any) -> Iterator[str]:
    """The methods that may be meant for sampling, each with the line to paste."""
    kind = type(module)
    found = [name for name in dir(kind) if _may_sample(name, inspect.getattr_static(kind, name))]
    found.sort(key=lambda name: (name not in ("sample", "generate"), name))
    if found:
        lines = [f"`sampler=lambda module, n, generator: {_call(getattr(module, name), name)}`" for name in found[:3]]
        yield f"It has {' and '.join(f'`{name}`' for name in found[:3])}: pass {' or '.join(lines)}."


def _may_sample(name: str, method: Any) -> bool:
    if not inspect.isfunction(method) or _package(method) in _NOT_THE_USERS or name == "sample_images":
        return False
    takes_arguments = len(inspect.signature(method).parameters) > 1
    return takes_arguments and re.match(r"[^_].*(sample|generate)|sample|generate", name) is not None


def _call(method: Any, name: str) -> str:
    """How a method of the module is called for n images; what only its author knows is left as dots."""
    parameters = inspect.signature(method).parameters
    named = [each.name for each in parameters.values() if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    count = next((each for each in named if each in COUNT_NAMES), named[0] if named else None)
    known = {count: "n", "generator": "generator"}
    needed = [each for each in named if each in known or parameters[each].default is inspect.Parameter.empty]
    values = ["n" if each == named[0] == count else f"{each}={known.get(each, '...')}" for each in needed]
    return f"module.{name}({', '.join(values)})"


def _other_names(module: Any, owner: Any) -> Iterator[str]:
    for name in _OTHER_NAMES:
        value = setting(name, module, owner)
        if isinstance(value, int | tuple | list):
            size = (value, 1, 1) if isinstance(value, int) and _begins_transposed(module) else value
            yield f"It has `{name}={value!r}`: if this is the size of the noise, set `latent_dim={size!r}`."
            return


def _submodules(module: Any, *, by_name: bool) -> Iterator[str]:
    """A submodule to sample from in the module's place: one that says how, or one with a generator's name."""
    children = list(module.named_children()) if isinstance(module, nn.Module) else []
    fitting = [name for name, child in children if setting("latent_dim", child) is not None or _has_method(child)]
    if by_name:
        fitting += [name for name, _ in children if re.fullmatch(_GENERATOR_NAMES, name.lower())]
    if fitting:
        yield f"Its submodule `{fitting[0]}` may be what is meant: pass `model=lambda module: module.{fitting[0]}`."


def _has_method(child: nn.Module) -> bool:
    method = getattr(child, "sample_images", None)
    return callable(method) and can_be_called(method, "n", "generator")
