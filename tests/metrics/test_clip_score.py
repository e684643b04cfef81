"""CLIPScore of generated images and their texts, by a tiny random CLIP."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchmetrics.functional.multimodal.clip_score import _clip_score_update

from lightning_synthqual import compare, evaluate
from lightning_synthqual.extractors import load
from lightning_synthqual.extractors.registry import load_configured_text
from lightning_synthqual.metrics.clip_score import clip_scores

PROMPTS = [f"a photo of {n} {what}" for n in ("one", "two", "three", "four") for what in ("cats", "dogs", "craters")]
NAME, LENGTH = "TinyWithTexts", 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A random model of open_clip's, and the file of its weights."""
    folder = tmp_path_factory.mktemp("clip")
    configuration = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": LENGTH, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
    }
    (folder / f"{NAME}.json").write_text(json.dumps(configuration))
    open_clip.add_model_config(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = open_clip.create_model(NAME, pretrained_text=False).eval()
    path = folder / "model.safetensors"
    save_file({key: value.contiguous() for key, value in found.state_dict().items()}, path)
    return SimpleNamespace(clip=found, path=str(path), extractors={NAME: {"weights": str(path)}})


class Painter(nn.Module):
    """Text to images: the letters are the seeds."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def sample_images(self, batch: list[str], generator: torch.Generator) -> Tensor:
        seeds = [torch.Generator().manual_seed(sum(map(ord, text)) + len(text)) for text in batch]
        coarse = torch.stack([torch.randn(3, 3, 3, generator=seed) for seed in seeds])
        return torch.tanh(self.gain * nn.functional.interpolate(coarse, 40, mode="bicubic"))


def painted(gain: float = 1.0) -> Tensor:
    with torch.no_grad():
        images = Painter(gain).sample_images(PROMPTS, torch.Generator())
    return ((images + 1) * 127.5).round().to(torch.uint8)


def by_open_clip(model: Any, images: Tensor, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Features by the model's own methods."""
    transform = image_transform_v2(PreprocessCfg(**model.clip.visual.preprocess_cfg), is_train=False)
    pixels = torch.stack([transform(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images])
    with torch.no_grad():
        return model.clip.encode_image(pixels), model.clip.encode_text(open_clip.get_tokenizer(NAME)(texts))


class AsTransformers:
    """The model with the methods that torchmetrics calls of a model and a processor of the package transformers."""

    config = SimpleNamespace()

    def __init__(self, clip: Any) -> None:
        self.clip = clip
        self.get_image_features = clip.encode_image
        self.transform = image_transform_v2(PreprocessCfg(**clip.visual.preprocess_cfg), is_train=False)

    def to(self, device: Any) -> "AsTransformers":
        return self

    def __call__(self, images: Any = None, text: Any = None, **_: Any) -> dict[str, Tensor]:
        if images is not None:
            pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
            return {"pixel_values": torch.stack([self.transform(picture) for picture in pictures])}
        tokens = open_clip.get_tokenizer(NAME)(text)
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}

    def get_text_features(self, tokens: Tensor, mask: Tensor) -> Tensor:
        found: Tensor = self.clip.encode_text(tokens)
        return found


def test_the_score_is_that_of_open_clip_s_features_and_of_torchmetrics(model: Any) -> None:
    report = evaluate(None, Painter(), inputs=PROMPTS, metrics=[f"clip_score_{NAME}"], extractors=model.extractors)
    images = painted()
    one, other = (nn.functional.normalize(rows.double(), dim=1) for rows in by_open_clip(model, images, PROMPTS))
    cosines = (one * other).sum(dim=1)
    assert (cosines < 0).any()  # each counts as 0; torchmetrics' class takes the mean first
    values = 100 * cosines.clamp(min=0)
    name = f"clip_score_{NAME}"
    assert report.scalars[name] == pytest.approx(values.mean().item(), rel=1e-5)
    assert report.scalars[f"{name}_std"] == pytest.approx(values.std().item() / len(PROMPTS) ** 0.5, rel=1e-4)
    assert report.influences[name].fake.numpy() == pytest.approx((values - values.mean()).numpy(), abs=1e-4)
    assert report.direction(name) == "max"
    assert {f"{name}_texts", "samples"} == set(report.pictures)
    adapter: Any = AsTransformers(model.clip)
    with torch.no_grad():
        theirs, count = _clip_score_update(list(images), PROMPTS, adapter, adapter)
    assert count == len(PROMPTS)
    assert theirs.double().clamp(min=0).numpy() == pytest.approx(values.numpy(), abs=1e-4)


def test_text_features_are_those_of_encode_text(model: Any) -> None:
    encoder = load_configured_text(NAME, {"weights": model.path}, None, "cpu")
    expected = by_open_clip(model, painted()[:1], PROMPTS)[1]
    torch.testing.assert_close(encoder(PROMPTS), expected, rtol=1e-5, atol=1e-5)
    assert encoder.identity.weights == load(NAME, weights=model.path).identity.weights


def test_texts_that_are_too_long_are_cut_off_and_counted(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    long = [*PROMPTS[:6], *(f"{text} with a great many words behind it, too many to read" for text in PROMPTS[:3])]
    with caplog.at_level(logging.WARNING):
        report = evaluate(None, Painter(), inputs=long, metrics=[f"clip_score_{NAME}"], extractors=model.extractors)
    assert f"3 of the texts of `inputs` are longer than the text network of '{NAME}' reads" in caplog.text
    assert report.protocol["metrics"][f"clip_score_{NAME}"]["truncated_texts"] == 3


def test_changes_are_paired(model: Any) -> None:
    arguments = {"inputs": PROMPTS, "metrics": [f"clip_score_{NAME}"], "extractors": model.extractors}
    difference = compare(*(evaluate(None, Painter(gain), **arguments) for gain in (1.0, 1.1)))
    assert difference[f"clip_score_{NAME}"].paired


@pytest.mark.parametrize(
    ("metric", "inputs", "message"),
    [
        ("clip_score_vitb", None, "needs an extractor 'vitb'"),
        ("clip_score", None, "with its text, but `inputs` is missing. Pass `inputs=` a list of prompts"),
        ("clip_score_pixels", [torch.zeros(3, 8, 8)], "the items of `inputs` hold none"),
        ("clip_score_pixels", ["a cat", "a dog"], "Extractor 'pixels' has no text network. Those of open_clip have"),
    ],
)
def test_what_is_missing(metric: str, inputs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(None, Painter(), inputs=inputs, metrics=[metric])


def test_an_image_half_alone_is_not_enough(model: Any, tmp_path: Path) -> None:
    half = {f"visual.{key}": value for key, value in model.clip.visual.state_dict().items()}
    save_file({key: value.contiguous() for key, value in half.items()}, tmp_path / "half.safetensors")
    with pytest.raises(ValueError, match=r"half\.safetensors` holds no text half"):
        load_configured_text(NAME, {"weights": str(tmp_path / "half.safetensors")}, None, "cpu")


def test_unequal_embeddings() -> None:
    with pytest.raises(ValueError, match=r"the same shape \(N, D\), but got \(2, 3\) and \(3, 3\)"):
        clip_scores(torch.zeros(2, 3), torch.zeros(3, 3))
