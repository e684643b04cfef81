"""Weights files: found, downloaded, verified, and read without unpickling anything."""

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn

_log = logging.getLogger(__name__)
DIRECTORY_VARIABLE = "LIGHTNING_SYNTHQUAL_WEIGHTS"


@dataclass(frozen=True)
class PublishedWeights:
    """A published weights file: its extractor, its name, where it is, and the first hex digits of its SHA-256."""

    extractor: str
    filename: str
    url: str
    sha256_prefix: str


def find_weights(published: PublishedWeights, weights: str | None, weights_dir: str | None) -> Path:
    """Return the weights file: ``weights``, else the published name in the weights folder, else a download.

    Args:
        published: What to look for.
        weights: A file of the user's.
        weights_dir: A folder of files by their published names; default: ``$LIGHTNING_SYNTHQUAL_WEIGHTS``.

    Raises:
        FileNotFoundError: If there is no such file and it cannot be downloaded.
    """
    if weights is not None:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"The weights file `{path}` does not exist. {_advice(published)}")
        return path
    folder = weights_dir or os.environ.get(DIRECTORY_VARIABLE)
    if folder is not None and (path := Path(folder).expanduser() / published.filename).is_file():
        return path
    path = Path(torch.hub.get_dir()) / "checkpoints" / published.filename
    if not path.is_file():
        _download(published, path)
    return path


def _download(published: PublishedWeights, path: Path) -> None:
    _log.info("Downloading %s to %s", published.url, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Writes a temporary file, checks the hash and renames it.
        torch.hub.download_url_to_file(published.url, str(path), hash_prefix=published.sha256_prefix, progress=False)
    except (URLError, OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"The weights file `{published.filename}` is not here and could not be downloaded from {published.url} "
            f"({error}). {_advice(published)}"
        ) from error


def _advice(published: PublishedWeights) -> str:
    return (
        f"The published file is {published.url}. Download it where there is a network, then pass it as "
        f"`extractors={{{published.extractor!r}: {{'weights': 'path/to/file'}}}}`, or put it under its published name "
        f"into the folder that `weights_dir=` or ${DIRECTORY_VARIABLE} names."
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict with ``weights_only=True``.

    Raises:
        ValueError: If the file is damaged, or holds anything but named tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes of a damaged file make torch stumble over
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise ValueError(
            f"The weights file `{path}` could not be read as a PyTorch state dict ({reason[0]}). "
            "It may be truncated: compare its size with the published one and copy it again."
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"The weights file `{path}` must hold a dict of tensors (a state dict), but it holds others.")
    return dict(state)


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
            f"The weights file `{path}` does not fit {type(network).__name__}: {len(wrong)} of {len(expected)} entries "
            f"differ, for example {'; '.join(wrong[:3])}. Give the file that belongs to this network."
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
        digest.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
