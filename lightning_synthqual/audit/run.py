"""One audit: faults with doses on real images, all metrics on all extractors, changes with paired errors."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_synthqual.__about__ import __version__
from lightning_synthqual.audit.colour import Seen, colour_shares
from lightning_synthqual.audit.faults import Fault, named_faults
from lightning_synthqual.audit.faulty import Pictures
from lightning_synthqual.audit.matches import agreement, matches, plainness, preferences, similarities
from lightning_synthqual.audit.passport import Audit, Cell
from lightning_synthqual.audit.reading import Column
from lightning_synthqual.audit.scoring import CERTAIN, Change, Scoring, changes
from lightning_synthqual.checking import check
from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.plan import Plan, make_plan
from lightning_synthqual.evaluation.reference import open_set
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.extractors.cache import FeatureCache
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.metrics.catalogue import CATALOGUE
from lightning_synthqual.reporting.progress import Progress

_SHOWN = 4  # example images of a fault
_GROUPS = 8  # clusters in which modes are lost


def audit(
    real: Any,
    *,
    held_out: Any = None,
    extractors: Sequence[str] | Mapping[str, Any] = ("wavelet", "pixels"),
    metrics: Sequence[str] = ("fd", "kd", "precision", "recall", "coverage"),
    faults: Any = None,
    num_images: int | None = None,
    seed: int = 0,
    groups: Sequence[int] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    image_range: tuple[float, float] = (-1.0, 1.0),
    real_range: tuple[float, float] | None = None,
    image_size: int | tuple[int, int] | None = None,
    device: torch.device | str = "cpu",
    weights_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Which metric sees which fault, from which dose on, on these images: the metric passport.

    Real images get faults of growing doses, and every metric on the features of every extractor compares them with
    other real images. A dose is told if the change from the untouched images is larger than three standard errors; the
    errors are paired by image. All processes share the work. Images are held in memory. Features of each dose are kept
    in the cache: an audit that was interrupted goes on.

    Args:
        real: Real images: Dataset, DataLoader, image folder, or ``.npy`` or ``.npz`` file.
        held_out: Real images that get the faults; ``None``: a random half of ``real``, compared with the other half.
        extractors: Names of extractors; or a mapping from names to configurations and own networks, as in `evaluate`.
        metrics: Metrics without an extractor's name; each is taken on every extractor on which it is defined.
        faults: ``None``: all; names; or a mapping with faults of one's own, ``(images, dose, generator) -> images``.
        num_images: Number of images that get the faults, chosen by the seed; ``None``: all of them.
        seed: Random seed of all draws.
        groups: Group of each tested image, for lost modes; ``None``: clusters of the first extractor's features.
        options: Options by metric family, for example ``{"precision": {"k": 5}}``.
        image_range: Range of floats.
        real_range: Range of floats in the real sets; ``None``: ``image_range``.
        image_size: Side or (height, width) to resize the images to.
        device: Device for extraction and scoring.
        weights_dir: Folder of weights files by their published names.
        cache_dir: Folder for features.
        progress: Progress display.

    Returns:
        The audit, the same on every process.

    Raises:
        FileNotFoundError: If a folder or a weights file is missing.
        TypeError: If an argument is of the wrong type.
        ValueError: If there are too few images, images of several sizes, an unknown name, or a fault of one's own that
            returns another shape or changes nothing.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> generator = torch.Generator().manual_seed(0)
        >>> images = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8, generator=generator)
        >>> found = audit(TensorDataset(images), extractors=["pixels"], metrics=["fd"], faults={"contrast": [0.5]})
        >>> found.cells[0].fault, found.cells[0].told
        ('contrast', 'better')
    """
    check("num_images", num_images, int, low=2, optional=True)
    names, own = (list(extractors), dict(extractors)) if isinstance(extractors, Mapping) else (list(extractors), {})
    columns = _columns(names, metrics)
    chosen = named_faults(faults)
    plan = make_plan(
        list(columns),
        extractors={name: spec for name, spec in own.items() if spec is not None},
        options=options,
        image_range=image_range,
        real_range=real_range,
        image_size=image_size,
        weights_dir=weights_dir,
        cache_dir=cache_dir,
        seed=seed,
    )
    workspace = Workspace(plan, Ranks(), device, progress)
    with workspace.ranks.synchronized("opening the images"):
        tested, reference = _images(plan, real, held_out, num_images)
        for fault in chosen:
            fault.try_out(tested, seed)
        _check_count(plan, tested, reference)
    with workspace.ranks.synchronized("the audit"):
        workspace.load_networks()
        with workspace.on_device(), torch.no_grad():
            return _Run(workspace, columns, chosen, tested, reference, groups).audit()


class _Run:
    """The work of one audit on this process."""

    def __init__(
        self,
        workspace: Workspace,
        columns: Mapping[str, Column],
        faults: Sequence[Fault],
        tested: Tensor,
        reference: Tensor,
        groups: Sequence[int] | None,
    ) -> None:
        self._workspace = workspace
        self._ranks = workspace.ranks
        self._columns = columns
        self._faults = faults
        selected = workspace.selected()
        seed, cache = workspace.plan.seed, FeatureCache(workspace.plan.cache_dir)
        self.pictures = Pictures(tested, reference, selected, workspace.device, cache, seed)
        # One process extracts what all need, and the others find it in the cache.
        with self._ranks.node_leader_first():
            self._untouched = self.pictures.untouched("tested")
            self._reference = self.pictures.untouched("reference")
        self._groups = self._clusters(tested, groups)
        self._scoring = {False: Scoring(workspace, columns, self._reference)}

    def audit(self) -> Audit:
        """The audit."""
        work = [(fault, dose) for fault in self._faults for dose in fault.doses]
        own = range(self._ranks.rank, len(work), self._ranks.world_size)
        found = []
        with self._workspace.progress.stage("faults", len(work)) as advance:
            for index in own:
                found.append([index, *self._measure(*work[index])])
                advance(self._ranks.world_size)
        every = sorted((each for part in self._ranks.gather_objects(found) for each in part), key=lambda each: each[0])
        cells = tuple(Cell(**cell) for _, part, _, _ in every for cell in part)
        # Grey images cannot say what a metric makes of colour.
        seen = [Seen(*each) for _, _, part, _ in every for each in part] if any(each[3] for each in every) else []
        order = {name: index for index, name in enumerate(dict.fromkeys(c.extractor for c in self._columns.values()))}
        cells = tuple(sorted(cells, key=lambda cell: order[cell.extractor]))
        shares = colour_shares(seen, self._columns.values())
        return Audit(cells, shares, *self._matches(), self._protocol(len(cells)), self._examples(cells))

    def _measure(self, fault: Fault, dose: float) -> tuple[list[dict[str, Any]], list[list[Any]], bool]:
        """The cells of one dose, what greying leaves of their changes, and whether there is any colour."""
        plain, psnr, coloured = self._changes(fault, dose, grey=False)
        cells = []
        for column, change in plain.items():
            if not change.defined:
                continue
            told = change.told(self._scoring[False].directions[column])
            std = change.std if change.std is not None and isfinite(change.std) else None
            numbers = (fault.name, dose, change.value, change.change, std, psnr, told)
            cells.append(asdict(Cell(column.extractor, column.metric, *numbers)))
        grey = self._changes(fault, dose, grey=True)[0] if coloured else plain
        told_columns = [Column(cell["extractor"], cell["metric"]) for cell in cells if cell["told"]]
        seen = [[*column, plain[column].change, grey[column].change] for column in told_columns if column in grey]
        return cells, seen, coloured

    def _changes(self, fault: Fault, dose: float, grey: bool) -> tuple[dict[Column, Change], float | None, bool]:
        """Changes of all scores, the PSNR, and whether there is any colour in the images."""
        if grey and True not in self._scoring:
            reference = self.pictures.untouched("reference", grey=True)
            self._scoring[True] = Scoring(self._workspace, self._columns, reference)
        faulty = self.pictures.with_fault(fault, dose, self._groups, grey)
        control = self.pictures.control(fault, dose, self._groups, grey)
        scores, untouched = self._scoring[grey].scores(faulty.features), self._scoring[grey].untouched(control)
        tested = len(self.pictures.images["tested"])
        return (
            changes(scores, untouched, faulty, control, tested),
            faulty.psnr,
            not (faulty.grey and self.pictures.grey),
        )

    def _clusters(self, tested: Tensor, groups: Sequence[int] | None) -> Tensor:
        if groups is not None:
            if len(groups) != len(tested):
                raise ValueError(
                    f"`groups` must have one entry for each of {len(tested)} images, but has {len(groups)}."
                )
            return torch.as_tensor(list(groups))
        from sklearn.cluster import KMeans

        name = next(iter(self._untouched))
        rows = self._untouched[name][self._workspace.extractors[name].embedding].double().numpy()
        number = max(2, min(_GROUPS, len(rows) // 10))
        labels = KMeans(number, n_init=4, random_state=self._workspace.plan.seed % 2**32).fit_predict(rows)
        return torch.from_numpy(labels).long()

    def _matches(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
        rows = {
            name: (self._untouched[name][each.embedding], self._reference[name][each.embedding])
            for name, each in self._workspace.extractors.items()
        }
        found = matches(rows)
        tested, reference = (self.pictures.images[role] for role in ("tested", "reference"))
        measured = similarities(tested, reference, found)
        seed = self._workspace.plan.seed
        return agreement(found), preferences(measured), plainness(tested, reference, found, measured, seed)

    def _protocol(self, cells: int) -> dict[str, Any]:
        images, plan = self.pictures.images, self._workspace.plan
        seconds: dict[str, float] = {}
        for part in self._ranks.gather_objects(self.pictures.seconds):
            seconds |= part
        return {
            "version": __version__,
            "num_images": len(images["tested"]),
            "num_reference": len(images["reference"]),
            "size": list(images["tested"].shape[2:]),
            "grey": self.pictures.grey,
            "seed": plan.seed,
            "standard_errors": CERTAIN,
            "undefined_cells": len(self._columns) * sum(len(fault.doses) for fault in self._faults) - cells,
            "seconds": seconds,
            "metrics": {metric.name: metric.options for metric in plan.metrics},
            "extractors": {name: vars(each.identity) for name, each in self._workspace.extractors.items()},
            "faults": {
                fault.name: {
                    "unit": fault.unit,
                    "doses": list(fault.doses),
                    "description": fault.description,
                    "of_set": fault.of_set,
                }
                for fault in self._faults
            },
        }

    def _examples(self, cells: Sequence[Cell]) -> dict[str, dict[float, Any]]:
        """The first images untouched and with the smallest dose that some metric tells, else the largest dose."""
        indices = range(min(_SHOWN, len(self.pictures.images["tested"])))
        examples = {}
        for fault in self._faults:
            if fault.of_set and fault.name != "blend":
                continue
            told = [cell.dose for cell in cells if cell.fault == fault.name and cell.told]
            dose = min(told, default=fault.doses[-1])
            shown = {0.0: self.pictures.images["tested"][list(indices)], dose: self.pictures.show(fault, dose, indices)}
            examples[fault.name] = {dose: images.numpy() for dose, images in shown.items()}
        return examples


def _columns(extractors: Sequence[str], metrics: Sequence[str]) -> dict[str, Column]:
    """The names of the metrics on each extractor, with what they stand for."""
    if isinstance(metrics, str):
        raise TypeError(f"`metrics` must be a list of names, but got one string. Use `metrics=[{metrics!r}]`.")
    found: dict[str, Column] = {}
    for metric in dict.fromkeys(metrics):
        entry = CATALOGUE.get(metric)
        if entry is None:
            known = [name for name, each in CATALOGUE.items() if each.suffixed]
            raise ValueError(
                f"`metrics` names {metric!r}, which is unknown. Metrics are named without their extractor: "
                f"{', '.join(known)}."
            )
        if entry.metric.both_sets or entry.metric.needs_generator or entry.metric.generated_images is not None:
            raise ValueError(f"`metrics` names {metric!r}, which needs more than features of two sets. Leave it out.")
        on = [name for name in extractors if entry.suffixed or entry.extractor == name]
        if not on:
            raise ValueError(f"`metrics` names {metric!r}, which is defined on {entry.extractor!r} alone. Add it.")
        found |= {Column(name, metric).name: Column(name, metric) for name in on}
    return found


def _images(plan: Plan, real: Any, held_out: Any, num_images: int | None) -> tuple[Tensor, Tensor]:
    """The images that get faults, and those that they are compared with."""
    generator = torch.Generator().manual_seed(plan.seed)
    images = _read(open_set(plan, real, "real"))
    if held_out is None:
        order = torch.randperm(len(images), generator=generator)
        tested, reference = (
            images[order[: len(images) // 2].sort().values],
            images[order[len(images) // 2 :].sort().values],
        )
    else:
        tested, reference = _read(open_set(plan, held_out, "held_out")), images
        if tested.shape[1:] != reference.shape[1:]:
            sizes = [tuple(each.shape[2:]) for each in (tested, reference)]
            raise ValueError(f"Images of `held_out` are {sizes[0]} and those of `real` {sizes[1]}. Pass `image_size`.")
    if num_images is not None:
        if num_images > len(tested):
            raise ValueError(f"`num_images` is {num_images}, but there are {len(tested)} images to test.")
        tested = tested[torch.randperm(len(tested), generator=generator)[:num_images].sort().values]
    return tested, reference


def _read(image_set: ImageSet) -> Tensor:
    image_set.inspect()
    images = image_set.pick(range(len(image_set)))
    sizes = sorted({tuple(image.shape[1:]) for image in images})
    if len(sizes) > 1:
        raise ValueError(
            f"`{image_set.role}` has images of {len(sizes)} sizes, such as {sizes[0]} and {sizes[-1]}. Pass "
            "`image_size` to resize them."
        )
    return torch.stack(images)


def _check_count(plan: Plan, tested: Tensor, reference: Tensor) -> None:
    for metric in plan.metrics:
        fewest = min(len(tested), len(reference))
        if fewest < metric.min_images():
            raise ValueError(
                f"{', '.join(metric.names)} needs at least {metric.min_images()} images on each side, but there are "
                f"{len(tested)} to test and {len(reference)} to compare with."
            )
