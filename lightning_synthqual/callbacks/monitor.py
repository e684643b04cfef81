"""The callback that watches a generator: it decides when, and hands over to the evaluator."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader

from lightning_synthqual.callbacks.averaging import averaged_weights, stand_behind_averaging
from lightning_synthqual.callbacks.progress import progress_of
from lightning_synthqual.callbacks.schedule import Schedule
from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.evaluation.report import Report, pack, unpack
from lightning_synthqual.evaluation.settings import Settings, check_count
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.images.sampling import OWN_WEIGHTS, Sampler
from lightning_synthqual.importing import resolve_object
from lightning_synthqual.reporting.files import rewind_reports
from lightning_synthqual.reporting.headline import headline
from lightning_synthqual.reporting.loggers import write_report

_TINY = 16  # images of each kind under fast_dev_run


class QualityMonitor(Callback):
    """Samples the generator while it trains, scores the samples, and logs the scores.

    The training run stays, bit for bit, the run it would be without the callback. All processes share the sampling,
    the extraction and the scoring, and hold the same `Report`; rank 0 writes it to every logger and to
    ``reports.jsonl`` in the first logger's directory. Scores are logged as ``{prefix}/{metric}``. Of several monitors
    in a trainer the first writes to that directory, each other one to a folder in it, named like its prefix.

    Args:
        real: What the generator is trained on: Dataset, DataLoader (its dataset is read: each item once, no
            shuffling), image folder, or ``None`` for the trainer's train data. Random augmentations are drawn once
            per item, from a seed, so a dataset of n items is n images.
        held_out: Real images that are not trained on, likewise; distances then have floors and gaps.
        reference: Which of the two the metrics compare with.
        metrics: Names from the catalogue, for example ``"fid"``, ``"kd_wavelet"``, ``"recall_mine"``.
        num_samples: Generated images per evaluation.
        num_real: Real images, chosen at random by the seed; ``None``: all of them.
        batch_size: Images per forward pass; part of the protocol for samplers other than the default one.
        every_n_epochs: Evaluate at the end of each n-th epoch. Setting this or the next replaces the default, which is
            the end of each validation, or of each epoch where there is none.
        every_n_train_batches: Evaluate after each n-th training batch of the run (batches, not optimizer steps).
        evaluate_at_end: Evaluate at the end of the fit too, unless that step has been evaluated.
        model: ``pl_module -> module to sample from`` (EMA weights, a submodule), a callable or an import path. Without
            it the module itself, with the averaged weights if the trainer has Lightning's ``WeightAveraging``.
        sampler: ``(module, n, generator) -> images`` of shape (n, C, H, W), a callable or an import path. The generator
            is a CPU generator seeded by (seed, block).
        labels: ``"data"`` (label of a real item drawn by sample index) or ``"uniform"``: the module is called as
            ``module(z, labels)``.
        image_range: What the generator's floats span; ignored for uint8.
        real_range: What the real images' floats span; ``None``: ``image_range``.
        image_size: Side or (height, width) to resize real images to.
        extractors: Configuration of extractors, and networks of the user's, by name:
            ``{"inception": {"weights": "x.pth"}, "mine": module_or_import_path}``.
        options: By metric family: ``{"precision": {"k": 5}, "kid": {"subsets": 100}}``.
        weights_dir: A folder of weights files by their published names.
        cache_dir: Where reference features are kept; default: ``$XDG_CACHE_HOME/lightning_synthqual``.
        cache_key: Names the data, instead of a fingerprint of its content.
        seed: Of everything that is drawn.
        prefix: Of the logged names.
        on_error: ``"raise"``, or ``"warn"`` to go on training when an evaluation fails.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument has an impossible value, or a metric is unknown.

    Example:
        >>> from lightning_synthqual import QualityMonitor
        >>> QualityMonitor(real="photos/train", metrics=("fd_wavelet", "recall_wavelet"), every_n_epochs=5).prefix
        'quality'
    """

    def __init__(
        self,
        real: Any = None,
        held_out: Any = None,
        reference: Literal["real", "held_out"] = "real",
        metrics: Sequence[str] = ("fid", "kid", "precision", "recall"),
        num_samples: int = 10_000,
        num_real: int | None = None,
        batch_size: int = 64,
        every_n_epochs: int | None = None,
        every_n_train_batches: int | None = None,
        evaluate_at_end: bool = False,
        model: Callable[..., Any] | str | None = None,
        sampler: Callable[..., Any] | str | None = None,
        labels: Literal["data", "uniform"] | None = None,
        image_range: tuple[float, float] = (-1.0, 1.0),
        real_range: tuple[float, float] | None = None,
        image_size: int | tuple[int, int] | None = None,
        extractors: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        weights_dir: str | None = None,
        cache_dir: str | None = None,
        cache_key: str | None = None,
        seed: int = 0,
        prefix: str = "quality",
        on_error: Literal["raise", "warn"] = "raise",
    ) -> None:
        super().__init__()
        self.settings = Settings(
            metrics=metrics,
            reference=reference,
            num_real=num_real,
            batch_size=batch_size,
            image_range=image_range,
            real_range=real_range,
            image_size=image_size,
            extractors=extractors,
            options=options,
            weights_dir=weights_dir,
            cache_dir=cache_dir,
            cache_key=cache_key,
            seed=seed,
        )
        self.settings.check_held_out(held_out)
        self.schedule = Schedule(every_n_epochs, every_n_train_batches)
        check_count("num_samples", num_samples, least=2)
        if labels not in (None, "data", "uniform"):
            raise ValueError(f"`labels` must be None, 'data' or 'uniform', but got {labels!r}.")
        if on_error not in ("raise", "warn"):
            raise ValueError(f"`on_error` must be 'raise' or 'warn', but got {on_error!r}.")
        if not prefix or not isinstance(prefix, str):
            raise ValueError(f"`prefix` must be a non-empty string, but got {prefix!r}.")
        self.real = real
        self.held_out = held_out
        self.num_samples = num_samples
        self.evaluate_at_end = evaluate_at_end
        self.model = _callable(resolve_object(model, "model"), "model", "model(pl_module) -> module")
        self.sampler = _callable(
            resolve_object(sampler, "sampler"), "sampler", "sampler(module, n, generator) -> images"
        )
        self.labels = labels
        self.prefix = prefix
        self.on_error = on_error
        self.reports: list[Report] = []
        self._evaluator: Evaluator | None = None
        self._label_source: ImageSet | None = None
        self._train_data: DataLoader[Any] | None = None  # of an earlier fit, for a later validate or test
        self._last_batch: int | None = None
        self._resumed = False
        self._started = self._spent = 0.0  # seconds, for the share of an evaluation in the training

    @property
    def state_key(self) -> str:
        return self._generate_state_key(prefix=self.prefix, metrics=tuple(self.settings.metrics))

    def state_dict(self) -> dict[str, Any]:
        return {"last_batch": self._last_batch, "history": pack(self.reports)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last_batch = state_dict.get("last_batch")
        self.reports = unpack(state_dict.get("history", {}))
        self._resumed = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        alike = sum(monitor.prefix == self.prefix for monitor in _monitors(trainer))
        if alike > 1:
            raise ValueError(
                f"{alike} QualityMonitors log under the prefix {self.prefix!r}. Give each its own `prefix`."
            )
        stand_behind_averaging(trainer, self)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._evaluator = self._label_source = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started, self._spent = time.perf_counter(), 0.0
        self._prepare(trainer, pl_module)
        if self._resumed and trainer.is_global_zero and not is_trial(trainer):
            # What was measured after the checkpoint is measured again, so that no row is there twice.
            rewind_reports(self._directory(trainer), self.reports)
        self._resumed = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._prepare(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._prepare(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._evaluate(trainer, pl_module)
        elif not trainer.sanity_checking and self.schedule.due_after_validation():
            self._evaluate_once(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._evaluate(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.schedule.due_after_batch(_batches(trainer)):
            self._evaluate_once(trainer, pl_module, on_step=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.schedule.due_after_epoch(trainer.current_epoch + 1, trainer.enable_validation):
            self._evaluate_once(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.evaluate_at_end:
            self._evaluate_once(trainer, pl_module, loggable=False)

    def _prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Everything that can go wrong before the first evaluation goes wrong here."""
        device = trainer.strategy.root_device
        settings = self.settings
        if is_trial(trainer):
            settings = replace(settings, num_real=max(_TINY, settings.least_images), trial=True)
        # Scores need float64, which Apple's GPUs do not have.
        where = "cpu" if device.type == "mps" else device
        evaluator = Evaluator(settings, where, _replica(trainer), progress_of(trainer, self.prefix))
        with evaluator.ranks.together("opening the data"):
            real = self.real
            if real is None:
                compares = settings.reads_real and settings.reference == "real"
                needed = compares or self.labels == "data" or settings.needs_both
                real = self._train_data = _train_data(trainer, needed) or self._train_data
            if self.labels == "data":
                self._label_source = settings.open(real, "real")
            compared, counterpart = settings.open_both(real, self.held_out)
            sampler = self._sampler(trainer, pl_module, OWN_WEIGHTS)
        if compared is not None:
            extractors = ", ".join(dict.fromkeys(metric.extractor for metric in settings.resolved if metric.extractor))
            rank_zero_info(f"{self.prefix}: looking for the features ({extractors}) of `{compared.role}`")
        reference = evaluator.prepare(compared, counterpart, use_cache=not is_trial(trainer))
        evaluator.dry_run(sampler, self._count(trainer))
        if compared is not None:
            origin = f"found in the cache {evaluator.cache.directory}" if reference.cached else "computed"
            rank_zero_info(f"{self.prefix}: features of {reference.count} images {origin} in {reference.seconds:.1f} s")
        self._evaluator = evaluator

    def _sampler(self, trainer: Trainer, pl_module: LightningModule, weights: str) -> Sampler:
        return Sampler(
            pl_module if self.model is None else self.model(pl_module),
            owner=pl_module,
            weights=weights,
            function=self.sampler,
            labels=self.labels,
            label_source=self._label_source,
            image_range=self.settings.image_range,
            seed=self.settings.seed,
            device=trainer.strategy.root_device,
            context=trainer.precision_plugin.val_step_context,
        )

    def _count(self, trainer: Trainer) -> int:
        tiny = max(_TINY, self.settings.least_images)
        return min(self.num_samples, tiny) if is_trial(trainer) else self.num_samples

    def _evaluate_once(
        self, trainer: Trainer, pl_module: LightningModule, *, on_step: bool = False, loggable: bool = True
    ) -> None:
        """Evaluate within a fit, but never twice after the same batch."""
        if self._last_batch != _batches(trainer):
            self._evaluate(trainer, pl_module, on_step=on_step, loggable=loggable)
            self._last_batch = _batches(trainer)

    def _evaluate(
        self, trainer: Trainer, pl_module: LightningModule, *, on_step: bool = False, loggable: bool = True
    ) -> None:
        if self._evaluator is None:
            raise RuntimeError("The QualityMonitor has not been prepared: its `on_*_start` hook did not run.")
        try:
            with self._weights(trainer, pl_module) as weights:
                with self._evaluator.ranks.together("preparing the sampler"):
                    sampler = self._sampler(trainer, pl_module, weights)
                report = self._evaluator.evaluate(
                    sampler, self._count(trainer), step=_logged_step(trainer), epoch=trainer.current_epoch
                )
        except Exception as error:
            if self.on_error == "raise":
                raise
            rank_zero_warn(f"{self.prefix}: the evaluation failed and is left out: {type(error).__name__}: {error}")
            return
        self._publish(trainer, pl_module, report, on_step=on_step, loggable=loggable)

    def _weights(self, trainer: Trainer, pl_module: LightningModule) -> AbstractContextManager[str]:
        """The weights to score, while the context lasts; it says which they are."""
        if self.model is None:
            return averaged_weights(trainer, pl_module)
        return nullcontext(f"of model={getattr(self.model, '__qualname__', type(self.model).__name__)}")

    def _directory(self, trainer: Trainer) -> Path:
        """Where the reports go: a place of its own for each monitor."""
        directory = report_directory(trainer)
        return directory if self is _monitors(trainer)[0] else directory / self.prefix

    def _publish(
        self, trainer: Trainer, pl_module: LightningModule, report: Report, *, on_step: bool, loggable: bool
    ) -> None:
        self.reports.append(report)
        fitting = trainer.state.fn == "fit"
        if trainer.is_global_zero and not is_trial(trainer):
            directory = self._directory(trainer)
            # In validate and test Lightning sends what is logged below; in fit it would send it late and repeatedly.
            write_report(report, trainer.loggers, directory, prefix=self.prefix, with_scalars=fitting)
        if loggable:
            scalars = {f"{self.prefix}/{name}": value for name, value in report.scalars.items()}
            pl_module.log_dict(scalars, on_step=on_step, on_epoch=not on_step, logger=not fitting, batch_size=1)
        self._spent += report.timings["total"]
        share = self._spent / max(time.perf_counter() - self._started, 1e-9) if fitting else 0.0
        of_training = f" ({share:.0%} of the time of training so far)" if fitting else ""
        rank_zero_info(f"{self.prefix}: step {report.step}: {headline(report)}{of_training}")
        if fitting:
            for callback in _callbacks(trainer):
                listen = getattr(callback, "on_quality_report", None)
                if listen is not None:
                    listen(trainer, self.prefix, report)


def is_trial(trainer: Trainer) -> bool:
    """Whether this is a ``fast_dev_run``, which evaluates a few images and leaves nothing behind."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def report_directory(trainer: Trainer) -> Path:
    """The first logger's directory, else ``default_root_dir``; without any exchange between processes."""
    if not trainer.loggers:
        return Path(trainer.default_root_dir)
    logger = trainer.loggers[0]
    if logger.log_dir is not None:
        return Path(logger.log_dir)
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(logger.save_dir or trainer.default_root_dir) / str(logger.name) / version


def _callable(value: Any, argument: str, signature: str) -> Any:
    if value is not None and not callable(value):
        raise TypeError(f"`{argument}` must be a callable {signature}, but got {type(value).__name__}.")
    return value


def _callbacks(trainer: Trainer) -> list[Callback]:
    return trainer.callbacks  # type: ignore[attr-defined, no-any-return]


def _monitors(trainer: Trainer) -> list[QualityMonitor]:
    return [callback for callback in _callbacks(trainer) if isinstance(callback, QualityMonitor)]


def _replica(trainer: Trainer) -> int | None:
    """Which copy of the model this process belongs to: with tensor parallelism several processes have parts of one."""
    sampling = getattr(trainer.strategy, "distributed_sampler_kwargs", None) or {}
    return sampling.get("rank")


def _batches(trainer: Trainer) -> int:
    """Training batches so far, over all epochs and restarts."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready


def _logged_step(trainer: Trainer) -> int:
    """The step under which Lightning logs the losses of the batch that came last."""
    stepped = trainer.fit_loop.epoch_loop._batches_that_stepped
    progress = trainer.fit_loop.epoch_loop.batch_progress.total
    # Between a batch's end hooks and the next batch the counter is one ahead; inside validation it is not yet.
    ahead = trainer.state.fn == "fit" and trainer.training and progress.completed == progress.ready
    return max(stepped - 1, 0) if ahead else stepped


def _train_data(trainer: Trainer, needed: bool) -> DataLoader[Any] | None:
    """The trainer's train data, or ``None`` if it has none at hand (in validate and test).

    Raises:
        ValueError: If they are needed and not one DataLoader.
    """
    loader = trainer.train_dataloader
    source = trainer.fit_loop._data_source
    if loader is None and source.is_defined():
        loader = source.dataloader()
    if loader is not None and not isinstance(loader, DataLoader):
        if not needed:
            return None
        raise ValueError(
            f"`real` is None and the trainer's train data are no single DataLoader but {type(loader).__name__}. "
            "Pass the training images as `real=`: a Dataset, a DataLoader or an image folder."
        )
    return loader
