"""From a generator to blocks of uint8: image i depends on the seed and on i, whoever draws it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from lightning_synthqual.images.blocks import Block, own_turns
from lightning_synthqual.images.pixels import PixelRange, quantise
from lightning_synthqual.images.randomness import derived_seed, seed_global_generators

OWN_WEIGHTS = "the module's own"
LabelKind = Literal["data", "uniform"]
_SAMPLE, _BLOCK = 1, 2  # separate the streams of random numbers


class SamplerFunction(Protocol):
    """What a user gives as ``sampler=``."""

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
    """Draws the generated set in blocks.

    The default sampler draws noise (and label) of sample i on the CPU from a generator seeded by (seed, i) and calls
    ``module(z)`` or ``module(z, labels)``. A ``sample_images(n, generator)`` method of the module, or ``function``,
    gets a generator seeded by (seed, block) instead. The global generators are seeded by (seed, block) in any case.

    Args:
        module: What is sampled from.
        owner: Where ``latent_dim``, ``num_classes`` and ``hparams`` are looked up too (the LightningModule).
        weights: Whose weights the module has, for the protocol.
        function: The user's sampler.
        labels: ``None``, ``"data"`` (label of a real item, drawn by sample index) or ``"uniform"``.
        label_source: The real items, for ``labels="data"``.
        image_range: What floats span.
        seed: Of everything that is drawn.
        device: Where the module lives.
        context: Entered around each call of the generator (the trainer's precision).

    Raises:
        ValueError: If there is no way to sample from the module.
    """

    def __init__(
        self,
        module: Any,
        *,
        owner: Any = None,
        weights: str = "",
        function: SamplerFunction | None = None,
        labels: LabelKind | None = None,
        label_source: LabelSource | None = None,
        image_range: tuple[float, float] = (-1.0, 1.0),
        seed: int = 0,
        device: torch.device | str = "cpu",
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
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
        self._function = function
        method = getattr(module, "sample_images", None)
        if function is not None:
            self.kind, self._what = "sampler", "the sampler"
        elif callable(method):
            self.kind, self._what = "sample_images", "`sample_images`"
        else:
            self.kind, self._what = "latent", f"`{type(module).__name__}.forward`"
            self.latent_shape  # noqa: B018 - raises at once where it is missing
            if labels == "uniform":
                _num_classes(module, owner)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one sample's noise.

        Raises:
            ValueError: If the module does not say.
        """
        return _latent_shape(self.module, self.owner)

    @property
    def dtype(self) -> torch.dtype:
        """What the module's noise is made of: the type of its weights, for models kept in half precision."""
        return _parameter_dtype(self.module)

    def draw_label(self, generator: torch.Generator) -> Tensor:
        """A label as ``labels`` has it: of a real item, or of any class with equal chance."""
        if self.labels == "uniform" or self.label_source is None:
            return torch.randint(_num_classes(self.module, self.owner), (), generator=generator)
        index = int(torch.randint(len(self.label_source), (), generator=generator))
        return torch.as_tensor(self.label_source.label(index))

    @property
    def protocol(self) -> dict[str, Any]:
        """How the samples are drawn; block size matters to all but the latent sampler."""
        latent = {"latent_shape": list(self.latent_shape), "labels": self.labels} if self.kind == "latent" else {}
        weights = {"weights": self.weights} if self.weights else {}
        return {"kind": self.kind, **latent, **weights}

    def blocks(self, count: int, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Block]:
        """Draw the blocks rank, rank + world_size, ... of ``count`` images, equally many on every process."""
        for number, positions, counts in own_turns(count, batch_size, rank, world_size):
            images, seen = self.draw(number, positions)
            if counts:
                yield Block(positions, images, seen)

    def draw(self, block: int, indices: range) -> tuple[Tensor, PixelRange]:
        """Generate the images ``indices``, which are block number ``block``.

        Returns:
            uint8 (n, 3, H, W) on the module's device, and the float values seen.

        Raises:
            RuntimeError: If the sampler asks an accelerator for numbers from the CPU generator.
            TypeError: If something else than a tensor of images comes back.
            ValueError: If the images are not what was declared.
        """
        try:
            with self.context():
                images = self._call(block, indices)
        except RuntimeError as error:
            if "device type for generator" not in str(error):
                raise
            raise RuntimeError(
                f"{self._what} asked another device for numbers from the generator it was given, which is a CPU "
                f"generator so that samples do not depend on the hardware ({error}). Draw on the CPU and move: "
                "`torch.randn(n, dim, generator=generator).to(device)`."
            ) from error
        images, seen = quantise(images, self.image_range, self._what)
        if len(images) != len(indices):
            raise ValueError(f"{self._what} must return {len(indices)} images, but returned {len(images)}.")
        return images, seen

    def _call(self, block: int, indices: range) -> Any:
        inputs = self._latent_inputs(indices) if self.kind == "latent" else ()
        seed = derived_seed(self.seed, _BLOCK, block)
        seed_global_generators(seed)  # after labels were read: reading may draw too
        if self.kind == "latent":
            return self.module(*inputs)
        generator = torch.Generator().manual_seed(seed)
        if self._function is not None:
            return self._function(self.module, len(indices), generator)
        return self.module.sample_images(len(indices), generator)

    def _latent_inputs(self, indices: range) -> tuple[Tensor, ...]:
        generator = torch.Generator()
        latents, labels = [], []
        for index in indices:
            generator.manual_seed(derived_seed(self.seed, _SAMPLE, index))
            latents.append(torch.randn(self.latent_shape, generator=generator, dtype=torch.float32))
            if self.labels is not None:
                labels.append(self.draw_label(generator))
        z = torch.stack(latents).to(self.device, self.dtype)
        return (z,) if self.labels is None else (z, torch.stack(labels).to(self.device))


@contextmanager
def evaluation_mode(*modules: Any) -> Iterator[None]:
    """Switch modules to eval mode and put each submodule's own flag back, also after an exception."""
    networks = [module for module in modules if isinstance(module, nn.Module)]
    flags = [(part, part.training) for network in networks for part in network.modules()]
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for part, training in flags:
            part.training = training


def _setting(name: str, *places: Any) -> Any:
    """An attribute, or a hyperparameter, of the first place that has it."""
    for place in places:
        if getattr(place, name, None) is not None:
            return getattr(place, name)
        hparams = getattr(place, "hparams", None)
        value = hparams.get(name) if isinstance(hparams, Mapping) else getattr(hparams, name, None)
        if value is not None:
            return value
    return None


def _latent_shape(module: Any, owner: Any) -> tuple[int, ...]:
    latent_dim = _setting("latent_dim", module, owner)
    if latent_dim is None or not callable(module):
        raise ValueError(
            f"No way to sample from {type(module).__name__} was found. Give it an attribute (or hyperparameter) "
            "`latent_dim`, so that it is called as module(z) with z of shape (n, latent_dim); or a method "
            "`sample_images(n, generator)`; or pass `sampler=callable(module, n, generator)`."
        )
    return (latent_dim,) if isinstance(latent_dim, int) else tuple(latent_dim)


def _num_classes(module: Any, owner: Any) -> int:
    num_classes = _setting("num_classes", module, owner)
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
