"""Inception score: how sure a classifier is of each image, and how differently it classifies them."""

from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from numpy.random import RandomState
from torch import Tensor

from lightning_synthqual.metrics.base import Metric, Published, Score
from lightning_synthqual.metrics.features import check_features
from lightning_synthqual.metrics.options import Options, option


class InceptionScore(NamedTuple):
    """An Inception score, float64 scalars; see the function ``inception_score``.

    Attributes:
        mean: Over the splits; from 1 to the number of classes.
        std: Population standard deviation over the splits.

    Example:
        >>> import torch
        >>> score = inception_score(torch.zeros(20, 10))
        >>> score.mean.item(), score.std.item()
        (1.0, 0.0)
    """

    mean: Tensor
    std: Tensor


def inception_score(logits: Tensor, *, splits: int = 10, seed: int | None = None) -> InceptionScore:
    """Inception score of Salimans et al. 2016 (arXiv:1606.03498); higher is better, from 1 to the number of classes.

    In each split of the rows the exponential of the mean Kullback-Leibler divergence from the rows' class
    probabilities to their average. It is defined on the logits, without bias, of the Inception network that FID uses.
    It sees neither the real images nor whether there is more than one image a class. Agrees with torch-fidelity and
    StyleGAN (``is50k``: no shuffle).

    Args:
        logits: Logits (N, classes), any floating dtype, any device.
        splits: Number of contiguous parts; their sizes differ by at most one.
        seed: Random seed of a shuffle of the rows beforehand, as torch-fidelity shuffles them; ``None``: no shuffle.

    Returns:
        ``mean`` and ``std``.

    Raises:
        TypeError: If the logits are no tensor.
        ValueError: If the logits are not floating point, there are fewer than 2 rows or fewer than splits, or a value
            is NaN or infinite.

    Example:
        >>> import torch
        >>> round(inception_score(1000 * torch.eye(4).repeat(3, 1), splits=3).mean.item(), 6)
        4.0
    """
    logits = check_features(logits, "logits")
    if not 1 <= splits <= len(logits):
        raise ValueError(f"`splits` must be from 1 to the number of rows, but got {splits} for {len(logits)} rows.")
    if seed is not None:
        logits = logits[torch.from_numpy(RandomState(seed).permutation(len(logits))).to(logits.device)]
    bounds = [len(logits) * split // splits for split in range(splits + 1)]
    scores = []
    for start, stop in pairwise(bounds):
        logarithms = logits[start:stop].double().log_softmax(dim=1)
        probabilities = logarithms.exp()
        # Entropy of the average minus average entropy: the mean divergence, and a probability of 0 adds nothing.
        average = probabilities.mean(dim=0)
        divergence = (probabilities * logarithms).sum(dim=1).mean() - torch.special.xlogy(average, average).sum()
        scores.append(divergence.exp())
    stacked = torch.stack(scores)
    return InceptionScore(stacked.mean(), stacked.std(correction=0))


class InceptionScoreMetric(Metric):
    """Inception score; see the function ``inception_score``. Its standard error is that of the mean over the splits."""

    family = "isc"
    direction = "max"
    reads_real = False
    output = "logits"
    OPTIONS: ClassVar[Options] = {"splits": option(10, low=1), "seed": option(None, kind=int, low=0, high=2**32 - 1)}

    def min_images(self) -> int:
        """An image for each split."""
        return max(2, int(self.options["splits"]))

    def prepare(self, real: Tensor) -> None:
        """Nothing: real images take no part."""

    def score(self, state: None, fake: Tensor) -> Score:
        """The score of logits (N, classes)."""
        splits = self.options["splits"]
        found = inception_score(fake, splits=splits, seed=self.options["seed"])
        return Score(found.mean, found.std / (splits - 1) ** 0.5 if splits > 1 else None)


class InceptionScore50k(Metric):
    """StyleGAN's ``is50k``: 50,000 images in 10 splits; the error is the spread over the splits, as it is printed."""

    family = "is50k"
    direction = "max"
    reads_real = False
    output = "logits"
    published = Published(50_000, reads_real=False)

    def min_images(self) -> int:
        """An image for each split."""
        return 10

    def prepare(self, real: Tensor) -> None:
        """Nothing: real images take no part."""

    def score(self, state: None, fake: Tensor) -> Score:
        """The score of logits (N, classes)."""
        found = inception_score(fake)
        return Score(found.mean, found.std)
