"""The one gate through which features reach the arithmetic."""

import torch
from torch import Tensor

_ELEMENTS = 2**20  # numbers that are looked at together


def check_features(features: Tensor, role: str, *, least: int = 2) -> Tensor:
    """Return ``features`` if a metric can be computed from them.

    Args:
        features: Floating point tensor (N, D), N >= ``least``.
        role: Name of the set, for the message: ``"real"`` or ``"fake"``.
        least: Fewest rows.

    Raises:
        TypeError: If ``features`` is no tensor.
        ValueError: If they are not floating point, the shape is wrong, there are too few rows, or a value is NaN or
            infinite.
    """
    if not isinstance(features, Tensor):
        raise TypeError(
            f"`{role}` features must be a floating point tensor, but got {type(features).__name__}. "
            "Convert with `torch.as_tensor`."
        )
    if not features.is_floating_point():
        raise ValueError(
            f"`{role}` features must be a floating point tensor, but got {features.dtype}. Convert with `.float()`."
        )
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"`{role}` features must have shape (N, D), but got {tuple(features.shape)}.")
    if features.shape[0] < least:
        raise ValueError(f"`{role}` has {features.shape[0]} feature rows, but at least {least} are needed. Add images.")
    finite = torch.empty(len(features), dtype=torch.bool, device=features.device)
    # Written in place: small results that are kept between large temporaries would fragment the memory.
    count = max(1, _ELEMENTS // features.shape[1])
    for part, rows in zip(finite.split(count), features.split(count), strict=True):
        torch.all(torch.isfinite(rows), dim=1, out=part)
    if not finite.all():
        bad = int((~finite).nonzero()[0])
        raise ValueError(
            f"`{role}` features contain NaN or infinity, first in row {bad} ({int((~finite).sum())} rows in all). "
            "Look at that image and at the extractor's weights and precision."
        )
    return features.detach() if features.requires_grad else features


def check_pair(
    real: Tensor, fake: Tensor, roles: tuple[str, str] = ("real", "fake"), *, least: int = 2
) -> tuple[Tensor, Tensor]:
    """Check both sets and that they have equally many columns; the second is moved to the first one's device."""
    real, fake = check_features(real, roles[0], least=least), check_features(fake, roles[1], least=least)
    if real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"`{roles[0]}` and `{roles[1]}` must have equally many columns, but got D={real.shape[1]} and "
            f"D={fake.shape[1]}. Use the same extractor for both."
        )
    return real, fake.to(real.device)
