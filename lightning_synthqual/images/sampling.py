"""From a generator to blocks of uint8: image i depends on the seed and on i, whichever process generates it."""

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from lightning_synthqual.images.advice import failed_call, generator_elsewhere, no_way_to_sample, setting
from lightning_synthqual.images.blocks import Block, own_turns
from lightning_synthqual.images.callables import can_be_called, describe_callable, signature_of
from lightning_synthqual.images.conditioned import ConditionedCall
from lightning_synthqual.images.inputs import Inputs
from lightning_synthqual.images.labels import LabelFormat, as_class, one_hot
from lightning_synthqual.images.pixels import PixelRange, quantise
from lightning_synthqual.images.randomness import Stream, derived_seed, seed_global_generators
from lightning_synthqual.images.returned import as_tensor
from lightning_synthqual.images.state import undisturbed
from lightning_synthqual.images.transfer import run_ahead, to_device

OWN_WEIGHTS = "the module's own"
LabelKind = Literal["data", "uniform"]


class SamplerFunction(Protocol):
    """What a user gives as ``sampler=``; with ``labels=`` it takes a tensor of n ``labels``, too."""

    def __call__(self, module: Any, n: int, generator: torch.Generator) -> Any:
        """Return n images (n, C, H, W), or another form of them; ``generator`` is a CPU generator.

        Other forms are numpy arrays (n, H, W, C), lists of PIL images, and objects or dicts with one of these as
        ``images``. Floats span ``image_range`` in each: those of diffusers' ``output_type="np"`` span (0, 1). A module
        that is trained on data normalised by a mean and a standard deviation gives images on that scale; let the
        sampler return ``images * std + mean``, and ``image_range=(0, 1)``.
        """
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
    gets a generator seeded by (seed, block) instead, and with ``labels`` a tensor of n ``labels`` by keyword. With
    ``inputs`` these get a batch of inputs in place of n: see `ConditionedCall`. The global generators are seeded by
    (seed, block) in any case.

    Args:
        module: The module (or any object) that is sampled from.
        getter: The user's function that found the module (``model=``), for the protocol.
        owner: Where ``latent_dim``, ``num_classes`` and ``hparams`` are looked up too (the LightningModule).
        weights: Which weights the module has, for the protocol.
        function: The user's sampler.
        labels: ``None``, ``"data"`` (label of a real item, drawn by sample index) or ``"uniform"``.
        label_format: ``"index"``, or ``"one_hot"``: rows (n, num_classes) in the module's dtype.
        label_source: The real items, for ``labels="data"``.
        inputs: What the generator is conditioned on.
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
        inputs: Inputs | None = None,
        label_format: LabelFormat = "index",
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
        self.inputs = inputs
        self.label_format = label_format
        self.image_range = image_range
        self.seed = seed
        self.device = torch.device(device)
        self.context = context
        self.details = dict(details or {})
        self._function = function
        self._getter = getter
        self._largest: int | None = None  # label of the data
        method = getattr(module, "sample_images", None)
        self._conditioned = self._with_inputs()
        if self._conditioned is not None:
            self.kind, self._what = "inputs", self._conditioned.what
        elif function is not None:
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
        if label_format == "one_hot" and labels is None:
            raise ValueError("`label_format='one_hot'` needs labels. Pass `labels='uniform'` or `labels='data'`, too.")

    def _with_inputs(self) -> ConditionedCall | None:
        """How the module is called with what it is conditioned on, if it is."""
        if self.inputs is None:
            return None
        if self.labels is not None:
            raise ValueError(
                f"`labels={self.labels!r}` and `inputs` do not go together: labels that belong to inputs are in their "
                "batch. Leave `labels` out."
            )
        return ConditionedCall(self.module, self._function, self.inputs, dtype=self.dtype, device=self.device)

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
        return self._formatted(self._label(self._draw_number(generator))[None])[0]

    def class_numbers(self, count: int, batch_size: int) -> list[int]:
        """Of the first ``count`` samples the numbers of their classes, or for ``labels="data"`` of their real items."""
        blocks = (range(start, min(start + batch_size, count)) for start in range(0, count, batch_size))
        return [number for block in blocks for number in self._draws(block)[1]]

    @property
    def num_classes(self) -> int:
        """Number of classes: what the module says, else one more than the largest label of the data."""
        stated = setting("num_classes", self.module, self.owner)
        if stated is not None or self.label_source is None:
            return _num_classes(self.module, self.owner)
        if self._largest is None:
            read = self.label_source
            self._largest = max(as_class(read.label(index), f"item {index}") for index in range(len(read)))
        return self._largest + 1

    def _formatted(self, labels: Tensor) -> Tensor:
        """Labels (n,) as the module takes them."""
        return labels if self.label_format == "index" else one_hot(labels, self.num_classes, self.dtype)

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
        if self.label_format != "index":
            origin |= {"label_format": self.label_format, "num_classes": self.num_classes}
        origin |= self.details
        if self._conditioned is not None:
            return {"kind": self.kind, **self._conditioned.protocol, **origin}
        if self.kind == "latent":
            return {"kind": self.kind, "latent_shape": list(self.latent_shape), "labels": self.labels, **origin}
        function = self.module.sample_images if self._function is None else self._function
        labels = {} if self.labels is None else {"labels": self.labels}
        return {"kind": self.kind, "sampler": describe_callable(function), **labels, **origin}

    def undisturbed(self) -> AbstractContextManager[None]:
        """The context to sample in: eval mode, and the training's state restored afterwards."""
        data = () if self.inputs is None else (self.inputs.dataset, self.inputs.collate)
        return undisturbed(self.owner, self.module, self._function, self._getter, self.label_source, *data)

    def blocks(self, count: int, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Block]:
        """Generate the blocks rank, rank + world_size, ... of ``count`` images, equally many on every process."""
        turns = own_turns(count, batch_size, rank, world_size)
        ahead = run_ahead(lambda turn: self._draws(turn[1]), turns) if self.inputs is None else self.inputs.ahead(turns)
        for (number, positions, counts), drawn in ahead:
            images, seen = self.draw(number, positions, drawn)
            if counts:
                yield Block(positions, images, seen)

    def draw(self, block: int, indices: range, drawn: Any = None) -> tuple[Tensor, PixelRange]:
        """Generate the images ``indices``, which are block number ``block``.

        Args:
            block: Number of the block.
            indices: Numbers of the images.
            drawn: Their noise and the numbers that their labels have, or the batch of their inputs, if these have been
                drawn, or read, before.

        Returns:
            uint8 (n, 3, H, W) on the module's device, and the float values seen.

        Raises:
            RuntimeError: If the module cannot be called with latents, or the sampler asks an accelerator for numbers
                from the CPU generator.
            TypeError: If something else than images comes back.
            ValueError: If the images are not what was declared.
        """
        seed = derived_seed(self.seed, Stream.BLOCK, block)
        images = (
            self._call(indices, seed, drawn) if self._conditioned is None else self._condition(indices, seed, drawn)
        )
        images, seen = quantise(as_tensor(images, self._what), self.image_range, self._what)
        if len(images) != len(indices):
            raise ValueError(f"{self._what} must return {len(indices)} images, but returned {len(images)}.")
        return images, seen

    def _call(self, indices: range, seed: int, drawn: Any) -> Any:
        """What the generator makes of noise, or of a number of images, and labels."""
        z, labels = self._inputs(*(self._draws(indices) if drawn is None else drawn))
        seed_global_generators(seed)  # after labels were read: reading may draw too
        with self.context():
            return self._call_function(len(indices), seed, labels) if z is None else self._call_module(z, labels)

    def _condition(self, indices: range, seed: int, batch: Any) -> Any:
        """What the generator makes of its inputs."""
        assert self._conditioned is not None
        assert self.inputs is not None
        batch = self.inputs.batch(indices) if batch is None else batch
        seed_global_generators(seed)  # after the inputs were read, which may draw too
        with self.context():
            return self._conditioned(batch, seed)

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
            raise generator_elsewhere(self._what, error) from error

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
        return z, to_device(self._formatted(torch.stack(labels)), self.device) if labels else None


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
