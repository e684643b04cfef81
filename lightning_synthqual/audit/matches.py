"""What nearest neighbours in different features have in common, and what similarities say of them."""

from collections.abc import Callable, Mapping
from itertools import combinations
from math import atanh, sqrt, tanh
from typing import Any

import torch
from torch import Tensor

from lightning_synthqual.metrics.neighbors import nearest_neighbors
from lightning_synthqual.metrics.similarity import ms_ssim, psnr, shannon_entropy

_BLOCK = 64  # pairs at once
_WINDOW = 11  # pixels, of MS-SSIM
_Z95 = 1.96
Rows = list[dict[str, Any]]
SIMILARITIES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"psnr": psnr, "ms_ssim": ms_ssim}


def matches(features: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The number of the nearest reference image of each tested one, by extractor.

    Args:
        features: Features of the tested images (N, D) and of the reference (R, D), by extractor.
    """
    return {
        name: nearest_neighbors(tested, reference).indices[:, 0].cpu() for name, (tested, reference) in features.items()
    }


def agreement(found: Mapping[str, Tensor]) -> Rows:
    """How often two extractors find the same nearest image."""
    return [
        {"extractor": one, "other": other, "same match": float((found[one] == found[other]).double().mean())}
        for one, other in combinations(found, 2)
    ]


def similarities(tested: Tensor, reference: Tensor, found: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Each similarity of each tested image and its match, by name and by extractor, (N,).

    MS-SSIM is left out where the images are smaller than its window.
    """
    return {
        name: {extractor: _measured(function, tested, reference, indices) for extractor, indices in found.items()}
        for name, function in SIMILARITIES.items()
        if name != "ms_ssim" or min(tested.shape[2:]) >= _WINDOW
    }


def preferences(measured: Mapping[str, Mapping[str, Tensor]]) -> Rows:
    """Whose matches each similarity prefers: its mean, and how often no other extractor's match is more similar."""
    rows: Rows = []
    for similarity, values in measured.items():
        best = torch.stack(list(values.values())).max(dim=0).values
        rows += [
            {
                "similarity": similarity,
                "matches of": extractor,
                "mean": float(each[each.isfinite()].mean()) if each.isfinite().any() else None,
                "most similar": float((each == best).double().mean()),
            }
            for extractor, each in values.items()
        ]
    return rows


def plainness(
    tested: Tensor,
    reference: Tensor,
    found: Mapping[str, Tensor],
    measured: Mapping[str, Mapping[str, Tensor]],
    seed: int,
) -> Rows:
    """Pearson's correlation of each similarity with the entropy of the pair, with its interval of 95 %.

    Args:
        tested: uint8 (N, 3, H, W).
        reference: uint8 (R, 3, H, W).
        found: Matches by extractor.
        measured: Similarities of the matches, as `similarities` finds them.
        seed: Random seed of the random pairs.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(reference), (len(tested),), generator=generator)
    at_random = {
        name: _measured(function, tested, reference, chosen)
        for name, function in SIMILARITIES.items()
        if name in measured
    }
    used = torch.cat([*found.values(), chosen]).unique()
    own, others = _entropies(tested), torch.zeros(len(reference), dtype=torch.float64)
    others[used] = _entropies(reference[used])
    rows: Rows = []
    for name, indices in [*found.items(), (None, chosen)]:
        entropy = (own + others[indices]) / 2
        pairs = "random" if name is None else f"nearest by {name}"
        for similarity, by_extractor in measured.items():
            values = at_random[similarity] if name is None else by_extractor[name]
            rows.append({"similarity": similarity, "pairs": pairs, **_correlation(values, entropy)})
    return rows


def _entropies(images: Tensor) -> Tensor:
    return torch.cat([shannon_entropy(part).double().cpu() for part in images.split(_BLOCK)])


def _measured(
    function: Callable[[Tensor, Tensor], Tensor], tested: Tensor, reference: Tensor, indices: Tensor
) -> Tensor:
    starts = range(0, len(tested), _BLOCK)
    parts = [
        function(tested[start : start + _BLOCK], reference[indices[start : start + _BLOCK]]).double().cpu()
        for start in starts
    ]
    return torch.cat(parts)


def _correlation(values: Tensor, entropy: Tensor) -> dict[str, float | int | None]:
    """Pearson's r of the finite values, and its interval by Fisher's transformation."""
    finite = values.isfinite()
    x, y = values[finite].double(), entropy[finite].double().cpu()
    count = len(x)
    if count < 4 or x.std() == 0 or y.std() == 0:
        return {"r": None, "low": None, "high": None, "images": count}
    r = float(torch.corrcoef(torch.stack([x, y]))[0, 1].clamp(-0.999999, 0.999999))
    half = _Z95 / sqrt(count - 3)
    return {"r": r, "low": tanh(atanh(r) - half), "high": tanh(atanh(r) + half), "images": count}
