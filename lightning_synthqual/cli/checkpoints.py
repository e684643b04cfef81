"""A generator from a checkpoint, of which nothing but tensors and plain values is read unless the file is trusted."""

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_synthqual.evaluation.report import unpack
from lightning_synthqual.extractors.weights import load_state, read_state_dict
from lightning_synthqual.importing import resolve_object

_HYPERPARAMETERS = "hyper_parameters"
_Classes = list[Callable[..., Any] | tuple[Callable[..., Any], str]]
_DICTS = ("defaultdict", "AttributeDict")  # Lightning saves its own kind of dict in older checkpoints
_OF_TRAINING = ("optimizer_states", "lr_schedulers", "loops", "callbacks", "fit_loop")


class Loaded(NamedTuple):
    """A generator, and the precision in which the training sampled it, if it said so."""

    module: nn.Module
    precision: str | None


class Unread:
    """Stands for an object of a class that is neither imported nor run."""

    name = ""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _AsDict:
    """Is made as a plain dict, the only kind that torch fills without running code."""

    def __new__(cls, *_: Any) -> Any:
        return {}


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    Args:
        path: The file.
        content: Its dict.
        trusted: Classes that may be read, with their names in the file.
    """

    path: str
    content: Mapping[str, Any]
    trusted: _Classes


def load_generator(path: str, module: str, *, trusted: bool = False) -> Loaded:
    """Load the module of a checkpoint.

    Args:
        path: The checkpoint's path.
        module: Import path of a LightningModule class, which is made from the checkpoint's hyperparameters, or of a
            function that returns a module.
        trusted: If true, objects of any class are read from the file.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If ``module`` is neither.
        ValueError: If the file is damaged, holds no weights, or does not fit the module.
    """
    maker = Maker(module)
    checkpoint = read_checkpoint(path, trusted)
    return Loaded(maker.make(checkpoint), precision_of(checkpoint.content))


class Maker:
    """Makes the module of a checkpoint.

    Args:
        module: Import path, as for `load_generator`.

    Raises:
        TypeError: If it is neither a LightningModule class nor a function.
        ValueError: If it cannot be imported.
    """

    def __init__(self, module: str) -> None:
        self._path = module
        self._kind = resolve_object(module, "--module")
        self.is_class = isinstance(self._kind, type) and hasattr(self._kind, "load_from_checkpoint")
        if not self.is_class and not callable(self._kind):
            raise TypeError(
                f"`--module {module}` must be a LightningModule or a function that returns a module, but is "
                f"{type(self._kind).__name__}."
            )

    def make(self, checkpoint: Checkpoint) -> nn.Module:
        """The module with the checkpoint's weights.

        Raises:
            TypeError: If the function returns no module.
            ValueError: If the checkpoint does not fit.
        """
        return (_from_class if self.is_class else _from_function)(self._kind, self._path, checkpoint)


def read_checkpoint(path: str, trusted: bool = False, *, mapped: bool = False) -> Checkpoint:
    """Read a checkpoint file.

    Args:
        path: The file's path.
        trusted: If true, objects of any class are read from the file.
        mapped: If true, weights stay on disk, for a look at the rest.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or no checkpoint.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"The checkpoint `{path}` does not exist or is no file.")
    if path.endswith(".safetensors"):
        return Checkpoint(path, read_state_dict(Path(path)), [])
    names = _foreign_names(path)
    classes: _Classes = [(_class_for(name, trusted), name) for name in names]
    with _named_errors(path, names), torch.serialization.safe_globals(classes):
        content = torch.load(path, map_location="cpu", mmap=mapped and zipfile.is_zipfile(path), weights_only=True)
    if not isinstance(content, Mapping) or not content:
        what = "an empty dict" if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(f"The checkpoint `{path}` must be a dict with `state_dict`, but holds {what}.")
    return Checkpoint(path, content, classes if trusted else [])


def _foreign_names(path: str) -> list[str]:
    """Names of the classes and functions in the file that are not part of tensors and plain values."""
    if not zipfile.is_zipfile(path):
        return []  # torch's older format, or no checkpoint at all
    with _named_errors(path):
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))


@contextmanager
def _named_errors(path: str, names: Sequence[str] = ()) -> Iterator[None]:
    """Say of any error which checkpoint could not be read; torch raises many kinds for damaged files."""
    try:
        yield
    except Exception as error:
        reason = _reason(error)
        more = f" It holds objects of {', '.join(names)}." if names else " It may be damaged."
        raise ValueError(f"The checkpoint `{path}` could not be read ({reason}).{more}") from error


def _reason(error: Exception) -> str:
    """The first line of an error; of torch's refusals the line that says what was refused."""
    _, _, refused = str(error).partition("WeightsUnpickler error:")
    return next(iter((refused or str(error)).strip().splitlines()), type(error).__name__)


def _class_for(name: str, trusted: bool) -> Any:
    """What torch makes of objects of the class ``name``."""
    if name.rpartition(".")[2] in _DICTS:
        return _AsDict
    if trusted:
        return resolve_object(name, "--trust-checkpoint")
    return type("Unread", (Unread,), {"name": name})


def _unread_names(value: Any) -> set[str]:
    """The names of the classes of all objects in a nest of dicts and lists that were not read."""
    if isinstance(value, Unread):
        return {value.name}
    if isinstance(value, type) and issubclass(value, Unread):
        return {value.name}
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple | set) else ()
    return {name for part in parts for name in _unread_names(part)}


def _from_class(kind: Any, module: str, checkpoint: Checkpoint) -> nn.Module:
    """Let Lightning make the module of the checkpoint's hyperparameters."""
    _check_hyperparameters(checkpoint)
    if "state_dict" not in checkpoint.content:
        raise ValueError(f"The checkpoint `{checkpoint.path}` holds no `state_dict`, but {_keys(checkpoint.content)}.")
    kept = {
        key: value for key, value in checkpoint.content.items() if key not in _OF_TRAINING and not _unread_names(value)
    }
    file = io.BytesIO()
    torch.save(kept, file)
    file.seek(0)
    try:
        with torch.serialization.safe_globals(checkpoint.trusted):
            loaded: nn.Module = kind.load_from_checkpoint(file, map_location="cpu")
    except Exception as error:
        raise ValueError(
            f"`--module {module}` could not be made from the checkpoint `{checkpoint.path}` "
            f"({type(error).__name__}: {error}). Where its hyperparameters do not suffice, give a function that "
            "returns the module: `--module package.make`."
        ) from error
    return loaded


def _check_hyperparameters(checkpoint: Checkpoint) -> None:
    names = sorted(_unread_names(checkpoint.content.get(_HYPERPARAMETERS)))
    if names:
        raise ValueError(
            f"The checkpoint `{checkpoint.path}` has hyperparameters that are more than tensors and plain values: "
            f"{', '.join(names)}. Give a function that returns the module, `--module package.make`, into which the "
            "weights are loaded; or, for a file that you trust, add `--trust-checkpoint`."
        )


def _from_function(make: Callable[[], Any], path: str, checkpoint: Checkpoint) -> nn.Module:
    """Load the weights into the module that a user's function returns."""
    try:
        module = make()
    except Exception as error:
        raise ValueError(
            f"`--module {path}` is called without arguments to make the module, and failed "
            f"({type(error).__name__}: {error})."
        ) from error
    if not isinstance(module, nn.Module):
        raise TypeError(f"`--module {path}` must return a module, but returned {type(module).__name__}.")
    _state_of(checkpoint)
    getattr(module, "configure_model", lambda: None)()  # as Lightning does it
    load_weights(module, checkpoint)
    return module


def load_weights(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Load a checkpoint's weights into a module that has been made, as Lightning does it.

    Raises:
        ValueError: If they do not fit.
    """
    state = _state_of(checkpoint)
    getattr(module, "on_load_checkpoint", lambda _: None)(dict(checkpoint.content))
    if getattr(module, "strict_loading", True):
        load_state(module, state, Path(checkpoint.path))
    else:
        module.load_state_dict(state, strict=False)


def _state_of(checkpoint: Checkpoint) -> Mapping[str, Tensor]:
    """A checkpoint's state dict; a file may hold nothing else."""
    state = checkpoint.content.get("state_dict", checkpoint.content)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"The checkpoint `{checkpoint.path}` holds no `state_dict`, but {_keys(checkpoint.content)}.")
    return state


def _keys(content: Mapping[str, Any]) -> str:
    return ", ".join(map(str, list(content)[:10]))


def precision_of(content: Mapping[str, Any]) -> str | None:
    """The precision of sampling that the last report of a ``QualityMonitor`` in the checkpoint states."""
    for name, state in (content.get("callbacks") or {}).items():
        history = (
            state.get("history") if str(name).startswith("QualityMonitor") and isinstance(state, Mapping) else None
        )
        if history and history.get("rows"):
            last = unpack({**history, "rows": history["rows"][-1:]})[0]
            precision = last.protocol.get("sampling", {}).get("precision")
            return None if precision is None else str(precision)
    return None
