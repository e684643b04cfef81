"""The study of pairs: how similar are generated images and their neighbours, and what do the similarities measure?"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_synthqual.metrics.base import Influence, Metric, Score, Scores
from lightning_synthqual.metrics.figures import ImageRef, ImageSheet, Points, Scatters, SheetCell, SheetRow, Table
from lightning_synthqual.metrics.neighbors import search
from lightning_synthqual.metrics.options import Options, option
from lightning_synthqual.metrics.similarity import ms_ssim, ms_ssim_scales, psnr, shannon_entropy
from lightning_synthqual.metrics.views import Generated, RealSets, SetView

Similarity = Callable[[Tensor, Tensor], Tensor]
Measured = Mapping[str, NDArray[np.float64]]
PIXEL_SIMILARITIES: dict[str, Similarity] = {"psnr": psnr, "ms_ssim": ms_ssim}  # higher is more similar
_TITLES = {
    "train": "generated images and their nearest training images",
    "held_out": "generated images and their nearest held-out images",
    "random": "generated images and random training images",
}
_REAL_KINDS = ("real", "real_random")  # held-out images against training images
_BATCH = 32
_SHOWN = ("most similar", "average", "least similar")


class Matches(NamedTuple):
    """Which image of a set is compared with each image."""

    kind: str
    view: SetView
    indices: Tensor


class RealPairs(NamedTuple):
    """Both real sets, and what their own pairs show, for any generator."""

    train: SetView
    held_out: SetView
    measured: Measured


class PairsMetric(Metric):
    """Similarity of generated images to their nearest and to random real ones, and its correlation with entropy.

    Neighbours are sought among the features of ``extractor``. A name in the option ``metrics`` is a similarity of
    pixels, a pair network, or an extractor, of whose features the cosine distance is taken.
    """

    family = "pairs"
    both_sets = True
    generated_images = "first"
    reads_pixels = True
    open_names = True  # they depend on its options
    OPTIONS: ClassVar[Options] = {
        "num_images": option(1000, low=3),
        "metrics": option(("psnr", "ms_ssim", "lpips_alex", "dreamsim"), (list, tuple)),
        "seed": option(0, low=0, high=2**32 - 1),
    }

    def check_options(self) -> None:
        """At least one similarity."""
        names = self.options["metrics"]
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ValueError(
                f"`options['pairs']['metrics']` must name at least one similarity, for example ('psnr', 'ms_ssim'), "
                f"but got {names!r}."
            )

    def min_images(self) -> int:
        """Three, for correlations."""
        return 3

    def networks(self) -> Mapping[str, Any]:
        """The similarities that are no functions of pixels."""
        return {name: name for name in self.options["metrics"] if name not in PIXEL_SIMILARITIES}

    def describe(self, generated: SetView) -> dict[str, Any]:
        """The options, and the scales of MS-SSIM, which depend on the size of the images."""
        found = super().describe(generated)
        if "ms_ssim" in self.options["metrics"] and generated.size:
            found["ms_ssim_scales"] = ms_ssim_scales(*generated.size)
        return found

    def prepare_sets(self, real: RealSets) -> RealPairs:
        """Measure the pairs of real images."""
        assert real.train is not None
        assert real.held_out is not None
        train, held_out = real.train, real.held_out
        count = min(self.options["num_images"], held_out.count)
        matches = [
            Matches(_REAL_KINDS[0], train, self._nearest(held_out, train, count)),
            Matches(_REAL_KINDS[1], train, self._random(train, count)),
        ]
        return RealPairs(train, held_out, self._measure(held_out, matches, count))

    def score_set(self, state: RealPairs, generated: Generated) -> Scores:
        """Means, correlations with entropy, and the pairs themselves."""
        count = min(self.options["num_images"], generated.count)
        matches = [
            Matches("train", state.train, self._nearest(generated, state.train, count)),
            Matches("held_out", state.held_out, self._nearest(generated, state.held_out, count)),
            Matches("random", state.train, self._random(state.train, count)),
        ]
        measured = self._measure(generated, matches, count)
        values, summary = self._summary({**measured, **state.measured})
        figures = {f"{self.name}_{each.kind}": self._sheet(each, measured[each.kind]) for each in matches}
        scatters = self._scatters({**measured, **state.measured})
        rows: list[tuple[Any, ...]] = [
            (index, each.kind, int(each.indices[index]), *map(_cell, measured[each.kind][index]))
            for each in matches
            for index in range(count)
        ]
        columns = ("generated", "kind", "match", *self.options["metrics"], "entropy")
        tables = {self.name: Table(columns, rows), f"{self.name}_summary": summary}
        return Scores(values, {**figures, f"{self.name}_entropy": scatters}, tables)

    def try_out(self, generated: Generated, real_size: tuple[int, int] | None) -> Iterator[str]:
        """Raise unless images of these sizes can be compared.

        Raises:
            ValueError: If they differ, or are too small for a similarity.
        """
        if generated.size is not None and real_size is not None and real_size != generated.size:
            raise _mismatched_sizes(generated.size, real_size)
        if "ms_ssim" in self.options["metrics"] and generated.size is not None:
            ms_ssim_scales(*generated.size)
        yield from ()

    def _nearest(self, queries: SetView, references: SetView, count: int) -> Tensor:
        rows, others = self.rows(queries)[:count], self.rows(references)
        return search(rows, others, 1, unit=True, shard=self.runtime.shard).indices[:, 0].cpu()

    def _random(self, view: SetView, count: int) -> Tensor:
        chosen = np.random.default_rng(self.options["seed"]).integers(view.count, size=count)
        return torch.from_numpy(chosen)

    def _measure(self, view: SetView, matches: Sequence[Matches], count: int) -> Measured:
        """By kind (count, similarities + 1): the similarities and, last, the mean entropy of each pair."""
        own = view.images.shard(count)
        results = []
        for start in range(0, len(own), _BATCH):
            indices = own[start : start + _BATCH]
            images = self._stack(view.images.pick(indices))
            results.append(torch.stack([self._pairs(view, indices, images, each) for each in matches], dim=1))
        table = self.runtime.gather(torch.cat(results) if results else None, own, count).numpy()
        return {each.kind: table[:, place] for place, each in enumerate(matches)}

    def _pairs(self, view: SetView, indices: list[int], images: Tensor, match: Matches) -> Tensor:
        matched = match.indices[indices]
        others = self._stack(match.view.images.pick(matched.tolist()))
        if images.shape != others.shape:
            raise _mismatched_sizes(tuple(images.shape[2:]), tuple(others.shape[2:]))
        columns = []
        for name in self.options["metrics"]:
            if name in view.features:
                one, other = (
                    each.rows(name)[rows.to(self.runtime.device)].double()
                    for each, rows in ((view, torch.tensor(indices)), (match.view, matched))
                )
                columns.append((1 - torch.cosine_similarity(one, other)).clamp(min=0).cpu())
            else:
                similarity = PIXEL_SIMILARITIES.get(name) or self.runtime.networks[name]
                columns.append(similarity(images, others).double().cpu())
        columns.append((shannon_entropy(images) + shannon_entropy(others)).cpu() / 2)
        return torch.stack(columns, dim=1)

    def _stack(self, images: list[Tensor]) -> Tensor:
        sizes = sorted({tuple(image.shape[1:]) for image in images})
        if len(sizes) > 1:
            raise ValueError(
                f"The study of pairs compares images of one size, but there are {sizes[0]} and {sizes[-1]} in one set. "
                "Pass `image_size=`."
            )
        return torch.stack(images).to(self.runtime.device)

    def _summary(self, measured: Measured) -> tuple[dict[str, Score], Table]:
        values: dict[str, Score] = {}
        rows: list[tuple[Any, ...]] = []
        for column, name in enumerate(self.options["metrics"]):
            for kind, table in measured.items():
                finite, _ = _finite(table, column)
                if len(finite) < 3:
                    continue
                mean, error = finite.mean(), finite.std(ddof=1) / len(finite) ** 0.5
                r, p = _correlation(table, column)
                most, _, least = _extremes(table[:, column], name)
                ends = (_cell(table[index, column]) for index in (most, least))
                rows.append((name, kind, float(mean), float(error), *ends, r, p, len(finite)))
                if len(finite) == len(table):
                    values[f"{name}_{kind}"] = mean_score(finite, kind)
                if r is not None:
                    values[f"{name}_{kind}_entropy_r"] = correlation_score(r, table, column, kind)
        columns = (
            "metric",
            "kind",
            "mean",
            "standard error",
            "most similar",
            "least similar",
            "r with entropy",
            "p",
            "n",
        )
        return values, Table(columns, rows)

    def _sheet(self, match: Matches, table: NDArray[np.float64]) -> ImageSheet:
        rows = []
        for column, name in enumerate(self.options["metrics"]):
            cells = []
            for word, index in zip(_SHOWN, _extremes(table[:, column], name), strict=True):
                images = ImageRef("generated", index), ImageRef(match.view.role, int(match.indices[index]))
                cells.append(SheetCell(images, f"{word}: {table[index, column]:.3g}"))
            rows.append(SheetRow(name, tuple(cells)))
        return ImageSheet(tuple(rows), title=_TITLES[match.kind])

    def _scatters(self, measured: Measured) -> Scatters:
        panels: dict[str, dict[str, Points]] = {}
        for column, name in enumerate(self.options["metrics"]):
            panels[name] = {}
            for kind, table in measured.items():
                values, entropy = _finite(table, column)
                r, _ = _correlation(table, column)
                panels[name][kind] = Points(entropy, values, "r undefined" if r is None else f"r = {r:.2f}")
        return Scatters(panels, "entropy of the pair (bits)")


def _mismatched_sizes(generated: Sequence[int], real: Sequence[int]) -> ValueError:
    return ValueError(
        f"The study of pairs compares images of one size, but generated ones are {generated[0]}x{generated[1]} and "
        f"real ones {real[0]}x{real[1]} (height x width). Pass `image_size={tuple(generated)}`."
    )


def _extremes(values: NDArray[np.float64], name: str) -> tuple[int, int, int]:
    """Indices of the most similar, the average and the least similar pair."""
    similar = values if name in PIXEL_SIMILARITIES else -values
    finite = values[np.isfinite(values)]
    average = np.abs(values - finite.mean()) if len(finite) else np.zeros(len(values))
    return int(np.argmax(similar)), int(np.argmin(average)), int(np.argmin(similar))


def _finite(table: NDArray[np.float64], column: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The finite values of a similarity, and the entropies of their pairs."""
    rows = table[np.isfinite(table[:, column])]
    return rows[:, column], rows[:, -1]


def _correlation(table: NDArray[np.float64], column: int) -> tuple[float | None, float | None]:
    """Pearson's r of a similarity with the entropy, and its p; ``None`` where one of them does not vary."""
    from scipy.stats import pearsonr

    values, entropy = _finite(table, column)
    if len(values) < 3 or np.ptp(values) == 0 or np.ptp(entropy) == 0:
        return None, None
    found = pearsonr(values, entropy)
    return float(found.statistic), float(found.pvalue)


def mean_score(values: NDArray[np.float64], kind: str) -> Score:
    """The mean over pairs (n,); the rows of real pairs are no generated ones, so that they have no influence."""
    mean = torch.from_numpy(values).mean()
    influence = Influence(mean, torch.from_numpy(values) - mean, mean.new_zeros(0))
    return Score(mean, influence.std) if kind in _REAL_KINDS else Score(mean, influence=influence)


def correlation_score(r: float, table: NDArray[np.float64], column: int, kind: str) -> Score:
    """Pearson's r, with the influence of each pair where all of them are generated images' and have a value."""
    values, entropy = _finite(table, column)
    if kind in _REAL_KINDS or len(values) < len(table):
        return Score(r)
    one, other = (torch.from_numpy((each - each.mean()) / each.std()) for each in (values, entropy))
    influences = one * other - r * (one.square() + other.square()) / 2
    value = influences.new_tensor(r)
    return Score(value, influence=Influence(value, influences - influences.mean(), value.new_zeros(0)))


def _cell(value: float) -> float | None:
    return None if np.isnan(value) else float(value)  # an exact copy has an infinite PSNR
