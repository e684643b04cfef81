"""Metric families: what is computed together from one pair of feature sets, and what it may be told.

A family brings a metric's function and an evaluation together: what can be prepared from the reference alone, what is
scored, with which options, and what has to be so for the value to mean anything.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

from torch import Tensor

from lightning_synthqual.metrics.frechet import Gaussian, distance_with_error, fit_gaussian
from lightning_synthqual.metrics.inception import inception_score
from lightning_synthqual.metrics.kernel import Kernel, Sums, exact_distance, subset_distance, within_sums
from lightning_synthqual.metrics.manifold import both_sets_error, insiders, occupants
from lightning_synthqual.metrics.memorization import RealNeighbors
from lightning_synthqual.metrics.neighbors import squared_radii
from lightning_synthqual.metrics.share import Share

Options = Mapping[str, Any]
Scores = dict[str, Tensor]


# Named functions, not lambdas: callbacks that hold resolved metrics have to pickle.
def _two_rows(options: Options) -> int:
    return 2


def _nothing(real: Tensor, options: Options, share: Share) -> None:
    return None


@dataclass(frozen=True)
class Protocol:
    """The sample counts of a published protocol.

    Args:
        num_samples: Generated images, neither more nor fewer.
        max_real: Real images if there are more, otherwise all of them; ``None``: all of them in any case.
        reads_real: Whether real images matter at all.
    """

    num_samples: int
    max_real: int | None = None
    reads_real: bool = True

    def fault(self, generated: int, real: int, role: str, complete: bool) -> str | None:
        """What of an evaluation is not as published, as the end of a sentence, or ``None``.

        Args:
            generated: Number of generated images.
            real: Number of images of the reference.
            role: ``"real"`` or ``"held_out"``.
            complete: Whether they are all there are.
        """
        if generated != self.num_samples:
            return (
                f"generates {self.num_samples} images, but here are {generated}. Set `num_samples={self.num_samples}`"
            )
        if not self.reads_real:
            return None
        if role != "real":
            return "compares with the training images. Set `reference='real'`"
        if self.max_real is None:
            return None if complete else f"takes all real images, but here are {real} of them. Set `num_real=None`"
        if real > self.max_real or (real < self.max_real and not complete):
            return f"takes {self.max_real} real images, but here are {real}. Set `num_real={self.max_real}`"
        return None


class BothSets(NamedTuple):
    """The rows of both real sets."""

    train: Tensor
    held_out: Tensor


@dataclass(frozen=True)
class Family:
    """Scalars that are computed together.

    Args:
        name: The key of ``options`` that concerns the family.
        prepare: ``(real, options, share) -> state``: the part that depends on the reference alone, done once.
        score: ``(real, state, fake, options, share) -> {value: scalar}``, with standard errors as ``<value>_std``, and
            whatever else pictures and tables are made of.
        options: What ``options[name]`` may hold, with the defaults.
        min_rows: Fewest rows a set may have, given the options.
        wants_more_rows_than_columns: Whether the estimate is biased for N < D, which is worth a warning.
        output: Which of the extractor's outputs it reads; ``None``: its embedding.
        floor: Whether real images of the reference's kind have a value worth knowing, and if so with how many of them:
            as many as were generated where the value depends on the number, else all.
        gap: Whether values against held-out and against training images may be subtracted.
        protocol: The sample counts without which the family's names are not to be used.
        needs_both: Whether ``real`` is not the reference but training and held-out rows, as ``BothSets``.
    """

    name: str
    prepare: Callable[[Any, Options, Share], Any]
    score: Callable[[Any, Any, Tensor, Options, Share], Scores]
    options: Options = field(default_factory=dict)
    min_rows: Callable[[Options], int] = _two_rows
    wants_more_rows_than_columns: bool = False
    output: str | None = None
    floor: Literal["of all", "of as many"] | None = None
    gap: bool = False
    protocol: Protocol | None = None
    needs_both: bool = False


@dataclass(frozen=True)
class _BeyondFeatures:
    """What features alone do not tell.

    Args:
        name: The key of ``options`` that concerns it.
        options: What ``options[name]`` may hold, with the defaults.
        needs_both: Whether it needs training and held-out images.
        least: Fewest images a set may have.
    """

    name: str
    options: Options = field(default_factory=dict)
    needs_both: bool = False
    least: int = 2

    def min_rows(self, options: Options) -> int:
        """Fewest images a set may have."""
        return self.least


@dataclass(frozen=True)
class Study(_BeyondFeatures):
    """What looks at pictures beside features, and makes pictures and tables."""

    needs_both: bool = True
    least: int = 3


@dataclass(frozen=True)
class Walk(_BeyondFeatures):
    """What takes steps in the generator's latent space, and looks at no real image."""


def _prepare_frechet(real: Tensor, options: Options, share: Share, ddof: int = 1) -> Gaussian:
    return fit_gaussian(real, share, ddof=ddof)


def _score_frechet(
    real: Tensor, state: Gaussian, fake: Tensor, options: Options, share: Share, ddof: int = 1
) -> Scores:
    distance, error = distance_with_error(state, real, fake, share, ddof=ddof)
    return {"distance": distance, "distance_std": error}


def _polynomial(options: Options) -> Kernel:
    return Kernel("polynomial", options["degree"], options["gamma"], options["coef0"])


def _rbf(options: Options) -> Kernel:
    return Kernel("rbf", sigma=options["sigma"])


def _kernel_rows(options: Options) -> int:
    return 3 if options["subsets"] is None else int(options["subset_size"])


def _three_rows(options: Options) -> int:
    return 3


def _prepare_kernel(kernel: Callable[[Options], Kernel], real: Tensor, options: Options, share: Share) -> Sums | None:
    return within_sums(real, kernel(options), share) if options.get("subsets") is None else None


def _score_kernel(
    kernel: Callable[[Options], Kernel], real: Tensor, state: Sums | None, fake: Tensor, options: Options, share: Share
) -> Scores:
    if options["subsets"] is None:
        result = exact_distance(real, fake, kernel(options), real_sums=state, share=share)
    else:
        drawing = {key: options[key] for key in ("subsets", "subset_size", "seed")}
        result = subset_distance(real, fake, kernel(options), **drawing)
    return {"distance": result.value, "distance_std": result.std}


def _score_cmmd(real: Tensor, state: Sums, fake: Tensor, options: Options, share: Share) -> Scores:
    unbiased, scale = options["unbiased"], options["scale"]
    result = exact_distance(real, fake, _rbf(options), unbiased=unbiased, real_sums=state, share=share)
    return {"distance": scale * result.value, "distance_std": scale * result.std}


def _score_stylegan_kernel(real: Tensor, state: None, fake: Tensor, options: Options, share: Share) -> Scores:
    size = min(len(real), len(fake), 1000)
    result = subset_distance(real, fake, Kernel(), subsets=100, subset_size=size, seed=0)
    return {"distance": result.value, "distance_std": result.std}


def _inception_rows(options: Options) -> int:
    return max(2, int(options["splits"]))


def _score_inception(real: Tensor, state: None, fake: Tensor, options: Options, share: Share) -> Scores:
    result = inception_score(fake, splits=options["splits"], seed=options["seed"])
    if options["splits"] == 1:
        return {"score": result.mean}
    return {"score": result.mean, "score_std": result.std / (options["splits"] - 1) ** 0.5}


def _ten_rows(options: Options) -> int:
    return 10


def _score_stylegan_inception(real: Tensor, state: None, fake: Tensor, options: Options, share: Share) -> Scores:
    result = inception_score(fake)
    return {"score": result.mean, "score_std": result.std}


def _manifold_rows(options: Options) -> int:
    return int(options["k"]) + 1


def _prepare_manifold(real: Tensor, options: Options, share: Share) -> Tensor:
    return squared_radii(real, options["k"], share)


def _score_manifold(real: Tensor, state: Tensor, fake: Tensor, options: Options, share: Share) -> Scores:
    fake_radii = squared_radii(fake, options["k"], share)
    fake_inside, real_inside = insiders(real, state, fake, fake_radii, share=share)
    return _means({"precision": fake_inside.double(), "recall": real_inside.double()}, real, fake)


def _score_density(real: Tensor, state: Tensor, fake: Tensor, options: Options, share: Share) -> Scores:
    by_fake, by_real = occupants(real, state, fake, share=share)
    return _means({"density": by_fake / options["k"], "coverage": (by_real > 0).double()}, real, fake)


def _means(rows: dict[str, Tensor], real: Tensor, fake: Tensor) -> Scores:
    values = {name: row.mean() for name, row in rows.items()}
    return values | {f"{name}_std": both_sets_error(row, len(real), len(fake)) for name, row in rows.items()}


def _prepare_memorization(real: BothSets, options: Options, share: Share) -> RealNeighbors:
    cells = min(options["cells"], len(real.train), len(real.held_out))
    return RealNeighbors(real.train, real.held_out, options["distance"], cells, options["seed"], share)


def _score_memorization(real: BothSets, state: RealNeighbors, fake: Tensor, options: Options, share: Share) -> Scores:
    found = state.compare(fake)
    errors = {f"{name}_std": error for name, error in found.errors.items()}
    neighbors = {
        "train_distances": found.train.distances,
        "train_indices": found.train.indices,
        "held_out_distances": found.held_out.distances,
        "held_out_indices": found.held_out.indices,
        "null_distances": found.null,
    }
    return {**found.scalars._asdict(), **errors, **neighbors}


_SUBSETS: Options = {"subsets": None, "subset_size": 1000, "seed": 0}
FRECHET = Family(
    "fid",
    prepare=_prepare_frechet,
    score=_score_frechet,
    wants_more_rows_than_columns=True,
    floor="of as many",
)
KERNEL = Family(
    "kid",
    prepare=partial(_prepare_kernel, _polynomial),
    score=partial(_score_kernel, _polynomial),
    options={"degree": 3, "gamma": None, "coef0": 1.0, **_SUBSETS},
    min_rows=_kernel_rows,
    floor="of all",
    gap=True,
)
RBF = replace(
    KERNEL,
    name="kid_rbf",
    prepare=partial(_prepare_kernel, _rbf),
    score=partial(_score_kernel, _rbf),
    options={"sigma": 10.0, **_SUBSETS},
)
CMMD = Family(
    "cmmd",
    prepare=partial(_prepare_kernel, _rbf),
    score=_score_cmmd,
    options={"sigma": 10.0, "scale": 1000.0, "unbiased": False},
    min_rows=_three_rows,
    floor="of as many",
    gap=True,
)
INCEPTION = Family(
    "isc",
    prepare=_nothing,
    score=_score_inception,
    options={"splits": 10, "seed": None},
    min_rows=_inception_rows,
    output="logits",
)
MANIFOLD = Family(
    "precision",
    prepare=_prepare_manifold,
    score=_score_manifold,
    options={"k": 3},
    min_rows=_manifold_rows,
)
DENSITY = Family(
    "density",
    prepare=_prepare_manifold,
    score=_score_density,
    options={"k": 5},
    min_rows=_manifold_rows,
)
# StyleGAN's protocols: covariances divided by N, 100 subsets of at most 1000, 10 contiguous splits.
FID50K = Family(
    "fid50k",
    prepare=partial(_prepare_frechet, ddof=0),
    score=partial(_score_frechet, ddof=0),
    wants_more_rows_than_columns=True,
    protocol=Protocol(50_000, max_real=50_000),
)
FID50K_FULL = replace(FID50K, name="fid50k_full", protocol=Protocol(50_000))
KID50K_FULL = Family(
    "kid50k_full",
    prepare=_nothing,
    score=_score_stylegan_kernel,
    protocol=Protocol(50_000, max_real=1_000_000),
)
IS50K = Family(
    "is50k",
    prepare=_nothing,
    score=_score_stylegan_inception,
    min_rows=_ten_rows,
    output="logits",
    protocol=Protocol(50_000, reads_real=False),
)

MEMORIZATION = Family(
    "memorization",
    prepare=_prepare_memorization,
    score=_score_memorization,
    options={"distance": "cosine", "cells": 3, "seed": 0, "shown": 8},
    needs_both=True,
)
PAIRS = Study(
    "pairs",
    options={"num_images": 1000, "metrics": ("psnr", "ms_ssim", "lpips_alex", "dreamsim"), "seed": 0},
)
PATH_LENGTH = Walk(
    "ppl",
    options={
        "num_pairs": 10_000,
        "epsilon": 1e-4,
        "crop": None,
        "space": "w",
        "sampling": "end",
        "distance": "lpips_vgg",
        "mapping": "mapping",
        "synthesis": "synthesis",
        "noise": "*noise_const",
        "z_length": "unit",
    },
)
FEATURE_SPACE = Study("feature_space", options={"methods": ("pca", "tsne"), "num_images": 1000, "seed": 0})
