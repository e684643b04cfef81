import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from lightning_synthqual.extractors import clip, load
from lightning_synthqual.extractors.clip import ClipNetwork, resolve
from lightning_synthqual.extractors.registry import open_clip_names
from lightning_synthqual.metrics.catalogue import metrics_by_name

Pictures = Callable[..., Tensor]
Relative = Callable[[Tensor, Tensor], float]

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 16, "width": 64, "heads": 1, "layers": 1},
}


@pytest.fixture(scope="module", autouse=True)
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Architectures of the library's own kinds that build in no time."""
    folder = tmp_path_factory.mktemp("configurations")
    timms = {**TINY["vision_cfg"], "timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "linear"}
    models = {
        "Tiny": TINY,
        "Tiny-quickgelu": {**TINY, "quick_gelu": True},
        "TinyResNet": {**TINY, "vision_cfg": {**TINY["vision_cfg"], "layers": [1, 1, 1, 1]}},
        "TinyTimm": {**TINY, "custom_text": True, "vision_cfg": timms},
        "TinyCoCa": {
            **TINY,
            "custom_text": True,
            "multimodal_cfg": {"context_length": 8, "vocab_size": 16, "width": 64, "heads": 1, "layers": 1},
            "vision_cfg": {**TINY["vision_cfg"], "attentional_pool": True, "output_tokens": True},
            "text_cfg": {**TINY["text_cfg"], "embed_cls": True, "output_tokens": True},
        },
    }
    for name, configuration in models.items():
        (folder / f"{name}.json").write_text(json.dumps(configuration))
    open_clip.add_model_config(folder)


def make(name: str, path: Path) -> nn.Module:
    """A random model of open_clip's, saved as its hub saves them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model(name, pretrained_text=False).eval()
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return model


def transformed(model: nn.Module, images: Tensor) -> Tensor:
    """The pictures through open_clip's own transform."""
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    return torch.stack([transform(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images])


@pytest.mark.parametrize("name", ["Tiny", "Tiny-quickgelu", "TinyResNet", "TinyTimm", "TinyCoCa"])
@pytest.mark.parametrize("size", [(32, 32), (20, 20), (48, 70), (1, 1)])
def test_features_are_those_of_encode_image(
    name: str, size: tuple[int, int], tmp_path: Path, pictures: Pictures, relative: Relative
) -> None:
    model = make(name, tmp_path / "model.safetensors")
    images = pictures(3, *size)
    with torch.no_grad():
        expected = model.encode_image(transformed(model, images), normalize=False)
    extractor = load(name, weights=str(tmp_path / "model.safetensors"))
    found = extractor(images)["features"]
    assert relative(found, expected) < 1e-6
    assert not any(part.training for part in extractor.network.modules())


def test_the_activation_matters(tmp_path: Path, pictures: Pictures, relative: Relative) -> None:
    make("Tiny", tmp_path / "model.safetensors")
    plain, quick = (load(name, weights=str(tmp_path / "model.safetensors")) for name in ("Tiny", "Tiny-quickgelu"))
    images = pictures(2, 32, 32)
    assert relative(quick(images)["features"], plain(images)["features"]) > 1e-3
    assert plain.identity != quick.identity


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("ViT-B-32:openai", "ViT-B-32-quickgelu:openai"),
        ("ViT-L-14-336", "ViT-L-14-336-quickgelu:openai"),
        ("ViT-B-32-quickgelu:metaclip_400m", None),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_an_activation_other_than_the_trained_one_is_refused(name: str, right: str | None) -> None:
    error, message = (ValueError, f"Use '{right}'") if right else (FileNotFoundError, "could not be downloaded")
    with pytest.raises(error, match=message):
        load(name)


def test_weights_trained_with_gelu_are_refused_in_a_quickgelu_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_clip, "list_pretrained", lambda **_: [("ViT-B-32-quickgelu", "laion2b_e16")])
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"hf_hub": "a/b/", "quick_gelu": False})
    with pytest.raises(ValueError, match=r"trained with GELU, .* Use 'ViT-B-32:laion2b_e16'"):
        clip.build("ViT-B-32-quickgelu:laion2b_e16")


def test_a_plain_name_with_several_weights_wants_a_tag() -> None:
    with pytest.raises(ValueError, match=r"several sets of weights\. Name one, as ViT-B-16-plus-240:laion400m_e31"):
        load("ViT-B-16-plus-240")


def test_an_unpublished_model_wants_a_file() -> None:
    with pytest.raises(ValueError, match="open_clip publishes no weights for 'Tiny'"):
        load("Tiny")


def test_an_unknown_tag_gets_the_list() -> None:
    with pytest.raises(ValueError, match=r"no weights 'opennai' for 'ViT-B-32-quickgelu'; it has openai, laion400m"):
        load("ViT-B-32-quickgelu:opennai")


def test_an_unknown_architecture_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match="did you mean 'ViT-B-32'"):
        resolve("ViT-B-33")


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("clip", "ViT-L-14-336-quickgelu"),
        ("clip_vitl14", "ViT-L-14-quickgelu"),
        ("clip_vitb16", "ViT-B-16-quickgelu"),
        ("clip_vitb32", "ViT-B-32-quickgelu"),
    ],
)
def test_short_names_are_openais_with_their_activation(name: str, architecture: str) -> None:
    assert resolve(name) == (architecture, "openai")
    assert open_clip.get_model_config(architecture)["quick_gelu"]
    assert open_clip.get_pretrained_cfg(architecture, "openai")["quick_gelu"]


def test_metrics_may_name_any_model_of_open_clip() -> None:
    names = ["fd_ViT-B-32-quickgelu", "kd_ViT-B-32:laion2b_s34b_b79k"]
    assert [metric.extractor for metric in metrics_by_name(names, open_clip_names())] == [
        "ViT-B-32-quickgelu",
        "ViT-B-32:laion2b_s34b_b79k",
    ]


class Looks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def test_rows_of_the_cmmd_extractor_are_unit_and_its_pictures_pillows(pictures: Pictures) -> None:
    preprocessing = {
        **PreprocessCfg().__dict__,
        **open_clip.get_pretrained_cfg("ViT-L-14-336-quickgelu", "openai"),
        "size": 336,
    }
    images = pictures(2, 100, 150)
    network = ClipNetwork(Looks(), preprocessing, unit=False)
    # As the CMMD reference reads pictures: the middle square, resized to 336 by Pillow's bicubic.
    squares = [Image.fromarray(image.permute(1, 2, 0).numpy()[:, 25:125]).resize((336, 336), 3) for image in images]
    pixels = torch.from_numpy(np.stack([np.array(square) for square in squares])).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor(preprocessing["mean"]), torch.tensor(preprocessing["std"])
    expected = ((pixels - mean[:, None, None]) / std[:, None, None]).flatten(1)
    torch.testing.assert_close(network(images[:, :, :, 25:125]), expected)
    unit = ClipNetwork(Looks(), preprocessing, unit=True)(images)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(2))
    assert "unit rows" in ClipNetwork(Looks(), preprocessing, unit=True).words


def test_pictures_are_squashed_where_the_model_was_trained_so(pictures: Pictures) -> None:
    preprocessing = {**open_clip.get_pretrained_cfg("ViT-B-16-SigLIP", "webli"), "size": (16, 16)}
    (image,) = pictures(1, 20, 40)
    found = ClipNetwork(Looks(), preprocessing, unit=False)(image[None])
    squashed = np.array(Image.fromarray(image.permute(1, 2, 0).numpy()).resize((16, 16), 3))
    expected = (torch.from_numpy(squashed).permute(2, 0, 1) / 255 - 0.5) / 0.5
    torch.testing.assert_close(found, expected.flatten()[None])


def test_the_text_half_is_neither_built_nor_needed(tmp_path: Path, pictures: Pictures) -> None:
    model = make("Tiny", tmp_path / "whole.safetensors")
    torch.save(model.visual.state_dict(), tmp_path / "visual.pth")
    whole, half = (load("Tiny", weights=str(tmp_path / file)) for file in ("whole.safetensors", "visual.pth"))
    assert sum(value.numel() for value in whole.network.parameters()) == sum(
        value.numel() for value in model.visual.parameters()
    )
    images = pictures(2, 32, 32)
    assert torch.equal(whole(images)["features"], half(images)["features"])
    assert whole.identity.weights != half.identity.weights


def test_weights_of_another_network_are_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make("TinyResNet", tmp_path / "resnet.safetensors")
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ValueError, match="does not fit VisionTransformer: ") as caught,
    ):
        load("Tiny", weights=str(tmp_path / "resnet.safetensors"))
    assert len(str(caught.value)) < 600


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    make("Tiny", path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors` could not be read .* truncated"):
        load("Tiny", weights=str(path))


@pytest.mark.slow
def test_the_full_size_network_of_cmmd(tmp_path: Path, pictures: Pictures, relative: Relative) -> None:
    model = make("ViT-L-14-336-quickgelu", tmp_path / "model.safetensors")
    images = pictures(2, 64, 64)
    with torch.no_grad():
        expected = model.encode_image(transformed(model, images), normalize=True)
    del model
    extractor = load("clip", weights=str(tmp_path / "model.safetensors"))
    assert relative(extractor(images)["features"], expected) < 1e-5
    assert extractor(images)["features"].shape == (2, 768)
