"""Reference features on disk: safetensors files that appear whole or not at all."""

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightning_synthqual.extractors.base import Identity

_log = logging.getLogger(__name__)


def default_directory() -> Path:
    """``$XDG_CACHE_HOME/lightning_synthqual``, by default below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning_synthqual"


class FeatureCache:
    """Features of data sets, by data fingerprint and extractor identity.

    Args:
        directory: Where the files lie; ``None``: the default directory.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self.directory = Path(directory).expanduser() if directory is not None else default_directory()

    def path(self, fingerprint: str, identity: Identity) -> Path:
        """The file of one data set and one extractor."""
        key = hashlib.sha256(f"{fingerprint} {identity.key}".encode()).hexdigest()
        return self.directory / f"{identity.name}-{key[:32]}.safetensors"

    def load(self, fingerprint: str, identity: Identity) -> dict[str, Tensor] | None:
        """Return the features by output name, or ``None`` if there are none that can be trusted."""
        path = self.path(fingerprint, identity)
        try:
            if not path.is_file():
                return None
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                outputs = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            if metadata.get("digest") == _digest(outputs):
                return outputs
            reason = "its content does not match its checksum"
        except (SafetensorError, OSError, ValueError) as error:
            reason = str(error)
        _log.warning("The cached features `%s` are damaged (%s); they are computed anew.", path, reason)
        return None

    def save(self, fingerprint: str, identity: Identity, outputs: Mapping[str, Tensor]) -> None:
        """Write features under a temporary name and rename; a folder that cannot be written costs only a warning."""
        path = self.path(fingerprint, identity)
        tensors = {name: value.detach().cpu().contiguous() for name, value in outputs.items()}
        metadata = {"digest": _digest(tensors), "identity": json.dumps(vars(identity))}
        temporary = path.with_name(f".partial-{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, temporary, metadata=metadata)
            temporary.replace(path)
        except (OSError, SafetensorError) as error:
            _log.warning(
                "The features could not be cached as `%s` (%s); the next run computes them again.", path, error
            )
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _digest(outputs: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(outputs.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
