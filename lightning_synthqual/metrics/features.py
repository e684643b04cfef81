"""The one gate through which features reach the arithmetic."""

import torch
from torch import Tensor


def check_features(features: Tensor, role: str) -> Tensor:
    """Return ``features`` if a distance between distributions can be computed from them.

    Args:
        features: Floating point tensor (N, D), N >= 2.
        role: What the features are, for the message: ``"real"`` or ``"fake"``.

    Raises:
        TypeError: If ``features`` is not a floating point tensor.
        ValueError: If the shape is wrong, there are fewer than two rows, or a value is NaN or infinite.
    """
    if not isinstance(features, Tensor) or not features.is_floating_point():
        kind = str(features.dtype) if isinstance(features, Tensor) else type(features).__name__
        raise TypeError(f"`{role}` features must be a floating point tensor, but got {kind}. Convert with `.float()`.")
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"`{role}` features must have shape (N, D), but got {tuple(features.shape)}.")
    if features.shape[0] < 2:
        raise ValueError(f"`{role}` has {features.shape[0]} feature rows, but at least 2 are needed. Add images.")
    finite = torch.isfinite(features).all(dim=1)
    if not finite.all():
        bad = int((~finite).nonzero()[0])
        raise ValueError(
            f"`{role}` features contain NaN or infinity, first in row {bad} ({int((~finite).sum())} rows in all). "
            "Look at that image and at the extractor's weights and precision."
        )
    return features.detach()


def check_pair(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Check both sets and that they have equally many columns; the fake ones are moved to the real ones' device."""
    real, fake = check_features(real, "real"), check_features(fake, "fake")
    if real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"`real` and `fake` must have equally many columns, but got D={real.shape[1]} and D={fake.shape[1]}. "
            "Use the same extractor for both."
        )
    return real, fake.to(real.device)
