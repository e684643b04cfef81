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
_VERSION = "2"  # of the files' layout
_DAMAGED = "it is damaged: its content does not match its checksum"
_PROBE = "probe of the network"  # the name of the probe among the outputs; a space keeps it apart from those
_CHUNK = 2**20  # bytes of a file that are read at once
_TOLERANCE = {"float32": 1e-4, "tf32": 5e-3, "bfloat16": 3e-2}  # relative


def default_directory() -> Path:
    """``$XDG_CACHE_HOME/lightning_synthqual``, by default below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning_synthqual"


class FeatureCache:
    """Features of data sets, by data fingerprint and extractor identity.

    Args:
        directory: Folder of the files; ``None``: the default directory.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self.directory = Path(directory).expanduser() if directory is not None else default_directory()

    def path(self, fingerprint: str, identity: Identity) -> Path:
        """The file of one data set and one extractor."""
        return self.directory / f"{identity.name.replace(':', '-')}-{_key(fingerprint, identity)[:32]}.safetensors"

    def load(
        self,
        fingerprint: str,
        identity: Identity,
        *,
        rows: int | None = None,
        probe: Tensor | None = None,
        verify: bool = True,
    ) -> dict[str, Tensor] | None:
        """Return the features by output name, or ``None`` if there are none that can be trusted.

        The tensors are mapped from the file: they take no memory but the system's cache of files, which the processes
        of a machine share.

        Args:
            fingerprint: The data set's.
            identity: The extractor's.
            rows: Number of images of the data set, where it is known; features of another number are not returned.
            probe: ``Extractor.probe`` of the extractor in use; features that were saved with another are not returned.
            verify: Whether to read the file and compare its content with its checksum.
        """
        path = self.path(fingerprint, identity)
        try:
            if not path.is_file():
                return None
            metadata, outputs = _read(path)
            reason = _objection(metadata, outputs, _key(fingerprint, identity), rows)
            if not reason and verify and metadata["digest"] != _digest_of_file(path, outputs):
                reason = _DAMAGED
        except (SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
            reason = f"it is damaged: {error}"
        else:
            saved = outputs.pop(_PROBE, None)
            if not reason and probe is not None and not _same_network(probe, saved, identity.precision):
                reason = "the network gives other features now, although its weights and code are the same"
            if not reason:
                return outputs
        _log.warning("The cached features `%s` are not used (%s); they are computed again.", path, reason)
        return None

    def digest(self, fingerprint: str, identity: Identity) -> str | None:
        """Checksum of the file's content as the file states it; ``None`` if there is none."""
        try:
            with safe_open(self.path(fingerprint, identity), framework="pt") as file:
                found: str | None = (file.metadata() or {}).get("digest")
        except (SafetensorError, OSError):
            return None
        return found

    def save(
        self, fingerprint: str, identity: Identity, outputs: Mapping[str, Tensor], *, probe: Tensor | None = None
    ) -> bool:
        """Write features under a temporary name and rename; a folder that cannot be written costs only a warning.

        Args:
            fingerprint: The data set's.
            identity: The extractor's.
            outputs: Features (N, D) by output name.
            probe: ``Extractor.probe`` of the extractor that made them.

        Returns:
            Whether they were written.
        """
        path = self.path(fingerprint, identity)
        tensors = {name: value.detach().cpu().contiguous() for name, value in outputs.items()}
        rows = len(next(iter(tensors.values())))
        if probe is not None:
            tensors[_PROBE] = probe.detach().cpu().contiguous()
        metadata = {
            "digest": _digest(tensors),
            "identity": json.dumps(vars(identity)),
            "key": _key(fingerprint, identity),
            "rows": str(rows),
        }
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
            return False
        return True


def _key(fingerprint: str, identity: Identity) -> str:
    return hashlib.sha256(f"{_VERSION} {fingerprint} {identity.key}".encode()).hexdigest()


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping


def _objection(metadata: Mapping[str, str], tensors: Mapping[str, Tensor], key: str, rows: int | None) -> str:
    """Why a file's content cannot be trusted; empty if it can."""
    if "digest" not in metadata or metadata.get("key") != key:
        return _DAMAGED
    counts = {str(len(value)) for name, value in tensors.items() if name != _PROBE}
    expected = metadata.get("rows") if rows is None else str(rows)
    return "" if counts == {expected} else f"it has {' or '.join(sorted(counts))} rows instead of {expected}"


def _same_network(probe: Tensor, saved: Tensor | None, precision: str) -> bool:
    """Whether two probes differ by no more than rounding, which is not the same on all devices."""
    if saved is None or saved.shape != probe.shape:
        return False
    new, old = (torch.nan_to_num(each.cpu().double()) for each in (probe, saved))
    return bool(((new - old).norm(dim=1) <= _TOLERANCE[precision] * old.norm(dim=1)).all())


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Checksum of tensors by name."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(_described(name, value))
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _digest_of_file(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """The same of a file's tensors, read piece by piece: pages of a map would count as this process's memory."""
    digest, space = hashlib.sha256(), memoryview(bytearray(_CHUNK))
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        for name, value in sorted(tensors.items()):
            digest.update(_described(name, value))
            start, stop = header[name]["data_offsets"]
            file.seek(8 + length + start)
            for left in range(stop - start, 0, -_CHUNK):
                digest.update(space[: file.readinto(space[: min(left, _CHUNK)])])
    return digest.hexdigest()


def _described(name: str, value: Tensor) -> bytes:
    return f"{name} {tuple(value.shape)} {value.dtype};".encode()
