"""How a generator is called with a batch of what it is conditioned on."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_synthqual.images.advice import COUNT_NAMES, generator_elsewhere
from lightning_synthqual.images.callables import can_be_called, describe_callable, signature_of
from lightning_synthqual.images.conditions import as_input, expression_of_input, input_of, moved
from lightning_synthqual.images.inputs import Inputs
from lightning_synthqual.images.transfer import to_device

_ONLY_RAISE = ("_forward_unimplemented", "LightningModule.forward")
Way = Literal["sampler", "sample_images", "module"]


class ConditionedCall:
    """Calls a sampler, a module's ``sample_images(batch, generator)``, or the module itself, with a batch of inputs.

    The module itself is called with the input alone: the first entry of a tuple, ``image`` of a dict, or the item.

    Args:
        module: The module that is sampled from.
        function: The user's sampler ``(module, batch, generator) -> images``.
        inputs: What the generator is conditioned on.
        dtype: Type of the module's weights.
        device: The module's device.

    Attributes:
        what: What is called, for messages.

    Raises:
        TypeError: If the sampler cannot be called with these arguments.
        ValueError: If nothing can be called with a batch.
    """

    def __init__(
        self,
        module: Any,
        function: Callable[..., Any] | None,
        inputs: Inputs,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._module, self._function, self._inputs = module, function, inputs
        self._dtype, self._device = dtype, device
        self._way = self._find_way()
        self.what = {
            "sampler": "the sampler",
            "sample_images": "`sample_images`",
            "module": f"`{type(module).__name__}.forward`",
        }[self._way]

    @property
    def protocol(self) -> dict[str, Any]:
        """What is called, and the inputs, as plain values."""
        methods = {"sampler": self._function, "sample_images": getattr(self._module, "sample_images", None)}
        called = methods.get(self._way)
        sampler = {"name": "module(input)"} if called is None else describe_callable(called)
        return {"sampler": sampler, "inputs": self._inputs.protocol}

    def __call__(self, batch: Any, seed: int) -> Any:
        """The images of a batch.

        Args:
            batch: The batch in the host's memory.
            seed: Seed of the sampler's generator.

        Raises:
            RuntimeError: If the module cannot be called with its input, or the sampler asks an accelerator for numbers
                from the CPU generator.
        """
        batch = moved(batch, lambda tensor: as_input(to_device(tensor, self._device), self._dtype))
        if self._way == "module":
            return self._call_module(batch)
        generator = torch.Generator().manual_seed(seed)
        try:
            if self._function is not None:
                return self._function(self._module, batch, generator)
            return self._module.sample_images(batch, generator)
        except RuntimeError as error:
            if "device type for generator" not in str(error):
                raise
            raise generator_elsewhere(self.what, error) from error

    def _call_module(self, batch: Any) -> Any:
        found = input_of(batch, self._inputs.item)
        if found is None:
            raise ValueError(self._no_way("its input is not the only tensor that a batch begins with"))
        try:
            images = self._module(found)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            shape = f"{tuple(found.shape)} and type {str(found.dtype).removeprefix('torch.')}"
            why = f"called as module(input) with an input of shape {shape} it raised {type(error).__name__}: {error}"
            raise RuntimeError(self._no_way(why.rstrip("."))) from error
        if not isinstance(images, Tensor):
            why = f"called as module(input) it returned {type(images).__name__}, not images"
            raise TypeError(self._no_way(why, taken="[0]" if isinstance(images, tuple | list) else "..."))
        return images

    def _find_way(self) -> Way:
        if self._function is not None:
            _check_takes_batch(self._function, "sampler", ("module", "batch", "generator"))
            return "sampler"
        method = getattr(self._module, "sample_images", None)
        if callable(method):
            _check_takes_batch(method, "sample_images", ("batch", "generator"))
            return "sample_images"
        forward = self._module.forward if isinstance(self._module, nn.Module) else self._module
        if getattr(forward, "__qualname__", "") in _ONLY_RAISE:
            raise ValueError(self._no_way("it has no `forward` of its own"))
        if not callable(forward) or not can_be_called(forward, "input"):
            raise ValueError(self._no_way(f"it takes {signature_of(forward) if callable(forward) else 'no call'}"))
        if isinstance(self._inputs.item, str):
            raise ValueError(self._no_way("what it makes of texts is not known"))
        return "module"

    def _no_way(self, why: str, taken: str = "") -> str:
        call = f"module({expression_of_input(self._inputs.item)}){taken}"
        return (
            f"How {type(self._module).__name__} makes images of a batch of `inputs` is not clear: {why}. Pass "
            f"`sampler=lambda module, batch, generator: {call}` with the call that is right, or give the module a "
            "method `sample_images(batch, generator)`."
        )


def _check_takes_batch(function: Callable[..., Any], what: str, arguments: tuple[str, ...]) -> None:
    """Raise unless a function can be called with these arguments, the batch among them."""
    call, signature = f"{what}({', '.join(arguments)})", signature_of(function)
    if not can_be_called(function, *arguments):
        raise TypeError(f"With `inputs` the {what} must be callable as {call}, but its signature is {signature}.")
    names = list(signature.parameters) if signature is not None else []
    place = arguments.index("batch")
    if len(names) > place and names[place] in COUNT_NAMES:
        raise TypeError(
            f"With `inputs` the {what} is called as {call}: it gets the batch in place of a number, but its signature "
            f"is {signature}. Let it take the batch and rename `{names[place]}`."
        )
