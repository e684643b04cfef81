"""What to measure and how, checked when it is stated."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lightning_synthqual.evaluation.exhibits import check_projections
from lightning_synthqual.evaluation.pairs import check_metrics
from lightning_synthqual.evaluation.path_length import check_options
from lightning_synthqual.extractors.registry import CATALOGUE, open_clip_names
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.metrics.families import Family, Study, Walk
from lightning_synthqual.metrics.names import Metric, complete_options, resolve

Range = tuple[float, float]


@dataclass(frozen=True)
class Settings:
    """The arguments that training and offline evaluation share; see ``QualityMonitor`` for their meaning.

    Raises:
        TypeError: For an argument of the wrong type.
        ValueError: For an argument with an impossible value, or an unknown metric.
    """

    metrics: Sequence[str]
    reference: Literal["real", "held_out"] = "real"
    num_real: int | None = None
    batch_size: int = 64
    image_range: Range = (-1.0, 1.0)
    real_range: Range | None = None
    image_size: int | tuple[int, int] | None = None
    extractors: Mapping[str, Any] | None = None
    options: Mapping[str, Mapping[str, Any]] | None = None
    weights_dir: str | None = None
    cache_dir: str | None = None
    cache_key: str | None = None
    seed: int = 0
    skip_unreadable: bool = False
    trial: bool = False  # a few images only, where published protocols do not insist on their numbers
    size: tuple[int, int] | None = field(init=False)
    resolved: tuple[Metric, ...] = field(init=False)
    all_options: dict[str, dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        if self.reference not in ("real", "held_out"):
            raise ValueError(f"`reference` must be 'real' or 'held_out', but got {self.reference!r}.")
        check_count("batch_size", self.batch_size)
        if self.num_real is not None:
            check_count("num_real", self.num_real, least=2)
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"`seed` must be a non-negative integer, but got {self.seed!r}.")
        object.__setattr__(self, "image_range", _range("image_range", self.image_range))
        object.__setattr__(self, "real_range", _range("real_range", self.real_range or self.image_range))
        object.__setattr__(self, "size", _size(self.image_size))
        extractors = dict(self.extractors or {})
        object.__setattr__(self, "extractors", extractors)
        object.__setattr__(self, "resolved", _resolve(self.metrics, dict.fromkeys([*CATALOGUE, *extractors])))
        object.__setattr__(self, "all_options", complete_options(self.options))
        for metric in self.resolved:
            if metric.entry.value == "pairs":
                check_metrics(self.all_options["pairs"], {metric.extractor or "" for metric in self.resolved} - {""})
            elif metric.entry.value == "feature_space":
                check_projections(self.all_options["feature_space"])
        if self.walks:
            check_options(self.all_options["ppl"], (self.options or {}).get("ppl", {}), [m.name for m in self.walks])

    @property
    def least_images(self) -> int:
        """The fewest images with which every metric is defined."""
        families = [metric.entry.family for metric in self.resolved]
        return max(family.min_rows(self.all_options[family.name]) for family in families)

    @property
    def walks(self) -> list[Metric]:
        """The metrics that take steps in the generator's latent space."""
        return [metric for metric in self.resolved if isinstance(metric.entry.family, Walk)]

    @property
    def studies(self) -> list[Metric]:
        """The metrics that look at pictures beside features."""
        return [metric for metric in self.resolved if isinstance(metric.entry.family, Study)]

    @property
    def groups(self) -> list[tuple[Family, str, list[Metric]]]:
        """Metrics that are computed together, by family and extractor, in the order in which they were asked for."""
        groups: dict[tuple[str, str], tuple[Family, str, list[Metric]]] = {}
        for metric in self.resolved:
            family = metric.entry.family
            if isinstance(family, Family) and metric.extractor is not None:
                groups.setdefault((family.name, metric.extractor), (family, metric.extractor, []))[2].append(metric)
        return list(groups.values())

    @property
    def reads_real(self) -> bool:
        """Whether a metric looks at real images."""
        return len(self.walks) < len(self.resolved)

    @property
    def needs_both(self) -> bool:
        """Whether a metric needs training images and held-out ones."""
        return any(metric.entry.family.needs_both for metric in self.resolved)

    def options_of(self, family: Family | Study | Walk) -> dict[str, Any]:
        """The options of a family, the defaults included."""
        return self.all_options[family.name]

    def check_held_out(self, held_out: Any) -> None:
        """Raise if there are no held-out images where a metric needs them.

        Raises:
            ValueError: It names the metrics.
        """
        names = [metric.name for metric in self.resolved if metric.entry.family.needs_both]
        if names and held_out is None:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(
                f"{names[0]}{more} compares the neighbours of generated images in training and in held-out data, but "
                "`held_out` is missing. Pass real images that the generator is not trained on."
            )

    def open_both(self, real: Any, held_out: Any) -> tuple[ImageSet | None, ImageSet | None]:
        """Open the reference, if a metric looks at real images, and the other real set if there is one.

        Raises:
            FileNotFoundError: If a folder is missing.
            TypeError: If a source is no set of images.
            ValueError: If the reference is missing, or a set is empty.
        """
        self.check_held_out(held_out)
        if not self.reads_real:
            return None, None
        if real is None and self.needs_both:
            self.open(real, "real")  # it says what is missing
        sources = {"real": real, "held_out": held_out}
        compared = self.open(sources.pop(self.reference), self.reference)
        ((role, source),) = sources.items()
        return compared, None if source is None else self.open(source, role)

    def open(self, source: Any, role: str) -> ImageSet:
        """Open a real set: ``role`` is ``"real"`` or ``"held_out"``.

        Raises:
            FileNotFoundError: If a folder is missing.
            TypeError: If ``source`` is no set of images.
            ValueError: If it is missing or empty.
        """
        if source is None:
            raise ValueError(
                f"The images to compare with, `{role}`, are missing. Pass `{role}=` a Dataset, DataLoader or image "
                "folder (only in a fit, `real=None` stands for the trainer's train data)."
            )
        return ImageSet(
            source,
            role,
            image_range=self.real_range or self.image_range,
            range_argument="image_range" if self.real_range == self.image_range else "real_range",
            image_size=self.size,
            num_images=self.num_real,
            seed=self.seed,
            cache_key=self.cache_key,
            skip_unreadable=self.skip_unreadable,
        )

    def open_generated(self, source: Any) -> ImageSet:
        """Open generated images that exist already.

        Raises:
            FileNotFoundError: If a folder is missing.
            TypeError: If ``source`` is no set of images.
            ValueError: If it is empty, or a metric needs the generator itself.
        """
        if self.walks:
            raise ValueError(
                f"{self.walks[0].name} walks through a generator's latent space, but `fake` are finished images. Pass "
                "the generator, a module, or leave the metric out."
            )
        return ImageSet(
            source, "fake", image_range=self.image_range, seed=self.seed, skip_unreadable=self.skip_unreadable
        )


def _resolve(metrics: Iterable[str], extractors: Iterable[str]) -> tuple[Metric, ...]:
    """Look metrics up; open_clip, which takes seconds to import, is asked for its names only if all others fail."""
    try:
        return resolve(metrics, extractors)
    except ValueError as error:
        unknown = error
    try:
        return resolve(metrics, [*extractors, *open_clip_names()])
    except ValueError:
        raise unknown from None


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise unless ``value`` is an integer of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"`{name}` must be an integer of at least {least}, but got {value!r}.")


def _range(name: str, value: Any) -> Range:
    try:
        low, high = (float(edge) for edge in value)
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` must be two numbers (low, high), but got {value!r}.") from None
    if not low < high:
        raise ValueError(f"`{name}` must have low < high, but got {value!r}.")
    return low, high


def _size(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    size = (value, value) if isinstance(value, int) else tuple(value)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(f"`image_size` must be an integer or (height, width), but got {value!r}.")
    return size
