"""Inception score: how sure a classifier is of each image, and how differently it classifies them."""

from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from numpy.random import RandomState
from torch import Tensor

from lightning_synthqual.metrics.base import Influence, Metric, Score
from lightning_synthqual.metrics.features import check_features
from lightning_synthqual.metrics.options import Options, option
from lightning_synthqual.metrics.published import Published


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
    scores, _ = _by_split(check_features(logits, "logits"), splits, seed)
    return InceptionScore(scores.mean(), scores.std(correction=0))


def inception_influence(logits: Tensor, *, splits: int = 10, seed: int | None = None) -> Influence:
    """Mean over the splits of the Inception score, and what each row adds to it, to first order.

    Within its split a row adds the score times what its own divergence is above the mean one.

    Args:
        logits: Logits (N, classes), any floating dtype, any device.
        splits: Number of parts, as in ``inception_score``.
        seed: Random seed of the shuffle, as in ``inception_score``; the influences are in the order of the logits.

    Returns:
        The score, and the influences of the rows (N,), float64; none of real rows.

    Raises:
        TypeError: If the logits are no tensor.
        ValueError: As ``inception_score`` raises it.
    """
    scores, influences = _by_split(check_features(logits, "logits"), splits, seed)
    return Influence(scores.mean(), influences, influences.new_zeros(0))


def _by_split(logits: Tensor, splits: int, seed: int | None) -> tuple[Tensor, Tensor]:
    """Scores (splits,), and influences (N,) on their mean."""
    count = len(logits)
    if not 1 <= splits <= count:
        raise ValueError(f"`splits` must be from 1 to the number of rows, but got {splits} for {count} rows.")
    order = torch.arange(count) if seed is None else torch.from_numpy(RandomState(seed).permutation(count))
    bounds = [count * split // splits for split in range(splits + 1)]
    influences = torch.zeros(count, dtype=torch.float64, device=logits.device)
    scores = []
    for start, stop in pairwise(bounds):
        rows = order[start:stop].to(logits.device)
        score, influence = _split_score(logits[rows])
        scores.append(score)
        influences[rows] = influence * (count - 1) / max(len(rows) - 1, 1) / splits
    return torch.stack(scores), influences


def _split_score(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Score of the rows of one split, and their influences on it."""
    logarithms = logits.double().log_softmax(dim=1)
    probabilities = logarithms.exp()
    average = probabilities.mean(dim=0)
    # A row's own negative entropy, and its cross entropy to the average; a probability of 0 adds nothing.
    certainty = (probabilities * logarithms).sum(dim=1)
    surprise = -torch.special.xlogy(probabilities, average).sum(dim=1)
    score = (certainty.mean() - torch.special.xlogy(average, average).sum()).exp()
    divergence = certainty + surprise
    return score, score * (divergence - divergence.mean())


class InceptionScoreMetric(Metric):
    """Inception score; see the functions ``inception_score`` and ``inception_influence``."""

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
        influence = inception_influence(fake, splits=self.options["splits"], seed=self.options["seed"])
        return Score(influence.value, influence=influence)


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
        scores, influences = _by_split(check_features(fake, "logits"), 10, None)
        influence = Influence(scores.mean(), influences, influences.new_zeros(0))
        return Score(influence.value, scores.std(correction=0), influence)
