"""Metrics of users: functions of features or of images, and torchmetrics' image metrics."""

import copy
from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor

from lightning_synthqual.metrics.base import Direction, Influence, Metric, Score
from lightning_synthqual.metrics.figures import ImageRef, ImageSheet, SheetCell, SheetRow
from lightning_synthqual.metrics.views import Generated, RealSets, SetView

_BATCH = 64
_SHOWN = 4  # best and worst images


class FeatureMetric(Metric):
    """A function of two feature sets as a metric.

    Args:
        name: Name under which it is reported.
        function: Function ``(real (N, D), fake (M, D)) -> number or Score``, float32 features in.
        extractor: Extractor whose features it gets.
        direction: ``"min"`` if lower is better, ``"max"`` if higher is, ``None`` if neither.

    Raises:
        TypeError: If the function is not callable.
        ValueError: If the direction is none of these.

    Example:
        >>> shift = FeatureMetric("shift", lambda real, fake: (real.mean(0) - fake.mean(0)).norm(), "wavelet", "min")
        >>> shift.names, shift.direction
        (('shift',), 'min')
    """

    def __init__(
        self, name: str, function: Callable[[Tensor, Tensor], Any], extractor: str, direction: Direction | None = None
    ) -> None:
        super().__init__(name, extractor=extractor)
        self.function = _callable(name, function)
        self.direction = _direction(name, direction)

    def score(self, state: Tensor, fake: Tensor) -> Any:
        """The function's value."""
        return self.function(state, fake)


class ImageMetric(Metric):
    """A function of single generated images as a metric: mean, standard error, best and worst images.

    Args:
        name: Name under which it is reported.
        function: Function of uint8 images (N, 3, H, W) that returns one number for each, (N,).
        direction: ``"min"`` if lower is better, ``"max"`` if higher is, ``None`` if neither.

    Raises:
        TypeError: If the function is not callable.
        ValueError: If the direction is none of these.

    Example:
        >>> ImageMetric("brightness", lambda images: images.float().mean(dim=(1, 2, 3))).name
        'brightness'
    """

    generated_images = "all"
    reads_real = False
    open_names = False

    def __init__(self, name: str, function: Callable[[Tensor], Tensor], direction: Direction | None = None) -> None:
        super().__init__(name)
        self.function = _callable(name, function)
        self.direction = _direction(name, direction)

    def prepare_sets(self, real: RealSets) -> None:
        """Nothing: real images take no part."""

    def score_set(self, state: None, generated: Generated) -> Score:
        """The mean over generated images."""
        own = generated.images.shard(generated.count)
        parts = [self._of(generated, own[start : start + _BATCH]) for start in range(0, len(own), _BATCH)]
        values = self.runtime.gather(torch.cat(parts) if parts else None, own, generated.count)
        if not values.isfinite().all():
            bad = int((~values.isfinite()).nonzero()[0])
            raise ValueError(f"The function of metric {self.name!r} returned NaN or infinity, first for image {bad}.")
        mean = values.mean()
        influence = Influence(mean, values - mean, values.new_zeros(0))
        return Score(mean, influence=influence, figures={self.name: self._extremes(values)})

    def _of(self, generated: Generated, indices: list[int]) -> Tensor:
        images = generated.images.pick(indices)
        values = torch.empty(len(images), dtype=torch.float64)
        for shape in dict.fromkeys(image.shape for image in images):
            places = [place for place, image in enumerate(images) if image.shape == shape]
            stack = torch.stack([images[place] for place in places]).to(self.runtime.device)
            found = self.function(stack)
            if not isinstance(found, Tensor) or found.shape != (len(places),):
                what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
                raise TypeError(
                    f"The function of metric {self.name!r} must return a tensor of shape ({len(places)},) for "
                    f"{len(places)} images, but returned {what}."
                )
            values[places] = found.detach().double().cpu()
        return values

    def _extremes(self, values: Tensor) -> ImageSheet:
        """The images of the lowest and of the highest values."""
        order = values.argsort(stable=True).tolist()
        ends = {"lowest": order[:_SHOWN], "highest": order[-min(_SHOWN, len(order)) :]}
        rows = [
            SheetRow(label, tuple(SheetCell((ImageRef("generated", i),), f"{values[i]:.3g}") for i in indices))
            for label, indices in ends.items()
        ]
        return ImageSheet(tuple(rows), title=self.name)


class TorchMetric(Metric):
    """An image metric of torchmetrics: ``update(images, real=)`` or ``update(images)``, on uint8 images.

    It synchronises itself between processes. Real images are given to it once; its state after them is used in
    all evaluations.

    Args:
        name: Name under which it is reported.
        metric: The metric; it is copied.
        direction: ``"min"`` if lower is better, ``"max"`` if higher is, ``None`` if neither.

    Raises:
        TypeError: If it has no ``update`` and ``compute``.
        ValueError: If the direction is none of these.

    Example:
        >>> from torchmetrics import MeanMetric
        >>> TorchMetric("mean_level", MeanMetric(), direction=None).name
        'mean_level'
    """

    generated_images = "all"
    open_names = False

    def __init__(self, name: str, metric: Any, direction: Direction | None = None) -> None:
        super().__init__(name)
        if not callable(getattr(metric, "update", None)) or not callable(getattr(metric, "compute", None)):
            raise TypeError(
                f"`metric` of {name!r} must be a torchmetrics metric with `update` and `compute`, but got "
                f"{type(metric).__name__}."
            )
        self.metric = metric
        self.direction = _direction(name, direction)
        parameters = signature(metric.update).parameters
        missing = [each.name for each in list(parameters.values())[1:] if each.name != "real" and _is_required(each)]
        if missing:
            raise TypeError(
                f"`metric` of {name!r} must have `update(images)` or `update(images, real=)`, but "
                f"`{type(metric).__name__}.update` takes {', '.join(missing)}, too: it compares pairs of images."
            )
        self.reads_real = self.reads_pixels = "real" in parameters

    def prepare_sets(self, real: RealSets) -> Any:
        """The metric, after all real images if it takes them."""
        metric = copy.deepcopy(self.metric).to(self.runtime.device)
        if self.reads_real and real.reference is not None:
            self._update(metric, real.reference, real=True)
        return metric

    def score_set(self, state: Any, generated: Generated) -> float:
        """The metric's value."""
        metric = copy.deepcopy(state)
        self._update(metric, generated, **({"real": False} if self.reads_real else {}))
        found = metric.compute()
        found = found[0] if isinstance(found, tuple) else found  # some give their spread, too
        return float(found)

    def _update(self, metric: Any, view: SetView, **arguments: bool) -> None:
        own = view.images.shard(view.count)
        for start in range(0, len(own), _BATCH):
            images = view.images.pick(own[start : start + _BATCH])
            if len({image.shape for image in images}) > 1:
                raise ValueError(f"Metric {self.name!r} takes images of one size, but `{view.role}` has several.")
            metric.update(torch.stack(images).to(self.runtime.device), **arguments)


def as_metric(value: Any, given: Any) -> Metric:
    """A metric of the user's from an object, or from a class that needs no arguments.

    Args:
        value: The object or class.
        given: What was given for it, such as its import path, for messages.

    Raises:
        TypeError: If it is none.
        ValueError: If it scores features but names no extractor.
    """
    metric = _made(value) if isinstance(value, type) and issubclass(value, Metric) else value
    if not isinstance(metric, Metric):
        raise TypeError(
            f"`metrics` takes names, `Metric` objects and their import paths, but got {type(value).__name__}: "
            f"{given!r}. Wrap functions in `FeatureMetric` or `ImageMetric`, torchmetrics' metrics in `TorchMetric`."
        )
    if metric.extractor is None and type(metric).score_set is Metric.score_set:
        raise ValueError(
            f"Metric {metric.name!r} scores features, but of which extractor? Pass `extractor=`, for example "
            "`extractor='wavelet'`, or overwrite `score_set`."
        )
    return metric


def _made(kind: Any) -> Any:
    try:
        return kind()
    except TypeError as error:
        raise TypeError(
            f"The metric class {kind.__name__} cannot be made without arguments ({error}). Give its `__init__` "
            "defaults, or pass an object."
        ) from error


def _is_required(parameter: Parameter) -> bool:
    return parameter.default is Parameter.empty and parameter.kind not in (
        Parameter.VAR_POSITIONAL,
        Parameter.VAR_KEYWORD,
    )


def _callable(name: str, function: Any) -> Any:
    if not callable(function):
        raise TypeError(f"The function of metric {name!r} must be callable, but got {type(function).__name__}.")
    return function


def _direction(name: str, direction: Any) -> Direction | None:
    if direction not in ("min", "max", None):
        raise ValueError(f"`direction` of metric {name!r} must be 'min', 'max' or None, but got {direction!r}.")
    return direction  # type: ignore[no-any-return]
