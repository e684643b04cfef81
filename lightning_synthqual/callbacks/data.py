"""Images that the trainer's other stages read: its validation data, its test data, or what a function finds."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from lightning_synthqual.callbacks.lightning import stage_source, train_loader
from lightning_synthqual.evaluation.plan import Plan
from lightning_synthqual.evaluation.sets import open_inputs
from lightning_synthqual.images.inputs import Inputs
from lightning_synthqual.images.randomness import preserved_generators
from lightning_synthqual.images.source import Images


class _Stage(NamedTuple):
    """A stage by Lightning's names, and the functions of a trainer in which its data have been set up."""

    name: str
    hook: str
    ready_in: tuple[str, ...]


_STAGES = {
    "val": _Stage("validate", "val_dataloader", ("fit", "validate")),
    "test": _Stage("test", "test_dataloader", ("test",)),
}


class TrainerData:
    """The data of a trainer, those of an earlier fit too: a later validate or test may have none."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def real(self, trainer: Trainer, plan: Plan, given: Any, labelled: bool) -> Any:
        """The training images: those given, or the trainer's train data.

        Args:
            trainer: The trainer.
            plan: The plan, which says whether they are needed.
            given: What was given as ``real``.
            labelled: Whether labels are taken from them.

        Raises:
            ValueError: If they are needed and not one DataLoader.
        """
        images = Images.of(given)
        if images.source is not None:
            return given
        compares = plan.reads_real and plan.reference == "real"
        loader = train_loader(trainer, compares or labelled or plan.needs_both)
        if loader is not None:  # the truth of a DataLoader is its length, which not every one has
            self._known["train"] = loader
        return replace(images, source=self._known.get("train"))

    def inputs(
        self, trainer: Trainer, plan: Plan, real: Any, given: Any, num_samples: int, repeat: bool
    ) -> Inputs | None:
        """What the generator is conditioned on: what was given, or one stage's data of the trainer.

        Args:
            trainer: The trainer.
            plan: The plan.
            real: What was given as ``real``.
            given: What was given as ``inputs``: a set of items, or ``"train"``, ``"val"`` or ``"test"``, or a function.
            num_samples: Number of images to generate.
            repeat: Whether items may be used several times.
        """
        images = Images.of(given)
        stage = images.source if isinstance(images.source, str) and images.source in ("train", *_STAGES) else None
        if stage is not None:
            images = replace(images, source=self._of_stage(trainer, stage))
        else:
            images = Images.of(trainer_data(trainer, images, "inputs"))
        name = None if stage is None else f"the trainer's {stage} data"
        return open_inputs(plan, images, real, num_samples=num_samples, repeat=repeat, given=name, example="None")

    def _of_stage(self, trainer: Trainer, stage: str) -> Any:
        try:
            found = train_loader(trainer, True) if stage == "train" else trainer_data(trainer, stage, "inputs")
        except ValueError:
            if stage not in self._known:
                raise
            return self._known[stage]
        self._known[stage] = found
        return found


def is_deferred(source: Any) -> bool:
    """Whether images can be found only once there is a trainer: ``"val"``, ``"test"`` or a function."""
    source = Images.of(source).source
    return (isinstance(source, str) and source in _STAGES) or _is_function(source)


def trainer_data(trainer: Trainer, source: Any, argument: str) -> Any:
    """The data that an argument of a callback stands for; anything but a name or a function stays as it is.

    Every process calls this; no random number of the training is drawn, and the data module stays as it is.

    Args:
        trainer: The trainer, which has its data.
        source: ``"val"`` or ``"test"``: the data of that stage, given to the trainer or by a hook of the data module or
            the LightningModule; a function of the data module, or of the trainer where there is none; or `Images` of
            these. A folder that is called "val" is "./val".
        argument: Name of the argument, for messages.

    Returns:
        The data, or `Images` with them where ``source`` was that.

    Raises:
        RuntimeError: If a hook or function fails.
        TypeError: If a function returns nothing.
        ValueError: If there are no such data, or several loaders.
    """
    if not is_deferred(source):
        return source
    given = Images.of(source)
    with preserved_generators():
        if isinstance(given.source, str):
            found = _stage_loader(trainer, given.source, argument)
        else:
            found = _called(trainer, given.source, argument)
    return replace(given, source=found) if isinstance(source, Images) else found


def _is_function(source: Any) -> bool:
    return callable(source) and not any(hasattr(source, name) for name in ("__getitem__", "__iter__", "read"))


def _called(trainer: Trainer, function: Callable[[Any], Any], argument: str) -> Any:
    datamodule = getattr(trainer, "datamodule", None)
    what = "trainer" if datamodule is None else "data module"
    try:
        found = function(trainer if datamodule is None else datamodule)
    except Exception as error:
        raise RuntimeError(f"The function given as `{argument}`, called with the {what}, failed: {error}") from error
    if found is None:
        raise TypeError(f"The function given as `{argument}`, called with the {what}, returned None instead of images.")
    return found


def _stage_loader(trainer: Trainer, name: str, argument: str) -> Any:
    stage = _STAGES[name]
    source = stage_source(trainer, stage.name)
    if source is None:
        raise ValueError(
            f"`{argument}={name!r}` needs the trainer's {stage.name} data, but there are none: neither were loaders "
            f"given nor has the data module or the LightningModule a `{stage.hook}`. Add one, or pass the images."
        )
    instance, is_hook = source
    loader = _from_hook(trainer, instance, stage, argument, name) if is_hook else instance
    loaders = loader if isinstance(loader, list | tuple) else [loader]
    if len(loaders) != 1 or not isinstance(loaders[0], DataLoader):
        kinds = ", ".join(type(each).__name__ for each in loaders) or "nothing"
        raise ValueError(
            f"`{argument}={name!r}` needs one DataLoader, but `{stage.hook}` gives {kinds}. Choose the images by a "
            f"function: `{argument}=lambda datamodule: datamodule.val_set`."
        )
    return loaders[0]


def _from_hook(trainer: Trainer, instance: Any, stage: _Stage, argument: str, name: str) -> Any:
    """What a hook gives; data that this run has not set up are, in a copy of the data module."""
    running = str(getattr(trainer.state.fn, "value", trainer.state.fn))
    try:
        if running not in stage.ready_in and instance is getattr(trainer, "datamodule", None):
            instance = copy.copy(instance)
            instance.setup(stage.name)
        return getattr(instance, stage.hook)()
    except Exception as error:
        raise RuntimeError(
            f"`{argument}={name!r}`: `setup({stage.name!r})` and `{stage.hook}` of {type(instance).__name__} failed "
            f"({type(error).__name__}: {error}). Pass the images themselves, or mend the hook."
        ) from error
