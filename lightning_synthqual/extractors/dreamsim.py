"""DreamSim through its package: an embedding, and the distance 1 - cosine that was tuned to human judgements."""

import contextlib
import hashlib
import io
import shutil
import uuid
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_synthqual.extractors.base import Extractor, Identity
from lightning_synthqual.extractors.network import no_endless_waiting
from lightning_synthqual.extractors.pairs import PairNetwork
from lightning_synthqual.extractors.resize import pillow, pillow_float
from lightning_synthqual.extractors.weights import (
    WeightsRequirement,
    advice,
    download,
    sha256_of_state,
    weights_folder,
)

_SIDE = 224
_RELEASES = "https://github.com/ssundaram21/dreamsim/releases/download"


# What torch.hub puts into the package's folder, by where it is published.
_DINO = {
    "facebookresearch_dino_main": "https://github.com/facebookresearch/dino",
    "checkpoints/dino_vitbase16_pretrain.pth": (
        "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"
    ),
}
_DINOV2 = {
    "facebookresearch_dinov2_main": "https://github.com/facebookresearch/dinov2",
    "checkpoints/dinov2_vitb14_pretrain.pth": (
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth"
    ),
}


class Variant(NamedTuple):
    """A DreamSim model.

    Args:
        kind: The package's name for it.
        url: Its archive.
        entries: Files that the archive adds to the package's folder.
        hub: Addresses of the files that torch.hub adds to the folder, by file.
    """

    kind: str
    url: str
    entries: tuple[str, ...]
    hub: Mapping[str, str]


def _single(kind: str, release: str, backbone: str, hub: Mapping[str, str] = MappingProxyType({})) -> Variant:
    url = f"{_RELEASES}/{release}-checkpoints/dreamsim_{kind}_checkpoint.zip"
    return Variant(kind, url, (backbone, f"{kind}_single_lora"), hub)


VARIANTS: dict[str, Variant] = {
    "dreamsim": Variant(
        "ensemble",
        f"{_RELEASES}/v0.2.0-checkpoints/dreamsim_ensemble_checkpoint.zip",
        (
            "dino_vitb16_pretrain.pth",
            "open_clip_vitb16_pretrain.pth.tar",
            "clip_vitb16_pretrain.pth.tar",
            "ensemble_lora",
        ),
        _DINO,
    ),
    "dreamsim_dino_vitb16": _single("dino_vitb16", "v0.2.0", "dino_vitb16_pretrain.pth", _DINO),
    "dreamsim_dinov2_vitb14": _single("dinov2_vitb14", "v0.2.1", "dinov2_vitb14_pretrain.pth", _DINOV2),
    "dreamsim_clip_vitb32": _single("clip_vitb32", "v0.2.0", "clip_vitb32_pretrain.pth.tar"),
    "dreamsim_open_clip_vitb32": _single("open_clip_vitb32", "v0.2.0", "open_clip_vitb32_pretrain.pth.tar"),
}


class DreamSimNetwork(nn.Module):
    """uint8, or floats in [0, 255], (N, 3, H, W) to embeddings (N, D) of mean zero and length one.

    Args:
        model: The package's model with normalised embeddings.
    """

    model: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        for part in backbones(model):
            projection = vars(part).pop("proj", None)  # a tensor, which the package copies to the device at each pass
            if projection is not None:
                part.register_buffer("proj", projection.detach(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Resize to 224 by Pillow's bicubic, scale to [0, 1], and embed."""
        for part in backbones(self.model):
            part.device = images.device  # where the package wants the projection
        resize = pillow if images.dtype == torch.uint8 else pillow_float
        embeddings: Tensor = self.model.embed(resize(images, (_SIDE, _SIDE)).float() / 255.0)
        return embeddings


class DreamSimDistance(nn.Module):
    """Two stacks (N, 3, H, W) to distances (N,) between 0 and 2."""

    def __init__(self, network: DreamSimNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """One minus the cosine of the embeddings."""
        cosines: Tensor = (self.network(first) * self.network(second)).sum(dim=1)
        return 1.0 - cosines


def required(name: str, weights_dir: str | Path | None = None) -> list[WeightsRequirement]:
    """The folder of weights that the package's archive gives, and what torch.hub adds to it, with their paths."""
    variant = VARIANTS[name]
    folder = next((place for place in _places(weights_dir) if not _missing(variant, place)), None)
    hub = [
        WeightsRequirement(f"dreamsim/{entry}", url, folder / entry if folder and (folder / entry).exists() else None)
        for entry, url in variant.hub.items()
    ]
    return [WeightsRequirement("dreamsim/", variant.url, folder), *hub]


def build(name: str, weights: str | Path | None = None, weights_dir: str | Path | None = None) -> Extractor:
    """``dreamsim`` (the ensemble) or one of its single networks.

    Args:
        name: Name of the variant.
        weights: A folder of the package's, its ``cache_dir``.
        weights_dir: A folder that has such a folder named ``dreamsim``.

    Raises:
        FileNotFoundError: If the weights are missing and cannot be downloaded.
        ValueError: If the weights are damaged or belong to another network.
    """
    network, identity = _load(name, weights, weights_dir)
    return Extractor(network, identity)


def build_pair(name: str, weights: str | Path | None = None, weights_dir: str | Path | None = None) -> PairNetwork:
    """The distance between embeddings of ``build``, with its arguments and errors."""
    network, identity = _load(name, weights, weights_dir)
    return PairNetwork(DreamSimDistance(network), identity)


def _load(name: str, weights: str | Path | None, weights_dir: str | Path | None) -> tuple[DreamSimNetwork, Identity]:
    variant = VARIANTS[name]
    folder = _find(name, variant, weights, weights_dir)
    from dreamsim import dreamsim

    silence = contextlib.redirect_stdout(io.StringIO())
    with _hub_directory_restored(), no_endless_waiting(), silence, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package wraps its model in an adapter twice, which peft warns of
        try:
            model, _ = dreamsim(cache_dir=str(folder), dreamsim_type=variant.kind, device="cpu")
        except OSError as error:
            raise FileNotFoundError(
                f"{name}: the DINO networks come from torch.hub, which found neither network nor a copy in `{folder}` "
                f"({error}). Run `synthqual weights fetch {name}` where there is a network."
            ) from error
        except Exception as error:  # whatever the package and the libraries below it make of a wrong file
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"The DreamSim weights in `{folder}` do not fit {name} or are damaged ({reason}). "
                "Delete the folder, and they are downloaded again."
            ) from error
    origin = "custom" if weights is not None else "unverified"  # the releases publish no hashes
    identity = Identity(name, _sha256(model), "Pillow's bicubic to 224, [0, 1]", origin=origin)
    return DreamSimNetwork(model), identity


def _sha256(model: nn.Module) -> str:
    """The hash of all weights, those included that the package keeps outside of the state dict."""
    digest = hashlib.sha256(sha256_of_state(model).encode())
    for part in backbones(model):
        projection = getattr(part, "proj", None)
        if isinstance(projection, Tensor):
            digest.update(projection.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def backbones(model: Any) -> Iterator[Any]:
    """The vision transformers that a model consists of."""
    yield from model.extractor_list


def _places(weights_dir: str | Path | None) -> list[Path]:
    """Where the package's folder may be; the first is where a download goes."""
    folder = weights_folder(weights_dir)
    own = [folder / "dreamsim", folder] if folder is not None else []
    return [*own, Path(torch.hub.get_dir()) / "dreamsim"]


def _missing(variant: Variant, folder: Path) -> list[str]:
    return [entry for entry in variant.entries if not (folder / entry).exists()]


def _find(name: str, variant: Variant, weights: str | Path | None, weights_dir: str | Path | None) -> Path:
    if weights is not None:
        folder = Path(weights).expanduser()
        missing = _missing(variant, folder)
        if missing:
            raise FileNotFoundError(
                f"`{folder}` must be a folder that has {', '.join(variant.entries)}, but it has no "
                f"{', '.join(missing)}. {advice(name, 'dreamsim/', variant.url)}"
            )
        return folder
    places = _places(weights_dir)
    for folder in places:
        if not _missing(variant, folder):
            return folder
    try:
        _download(variant, places[0])
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise FileNotFoundError(
            f"The DreamSim weights are not in `{places[0]}` and could not be downloaded ({error}). "
            f"{advice(name, 'dreamsim/', variant.url)} Give the unpacked archive's folder."
        ) from error
    return places[0]


def _download(variant: Variant, folder: Path) -> None:
    """Unpack the archive next to the folder, then move its entries in; every use checks that all are there."""
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / f".partial-{uuid.uuid4().hex}"
    try:
        archive = work / "pretrained.zip"
        download(variant.url, archive)
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(work)
        archive.unlink()
        for entry in work.iterdir():
            with contextlib.suppress(OSError):  # another process may have been first
                entry.replace(folder / entry.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    missing = _missing(variant, folder)
    if missing:
        raise OSError(f"the archive did not give {', '.join(missing)}")


@contextlib.contextmanager
def _hub_directory_restored() -> Iterator[None]:
    """The package points all of torch.hub at its own folder, for good."""
    before = torch.hub.get_dir()
    try:
        yield
    finally:
        torch.hub.set_dir(before)
