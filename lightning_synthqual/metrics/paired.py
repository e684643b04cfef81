"""Generated images against what they are to look like: PSNR, MS-SSIM, LPIPS and DreamSim of each pair."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_synthqual.metrics.base import Influence, Metric, Score
from lightning_synthqual.metrics.figures import ImageRef, ImageSheet, SheetCell, SheetRow
from lightning_synthqual.metrics.options import Options, option
from lightning_synthqual.metrics.similarity import ms_ssim, ms_ssim_scales, psnr
from lightning_synthqual.metrics.views import Generated, RealSets, SetView

_BATCH = 32
_SHOWN = 3  # pairs in a row of a sheet


class PairedMetric(Metric):
    """The mean similarity of generated images and their targets, one value per pair, with its standard error.

    A sheet shows the best, average and worst pairs, each with the generated image on the left.
    """

    family = "paired"
    reads_real = False
    reads_targets = True
    generated_images = "all"

    @abstractmethod
    def similarity(self, images: Tensor, targets: Tensor) -> Tensor:
        """One value (N,) for each pair of uint8 images (N, 3, H, W)."""

    def prepare_sets(self, real: RealSets) -> None:
        """Nothing: real images take no part."""

    def try_out(self, generated: Generated, real_size: tuple[int, int] | None) -> Iterator[str]:
        """Compare two pairs.

        Raises:
            ValueError: If targets are of another size than the images, or both are too small for a similarity.
        """
        self._measure(generated, list(range(generated.count)))
        yield from ()

    def score_set(self, state: None, generated: Generated) -> Score:
        """The mean over all pairs, and the best, average and worst ones."""
        own = generated.images.shard(generated.count)
        parts = [self._measure(generated, own[start : start + _BATCH]) for start in range(0, len(own), _BATCH)]
        values = self.runtime.gather(torch.cat(parts) if parts else None, own, generated.count)
        figures = {f"{self.name}_pairs": self._sheet(values)}
        mean = values.mean()
        if not mean.isfinite():  # the PSNR of equal images
            return Score(mean, figures=figures)
        return Score(mean, influence=Influence(mean, values - mean, mean.new_zeros(0)), figures=figures)

    def _measure(self, generated: Generated, indices: list[int]) -> Tensor:
        """The similarities of some pairs (n,), on the CPU."""
        assert generated.targets is not None
        images, targets = generated.images.pick(indices), generated.targets.pick(indices)
        for index, image, target in zip(indices, images, targets, strict=True):
            if image.shape != target.shape:
                raise _other_size(index, image, target)
        values = torch.empty(len(indices), dtype=torch.float64)
        for shape in dict.fromkeys(image.shape for image in images):
            places = [place for place, image in enumerate(images) if image.shape == shape]
            one, other = (
                torch.stack([stack[place] for place in places]).to(self.runtime.device) for stack in (images, targets)
            )
            values[places] = self.similarity(one, other).detach().double().cpu()
        return values

    def _sheet(self, values: Tensor) -> ImageSheet:
        """The best, the average and the worst pairs."""
        finite = values[values.isfinite()]
        off = (values - finite.mean()).abs() if len(finite) else values
        order = values.argsort(descending=self.direction == "max", stable=True)
        rows = {"best": order[:_SHOWN], "average": off.argsort(stable=True)[:_SHOWN], "worst": order.flip(0)[:_SHOWN]}
        return ImageSheet(
            tuple(SheetRow(word, tuple(_cell(int(i), values) for i in places)) for word, places in rows.items()),
            title=f"{self.name}: generated images and their targets",
        )


class Psnr(PairedMetric):
    """Peak signal-to-noise ratio in dB, higher is more similar; left out where a pair is equal, which is infinite."""

    direction = "max"

    def similarity(self, images: Tensor, targets: Tensor) -> Tensor:
        """As the function."""
        return psnr(images, targets)


class MsSsim(PairedMetric):
    """Multi-scale structural similarity, higher is more similar."""

    direction = "max"

    def describe(self, generated: SetView) -> dict[str, Any]:
        """The number of scales, which depends on the size of the images."""
        scales = {} if generated.size is None else {"ms_ssim_scales": ms_ssim_scales(*generated.size)}
        return {**super().describe(generated), **scales}

    def similarity(self, images: Tensor, targets: Tensor) -> Tensor:
        """As the function."""
        return ms_ssim(images, targets)


class Lpips(PairedMetric):
    """The LPIPS distance, lower is more similar; AlexNet's as published, or VGG's."""

    direction = "min"
    OPTIONS: ClassVar[Options] = {"lpips": option("lpips_alex", choices=("lpips_alex", "lpips_vgg"))}

    def networks(self) -> Mapping[str, Any]:
        """The distance."""
        return {"distance": self.options["lpips"]}

    def similarity(self, images: Tensor, targets: Tensor) -> Tensor:
        """The network's distance."""
        return self.runtime.networks["distance"](images, targets)


class DreamSim(PairedMetric):
    """The DreamSim distance, lower is more similar."""

    direction = "min"

    def networks(self) -> Mapping[str, Any]:
        """The distance."""
        return {"distance": "dreamsim"}

    def similarity(self, images: Tensor, targets: Tensor) -> Tensor:
        """The network's distance."""
        return self.runtime.networks["distance"](images, targets)


def _cell(index: int, values: Tensor) -> SheetCell:
    return SheetCell((ImageRef("generated", index), ImageRef("target", index)), f"#{index}: {values[index]:.3g}")


def _other_size(index: int, image: Tensor, target: Tensor) -> ValueError:
    (height, width), (wanted, across) = image.shape[1:], target.shape[1:]
    return ValueError(
        f"Generated image {index} is {height}x{width}, but its target is {wanted}x{across} (height x width). Pass "
        f"`image_size=({height}, {width})` to resize targets and real images, or let the sampler return images of the "
        "target's size."
    )
