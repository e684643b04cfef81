"""CLIP's image encoders, and the text encoders beside them, through open_clip."""

from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip.model import _build_text_tower, _build_vision_tower
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_synthqual.extractors.base import Extractor, Identity
from lightning_synthqual.extractors.resize import centre_crop, pillow, shortest_side
from lightning_synthqual.extractors.texts import TextEncoder
from lightning_synthqual.extractors.weights import (
    PublishedWeights,
    WeightsFile,
    WeightsRequirement,
    find_weights,
    hub_weights,
    load_state,
    read_state_dict,
    requirement,
    warn_of_custom_weights,
)

_SAFE, _PLAIN = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
_OF_NEITHER = ("logit_scale", "logit_bias")  # half


class Model(NamedTuple):
    """An open_clip architecture and the tag of its weights."""

    architecture: str
    tag: str


SHORT_NAMES: dict[str, Model] = {
    "clip": Model("ViT-L-14-336-quickgelu", "openai"),
    "clip_vitl14": Model("ViT-L-14-quickgelu", "openai"),
    "clip_vitb16": Model("ViT-B-16-quickgelu", "openai"),
    "clip_vitb32": Model("ViT-B-32-quickgelu", "openai"),
}


class ClipNetwork(nn.Module):
    """uint8 (N, 3, H, W) to projected image embeddings (N, D).

    Args:
        visual: open_clip's image tower.
        preprocessing: open_clip's description of the images that the tower takes.
        unit: If true, rows are divided by their length.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, visual: nn.Module, preprocessing: dict[str, Any], unit: bool) -> None:
        super().__init__()
        self.visual = visual
        self.unit = unit
        size = preprocessing["size"]
        self.size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        self.interpolation = preprocessing["interpolation"]
        self.squash = preprocessing["resize_mode"] == "squash"
        self.register_buffer("mean", torch.tensor(preprocessing["mean"])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing["std"])[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Resize as the model's own transform does, normalise, and run the image tower."""
        if self.squash:
            x = pillow(images, self.size, self.interpolation)
        else:
            height, width = images.shape[2:]
            x = centre_crop(pillow(images, shortest_side((height, width), self.size[0]), self.interpolation), self.size)
        output = self.visual((x.float() / 255.0 - self.mean) / self.std)
        embeddings: Tensor = output[0] if isinstance(output, tuple) else output  # CoCa gives its tokens too
        return F.normalize(embeddings.float(), dim=-1) if self.unit else embeddings

    @property
    def words(self) -> str:
        """The preprocessing for the identity."""
        mean, std = (", ".join(f"{value:.5g}" for value in x.flatten().tolist()) for x in (self.mean, self.std))
        way = "squashed" if self.squash else "shorter side, centre crop"
        rows = ", unit rows" if self.unit else ""
        return f"Pillow's {self.interpolation} to {self.size[0]}x{self.size[1]} ({way}), mean {mean}, std {std}{rows}"


def names() -> list[str]:
    """Every open_clip name that ``build`` takes: architectures, and ``architecture:tag``."""
    return [*open_clip.list_models(), *open_clip.list_pretrained(as_str=True)]


def resolve(name: str) -> Model:
    """The architecture and tag that a name means; an architecture alone has the tag ``openai``, or its only one.

    Raises:
        ValueError: If there is no such architecture or tag, or if several tags could be meant.
    """
    if name in SHORT_NAMES:
        return SHORT_NAMES[name]
    architecture, _, tag = name.partition(":")
    if architecture not in open_clip.list_models():
        nearest = get_close_matches(architecture, open_clip.list_models(), n=1, cutoff=0.0)[0]
        raise ValueError(f"open_clip has no model {architecture!r}; did you mean {nearest!r}?")
    tags = [known for model, known in open_clip.list_pretrained() if model == architecture]
    if tag and tag not in tags:
        raise ValueError(f"open_clip has no weights {tag!r} for {architecture!r}; it has {', '.join(tags) or 'none'}.")
    if not tag and "openai" in tags:
        tag = "openai"
    return Model(architecture, tag or (tags[0] if len(tags) == 1 else ""))


def published(name: str) -> PublishedWeights | None:
    """The weights of a name, or ``None`` if it does not say which."""
    model = resolve(name)
    if not model.tag:
        return None
    repository, _, file = _tag_configuration(model)["hf_hub"].rpartition("/")
    return hub_weights(name, repository, *([file] if file else [_SAFE, _PLAIN]))


def required(name: str, weights_dir: str | Path | None = None) -> list[WeightsRequirement]:
    """The weights file and its path."""
    weights = published(name)
    return [] if weights is None else [requirement(weights, weights_dir)]


def build(name: str, weights: str | Path | None = None, weights_dir: str | Path | None = None) -> Extractor:
    """``clip`` (CMMD's ViT-L/14 at 336 with unit rows), a short name, or any open_clip ``architecture[:tag]``.

    Raises:
        FileNotFoundError: If the weights are missing and cannot be downloaded.
        ValueError: If there is no such model, its activation is not the one the weights were trained with, or the
            weights file is damaged or belongs to another network.
    """
    model, configuration, file = _open(name, weights, weights_dir)
    visual = _image_tower(configuration)
    state = read_state_dict(file.path)
    images = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    load_state(visual, images or state, file.path)
    preprocessing = merge_preprocess_dict(asdict(PreprocessCfg()), _tag_configuration(model))
    preprocessing["size"] = getattr(visual, "image_size", preprocessing["size"])
    if preprocessing["resize_mode"] == "longest":
        raise ValueError(f"{name!r} pads its images, which is not supported. Choose a model that does not.")
    network = ClipNetwork(visual, preprocessing, unit=name == "clip")
    warn_of_custom_weights(name, file, "its scores are not comparable with published numbers")
    return Extractor(network, Identity(name, file.sha256, f"{model.architecture}, {network.words}", origin=file.origin))


def build_text(name: str, weights: str | Path | None = None, weights_dir: str | Path | None = None) -> TextEncoder:
    """The text half of ``build``'s model, from the same file, with its arguments and errors.

    Raises:
        FileNotFoundError: If the weights are missing and cannot be downloaded.
        ImportError: If open_clip needs a package for the model's texts that is not installed.
        ValueError: If the file has no text half, or one of another network.
    """
    model, configuration, file = _open(name, weights, weights_dir)
    try:
        tokenize = open_clip.get_tokenizer(model.architecture)
        tower = _text_tower(configuration)
    except (ImportError, AssertionError, RuntimeError) as error:
        raise ImportError(
            f"The texts of {name!r} need a package that is not there ({error}). Install `transformers`, or take a "
            "model with CLIP's own tokens, such as 'clip'."
        ) from error
    state = read_state_dict(file.path)
    texts = {key.removeprefix("text."): value for key, value in state.items() if key.startswith("text.")}
    plain = {key: value for key, value in state.items() if not key.startswith("visual.") and key not in _OF_NEITHER}
    if "token_embedding.weight" not in plain and not texts:
        raise ValueError(f"The file `{file.path}` holds no text half of {name!r}. Give the whole model's weights.")
    load_state(tower, texts or plain, file.path)
    return TextEncoder(tower, Identity(name, file.sha256, f"{model.architecture}, texts", origin=file.origin), tokenize)


def _open(
    name: str, weights: str | Path | None, weights_dir: str | Path | None
) -> tuple[Model, dict[str, Any], WeightsFile]:
    """The model that a name means, its configuration, and the file of its weights."""
    model = resolve(name)
    configuration: dict[str, Any] = open_clip.get_model_config(model.architecture)
    _check_activation(model, configuration, _tag_configuration(model))
    source = published(name)
    if source is None and weights is None:
        tags = [tag for architecture, tag in open_clip.list_pretrained() if architecture == model.architecture]
        raise ValueError(
            f"{name!r} has several sets of weights. Name one, as {name}:{tags[0]} (known: {', '.join(tags)})."
            if tags
            else f"open_clip publishes no weights for {name!r}. Pass your own as `weights=`."
        )
    file = find_weights(source or PublishedWeights(name, _SAFE, "not published"), weights, weights_dir)
    return model, configuration, file


def _image_tower(configuration: dict[str, Any]) -> nn.Module:
    """The image half alone: the text half can be the larger one, and may itself want weights from a hub."""
    vision = {**configuration["vision_cfg"], "timm_model_pretrained": False}
    tower: nn.Module = _build_vision_tower(
        configuration["embed_dim"], vision, quick_gelu=configuration.get("quick_gelu", False)
    )
    return tower


def _text_tower(configuration: dict[str, Any]) -> nn.Module:
    """The text half alone."""
    text = {**configuration["text_cfg"], "hf_model_pretrained": False, "output_tokens": False}
    tower: nn.Module = _build_text_tower(
        configuration["embed_dim"], text, quick_gelu=configuration.get("quick_gelu", False)
    )
    return tower


def _tag_configuration(model: Model) -> dict[str, Any]:
    configuration: dict[str, Any] = open_clip.get_pretrained_cfg(model.architecture, model.tag) if model.tag else {}
    return configuration


def _check_activation(model: Model, configuration: dict[str, Any], trained: dict[str, Any]) -> None:
    """open_clip only warns when it builds GELU for weights that were trained with QuickGELU."""
    if not model.tag or configuration.get("quick_gelu", False) == trained.get("quick_gelu", False):
        return
    plain = model.architecture.removesuffix("-quickgelu")
    right = f"{plain}-quickgelu" if trained.get("quick_gelu", False) else plain
    raise ValueError(
        f"The weights {model.tag!r} were trained with {'QuickGELU' if right != plain else 'GELU'}, but "
        f"{model.architecture!r} computes the other. Use '{right}:{model.tag}'."
    )
