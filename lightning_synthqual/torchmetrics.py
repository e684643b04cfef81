"""Our metrics as classes of torchmetrics, for training loops without our callback."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchmetrics
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from lightning_synthqual.checking import check
from lightning_synthqual.evaluation.plan import make_plan
from lightning_synthqual.extractors.registry import load_configured
from lightning_synthqual.images.pixels import quantise
from lightning_synthqual.metrics.base import as_scores


class QualityMetric(torchmetrics.Metric):
    """A metric of features as a ``torchmetrics.Metric``: ``update(images, real=...)``, then ``compute()``.

    Features are its state. Between processes they are gathered once per ``compute``, for any number of updates,
    and each process then computes the value of all images.

    Args:
        name: Name from the catalogue, for example ``"fd_dinov2"``, ``"cmmd"``, ``"precision"``, or a `Metric` object.
        extractors: Configuration of extractors, and the user's own networks, by name.
        image_range: Range of float images; uint8 images need none.
        weights_dir: Folder of weights files by their published names.
        reset_real: Whether ``reset`` forgets the real images, too.
        kwargs: Options of the metric, for example ``k=5``, and arguments of ``torchmetrics.Metric``.

    Raises:
        TypeError: If an option is of the wrong type.
        ValueError: If the name or an option is unknown, or the metric looks at more than features of two sets.

    Example:
        >>> metric = QualityMetric("kd_pixels")
        >>> images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
        >>> metric.update(images, real=True)
        >>> metric.update(images, real=False)
        >>> metric.compute().dtype
        torch.float64
    """

    is_differentiable = False
    full_state_update = False
    real: list[Tensor]  # rows one behind the other, so that a process without images takes part in the exchange
    fake: list[Tensor]
    width: Tensor  # of the rows

    def __init__(
        self,
        name: Any,
        *,
        extractors: Mapping[str, Any] | None = None,
        image_range: tuple[float, float] = (-1.0, 1.0),
        weights_dir: str | Path | None = None,
        reset_real: bool = True,
        **kwargs: Any,
    ) -> None:
        check("reset_real", reset_real, bool)
        base = {key: kwargs.pop(key) for key in _OF_TORCHMETRICS & kwargs.keys()}
        super().__init__(**base)
        plan = make_plan((name,), extractors=extractors, image_range=image_range, weights_dir=weights_dir)
        family = plan.metrics[0].family
        if kwargs and plan.metrics[0] is name:
            given = ", ".join(f"`{option}`" for option in kwargs)
            raise TypeError(
                f"{given} cannot be given with the object {plan.names[0]!r}, which has its options already."
            )
        if kwargs:
            plan = make_plan((name,), extractors=extractors, weights_dir=weights_dir, options={family: kwargs})
        self._metric, self._name = plan.metrics[0], plan.names[0]
        if self._metric.extractor is None or self._metric.both_sets or len(plan.metrics) > 1:
            raise ValueError(
                f"{name!r} looks at more than the features of generated and of real images. Use `QualityMonitor` or "
                "`evaluate` for it."
            )
        spec = plan.extractors.get(self._metric.extractor)
        self._extractor = load_configured(self._metric.extractor, spec, weights_dir, "cpu")
        self._image_range = image_range
        self._reset_real = reset_real
        for role in ("real", "fake"):
            self.add_state(role, default=[], dist_reduce_fx="cat")
        self.add_state("width", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="max")

    @property
    def higher_is_better(self) -> bool | None:  # type: ignore[override]
        """Whether higher values are better; ``None`` if neither."""
        direction = self._metric.described_direction(self._name)
        return None if direction is None else bool(direction == "max")

    def update(self, images: Tensor, real: bool) -> None:
        """Take images (N, C, H, W) in, uint8 or floats in the declared range.

        Args:
            images: The images; C is 1 or 3.
            real: Whether they are real.
        """
        quantised, _ = quantise(images, self._image_range, "`images`")
        outputs = self._extractor.to(images.device)(quantised)
        rows = outputs[self._metric.output or self._extractor.embedding]
        self.width = torch.full_like(self.width, rows.shape[1])
        getattr(self, "real" if real else "fake").append(rows.flatten())

    def compute(self) -> Tensor:
        """The value, a float64 scalar.

        Raises:
            ValueError: If there are too few images.
        """
        rows = {}
        for role, parts in (("real", self.real), ("fake", self.fake)):
            values = dim_zero_cat(parts) if len(parts) else torch.empty(0)
            width = max(int(self.width), 1)
            count = len(values) // width
            if count < self._metric.min_images() and (role == "fake" or self._metric.reads_real):
                raise ValueError(
                    f"{self._name} needs at least {self._metric.min_images()} {role} images, but got {count}. Call "
                    f"`update(images, real={role == 'real'})` with more."
                )
            rows[role] = values.view(count, width)
        state = self._metric.prepare(rows["real"])
        scores = self._metric.reported(as_scores(self._metric, self._metric.score(state, rows["fake"])))
        return torch.as_tensor(scores[self._name].value, dtype=torch.float64)

    def reset(self) -> None:
        """Forget the generated images, and with ``reset_real`` the real ones."""
        real, width = self.real[:], self.width  # lists are emptied in place
        super().reset()
        if not self._reset_real:
            self.real, self.width = real, width


_OF_TORCHMETRICS = frozenset(
    (
        "compute_on_cpu",
        "dist_sync_on_step",
        "process_group",
        "dist_sync_fn",
        "distributed_available_fn",
        "sync_on_compute",
        "compute_with_cache",
    )
)
