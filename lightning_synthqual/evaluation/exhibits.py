"""What an evaluation shows beside its scalars: neighbours, and where the sets lie in feature space."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_synthqual.evaluation.pictures import Pictures
from lightning_synthqual.reporting import plots
from lightning_synthqual.reporting.tables import Table

Options = Mapping[str, Any]
_PROJECTIONS = ("pca", "tsne", "umap")


@dataclass(frozen=True)
class Exhibits:
    """Further scalars, pictures and tables by name."""

    scalars: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)

    def __or__(self, other: "Exhibits") -> "Exhibits":
        return Exhibits(self.scalars | other.scalars, self.pictures | other.pictures, self.tables | other.tables)


def neighbors(
    found: Mapping[str, Tensor],
    options: Options,
    generated: Pictures,
    train: Pictures,
    held_out: Pictures,
    *,
    ending: str,
    draws: bool,
) -> Exhibits:
    """The generated images that are nearest to training data compared with held-out data, beside both neighbours.

    Args:
        found: What the ``memorization`` family found.
        options: Of that family.
        generated: The generated images.
        train: The training images.
        held_out: The held-out images.
        ending: Of the names, where several extractors look at the same images.
        draws: Whether this process is the one that draws.
    """
    to_train, to_held_out = found["train_distances"].cpu(), found["held_out_distances"][:, 0].cpu()
    train_places, held_out_places = found["train_indices"][:, 0].cpu(), found["held_out_indices"][:, 0].cpu()
    nearness = to_train[:, 0] / to_held_out.clamp(min=1e-12)
    worst = nearness.argsort(stable=True)[: options["shown"]]
    images = generated.shared(worst.tolist())
    if not draws:
        return Exhibits()
    titles = ("generated", "nearest training", "nearest held-out")
    rows: list[tuple[Any, ...]] = []
    lines = []
    matches = train.pick(train_places[worst].tolist()), held_out.pick(held_out_places[worst].tolist())
    for place, image, *others in zip(worst.tolist(), images, *matches, strict=True):
        pictures = [each.permute(1, 2, 0).numpy() for each in (image, *others)]
        near, second, far = (float(value) for value in (*to_train[place], to_held_out[place]))
        positions = place, int(train_places[place]), int(held_out_places[place])
        lines.append((pictures, [f"#{place}", f"#{positions[1]}: {near:.3g}", f"#{positions[2]}: {far:.3g}"]))
        rows.append((*positions, *pictures, near, second, far))
    columns = ("generated", "training", "held-out", *(f"{title} image" for title in titles))
    distances = ("distance to training", "to second nearest training", "distance to held-out")
    histograms = {
        "generated to training": to_train[:, 0].numpy(),
        "generated to held-out": to_held_out.numpy(),
        "held-out to training": found["null_distances"].cpu().numpy(),
    }
    label = f"distance to the nearest neighbour ({options['distance']}{ending.replace('_', ', ', 1)})"
    return Exhibits(
        pictures={
            f"neighbors{ending}": plots.neighbors_sheet(lines, titles),
            f"distances{ending}": plots.distance_histograms(histograms, label),
        },
        tables={f"neighbors{ending}": Table((*columns, *distances), rows)},
    )


def feature_space(sets: Mapping[str, Tensor], options: Options, extractor: str, name: str) -> Exhibits:
    """Training, held-out and generated features in the plane; the same for the same seed.

    The principal components are those of the training features; t-SNE and UMAP see all sets together.

    Args:
        sets: Features (N, D) by ``"training"``, ``"held-out"``, ``"generated"``.
        options: ``methods``, ``num_images`` of each set, ``seed``.
        extractor: Whose features they are.
        name: Of the picture.
    """
    rows = {kind: _choose(features, options["num_images"], options["seed"]) for kind, features in sets.items()}
    panels = {}
    for method in options["methods"]:
        points = _project(np.concatenate(list(rows.values())), len(rows["training"]), method, options["seed"])
        ends = np.cumsum([len(part) for part in rows.values()])[:-1]
        panels[_TITLES[method]] = dict(zip(rows, np.split(points, ends), strict=True))
    return Exhibits(pictures={name: plots.feature_spaces(panels, f"features: {extractor}")})


_TITLES = {"pca": "principal components of training data", "tsne": "t-SNE", "umap": "UMAP"}


def check_projections(options: Options) -> None:
    """Raise unless every method is known and installed.

    Raises:
        ModuleNotFoundError: For UMAP where it is not installed.
        ValueError: For an unknown method.
    """
    for method in options["methods"]:
        if method not in _PROJECTIONS:
            raise ValueError(
                f"`options['feature_space']['methods']` takes {', '.join(_PROJECTIONS)}, but got {method!r}."
            )
        if method == "umap":
            try:
                import umap  # noqa: F401
            except ImportError:
                raise ModuleNotFoundError(
                    "The projection 'umap' needs the package umap-learn: `pip install lightning-synthqual[umap]`."
                ) from None


def _choose(features: Tensor, count: int, seed: int) -> NDArray[np.float64]:
    rows = features.double().cpu().numpy()
    if len(rows) <= count:
        return rows
    return rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:count])]


def _project(rows: NDArray[np.float64], training: int, method: str, seed: int) -> NDArray[np.float64]:
    """Points (N, 2) of rows (N, D), of which the first ``training`` are training data."""
    if method == "pca":
        from sklearn.decomposition import PCA

        components = PCA(min(2, rows.shape[1]), svd_solver="full").fit(rows[:training])
        points = components.transform(rows)
        return np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(rows) - 1) / 3)
        return np.asarray(TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(rows))
    import umap

    return np.asarray(umap.UMAP(random_state=seed, n_jobs=1).fit_transform(rows))
