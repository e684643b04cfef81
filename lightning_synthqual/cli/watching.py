"""Scores the checkpoints of a training one after the other, while it writes them or after it has ended."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Any

from torch import nn

from lightning_synthqual.cli.checkpoints import Checkpoint, Maker, load_weights, precision_of, read_checkpoint
from lightning_synthqual.cli.found import CheckpointFolder, Found
from lightning_synthqual.cli.results import Results
from lightning_synthqual.cli.training_state import scored_weights, step_of
from lightning_synthqual.evaluation.offline import GeneratorScorer
from lightning_synthqual.evaluation.report import Report
from lightning_synthqual.reporting.summary import summary_line

_HYPERPARAMETERS = "hyper_parameters"
_SHORT = 160  # characters of a reason, which has been told in full before
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A module with the weights of a checkpoint.

    Args:
        module: The module.
        step: The loggers' step.
        epoch: The epoch.
        averaged_by: Class of the callback that has averaged the weights, if one has.
        precision: Precision in which the training sampled, if it said so.
    """

    module: nn.Module
    step: int
    epoch: int | None
    averaged_by: str | None
    precision: str | None


class Loader:
    """Loads one checkpoint after the other into one module; where hyperparameters change, into a new one.

    Args:
        module: Import path of the LightningModule, or of a function that makes the module.
        trusted: Whether objects of any class may be read from the files.
        of_part: Whether ``--model`` chooses a part of the module.
    """

    def __init__(self, module: str, *, trusted: bool, of_part: bool) -> None:
        self._maker = Maker(module)
        self._trusted = trusted
        self._of_part = of_part
        self._module: nn.Module | None = None
        self._made_of: Any = None

    def load(self, found: Found) -> Loaded:
        """Load a checkpoint.

        Raises:
            FileNotFoundError: If it has been deleted.
            ValueError: If it cannot be read or does not fit the module.
        """
        read = read_checkpoint(str(found.path), self._trusted)
        weights = scored_weights(read.content, of_part=self._of_part)
        checkpoint = replace(read, content={**read.content, "state_dict": weights.state})
        epoch = read.content.get("epoch")
        return Loaded(
            self._with_weights(checkpoint),
            step_of(read.content),
            epoch if isinstance(epoch, int) else None,
            weights.averaged_by,
            precision_of(read.content),
        )

    def _with_weights(self, checkpoint: Checkpoint) -> nn.Module:
        made_of = checkpoint.content.get(_HYPERPARAMETERS) if self._maker.is_class else None
        if self._module is not None and _same(made_of, self._made_of):
            load_weights(self._module, checkpoint)
        else:
            self._module, self._made_of = self._maker.make(checkpoint), made_of
        return self._module


class Watch:
    """Scores each checkpoint of a folder once, in the order of the steps.

    Args:
        folder: The checkpoints.
        loader: What loads them.
        results: Where reports go.
        settings: Arguments of `GeneratorScorer`; without a precision each checkpoint's own is used.
        tell: Called with a line for each evaluation.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        loader: Loader,
        results: Results,
        settings: Mapping[str, Any],
        tell: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._loader = loader
        self._results = results
        self._settings = settings
        self._tell = tell
        self._scorer: GeneratorScorer | None = None
        self._here: list[Found] = []
        self._scored = 0  # by this process

    def run(self, *, once: bool, interval: float) -> None:
        """Score what there is, and what comes.

        Args:
            once: Whether to end when everything has been scored.
            interval: Seconds between two looks.

        Raises:
            ValueError: If checkpoints were left out, there is none, or there are reports that were measured in another
                way.
        """
        if not once and not self._look():
            self._tell(f"No checkpoints are in {self._folder.path} yet.")
        drawn = -1  # number of reports in the curves
        while True:
            waiting = [each for each in self._look() if self._is_new(each)]
            if waiting:
                self._score(waiting[0])
                continue
            self._check_reports()
            if drawn != len(self._results.reports):
                drawn = len(self._results.reports)
                self._results.draw_curves()
            self._link_best()
            if once and not self._folder.waits:
                break
            time.sleep(min(interval, 1.0) if once else interval)
        if not self._here and not self._folder.problems:
            raise ValueError(f"`{self._folder.path}` holds no checkpoints (*.ckpt).")
        self.check_problems()

    def check_problems(self) -> None:
        """Raise if checkpoints were left out.

        Raises:
            ValueError: It names them.
        """
        problems = self._folder.problems
        if problems:
            short = {path.name: shorten(text, _SHORT, placeholder="…") for path, (_, text) in sorted(problems.items())}
            reasons = "; ".join(f"{name}: {text}" for name, text in short.items())
            total = len({*problems, *(each.path for each in self._here)})
            raise ValueError(f"{len(problems)} of {total} checkpoints were left out: {reasons}")

    @property
    def summary(self) -> str:
        """How many were scored, in words."""
        return f"{self._scored} checkpoints scored, {len(self._results.reports)} reports in {self._results.directory}"

    def _look(self) -> list[Found]:
        self._here = self._folder.look()
        return self._here

    def _is_new(self, found: Found) -> bool:
        left_out = self._folder.problems.get(found.path, (None, ""))[0] == found.version
        return found.step not in self._results.steps and not left_out

    def _score(self, found: Found) -> None:
        try:
            loaded = self._loader.load(found)
        except Exception as error:  # users' modules raise errors of any type
            self._leave_out(found, error)
            return
        if loaded.step != found.step:
            return  # it has been written again since, which the next look sees
        scorer = self._scorer or self._make_scorer(loaded)
        try:
            report = self._evaluate(scorer, loaded, found)
        except Exception as error:
            self._leave_out(found, error)
            return
        self._results.check_monitor(report)
        different = self._results.difference(report)
        if different and self._scored == 0:
            raise self._refusal(different)
        if different:
            message = f"It would be scored in another way than the checkpoints before it ({different})."
            self._folder.add_problem(found, message)
            return
        self._results.add(report)
        self._scored += 1
        self._link_best()
        self._tell(f"step {report.step} ({found.path.name}): {summary_line(report, self._results.newly_best())}")

    def _check_reports(self) -> None:
        """Compare reports that were there before with what was asked for, where nothing new has been scored yet."""
        if self._scorer is not None or not self._results.reports:
            return
        for found in self._here:
            try:
                loaded = self._loader.load(found)
            except Exception as error:
                self._leave_out(found, error)
                continue
            self._make_scorer(loaded)
            return

    def _leave_out(self, found: Found, error: Exception) -> None:
        if found.path.exists():
            self._folder.add_problem(found, str(error) or type(error).__name__)
        else:
            _log.info("%s was deleted before it was scored.", found.path)

    def _make_scorer(self, loaded: Loaded) -> GeneratorScorer:
        """What scores the module; made with the first one that there is, and once."""
        precision = {} if loaded.precision is None else {"precision": loaded.precision}
        scorer = GeneratorScorer(module=loaded.module, **{**precision, **self._settings})
        different = self._results.difference_of_settings(scorer.settings, scorer.metric_names)
        if different:
            raise self._refusal(different)
        self._scorer = scorer
        return scorer

    def _evaluate(self, scorer: GeneratorScorer, loaded: Loaded, found: Found) -> Report:
        return scorer.score(
            loaded.module,
            weights=None if loaded.averaged_by is None else f"averaged by {loaded.averaged_by}",
            precision=self._settings.get("precision", loaded.precision),
            details={"checkpoint": found.path.name},
            step=loaded.step,
            epoch=loaded.epoch,
            before=self._results.before(loaded.step),
        )

    def _refusal(self, different: str) -> ValueError:
        return ValueError(
            f"`--output {self._results.directory}` holds reports that were measured in another way ({different}; what "
            "is there / what was asked for). Give another folder, or the same options."
        )

    def _link_best(self) -> None:
        self._results.link_best({each.step: each.path for each in reversed(self._here)})


def _same(one: Any, other: Any) -> bool:
    """Whether hyperparameters are equal; what cannot be compared is not."""
    try:
        return bool(one == other)
    except Exception:  # tensors among them, for example
        return False
