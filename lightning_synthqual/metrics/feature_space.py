"""Where training, held-out and generated features lie, in the plane."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_synthqual.checking import Rule
from lightning_synthqual.metrics.base import Metric, Scores
from lightning_synthqual.metrics.figures import Points, Scatters
from lightning_synthqual.metrics.options import Options, option
from lightning_synthqual.metrics.views import Generated, RealSets

_FIRST = 50  # principal components that t-SNE and UMAP see
_TITLES = {"pca": "principal components of training data", "tsne": "t-SNE", "umap": "UMAP"}


class FeatureSpace(Metric):
    """Projections of the features of all sets; a figure and no number.

    The principal components are those of the training features; t-SNE and UMAP see all sets at once. The figure is the
    same for the same seed. Principal components are the default; t-SNE and UMAP, on request, take minutes for thousands
    of images and begin from the first 50 principal components.
    """

    family = "feature_space"
    both_sets = True
    OPTIONS: ClassVar[Options] = {
        "methods": option(("pca",), (list, tuple), items=Rule(choices=tuple(_TITLES))),
        "num_images": option(1000, low=2),
        "seed": option(0, low=0, high=2**32 - 1),
    }

    def check_options(self) -> None:
        """UMAP is an optional dependency."""
        if not self.options["methods"]:
            raise ValueError("`options['feature_space']['methods']` is empty. Name at least one, for example ('pca',).")
        if "umap" in self.options["methods"]:
            try:
                import umap  # noqa: F401
            except ImportError:
                raise ModuleNotFoundError(
                    "The projection 'umap' needs the package umap-learn: `pip install lightning-synthqual[umap]`."
                ) from None

    def min_images(self) -> int:
        """Three, which a plane needs."""
        return 3

    def prepare_sets(self, real: RealSets) -> dict[str, Tensor]:
        """The features of training and held-out images."""
        assert real.train is not None
        assert real.held_out is not None
        return {"training": self.rows(real.train), "held-out": self.rows(real.held_out)}

    def score_set(self, state: dict[str, Tensor], generated: Generated) -> Scores:
        """The projections; the first process makes them."""
        if self.runtime.shard.rank != 0:
            return Scores({})
        sets = {**state, "generated": self.rows(generated)}
        rows = {kind: _choose(each, self.options["num_images"], self.options["seed"]) for kind, each in sets.items()}
        ends = np.cumsum([len(part) for part in rows.values()])[:-1]
        panels = {}
        for method in self.options["methods"]:
            every = np.concatenate(list(rows.values()))
            with self.runtime.progress(f"{self.name}: {_TITLES[method]}", None):
                points = _project(every, len(rows["training"]), method, self.options["seed"])
            parts = zip(rows, np.split(points, ends), strict=True)
            panels[_TITLES[method]] = {kind: Points(part[:, 0], part[:, 1]) for kind, part in parts}
        return Scores({}, {self.name: Scatters(panels, title=f"features: {self.extractor}")})


def _choose(features: Tensor, count: int, seed: int) -> NDArray[np.float64]:
    rows = features.double().cpu().numpy()
    if len(rows) <= count:
        return rows
    return rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:count])]


def _project(rows: NDArray[np.float64], training: int, method: str, seed: int) -> NDArray[np.float64]:
    """Points (N, 2) of rows (N, D), of which the first ``training`` are training data."""
    from sklearn.decomposition import PCA

    projector: Any
    if method == "pca":
        components = PCA(min(2, rows.shape[1]), svd_solver="full").fit(rows[:training])
        points = components.transform(rows)
        return np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    if rows.shape[1] > _FIRST < len(rows):
        rows = PCA(_FIRST, random_state=seed).fit_transform(rows)
    if method == "tsne":
        from sklearn.manifold import TSNE

        projector = TSNE(perplexity=min(30.0, (len(rows) - 1) / 3), init="pca", random_state=seed)
    else:
        import umap

        projector = umap.UMAP(random_state=seed, n_jobs=1)
    return np.asarray(projector.fit_transform(rows))
