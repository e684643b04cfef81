"""What callbacks that act on a score have in common."""

from typing import Literal

from lightning.pytorch import Trainer

from lightning_synthqual.callbacks.monitor import QualityMonitor
from lightning_synthqual.metrics.names import direction


def resolve_mode(monitor: str, mode: Literal["min", "max"] | None) -> Literal["min", "max"]:
    """Return ``mode``, or the direction of the metric that ``monitor`` (``"<prefix>/<metric>"``) names.

    Raises:
        ValueError: If neither says.
    """
    found = mode or direction(monitor.rpartition("/")[2])
    if found not in ("min", "max"):
        given = (
            f"`mode` must be 'min' or 'max', but got {mode!r}" if mode else f"The direction of {monitor!r} is unknown"
        )
        raise ValueError(f"{given}. Give a logged name such as 'quality/fid', or `mode='min'` or `mode='max'`.")
    return found


def check_monitored(trainer: Trainer, monitor: str, who: str) -> None:
    """Raise unless a `QualityMonitor` of the trainer logs ``monitor``.

    Raises:
        ValueError: It names what is logged.
    """
    monitors = [cb for cb in trainer.callbacks if isinstance(cb, QualityMonitor)]  # type: ignore[attr-defined]
    names = [f"{cb.prefix}/{metric.name}" for cb in monitors for metric in cb.settings.resolved]
    # What the study of pairs reports depends on its options.
    open_ended = tuple(name + "_" for name in names if name.rpartition("/")[2].startswith("pairs"))
    if monitor.removesuffix("_std") not in names and not monitor.startswith(open_ended):
        logged = f"Logged are: {', '.join(names)}" if names else "The trainer has no QualityMonitor: add one"
        raise ValueError(f"`{who}(monitor={monitor!r})` waits for a score that nothing logs. {logged}.")
