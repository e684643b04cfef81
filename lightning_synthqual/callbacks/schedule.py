"""When an evaluation is due."""

from dataclasses import dataclass

from lightning_synthqual.callbacks.arguments import SCHEDULE_RULES
from lightning_synthqual.checking import check_all


@dataclass(frozen=True)
class Schedule:
    """When to evaluate; without any setting at the end of each validation, or of each epoch where there is none.

    Args:
        every_n_epochs: Period in epochs, evaluated at their ends.
        every_n_train_batches: Period in training batches, counted over the whole run.
    """

    every_n_epochs: int | None = None
    every_n_train_batches: int | None = None

    def __post_init__(self) -> None:
        check_all(vars(self), SCHEDULE_RULES)

    @property
    def _default(self) -> bool:
        return self.every_n_epochs is None and self.every_n_train_batches is None

    def due_after_validation(self) -> bool:
        """Whether to evaluate at the end of a validation within a fit."""
        return self._default

    def due_after_batch(self, batches: int) -> bool:
        """Whether to evaluate after ``batches`` training batches."""
        return self.every_n_train_batches is not None and batches % self.every_n_train_batches == 0

    def due_after_epoch(self, epochs: int, has_validation: bool) -> bool:
        """Whether to evaluate after ``epochs`` epochs of a run that has a validation loop or not."""
        if self.every_n_epochs is not None:
            return epochs % self.every_n_epochs == 0
        return self._default and not has_validation
