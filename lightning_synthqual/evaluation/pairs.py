"""The study of pairs: how alike are generated images and their neighbours, and what do the similarities measure?"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.exhibits import Exhibits
from lightning_synthqual.evaluation.pictures import Pictures
from lightning_synthqual.extractors.registry import PAIRS as PAIR_NETWORKS
from lightning_synthqual.metrics.neighbors import search
from lightning_synthqual.metrics.pictures import ms_ssim, ms_ssim_scales, psnr, shannon_entropy
from lightning_synthqual.metrics.share import Share
from lightning_synthqual.reporting import plots
from lightning_synthqual.reporting.tables import Table

Options = Mapping[str, Any]
Similarity = Callable[[Tensor, Tensor], Tensor]
PIXEL_METRICS: dict[str, Similarity] = {"psnr": psnr, "ms_ssim": ms_ssim}  # higher is more alike; of others lower
GENERATED = ("train", "held_out", "random")
REAL = ("real", "real_random")
_TITLES = {
    "train": "generated images and their nearest training images",
    "held_out": "generated images and their nearest held-out images",
    "random": "generated images and random training images",
}
_BATCH = 32
_SHOWN = ("best", "average", "worst")


class Side(NamedTuple):
    """A set of images and its features, (N, D) by the name of the extractor."""

    pictures: Pictures
    features: Mapping[str, Tensor]


class Matches(NamedTuple):
    """Which image of a set stands beside each image."""

    kind: str
    side: Side
    indices: Tensor


class Study:
    """What is the same for every evaluation: the real sets, their pairs, and how pairs are measured.

    Args:
        train: Training images.
        held_out: Held-out images.
        extractor: In whose feature space neighbours are sought.
        similarities: By name, of two stacks of uint8 images; a name without one is an extractor's, of whose features
            the cosine distance is taken.
        options: Of the family ``pairs``.
        ranks: The processes.
        device: Where to compute.
    """

    def __init__(
        self,
        train: Side,
        held_out: Side,
        extractor: str,
        similarities: Mapping[str, Similarity | None],
        options: Options,
        ranks: Ranks,
        device: torch.device,
    ) -> None:
        self.train, self.held_out = train, held_out
        self.extractor = extractor
        self.similarities = similarities
        self.options = options
        self.ranks = ranks
        self.device = device
        self._share = Share(ranks.rank, ranks.world_size, ranks.total)
        self._real: dict[str, NDArray[np.float64]] | None = None

    def check_sizes(self, real: list[int] | None, generated: list[int]) -> None:
        """Raise unless images of these sizes, (height, width), can be compared.

        Raises:
            ValueError: If they differ, or are too small for a metric.
        """
        if real is not None and real != generated:
            raise _unlike_sizes(generated, real)
        if "ms_ssim" in self.similarities:
            ms_ssim_scales(generated[0], generated[1])

    def compare(self, generated: Side, *, name: str, draws: bool) -> Exhibits:
        """Measure the pairs of the first generated images.

        Args:
            generated: The generated images.
            name: Under which the results are reported.
            draws: Whether this process is the one that draws.

        Raises:
            ValueError: If the two images of a pair are of different sizes.
        """
        count = min(self.options["num_images"], len(generated.features[self.extractor]))
        matches = [
            Matches("train", self.train, self._nearest(generated, self.train, count)),
            Matches("held_out", self.held_out, self._nearest(generated, self.held_out, count)),
            Matches("random", self.train, self._random(count)),
        ]
        measured = self._measure(generated, matches, count)
        shown = {each.kind: self._shown(measured[each.kind]) for each in matches}
        used = sorted({place for rows in shown.values() for places in rows.values() for place in places})
        images = dict(zip(used, generated.pictures.shared(used), strict=True))
        real = self._real_pairs()
        scalars, summary = self._summary(measured | real, name)
        if not draws:
            return Exhibits(scalars)
        pictures = {
            f"{name}_{each.kind}": self._sheet(each, measured[each.kind], shown[each.kind], images) for each in matches
        }
        pictures[f"{name}_entropy"] = self._scatters(measured | real)
        rows: list[tuple[Any, ...]] = [
            (place, each.kind, int(each.indices[place]), *map(_cell, measured[each.kind][place]))
            for each in matches
            for place in range(count)
        ]
        columns = ("generated", "kind", "match", *self.similarities, "entropy")
        return Exhibits(scalars, pictures, {name: Table(columns, rows), f"{name}_summary": summary})

    def _nearest(self, queries: Side, references: Side, count: int) -> Tensor:
        rows, others = queries.features[self.extractor][:count], references.features[self.extractor]
        return search(rows, others, 1, unit=True, share=self._share).indices[:, 0].cpu()

    def _random(self, count: int) -> Tensor:
        draw = np.random.default_rng(self.options["seed"])
        return torch.from_numpy(draw.integers(len(self.train.features[self.extractor]), size=count))

    def _real_pairs(self) -> dict[str, NDArray[np.float64]]:
        """The same for held-out images: what real images show, whatever the generator does."""
        if self._real is None:
            count = min(self.options["num_images"], len(self.held_out.features[self.extractor]))
            matches = [
                Matches("real", self.train, self._nearest(self.held_out, self.train, count)),
                Matches("real_random", self.train, self._random(count)),
            ]
            self._real = self._measure(self.held_out, matches, count)
        return self._real

    def _measure(self, side: Side, matches: Sequence[Matches], count: int) -> dict[str, NDArray[np.float64]]:
        """By kind (count, metrics + 1): the similarities and, last, the mean entropy of each pair."""
        own = side.pictures.own(count)
        results = []
        with self.ranks.together("measuring pairs"):
            for start in range(0, len(own), _BATCH):
                positions = own[start : start + _BATCH]
                images = self._stack(side.pictures.pick(positions))
                results.append(torch.stack([self._pair(side, positions, images, each) for each in matches], dim=1))
        rows = torch.cat(results) if results else None
        table = self.ranks.gather_rows(rows, own, count, torch.device("cpu")).numpy()
        return {each.kind: table[:, place] for place, each in enumerate(matches)}

    def _pair(self, side: Side, positions: list[int], images: Tensor, match: Matches) -> Tensor:
        places = match.indices[positions]
        others = self._stack(match.side.pictures.pick(places.tolist()))
        if images.shape != others.shape:
            raise _unlike_sizes(list(images.shape[2:]), list(others.shape[2:]))
        columns = []
        for name, similarity in self.similarities.items():
            if similarity is not None:
                columns.append(similarity(images, others).double().cpu())
            else:
                one, other = side.features[name][positions], match.side.features[name][places.to(self.device)]
                columns.append((1 - torch.cosine_similarity(one.double(), other.double())).clamp(min=0).cpu())
        columns.append((shannon_entropy(images) + shannon_entropy(others)).cpu() / 2)
        return torch.stack(columns, dim=1)

    def _stack(self, images: list[Tensor]) -> Tensor:
        sizes = sorted({tuple(image.shape[1:]) for image in images})
        if len(sizes) > 1:
            raise ValueError(
                f"The study of pairs compares images of one size, but there are {sizes[0]} and {sizes[-1]} in one set. "
                "Pass `image_size=`."
            )
        return torch.stack(images).to(self.device)

    def _summary(self, measured: Mapping[str, NDArray[np.float64]], name: str) -> tuple[dict[str, float], Table]:
        scalars: dict[str, float] = {}
        rows: list[tuple[Any, ...]] = []
        for column, metric in enumerate(self.similarities):
            for kind, table in measured.items():
                values, _ = _finite(table, column)
                if len(values) < 3:
                    continue
                mean, error = values.mean(), values.std(ddof=1) / len(values) ** 0.5
                r, p = _correlation(table, column)
                best, _, worst = self._places(table[:, column], metric)
                ends = (_cell(table[place, column]) for place in (best, worst))
                rows.append((metric, kind, float(mean), float(error), *ends, r, p, len(values)))
                if len(values) == len(table):
                    scalars |= {f"{name}_{metric}_{kind}": float(mean), f"{name}_{metric}_{kind}_std": float(error)}
                if r is not None:
                    scalars[f"{name}_{metric}_{kind}_entropy_r"] = r
        columns = ("metric", "kind", "mean", "standard error", "best", "worst", "r with entropy", "p", "n")
        return scalars, Table(columns, rows)

    def _places(self, values: NDArray[np.float64], metric: str) -> tuple[int, int, int]:
        """Where the most alike, the average and the least alike pair are."""
        alike = values if metric in PIXEL_METRICS else -values
        finite = values[np.isfinite(values)]
        average = np.abs(values - finite.mean()) if len(finite) else np.zeros(len(values))
        return int(np.argmax(alike)), int(np.argmin(average)), int(np.argmin(alike))

    def _shown(self, table: NDArray[np.float64]) -> dict[str, tuple[int, int, int]]:
        return {name: self._places(table[:, column], name) for column, name in enumerate(self.similarities)}

    def _sheet(
        self,
        match: Matches,
        table: NDArray[np.float64],
        shown: Mapping[str, tuple[int, int, int]],
        images: Mapping[int, Tensor],
    ) -> NDArray[np.uint8]:
        rows = {}
        for column, (metric, places) in enumerate(shown.items()):
            others = match.side.pictures.pick(match.indices[list(places)].tolist())
            rows[metric] = [
                (f"{word}: {table[place, column]:.3g}", _picture(images[place]), _picture(other))
                for word, place, other in zip(_SHOWN, places, others, strict=True)
            ]
        return plots.pairs_sheet(rows, _TITLES[match.kind])

    def _scatters(self, measured: Mapping[str, NDArray[np.float64]]) -> NDArray[np.uint8]:
        panels: dict[str, dict[str, tuple[NDArray[np.float64], NDArray[np.float64], str]]] = {}
        for column, metric in enumerate(self.similarities):
            panels[metric] = {}
            for kind, table in measured.items():
                values, entropy = _finite(table, column)
                r, _ = _correlation(table, column)
                panels[metric][kind] = entropy, values, "r undefined" if r is None else f"r = {r:.2f}"
        return plots.scatters(panels, "entropy of the pair (bits)")


def check_metrics(options: Options, extractors: Collection[str]) -> None:
    """Raise unless ``options['pairs']['metrics']`` is a sequence of known names.

    Args:
        options: Of the family ``pairs``.
        extractors: Whose features there will be.

    Raises:
        TypeError: If it is one string.
        ValueError: If it is empty, or a name is unknown.
    """
    names = options["metrics"]
    if isinstance(names, str):
        raise TypeError(f"`options['pairs']['metrics']` must be a sequence of names. Use `({names!r},)`.")
    if not names:
        raise ValueError("`options['pairs']['metrics']` is empty. Name at least one, for example ('psnr', 'ms_ssim').")
    known = [*PIXEL_METRICS, *PAIR_NETWORKS, *extractors]
    for name in names:
        if name not in known:
            raise ValueError(
                f"`options['pairs']['metrics']` has the name {name!r}, but known are {', '.join(known)}. The cosine "
                f"distance of another extractor's features is known where a metric of that extractor is asked for."
            )


def _unlike_sizes(generated: list[int], real: list[int]) -> ValueError:
    return ValueError(
        f"The study of pairs compares images of one size, but generated ones are {generated[0]}x{generated[1]} and "
        f"real ones {real[0]}x{real[1]} (height x width). Pass `image_size={tuple(generated)}`."
    )


def _picture(image: Tensor) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = image.permute(1, 2, 0).cpu().numpy()
    return pixels


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


def _cell(value: float) -> float | None:
    return None if np.isnan(value) else float(value)  # an exact copy has an infinite PSNR
