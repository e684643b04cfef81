"""Weights files: found, downloaded, verified, and read without unpickling anything."""

import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_synthqual.extractors.network import check_reachable, no_endless_waiting

_log = logging.getLogger(__name__)
DIRECTORY_VARIABLE = "LIGHTNING_SYNTHQUAL_WEIGHTS"
_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class PublishedWeights:
    """A published weights file.

    Args:
        extractor: Name of the extractor or pair network that they belong to.
        filename: The published name, searched for in a weights folder; of a hub's file ``<repository's name>/<file>``.
        url: Address of the published file.
        sha256: The first hex digits of its hash, or all, as far as they are published.
        alternatives: Other names of the same weights in a folder or in a hub's repository.
        repository: The Hugging Face repository that has it, or empty.
    """

    extractor: str
    filename: str
    url: str
    sha256: str = ""
    alternatives: tuple[str, ...] = ()
    repository: str = ""

    @property
    def filenames(self) -> tuple[str, ...]:
        """Every name to look for, the preferred one first."""
        return (self.filename, *self.alternatives)


def hub_weights(extractor: str, repository: str, *files: str, alternatives: tuple[str, ...] = ()) -> PublishedWeights:
    """Weights that a Hugging Face repository publishes, as the first of ``files`` that is there."""
    folder = repository.rpartition("/")[2]
    first, *others = (f"{folder}/{file}" for file in files)
    url = f"{_HUB}/{repository}/resolve/main/{files[0]}"
    return PublishedWeights(extractor, first, url, alternatives=(*others, *alternatives), repository=repository)


@dataclass(frozen=True)
class WeightsFile:
    """A weights file that was found.

    Args:
        path: Its path.
        sha256: Its hash.
        origin: ``"published"`` if the hash is the published one, ``"custom"`` if it is another or the user named the
            file, ``"unverified"`` if it has the published name and no hash is published.
    """

    path: Path
    sha256: str
    origin: str


class WeightsRequirement(NamedTuple):
    """A file (or folder) that an extractor needs, its address, and its path on this machine if it is there."""

    filename: str
    url: str
    path: Path | None


def weights_folder(weights_dir: str | Path | None) -> Path | None:
    """The user's folder of weights: ``weights_dir``, else ``$LIGHTNING_SYNTHQUAL_WEIGHTS``, else ``None``."""
    folder = weights_dir or os.environ.get(DIRECTORY_VARIABLE)
    return Path(folder).expanduser() if folder else None


def find_weights(
    published: PublishedWeights, weights: str | Path | None, weights_dir: str | Path | None
) -> WeightsFile:
    """Return the weights file: ``weights``, else the published one from a folder or cache, else a download.

    Args:
        published: The published file.
        weights: A file of the user's.
        weights_dir: A folder of files by their published names, into which a missing one is downloaded; default:
            ``$LIGHTNING_SYNTHQUAL_WEIGHTS``, and without that the download folder of the library it comes from.

    Raises:
        FileNotFoundError: If there is no such file and it cannot be downloaded.
        ValueError: If a downloaded file does not have the published hash.
    """
    if weights is not None:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"The weights file `{path}` does not exist. {_advice(published)}")
        digest = sha256_of_file(path)
        return WeightsFile(path, digest, "published" if _matches(digest, published.sha256) else "custom")
    folder = weights_folder(weights_dir)
    if folder is not None and (found := _in_folder(published, folder)) is not None:
        digest = sha256_of_file(found)
        origin = "published" if _matches(digest, published.sha256) else "custom" if published.sha256 else "unverified"
        return WeightsFile(found, digest, origin)
    cached = _in_cache(published) or _download(published, folder)
    return _verified(cached, published)


def requirement(published: PublishedWeights, weights_dir: str | Path | None) -> WeightsRequirement:
    """The path of a published file on this machine, found without the network."""
    folder = weights_folder(weights_dir)
    path = _in_folder(published, folder) if folder is not None else None
    return WeightsRequirement(published.filename, published.url, path or _in_cache(published))


def _in_folder(published: PublishedWeights, folder: Path) -> Path | None:
    return next((folder / name for name in published.filenames if (folder / name).is_file()), None)


def _in_cache(published: PublishedWeights) -> Path | None:
    """The file that an earlier download left in the folder of the library that made it."""
    if not published.repository:
        path = download_folder() / published.filename
        return path if path.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    for name in published.filenames:
        found = try_to_load_from_cache(published.repository, name.rpartition("/")[2])
        if isinstance(found, str):
            return Path(found)
    return None


def download_folder() -> Path:
    """Where torchvision, torch-fidelity and others put their downloads."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def _download(published: PublishedWeights, folder: Path | None) -> Path:
    try:
        if published.repository:
            return _download_from_hub(published, folder)
        path = (folder or download_folder()) / published.filename
        download(published.url, path, published.sha256)
        return path
    except (OSError, RuntimeError, ValueError) as error:
        raise FileNotFoundError(
            f"The weights file `{published.filename}` is not here and could not be downloaded from {published.url} "
            f"({_first_line(error)}). {_advice(published)}"
        ) from error


def download(url: str, path: Path, sha256: str = "") -> None:
    """Download a file and rename it when it is complete.

    Raises:
        OSError: If the network or the folder refuses.
        RuntimeError: If the hash is not ``sha256``.
    """
    _log.info("Downloading %s to %s", url, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with no_endless_waiting():
        # Writes a temporary file, checks the hash and renames it.
        torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256 or None, progress=False)


def _download_from_hub(published: PublishedWeights, folder: Path | None) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if not constants.HF_HUB_OFFLINE:
        check_reachable(constants.ENDPOINT)  # the hub's own client would try again for half a minute
    missing: Exception = FileNotFoundError(published.filename)
    for name in published.filenames:
        _log.info("Downloading %s from %s", name, published.repository)
        try:
            cached = Path(hf_hub_download(published.repository, name.rpartition("/")[2]))
        except LocalEntryNotFoundError as error:
            raise OSError(f"the hub cannot be reached: {_first_line(error)}") from error
        except EntryNotFoundError as error:
            missing = error
            continue
        if folder is None:
            return cached
        path = _verified(cached, published).path
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".partial-{uuid.uuid4().hex}")
        shutil.copyfile(path, temporary)
        return temporary.replace(target)
    raise missing


def _verified(path: Path, published: PublishedWeights) -> WeightsFile:
    """Check a downloaded file against its published hash, which is also the name of a hub's file in the hub's cache."""
    digest = sha256_of_file(path)
    blob = path.resolve().name
    expected = published.sha256 or (blob if published.repository and len(blob) == len(digest) else "")
    if expected and not digest.startswith(expected):
        raise ValueError(
            f"The downloaded weights file `{path}` is damaged: its SHA-256 starts with {digest[:8]}, but the published "
            f"one with {expected[:8]}. Delete it, and it is downloaded again."
        )
    return WeightsFile(path, digest, "published" if expected else "unverified")


def _matches(digest: str, expected: str) -> bool:
    return bool(expected) and digest.startswith(expected)


def _advice(published: PublishedWeights) -> str:
    return advice(published.extractor, published.filename, published.url)


def advice(extractor: str, filename: str, url: str) -> str:
    """How to give weights to a machine that cannot download them."""
    return (
        f"The published file is {url}. Run `synthqual weights fetch {extractor}` where there is a network, or pass the "
        f"file as `extractors={{{extractor!r}: {{'weights': 'path/to/file'}}}}`, or put it as `{filename}` into the "
        f"folder that `weights_dir=` or ${DIRECTORY_VARIABLE} names. The extractors 'wavelet' and 'pixels' need no "
        "weights (metrics such as 'fd_wavelet')."
    )


def warn_of_custom_weights(name: str, file: WeightsFile, consequence: str) -> None:
    """Say that weights are not the published ones."""
    if file.origin == "custom":
        _log.warning(
            "`%s` uses the weights of `%s`, which are not known to be the published ones: %s.",
            name,
            file.path,
            consequence,
        )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a safetensors or PyTorch file, the latter with ``weights_only=True``.

    Wrappers of training scripts are removed: a ``state_dict`` entry, and ``module.`` before every name.

    Raises:
        ValueError: If the file is damaged, or holds anything but named tensors.
    """
    state: Any
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds of errors for damaged files
        kind = "safetensors file" if isinstance(error, SafetensorError) else "PyTorch state dict"
        raise ValueError(
            f"The weights file `{path}` could not be read as a {kind} ({_first_line(error)}). "
            "It may be truncated: compare its size with the published one and copy it again."
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"The weights file `{path}` must hold a dict of tensors (a state dict), but it holds others.")
    prefix = "module." if state and all(name.startswith("module.") for name in state) else ""
    return {name.removeprefix(prefix): value for name, value in state.items()}


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def load_state(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict strictly; a mismatch names a few keys, not all of them.

    BatchNorm's counters of training batches, which files of older versions of PyTorch lack, may be absent.

    Raises:
        ValueError: If names or shapes differ from the network's.
    """
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    wrong = [
        f"{name} (file: {found.get(name, 'absent')}, network: {expected.get(name, 'absent')})"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name) and not (name.endswith(".num_batches_tracked") and name not in found)
    ]
    if wrong:
        raise ValueError(
            f"The weights file `{path}` does not fit {type(network).__name__}: {len(wrong)} of "
            f"{len(expected | found)} entries differ, for example {'; '.join(wrong[:3])}. Give the file that belongs "
            "to this network."
        )
    network.load_state_dict(state)


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_state(network: nn.Module) -> str:
    """Hex SHA-256 of a module's parameters and buffers, names and types included."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        if not isinstance(value, Tensor):
            continue  # what a module adds by `get_extra_state`
        digest.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
