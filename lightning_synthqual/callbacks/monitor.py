"""The callback that evaluates a generator while it trains: it decides when, and calls the evaluator."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_synthqual.callbacks.arguments import MONITOR_RULES
from lightning_synthqual.callbacks.averaging import (
    averaged_weights,
    move_behind_averaging,
    save_own_weights_before_the_first_average,
    tell_of_averages,
)
from lightning_synthqual.callbacks.data import TrainerData, trainer_data
from lightning_synthqual.callbacks.history import History
from lightning_synthqual.callbacks.lightning import (
    BothPackages,
    batches_so_far,
    callbacks_of,
    is_smoke_test,
    logged_step,
    precision_of,
    replica_of,
    report_directory,
    saved_states,
    shards_parameters,
    stage_of,
)
from lightning_synthqual.callbacks.listener import listeners
from lightning_synthqual.callbacks.progress import TrainingShare, progress_of, tell_of_reference
from lightning_synthqual.callbacks.schedule import Schedule
from lightning_synthqual.callbacks.weights import SampledWeights, checksum_in, sampled_weights
from lightning_synthqual.checking import check_all
from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.evaluation.plan import PLANNED_RULES, make_plan
from lightning_synthqual.evaluation.reference import open_real, open_set
from lightning_synthqual.evaluation.report import Report
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.images.averages import named_averages
from lightning_synthqual.images.inputs import Inputs
from lightning_synthqual.images.labels import LabelFormat
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.images.sampling import OWN_WEIGHTS, Sampler
from lightning_synthqual.importing import find_model, model_argument, name_of_model, part_of, resolve_object
from lightning_synthqual.metrics.base import Metric
from lightning_synthqual.reporting.summary import summary_line


class QualityMonitor(BothPackages, Callback):
    """Samples the generator while it trains, scores the images, and logs the scores.

    The training stays, bit for bit, what it is without the callback. All processes share the sampling, the extraction
    and the scoring, and hold the same `Report`; rank 0 writes it to every logger and to ``reports.jsonl`` in the first
    logger's directory. Scores are logged as ``{prefix}/{metric}``. Of several monitors in a trainer the first writes
    to that directory, each other one to a folder in it, named like its prefix.

    ``reports.jsonl`` holds the run that goes on and no row twice: rows of a run that was killed before its first
    checkpoint, or after the checkpoint from which it is resumed, are moved to ``reports.superseded.jsonl``. What a full
    or read-only disk refuses is written with the next evaluation.

    Before Lightning's ``WeightAveraging`` has averaged any weights, the module's own are scored, and checkpoints hold
    these under ``state_dict``, too. The protocol names the scored weights, their checksum and the precision.

    Args:
        real: Images that the generator is trained on: Dataset, DataLoader (its dataset is read: each item once, no
            shuffling), image folder, or ``None`` for the trainer's train data. Random augmentations are drawn once
            per item, from a seed, so a dataset of n items is n images.
        held_out: Real images not trained on, for floors and gaps; or ``"val"``, ``"test"``, a function of the data.
        reference: The set that the metrics compare with.
        metrics: Names from the catalogue such as ``"kd_wavelet"``, `Metric` objects, or import paths of these.
        num_samples: Generated images per evaluation; by default at most one for each of ``inputs``.
        num_real: Number of real images, chosen at random by the seed (of a stream the first); ``None``: all of them.
        batch_size: Images per forward pass; part of the protocol for samplers other than the default one.
        every_n_epochs: Period in epochs, evaluated at their ends. Setting this or the next replaces the default, which
            is the end of each validation, or of each epoch where there is none.
        every_n_train_batches: Period in training batches of the run (batches, not optimizer steps).
        evaluate_at_end: Whether to evaluate at the end of the fit too, unless that step has been evaluated.
        model: Module to sample from (EMA weights, a submodule): an attribute path, such as ``"ema.ema_model"``, else a
            function ``pl_module -> module`` or its import path; default: the module itself, or its ``WeightAveraging``.
        sampler: Callable ``(module, n, generator) -> images`` of shape (n, C, H, W), or its import path. The generator
            is a CPU generator seeded by (seed, block). With ``inputs`` ``(module, batch, generator)``; by default then
            ``module.sample_images(batch, generator)`` or ``module(input)``.
        labels: ``"data"`` (of a real item drawn by sample index) or ``"uniform"``: ``module(z, labels)`` is called.
        label_format: ``"index"``, or ``"one_hot"``: rows (n, num_classes) of floats.
        image_range: Range of the generator's floats, (low, high); ignored for uint8.
        real_range: Range of the real images' floats; ``None``: ``image_range``.
        image_size: Side or (height, width) to resize real images to.
        extractors: Configuration of extractors, and networks of the user's, by name:
            ``{"inception": {"weights": "x.pth"}, "mine": module_or_import_path}``.
        options: Options by metric family: ``{"precision": {"k": 5}, "kid": {"subsets": 100}}``.
        weights_dir: Folder of weights files by their published names.
        cache_check: ``"full"``: hash every pixel of data that have no fingerprint of their own, not only of 256 images.
        cache_dir: Folder of cached reference features; default: ``$XDG_CACHE_HOME/lightning_synthqual``.
        cache_key: Name of the data, instead of a fingerprint of their content.
        seed: Random seed of all draws.
        prefix: Prefix of the logged names: letters, digits, ``_``, ``-``, ``.``, spaces, and ``/`` between names.
        on_error: ``"raise"``, or ``"warn"`` to go on training when an evaluation fails.
        num_workers: Processes that read images; ``None``: the DataLoader's own, else on Linux as many as pay.
        keep_on_device: Whether networks and reference stay on the accelerator between evaluations, which is faster.
        inputs: What the generator is conditioned on: Dataset, DataLoader, folder, list of prompts, or ``"val"``,
            ``"test"``, ``"train"`` for the trainer's. Image i is made of item i; ``batch`` is collated as they are.
        repeat_inputs: Whether items of ``inputs`` are used again where there are fewer than samples.
        per_class: Whether metrics of features are reported by class, too: ``<metric>_per_class`` is their mean.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument has an impossible value, or a metric is unknown.

    Example:
        >>> QualityMonitor(real="photos/train", metrics=("fd_wavelet", "recall_wavelet"), every_n_epochs=5).prefix
        'quality'
    """

    def __init__(
        self,
        real: Any = None,
        held_out: Any = None,
        reference: Literal["real", "held_out"] = "real",
        metrics: Sequence[str | Metric] = ("fid", "kid", "precision", "recall"),
        num_samples: int = 10_000,
        num_real: int | None = None,
        batch_size: int = 64,
        every_n_epochs: int | None = None,
        every_n_train_batches: int | None = None,
        evaluate_at_end: bool = False,
        model: Callable[..., Any] | str | None = None,
        sampler: Callable[..., Any] | str | None = None,
        labels: Literal["data", "uniform"] | None = None,
        label_format: LabelFormat = "index",
        image_range: tuple[float, float] = (-1.0, 1.0),
        real_range: tuple[float, float] | None = None,
        image_size: int | tuple[int, int] | None = None,
        extractors: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        weights_dir: str | None = None,
        cache_check: Literal["sample", "full"] = "sample",
        cache_dir: str | None = None,
        cache_key: str | None = None,
        seed: int = 0,
        prefix: str = "quality",
        on_error: Literal["raise", "warn"] = "raise",
        num_workers: int | None = None,
        keep_on_device: bool = False,
        inputs: Any = None,
        repeat_inputs: bool = False,
        per_class: bool = False,
    ) -> None:
        super().__init__()
        resolved = {"model": model_argument(model), "sampler": resolve_object(sampler, "sampler")}
        checked = check_all({**locals(), **resolved}, MONITOR_RULES)
        self.plan = make_plan(**{name: checked[name] for name in PLANNED_RULES})
        self.plan.check_held_out(held_out)
        self.schedule = Schedule(checked["every_n_epochs"], checked["every_n_train_batches"])
        self.real = real
        self.held_out = held_out
        self.inputs, self.repeat_inputs = inputs, repeat_inputs
        self.num_samples: int = checked["num_samples"]
        self.evaluate_at_end: bool = checked["evaluate_at_end"]
        self.model = checked["model"]
        self.sampler = checked["sampler"]
        self.labels, self.label_format = labels, label_format
        self.plan.check_labels(labels, label_format)
        self.prefix = prefix
        self.on_error = on_error
        self._history = History()
        self._evaluator: Evaluator | None = None
        self._label_source: ImageSet | None = None
        self._inputs: Inputs | None = None
        self._data = TrainerData()
        self._sampled: SampledWeights | None = None
        self._last_batch: int | None = None
        self._fits = True
        self._share = TrainingShare()

    @property
    def reports(self) -> list[Report]:
        """All reports so far, those before a resume included."""
        return self._history.reports

    @property
    def state_key(self) -> str:
        return self._generate_state_key(prefix=self.prefix, metrics=tuple(self.plan.names))

    def state_dict(self) -> dict[str, Any]:
        return {"last_batch": self._last_batch, "history": self._history.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._fits:  # the history of a checkpoint that is only validated or tested is of no use
            self._last_batch = state_dict.get("last_batch")
            self._history.load(state_dict.get("history", {}))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Lightning finds a state by its key; a run that is resumed with other metrics goes on with its history, too.
        if self.state_key not in checkpoint["callbacks"]:
            for state in saved_states(checkpoint, type(self), prefix=self.prefix):
                self.load_state_dict(state)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.model is None:
            save_own_weights_before_the_first_average(trainer, checkpoint)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        monitors = monitors_of(trainer)
        if (same := sum(monitor.prefix == self.prefix for monitor in monitors)) > 1:
            raise ValueError(
                f"{same} QualityMonitors log under the prefix {self.prefix!r}. Give each of them another `prefix`."
            )
        move_behind_averaging(trainer, monitors)
        self._fits = stage == "fit"
        if self._history.begin(trainer):
            self._last_batch = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._evaluator = self._label_source = self._inputs = None
        if trainer.is_global_zero:
            self._history.folder.retry()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._share.begin()
        evaluator = self._prepare(trainer, pl_module)
        if not is_smoke_test(trainer) and self._history.restore(self._directory(trainer), evaluator.ranks, trainer):
            self._last_batch = batches_so_far(trainer)

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
        if self.schedule.due_after_batch(batches_so_far(trainer)):
            self._evaluate_once(trainer, pl_module, on_step=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.schedule.due_after_epoch(trainer.current_epoch + 1, trainer.enable_validation):
            self._evaluate_once(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.evaluate_at_end:
            self._evaluate_once(trainer, pl_module, loggable=False)

    def _prepare(self, trainer: Trainer, pl_module: LightningModule) -> Evaluator:
        """Do everything that can fail before the first evaluation."""
        tiny = is_smoke_test(trainer)
        plan = self.plan.for_smoke_test() if tiny else self.plan
        ranks, replica = Ranks(), replica_of(trainer)
        if replica is not None:
            ranks.join_replicas(replica)
        device, progress = trainer.strategy.root_device, progress_of(trainer, self.prefix)
        workspace = Workspace(plan, ranks, device, progress, use_cache=not tiny)
        with ranks.synchronized("opening the data"):
            real = self._data.real(trainer, plan, self.real, self.labels == "data")
            if self.labels == "data":
                self._label_source = open_set(plan, real, "real")
            asked = self.inputs, self.num_samples, self.repeat_inputs
            self._inputs = self._data.inputs(trainer, plan, self.real, *asked)
            compared, other = open_real(plan, real, trainer_data(trainer, self.held_out, "held_out"))
            sampler = self._sampler(trainer, pl_module, self._module(pl_module), OWN_WEIGHTS)
        tell_of_averages(pl_module, self.model, self.prefix)
        if compared is not None:
            rank_zero_info(f"{self.prefix}: looks for features of `{compared.role}`: {', '.join(plan.extractor_names)}")
        count = plan.number_of(self.num_samples, self._inputs)
        evaluator = Evaluator(workspace, compared, other, sampler=sampler, num_samples=count)
        tell_of_reference(evaluator.reference, self.prefix)
        self._evaluator = evaluator
        return evaluator

    def _module(self, pl_module: LightningModule) -> Any:
        return part_of(self.model, pl_module)

    def _sampler(
        self, trainer: Trainer, pl_module: LightningModule, module: Any, weights: str, checksum: str | None = None
    ) -> Sampler:
        details = {"precision": precision_of(trainer), **stage_of(trainer), **named_averages(pl_module, self.model)}
        return Sampler(
            module,
            owner=pl_module,
            getter=find_model(self.model, pl_module),
            weights=weights,
            function=self.sampler,
            labels=self.labels,
            label_source=self._label_source,
            inputs=self._inputs,
            label_format=self.label_format,
            image_range=self.plan.image_range,
            seed=self.plan.seed,
            device=trainer.strategy.root_device,
            context=trainer.precision_plugin.val_step_context,
            details=details if checksum is None else {**details, "weights_checksum": checksum},
        )

    def _evaluate_once(
        self, trainer: Trainer, pl_module: LightningModule, *, on_step: bool = False, loggable: bool = True
    ) -> None:
        """Evaluate within a fit, but never twice after the same batch."""
        if self._last_batch != batches_so_far(trainer):
            self._evaluate(trainer, pl_module, on_step=on_step, loggable=loggable)
            self._last_batch = batches_so_far(trainer)

    def _evaluate(
        self, trainer: Trainer, pl_module: LightningModule, *, on_step: bool = False, loggable: bool = True
    ) -> None:
        evaluator = self._prepared()
        try:
            with self.scored_weights(trainer, pl_module) as weights:
                ranks = evaluator.ranks
                with ranks.synchronized("preparing the sampler"):
                    module = self._module(pl_module)
                    self._sampled = None if shards_parameters(trainer) else sampled_weights(pl_module, module, ranks)
                    checksum = None if self._sampled is None else self._sampled.checksum
                    sampler = self._sampler(trainer, pl_module, module, weights, checksum)
                before = self._history.newest if trainer.state.fn == "fit" else None
                now = {"step": logged_step(trainer), "epoch": trainer.current_epoch}
                count = evaluator.workspace.plan.number_of(self.num_samples, self._inputs)
                report = evaluator.evaluate(sampler, count, before=before, **now)
        except Exception as error:
            if self.on_error == "raise":
                raise
            rank_zero_warn(f"{self.prefix}: the evaluation failed and is skipped: {type(error).__name__}: {error}")
            if trainer.state.fn == "fit":
                for listener in listeners(trainer):
                    listener.on_quality_failure(trainer, self.prefix, error)
            return
        self._publish(trainer, pl_module, report, on_step=on_step, loggable=loggable)
        if evaluator.failures and self.on_error == "raise":
            raise next(iter(evaluator.failures.values()))

    def scored_weights(self, trainer: Trainer, pl_module: LightningModule) -> AbstractContextManager[str]:
        """Let the module have the weights that are scored, within the context, which gives their description."""
        if self.model is None:
            return averaged_weights(trainer, pl_module)
        return nullcontext(f"of model={name_of_model(self.model)}")

    def checksum_in(self, state: Mapping[str, Tensor]) -> str | None:
        """Checksum of the weights in a ``state_dict`` that the last evaluation sampled from.

        Every process calls this with what it has of the ``state_dict``.

        Args:
            state: A ``state_dict`` of the LightningModule.

        Returns:
            The checksum, to compare with ``report.protocol["sampling"]["weights_checksum"]``; ``None`` if the sampled
            weights are no part of the ``state_dict``.
        """
        if self._sampled is None or self._sampled.keys is None:
            return None
        return checksum_in(state, self._sampled.keys, self._prepared().ranks)

    def _prepared(self) -> Evaluator:
        if self._evaluator is None:
            raise RuntimeError("The QualityMonitor has not been prepared: its `on_*_start` hook did not run.")
        return self._evaluator

    def _directory(self, trainer: Trainer) -> Path:
        """The directory of the reports, one for each monitor."""
        directory = report_directory(trainer)
        return directory if self is monitors_of(trainer)[0] else directory / self.prefix

    def _publish(
        self, trainer: Trainer, pl_module: LightningModule, report: Report, *, on_step: bool, loggable: bool
    ) -> None:
        fitting = trainer.state.fn == "fit"
        directory = None if is_smoke_test(trainer) else self._directory(trainer)
        self._history.add(report, directory)
        if trainer.is_global_zero and directory is not None:
            # In validate and test Lightning sends what is logged below; in fit it would send it late and repeatedly.
            self._history.write(report, trainer.loggers, directory, prefix=self.prefix, with_scalars=fitting)
        if loggable:
            scalars = {f"{self.prefix}/{name}": value for name, value in report.scalars.items()}
            pl_module.log_dict(scalars, on_step=on_step, on_epoch=not on_step, logger=not fitting, batch_size=1)
        line = summary_line(report, self._history.newly_best)
        share = self._share.add(report.timings["total"]) if fitting else ""
        rank_zero_info(f"{self.prefix}: step {report.step}: {line}{share}")
        if fitting:
            for listener in listeners(trainer):
                listener.on_quality_report(trainer, self.prefix, report)


def monitors_of(trainer: Trainer) -> list[QualityMonitor]:
    """The trainer's monitors, in their order."""
    return [callback for callback in callbacks_of(trainer) if isinstance(callback, QualityMonitor)]
