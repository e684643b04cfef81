"""What every part of an evaluation knows: what to measure, with whom, where, and how to speak of it."""

import logging

import torch

from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.settings import Settings
from lightning_synthqual.metrics.share import Share
from lightning_synthqual.reporting.progress import Progress, Silent

_log = logging.getLogger(__name__)


class Context:
    """What every part of an evaluation knows.

    Args:
        settings: What to measure.
        device: Where to extract and score.
        replica: Which copy of the model this process belongs to, where several processes have parts of one.
        progress: Where the first process shows how far it is.

    Attributes:
        ranks: The processes.
        share: This process's share of the arithmetic.
    """

    def __init__(
        self,
        settings: Settings,
        device: torch.device | str,
        replica: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.settings = settings
        self.device = torch.device(device)
        self.ranks = Ranks(replica)
        self.progress: Progress = progress if progress is not None and self.ranks.rank == 0 else Silent()
        self.share = Share(self.ranks.rank, self.ranks.world_size, self.ranks.total)
        self._warned: set[str] = set()

    def warn(self, message: str | None) -> None:
        """Say something once, on one process."""
        if message is not None and message not in self._warned and self.ranks.rank == 0:
            _log.warning(message)
        if message is not None:
            self._warned.add(message)
