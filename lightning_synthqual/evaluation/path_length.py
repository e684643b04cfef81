"""Perceptual path length of a generator: latents a small step apart, their images, and how far those differ."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from fnmatch import fnmatch
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from lightning_synthqual.distributed import Ranks
from lightning_synthqual.extractors.base import full_precision
from lightning_synthqual.extractors.registry import PAIRS as PAIR_NETWORKS
from lightning_synthqual.images.blocks import own_turns
from lightning_synthqual.images.randomness import derived_seed, seed_global_generators
from lightning_synthqual.images.sampling import Sampler
from lightning_synthqual.importing import resolve_object
from lightning_synthqual.metrics.path_length import (
    PUBLISHED,
    Path,
    crop_middle,
    path_length,
    shrink,
    shrink_factor,
    slerp,
)
from lightning_synthqual.reporting.progress import Progress

Options = Mapping[str, Any]
Distance = Callable[[Tensor, Tensor], Tensor]
_PAIR, _BLOCK = 3, 4  # separate the streams of random numbers from those of the samples
_TRIED = 2  # pairs of a dry run
_NOISE = 1e-3  # of the images' range: what equal latents may differ by, from rounding in a large batch


def path_of(name: str, options: Options) -> Path:
    """Which steps the metric ``name`` measures."""
    crop = options["crop"]
    if name in PUBLISHED:
        published = PUBLISHED[name]
        return published if crop is None else Path(published.space, published.sampling, crop)
    return Path(options["space"], options["sampling"], bool(crop))


def check_options(options: Options, given: Options, names: Sequence[str]) -> None:
    """Raise unless the options of the family ``ppl`` make sense.

    Args:
        options: All of them.
        given: Those that the user has set.
        names: The metrics that were asked for.

    Raises:
        TypeError: If the distance is neither a name nor a callable.
        ValueError: If a value is impossible.
    """
    for name in ("space", "sampling"):
        if name in given and "ppl" not in names:
            raise ValueError(
                f"`options['ppl'][{name!r}]` is for the metric `ppl`; {names[0]} says by its name what it measures. "
                "Ask for `ppl`, or leave the option out."
            )
    for name, allowed in (("space", ("z", "w")), ("sampling", ("full", "end")), ("z_length", ("unit", "gaussian"))):
        if options[name] not in allowed:
            raise ValueError(
                f"`options['ppl'][{name!r}]` must be {' or '.join(map(repr, allowed))}: {options[name]!r}."
            )
    if options["crop"] not in (None, True, False):
        raise ValueError(f"`options['ppl']['crop']` must be True, False or None, but got {options['crop']!r}.")
    if not isinstance(options["epsilon"], float) or not 0 < options["epsilon"] <= 1:
        raise ValueError(f"`options['ppl']['epsilon']` must be a number in (0, 1], but got {options['epsilon']!r}.")
    count = options["num_pairs"]
    if not isinstance(count, int) or isinstance(count, bool) or count < 2:
        raise ValueError(f"`options['ppl']['num_pairs']` must be an integer of at least 2, but got {count!r}.")
    distance = options["distance"]
    if isinstance(distance, str) and not is_network(distance) and "." not in distance:
        raise ValueError(
            f"`options['ppl']['distance']` must be one of {', '.join(PAIR_NETWORKS)}, or a callable (images, "
            f"images) -> (N,) or its import path, but got {distance!r}."
        )
    if not is_network(distance) and not callable(resolve_distance(distance)):
        raise TypeError(
            "`options['ppl']['distance']` must be a name or a callable (images, images) -> (N,), but got "
            f"{type(distance).__name__}."
        )


def is_network(distance: Any) -> bool:
    """Whether a distance is named as a pair network."""
    return isinstance(distance, str) and distance in PAIR_NETWORKS


def pairs_of_a_pass(batch_size: int) -> int:
    """Pairs whose images fill a forward pass."""
    return max(1, batch_size // 2)


def resolve_distance(distance: Any) -> Any:
    """The user's callable, itself or by its import path."""
    return resolve_object(distance, "options['ppl']['distance']")


class Walker:
    """Draws pairs of images a small step apart.

    Pair i depends on (seed, i) alone: its two latents, where between them it stands, and its label. Noise buffers are
    redrawn for every block from (seed, block), the same for both images of a pair, and put back afterwards.

    Args:
        sampler: The generator, its device, labels and range.
        options: Of the family ``ppl``.
        seed: Of everything that is drawn.
        batch_size: Images of one forward pass.
    """

    def __init__(self, sampler: Sampler, options: Options, seed: int, batch_size: int) -> None:
        self.sampler = sampler
        self.options = options
        self.seed = seed
        self.batch_size = batch_size

    def check(self, path: Path) -> tuple[Tensor, Tensor]:
        """Try the generator with two pairs.

        Returns:
            The images of two steps of no length.

        Raises:
            TypeError: If it does not return float images.
            ValueError: If a part of it is missing, or equal latents do not give equal images.
        """
        with self.noise_put_back():
            one, other = self.draw(path, 0, range(_TRIED), epsilon=0.0)
        apart = float((one - other).abs().max())
        if apart > _NOISE * 255:
            raise ValueError(
                f"Two images of the same latents differ by up to {apart:.3g} of 255 grey levels, so path lengths would "
                "measure noise. If the generator draws noise in its forward pass, let it read the noise from buffers "
                "and name them by `options['ppl']['noise']`, for example '*noise_const'."
            )
        return one, other

    def doubt(self, path: Path, images: Tensor) -> str | None:
        """What may make a length of these steps say little, if anything does.

        Args:
            path: Which steps.
            images: What ``check`` returned first.
        """
        if self.sampler.dtype in (torch.float16, torch.bfloat16):
            return (
                f"The generator's weights are {self.sampler.dtype}, in which steps of {self.options['epsilon']:g} are "
                "lost: its path lengths measure rounding."
            )
        if path.space == "w" or self.options["z_length"] == "gaussian":
            return None
        with self.noise_put_back():
            longer, _ = self.draw(path, 0, range(_TRIED), epsilon=0.0, stretch=True)
        if float((images - longer).abs().max()) <= _NOISE * 255:
            return None
        return (
            "Path lengths in z follow StyleGAN: latents have length 1, which its mapping network does not mind. This "
            "generator depends on the length. If it was trained on Gaussian noise, measure it where it was trained: "
            "`options={'ppl': {'z_length': 'gaussian'}}`."
        )

    def blocks(self, path: Path, ranks: Ranks) -> Iterator[tuple[range, Tensor, Tensor]]:
        """This process's share of all pairs: their numbers, and the images at either end, as ``draw`` gives them."""
        with self.noise_put_back():
            size = pairs_of_a_pass(self.batch_size)
            turns = own_turns(self.options["num_pairs"], size, ranks.replica, ranks.replicas)
            for number, positions, counts in turns:
                one, other = self.draw(path, number, positions)
                if counts:
                    part = slice(ranks.peer, None, ranks.peers)
                    yield positions[part], one[part], other[part]

    def draw(
        self, path: Path, block: int, indices: range, epsilon: float | None = None, stretch: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The images at both ends of the steps ``indices``, which are block number ``block``.

        Args:
            path: Which steps.
            block: Number of the block.
            indices: Numbers of the pairs.
            epsilon: Length of the step; ``None``: as the options have it.
            stretch: Whether latents on the sphere get the length of Gaussian noise.

        Returns:
            Two float32 tensors (n, 3, H, W) on [0, 255], beyond which they may reach.
        """
        z, labels, t = self._ends(path, indices)
        step = t + (self.options["epsilon"] if epsilon is None else epsilon)
        seed = derived_seed(self.seed, _BLOCK, block)
        self._redraw_noise(seed)
        seed_global_generators(seed)
        device, dtype = self.sampler.device, self.sampler.dtype
        twice = [] if labels is None else [labels.repeat(2, *[1] * (labels.ndim - 1)).to(device)]
        with torch.no_grad(), full_precision(), torch.autocast(device.type, enabled=False):
            if path.space == "w":
                mapping, synthesis = self._part("mapping"), self._part("synthesis")
                first, second = mapping(z.flatten(0, 1).to(device, dtype), *twice).chunk(2)
                weights = [each.to(first).view(-1, *[1] * (first.ndim - 1)) for each in (t, step)]
                images = synthesis(torch.cat([torch.lerp(first, second, weight) for weight in weights]))
            else:
                ends = z.double().flatten(2)
                points = torch.cat([slerp(ends[0], ends[1], each) for each in (t, step)])
                if stretch or self.options["z_length"] == "gaussian":
                    points = points * points.shape[1] ** 0.5
                points = points.view(-1, *z.shape[2:])
                images = self.sampler.module(points.to(device, dtype), *twice)
        one, other = self._scaled(images, 2 * len(indices)).chunk(2)
        return one, other

    def _ends(self, path: Path, indices: range) -> tuple[Tensor, Tensor | None, Tensor]:
        """Both latents (2, n, ...), the labels, and where between the latents the steps begin (n,)."""
        generator = torch.Generator()
        shape = self.sampler.latent_shape
        latents, labels, places = [], [], []
        for index in indices:
            generator.manual_seed(derived_seed(self.seed, _PAIR, index))
            latents.append(torch.randn((2, *shape), generator=generator))
            places.append(torch.rand((), generator=generator, dtype=torch.float64))
            if self.sampler.labels is not None:
                labels.append(self.sampler.draw_label(generator))
        t = torch.stack(places)
        chosen = torch.stack(labels) if labels else None
        return torch.stack(latents, dim=1), chosen, torch.zeros_like(t) if path.sampling == "end" else t

    def _part(self, role: str) -> Callable[..., Tensor]:
        """The mapping or the synthesis network: a submodule or method of what is sampled."""
        name, module = self.options[role], self.sampler.module
        try:
            part: Callable[..., Tensor] = attrgetter(name)(module)
        except AttributeError:
            raise ValueError(
                f"Path lengths in w need `{name}` of {type(module).__name__}, which is not there: "
                "`mapping(z[, labels]) -> w` and `synthesis(w) -> images`, submodules or methods. Name yours, for "
                "example `options={'ppl': {'mapping': 'generator.mapping', 'synthesis': 'generator.synthesis'}}`, or "
                "measure in z."
            ) from None
        if not callable(part):
            raise TypeError(f"`{name}` of {type(module).__name__} must be callable, but is {type(part).__name__}.")
        return part

    def _scaled(self, images: Any, count: int) -> Tensor:
        """The generator's floats as float32 on [0, 255], three channels."""
        if not isinstance(images, Tensor) or not images.is_floating_point():
            what = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise TypeError(f"Path lengths need float images, which small steps change a little, but got {what}.")
        if images.ndim != 4 or len(images) != count or images.shape[1] not in (1, 3):
            raise ValueError(f"Expected images ({count}, 1 or 3, H, W), but got the shape {tuple(images.shape)}.")
        if not images.isfinite().all():
            bad = int((~images.flatten(1).isfinite().all(dim=1)).sum())
            raise ValueError(f"{bad} of {count} images of a path are NaN or infinite.")
        low, high = self.sampler.image_range
        return ((images.float() - low) * (255 / (high - low))).expand(-1, 3, -1, -1)

    def _noise_buffers(self) -> list[Tensor]:
        module = self.sampler.module
        if not isinstance(module, nn.Module):
            return []
        return [buffer for name, buffer in module.named_buffers() if fnmatch(name, self.options["noise"])]

    def _redraw_noise(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for buffer in self._noise_buffers():
            buffer.copy_(torch.randn(buffer.shape, generator=generator))

    @contextmanager
    def noise_put_back(self) -> Iterator[None]:
        """Leave the noise buffers as they were found."""
        buffers = self._noise_buffers()
        before = [buffer.detach().clone() for buffer in buffers]
        try:
            yield
        finally:
            for buffer, values in zip(buffers, before, strict=True):
                buffer.copy_(values)


def compare(one: Tensor, other: Tensor, path: Path, distance: Distance) -> Tensor:
    """Distances (n,), float64, of the images at either end of a step, cropped and shrunk as published.

    Raises:
        TypeError: If the distance does not return a tensor.
        ValueError: If it returns something else than (n,) finite numbers.
    """
    factor = shrink_factor(*one.shape[2:])
    ends = [shrink(crop_middle(images) if path.crop else images, factor) for images in (one, other)]
    with torch.no_grad(), full_precision():
        found = distance(ends[0], ends[1])
    if not isinstance(found, Tensor) or found.shape != (len(one),):
        what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"The distance of {len(one)} pairs of images must have the shape ({len(one)},), but got {what}."
        )
    if not found.isfinite().all():
        raise ValueError("The distance of two images of a path came out NaN or infinite.")
    return found.double()


class PathLengths:
    """The path lengths of a generator that were asked for.

    Args:
        names: Of the metrics.
        options: Of the family ``ppl``.
        distance: Of two stacks of images (n, 3, H, W) on [0, 255] to (n,).
        seed: Of everything that is drawn.
        batch_size: Images of one forward pass.
    """

    def __init__(self, names: Sequence[str], options: Options, distance: Distance, seed: int, batch_size: int) -> None:
        self.paths = {name: path_of(name, options) for name in names}
        self.options = options
        self.distance = distance
        self.seed = seed
        self.batch_size = batch_size

    def check(self, sampler: Sampler, device: torch.device) -> list[str]:
        """Try the generator and the distance with two pairs of each kind.

        Returns:
            Warnings.

        Raises:
            TypeError: If the generator does not return float images.
            ValueError: If a part of it is missing, equal latents do not give equal images, or the distance is unfit.
        """
        walker = self._walker(sampler)
        warnings = []
        for path in self.paths.values():
            one, other = walker.check(path)
            compare(one.to(device), other.to(device), path, self.distance)
            warnings.append(walker.doubt(path, one))
        return [warning for warning in warnings if warning is not None]

    def measure(self, sampler: Sampler, ranks: Ranks, device: torch.device, progress: Progress) -> dict[str, float]:
        """The lengths and their standard errors by name, all processes together.

        Args:
            sampler: The generator.
            ranks: The processes.
            device: Where the distance is measured.
            progress: Where to show how far it is.
        """
        walker, count = self._walker(sampler), self.options["num_pairs"]
        found: dict[str, float] = {}
        for name, path in self.paths.items():
            positions: list[int] = []
            results = []
            with ranks.together(name), progress.stage(name, count) as advance:
                for numbers, one, other in walker.blocks(path, ranks):
                    if len(numbers):
                        results.append(compare(one.to(device), other.to(device), path, self.distance).cpu())
                        positions += numbers
                    advance(len(numbers) * ranks.world_size)
            rows = torch.cat(results) if results else None
            distances = ranks.gather_rows(rows, positions, count, torch.device("cpu"))
            length = path_length(distances, self.options["epsilon"])
            found |= {name: float(length.value), f"{name}_std": float(length.std)}
        return found

    def describe(self) -> dict[str, dict[str, Any]]:
        """What makes each length, for the protocol."""
        options, distance = self.options, self.options["distance"]
        if not isinstance(distance, str):
            distance = getattr(distance, "__qualname__", type(distance).__name__)
        common = {"family": "ppl", "distance": distance, "pairs_of_a_pass": pairs_of_a_pass(self.batch_size)}
        common |= {name: options[name] for name in ("num_pairs", "epsilon", "noise")}
        own = {"z": ("z_length",), "w": ("mapping", "synthesis")}
        return {
            name: common | asdict(path) | {key: options[key] for key in own[path.space]}
            for name, path in self.paths.items()
        }

    def _walker(self, sampler: Sampler) -> Walker:
        return Walker(sampler, self.options, self.seed, self.batch_size)
