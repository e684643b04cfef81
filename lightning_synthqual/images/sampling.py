"""From a generator to blocks of uint8: image i depends on the seed and on i, whichever process generates it."""

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from lightning_synthqual.images.advice import failed_call, no_way_to_sample, setting
from lightning_synthqual.images.blocks import Block, own_turns
from lightning_synthqual.images.callables import can_be_called, describe_callable, signature_of
from lightning_synthqual.images.pixels import PixelRange, quantise
from lightning_synthqual.images.randomness import Stream, derived_seed, seed_global_generators
from lightning_synthqual.images.state import undisturbed
from lightning_synthqual.images.transfer import run_ahead, to_device

OWN_WEIGHTS = "the module's own"
LabelKind = Literal["data", "uniform"]


class SamplerFunction(Protocol):
    """What a user gives as ``sampler=``; with ``labels=`` it takes a tensor of n ``labels``, too."""

    def __call__(self, module: Any, n: int, generator: torch.Generator) -> Tensor:
        """Return n images (n, C, H, W); ``generator`` is a CPU generator seeded by (seed, block)."""
        ...


class LabelSource(Protocol):
    """Where labels of real items come from."""

    def __len__(self) -> int: ...

    def label(self, index: int) -> Any:
        """Label of item ``index``."""
        ...


class Sampler:
    """Generates the images in blocks.

    The default sampler draws noise (and label) of sample i on the CPU from a generator seeded by (seed, i) and calls
    ``module(z)`` or ``module(z, labels)``. A ``sample_images(n, generator)`` method of the module, or ``function``,
    gets a generator seeded by (seed, block) instead, and with ``labels`` a tensor of n ``labels`` by keyword. The
    global generators are seeded by (seed, block) in any case.

    Args:
        module: The module (or any object) that is sampled from.
        getter: The user's function that found the module (``model=``), for the protocol.
        owner: Where ``latent_dim``, ``num_classes`` and ``hparams`` are looked up too (the LightningModule).
        weights: Which weights the module has, for the protocol.
        function: The user's sampler.
        labels: ``None``, ``"data"`` (label of a real item, drawn by sample index) or ``"uniform"``.
        label_source: The real items, for ``labels="data"``.
        image_range: The range of the generator's floats.
        seed: Random seed of all draws.
        device: The module's device.
        context: Entered around each call of the generator (the trainer's precision).
        details: Further entries of the protocol.

    Raises:
        TypeError: If the sampler cannot be called with these arguments.
        ValueError: If there is no way to sample from the module, or none that takes labels.
    """

    def __init__(
        self,
        module: Any,
        *,
        owner: Any = None,
        getter: Callable[..., Any] | None = None,
        weights: str = "",
        function: SamplerFunction | None = None,
        labels: LabelKind | None = None,
        label_source: LabelSource | None = None,
        image_range: tuple[float, float] = (-1.0, 1.0),
        seed: int = 0,
        device: torch.device | str = "cpu",
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self.module = module
        self.owner = owner
        self.weights = weights
        self.labels = labels
        self.label_source = label_source
        self.image_range = image_range
        self.seed = seed
        self.device = torch.device(device)
        self.context = context
        self.details = dict(details or {})
        self._function = function
        self._getter = getter
        method = getattr(module, "sample_images", None)
        if function is not None:
            self.kind, self._what = "sampler", "the sampler"
            _check_call(function, "sampler", ("module", "n", "generator"), labels)
        elif _is_called_with_generator(method):
            self.kind, self._what = "sample_images", "`sample_images`"
            _check_call(method, "sample_images", ("n", "generator"), labels)
        else:
            self.kind, self._what = "latent", f"`{type(module).__name__}.forward`"
            self.latent_shape  # noqa: B018 - raises at once where it is missing
        if labels == "uniform":
            _num_classes(module, owner)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one sample's noise.

        Raises:
            TypeError: If ``latent_dim`` is no size.
            ValueError: If the module does not say.
        """
        return _latent_shape(self.module, self.owner)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the module's weights, and so of its noise, for models kept in half precision."""
        return _parameter_dtype(self.module)

    def draw_label(self, generator: torch.Generator) -> Tensor:
        """Draw a label: that of a real item, or any class with equal probability, as ``labels`` says."""
        return self._label(self._draw_number(generator))

    def _draw_number(self, generator: torch.Generator) -> int:
        """The number of a class, or of a real item."""
        read = self._reads_labels
        count = len(read) if read is not None else _num_classes(self.module, self.owner)
        return int(torch.randint(count, (), generator=generator, device="cpu"))

    def _label(self, number: int) -> Tensor:
        read = self._reads_labels
        return torch.tensor(number, device="cpu") if read is None else torch.as_tensor(read.label(number))

    @property
    def _reads_labels(self) -> LabelSource | None:
        return None if self.labels == "uniform" else self.label_source

    @property
    def protocol(self) -> dict[str, Any]:
        """How the samples are drawn; block size matters to all but the latent sampler."""
        origin: dict[str, Any] = {"weights": self.weights} if self.weights else {}
        if self._getter is not None:
            origin["model"] = describe_callable(self._getter)
        origin |= self.details
        if self.kind == "latent":
            return {"kind": self.kind, "latent_shape": list(self.latent_shape), "labels": self.labels, **origin}
        function = self.module.sample_images if self._function is None else self._function
        labels = {} if self.labels is None else {"labels": self.labels}
        return {"kind": self.kind, "sampler": describe_callable(function), **labels, **origin}

    def undisturbed(self) -> AbstractContextManager[None]:
        """The context to sample in: eval mode, and the training's state restored afterwards."""
        return undisturbed(self.owner, self.module, self._function, self._getter, self.label_source)

    def blocks(self, count: int, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Block]:
        """Generate the blocks rank, rank + world_size, ... of ``count`` images, equally many on every process."""
        turns = own_turns(count, batch_size, rank, world_size)
        for (number, positions, counts), drawn in run_ahead(lambda turn: self._draws(turn[1]), turns):
            images, seen = self.draw(number, positions, drawn)
            if counts:
                yield Block(positions, images, seen)

    def draw(
        self, block: int, indices: range, drawn: tuple[Tensor | None, list[int]] | None = None
    ) -> tuple[Tensor, PixelRange]:
        """Generate the images ``indices``, which are block number ``block``.

        Args:
            block: Number of the block.
            indices: Numbers of the images.
            drawn: Their noise and the numbers that their labels have, if they have been drawn before.

        Returns:
            uint8 (n, 3, H, W) on the module's device, and the float values seen.

        Raises:
            RuntimeError: If the module cannot be called with latents, or the sampler asks an accelerator for numbers
                from the CPU generator.
            TypeError: If something else than a tensor of images comes back.
            ValueError: If the images are not what was declared.
        """
        z, labels = self._inputs(*(self._draws(indices) if drawn is None else drawn))
        seed = derived_seed(self.seed, Stream.BLOCK, block)
        seed_global_generators(seed)  # after labels were read: reading may draw too
        with self.context():
            images = self._call_function(len(indices), seed, labels) if z is None else self._call_module(z, labels)
        images, seen = quantise(images, self.image_range, self._what)
        if len(images) != len(indices):
            raise ValueError(f"{self._what} must return {len(indices)} images, but returned {len(images)}.")
        return images, seen

    def _call_module(self, z: Tensor, labels: Tensor | None) -> Any:
        inputs = (z,) if labels is None else (z, labels)
        try:
            return self.module(*inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            latent_dim = setting("latent_dim", self.module, self.owner)
            raise RuntimeError(failed_call(self.module, latent_dim, inputs, error)) from error

    def _call_function(self, count: int, seed: int, labels: Tensor | None) -> Any:
        generator = torch.Generator().manual_seed(seed)
        keywords = {} if labels is None else {"labels": labels}
        try:
            if self._function is None:
                return self.module.sample_images(count, generator, **keywords)
            return self._function(self.module, count, generator, **keywords)
        except RuntimeError as error:
            if "device type for generator" not in str(error):
                raise
            raise RuntimeError(
                f"{self._what} asked another device for numbers from the generator it was given, which is a CPU "
                f"generator so that samples do not depend on the hardware ({error}). Draw on the CPU and move: "
                "`torch.randn(n, dim, generator=generator).to(device)`."
            ) from error

    def _draws(self, indices: range) -> tuple[Tensor | None, list[int]]:
        """Noise, if the module is called with it, and the numbers that labels have, if there are any.

        Only generators of its own are used and no data set is read: a thread may do it.
        """
        generator = torch.Generator()
        shape = self.latent_shape if self.kind == "latent" else None
        latents, numbers = [], []
        for index in indices if shape is not None or self.labels is not None else ():
            generator.manual_seed(derived_seed(self.seed, Stream.SAMPLE, index))
            if shape is not None:
                latents.append(torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu"))
            if self.labels is not None:
                numbers.append(self._draw_number(generator))
        return torch.stack(latents) if latents else None, numbers

    def _inputs(self, noise: Tensor | None, numbers: list[int]) -> tuple[Tensor | None, Tensor | None]:
        """Noise and labels on the module's device."""
        z = None if noise is None else to_device(noise, self.device).to(self.dtype)
        labels = [self._label(number) for number in numbers]
        return z, to_device(torch.stack(labels), self.device) if labels else None


def _is_called_with_generator(method: Callable[..., Any] | None) -> TypeGuard[Callable[..., Any]]:
    """Whether a module's `sample_images` is the method that this package means, with labels or without."""
    return callable(method) and any(can_be_called(method, "n", "generator", keywords=k) for k in ((), ("labels",)))


def _check_call(function: Callable[..., Any], what: str, arguments: tuple[str, ...], labels: LabelKind | None) -> None:
    keywords = () if labels is None else ("labels",)
    if can_be_called(function, *arguments, keywords=keywords):
        return
    call = f"{what}({', '.join(arguments)})"
    if labels is not None and can_be_called(function, *arguments):
        raise ValueError(
            f"`labels={labels!r}` was given, but the {what} takes no labels. Give it a parameter `labels`, a tensor of "
            "n labels, or leave `labels` out."
        )
    if labels is None and can_be_called(function, *arguments, keywords=("labels",)):
        raise ValueError(
            f"The {what} needs `labels`. Pass `labels='uniform'` or `labels='data'`, or give it a default."
        )
    raise TypeError(f"The {what} must be callable as {call}, but its signature is {signature_of(function)}.")


def _latent_shape(module: Any, owner: Any) -> tuple[int, ...]:
    latent_dim = setting("latent_dim", module, owner)
    if latent_dim is None or not callable(module):
        raise ValueError(no_way_to_sample(module, owner))
    try:
        shape = _sizes(latent_dim)
    except TypeError:
        shape = ()
    if not shape or min(shape) < 1:
        raise TypeError(f"`latent_dim` must be a positive integer or a tuple of such, but is {latent_dim!r}.")
    return shape


def _sizes(value: Any) -> tuple[int, ...]:
    try:
        return (operator.index(value),)
    except TypeError:
        return tuple(map(operator.index, value))


def _num_classes(module: Any, owner: Any) -> int:
    num_classes = setting("num_classes", module, owner)
    if num_classes is None:
        raise ValueError(
            "`labels='uniform'` needs the number of classes. Give the module an attribute (or hyperparameter) "
            "`num_classes`, or use `labels='data'`."
        )
    return int(num_classes)


def _parameter_dtype(module: Any) -> torch.dtype:
    """The dtype of the module's weights, for models kept in half precision."""
    parameters = module.parameters() if isinstance(module, nn.Module) else ()
    return next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)
