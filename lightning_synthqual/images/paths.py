"""Images of a generator along paths in its latent space: pairs whose latents lie a small step apart."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from lightning_synthqual.distributed import Ranks
from lightning_synthqual.images.blocks import own_turns
from lightning_synthqual.images.randomness import Stream, derived_seed, seed_global_generators
from lightning_synthqual.images.sampling import Sampler
from lightning_synthqual.images.transfer import to_device
from lightning_synthqual.metrics.path_length import slerp
from lightning_synthqual.precision import full_precision

_TRIED = 2  # pairs of a check
_NOISE = 1e-3 * 255  # what equal latents may differ by, from rounding in a large batch


def pairs_per_pass(batch_size: int) -> int:
    """Pairs whose images fill a forward pass."""
    return max(1, batch_size // 2)


@dataclass(frozen=True)
class LatentPathSampler:
    """Samples pairs of images a small step apart.

    Pair i depends on (seed, i) alone: its two latents, where between them it stands, and its label. Noise buffers are
    redrawn for every block from (seed, block), the same for both images of a pair, and put back afterwards.

    Args:
        sampler: Generator with its device, labels and range.
        ranks: Processes that share the work.
        space: ``"z"``, on the sphere, or ``"w"``, the output of the mapping network, on straight lines.
        sampling: ``"full"``, anywhere between two latents, or ``"end"``, at the first of them.
        options: Options of the family ``ppl``.
        seed: Random seed of all pairs.
        batch_size: Images of one forward pass.
    """

    sampler: Sampler
    ranks: Ranks
    space: str
    sampling: str
    options: Mapping[str, Any]
    seed: int
    batch_size: int

    def check(self) -> tuple[Tensor, Tensor, list[str]]:
        """Two pairs of steps of no length, and warnings.

        Raises:
            TypeError: If the generator does not return float images.
            ValueError: If a part of it is missing, or equal latents do not give equal images.
        """
        with self._restored_noise():
            one, other = self.sample(0, range(_TRIED), epsilon=0.0)
        apart = float((one - other).abs().max())
        if apart > _NOISE:
            raise ValueError(
                f"Two images of the same latents differ by up to {apart:.3g} of 255 grey levels, so path lengths would "
                "measure noise. If the generator draws noise in its forward pass, let it read the noise from buffers "
                "and name them by `options['ppl']['noise']`, for example '*noise_const'."
            )
        caveat = self._caveat(one)
        return one, other, [] if caveat is None else [caveat]

    def pairs(self, count: int) -> Iterator[tuple[Sequence[int], Tensor, Tensor]]:
        """This process's part of ``count`` pairs: their numbers, and the images at both ends, as ``sample`` does."""
        ranks = self.ranks
        with self._restored_noise():
            turns = own_turns(count, pairs_per_pass(self.batch_size), ranks.replica, ranks.replicas)
            for number, indices, is_main in turns:
                one, other = self.sample(number, indices)
                if is_main:
                    part = slice(ranks.peer, None, ranks.peers)
                    yield indices[part], one[part], other[part]

    def _caveat(self, images: Tensor) -> str | None:
        """What may make these path lengths say little, if anything does; ``images`` are at the ends of no steps."""
        if self.sampler.dtype in (torch.float16, torch.bfloat16):
            return (
                f"The generator's weights are {self.sampler.dtype}, in which steps of {self.options['epsilon']:g} are "
                "lost: its path lengths measure rounding."
            )
        if self.space == "w" or self.options["z_length"] == "gaussian":
            return None
        with self._restored_noise():
            longer, _ = self.sample(0, range(_TRIED), epsilon=0.0, stretch=True)
        if float((images - longer).abs().max()) <= _NOISE:
            return None
        return (
            "Path lengths in z follow StyleGAN: latents have length 1, which its mapping network does not mind. This "
            "generator depends on the length. If it was trained on Gaussian noise, measure it where it was trained: "
            "`options={'ppl': {'z_length': 'gaussian'}}`."
        )

    def sample(
        self, block: int, indices: range, epsilon: float | None = None, stretch: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The images at both ends of the steps ``indices``, which are block number ``block``.

        Args:
            block: Number of the block.
            indices: Numbers of the pairs.
            epsilon: Length of the step; ``None``: as the options have it.
            stretch: Whether latents on the sphere get the length of Gaussian noise.

        Returns:
            Two float32 tensors (n, 3, H, W) on [0, 255], beyond which they may reach.
        """
        z, labels, t = self._ends(indices)
        step = t + (self.options["epsilon"] if epsilon is None else epsilon)
        seed = derived_seed(self.seed, Stream.PATH_BLOCK, block)
        self._redraw_noise(seed)
        seed_global_generators(seed)
        device, dtype = self.sampler.device, self.sampler.dtype
        twice = [] if labels is None else [to_device(labels.repeat(2, *[1] * (labels.ndim - 1)), device)]
        with torch.no_grad(), full_precision(), torch.autocast(device.type, enabled=False):
            if self.space == "w":
                mapping, synthesis = self._part("mapping"), self._part("synthesis")
                first, second = mapping(to_device(z.flatten(0, 1).to(dtype), device), *twice).chunk(2)
                weights = [
                    to_device(each.to(first.dtype), first.device).view(-1, *[1] * (first.ndim - 1))
                    for each in (t, step)
                ]
                images = synthesis(torch.cat([torch.lerp(first, second, weight) for weight in weights]))
            else:
                ends = z.double().flatten(2)
                points = torch.cat([slerp(ends[0], ends[1], each) for each in (t, step)])
                if stretch or self.options["z_length"] == "gaussian":
                    points = points * points.shape[1] ** 0.5
                points = points.view(-1, *z.shape[2:])
                images = self.sampler.module(to_device(points.to(dtype), device), *twice)
        one, other = self._scaled(images, 2 * len(indices)).chunk(2)
        return one, other

    def _ends(self, indices: range) -> tuple[Tensor, Tensor | None, Tensor]:
        """Both latents (2, n, ...), the labels, and where between the latents the steps begin (n,)."""
        generator = torch.Generator()
        shape = self.sampler.latent_shape
        latents, labels, places = [], [], []
        for index in indices:
            generator.manual_seed(derived_seed(self.seed, Stream.PATH_PAIR, index))
            latents.append(torch.randn((2, *shape), generator=generator))
            places.append(torch.rand((), generator=generator, dtype=torch.float64))
            if self.sampler.labels is not None:
                labels.append(self.sampler.draw_label(generator))
        t = torch.stack(places)
        chosen = torch.stack(labels) if labels else None
        return torch.stack(latents, dim=1), chosen, torch.zeros_like(t) if self.sampling == "end" else t

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
    def _restored_noise(self) -> Iterator[None]:
        """Leave the noise buffers as they were found."""
        buffers = self._noise_buffers()
        before = [buffer.detach().clone() for buffer in buffers]
        try:
            yield
        finally:
            for buffer, values in zip(buffers, before, strict=True):
                buffer.copy_(values)
