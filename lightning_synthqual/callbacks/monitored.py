"""What callbacks that act on one score have in common."""

from lightning.pytorch import Trainer

from lightning_synthqual.callbacks.monitor import monitors_of
from lightning_synthqual.metrics.base import Direction, Metric
from lightning_synthqual.metrics.catalogue import alarm_of, direction, direction_of, owner

_OF_BOTH_SETS = ("_floor", "_gap", "_gap_std")  # scalars that need held-out images


def known_mode(monitor: str, mode: Direction | None) -> Direction | None:
    """Return ``mode``, or the direction of the catalogue metric that ``monitor`` (``"<prefix>/<metric>"``) names.

    ``None`` if there is no such metric: those of users are known when there is a trainer.
    """
    return mode or direction(monitor.rpartition("/")[2])


def find_mode(trainer: Trainer, monitor: str) -> Direction | None:
    """Return the direction of the metric that logs ``monitor``, if there is one and it has one."""
    metric = _logged_by(trainer, monitor)
    return None if metric is None else direction_of(metric, monitor.rpartition("/")[2])


def find_alarm(trainer: Trainer, monitor: str) -> float | None:
    """Return the number above which the score says that something is wrong, if its metric has one."""
    metric = _logged_by(trainer, monitor)
    return None if metric is None else alarm_of(metric, monitor.rpartition("/")[2])


def check_monitored(trainer: Trainer, monitor: str, mode: Direction | None, who: str) -> None:
    """Raise unless a `QualityMonitor` of the trainer logs ``monitor``, and it is known which values are better.

    Raises:
        ValueError: With the names that are logged, or with what to say about the direction.
    """
    if _logged_by(trainer, monitor) is None:
        names = [f"{each.prefix}/{name}" for each in monitors_of(trainer) for name in each.plan.names]
        logged = f"Logged are: {', '.join(names)}" if names else "The trainer has no QualityMonitor: add one"
        more = ", and with `held_out=` their floors and gaps" if monitor.endswith(_OF_BOTH_SETS) else ""
        raise ValueError(f"`{who}(monitor={monitor!r})` waits for a score that nothing logs. {logged}{more}.")
    if mode is None:
        raise ValueError(
            f"The direction of {monitor!r} is unknown: it is no metric of which smaller or larger values are better. "
            f"Give `{who}` a logged name such as 'quality/fid', or `mode='min'` or `mode='max'`."
        )


def _logged_by(trainer: Trainer, monitor: str) -> Metric | None:
    prefix, _, name = monitor.rpartition("/")
    monitors = [each for each in monitors_of(trainer) if each.prefix == prefix]
    found = owner([metric for each in monitors for metric in each.plan.metrics], name)
    if found is None or name in found.names or not name.endswith(_OF_BOTH_SETS):
        return found
    needed = found.gap if "_gap" in name else found.floor
    return found if needed and any(each.held_out is not None for each in monitors) else None
