import contextlib
import io
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dreamsim.feature_extraction.load_clip_as_dino as clip_loader
import dreamsim.feature_extraction.load_open_clip_as_dino as open_clip_loader
import dreamsim.model
import numpy as np
import pytest
import torch
from dreamsim.config import dreamsim_args, dreamsim_weights
from dreamsim.feature_extraction.vision_transformer import VisionTransformer, vit_base
from peft import LoraConfig, get_peft_model
from PIL import Image
from torch import Tensor, nn

from lightning_synthqual.extractors import load, load_pair
from lightning_synthqual.extractors.dreamsim import VARIANTS, backbones
from lightning_synthqual.extractors.registry import required_weights

Pictures = Callable[..., Tensor]
WIDTH = 32


def tiny_transformer(patch_size: int = 16, **_: Any) -> VisionTransformer:
    """The package's own network, of two narrow layers more than the twelfth, whose output it reads."""
    sizes = {"embed_dim": WIDTH, "depth": 12, "num_heads": 2, "mlp_ratio": 2}
    return VisionTransformer(patch_size=patch_size, **sizes, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6))


def replace_networks(monkeypatch: pytest.MonkeyPatch, make: Callable[..., VisionTransformer]) -> None:
    """Every backbone is one of ``make``'s, and torch.hub needs no network."""

    def from_hub(repository: str, name: str) -> nn.Module:
        folder = Path(torch.hub.get_dir())
        if not (folder / "checkpoints" / f"{name}.pth").is_file():
            raise OSError("Name or service not known")
        network = make(14 if "dinov2" in name else 16)
        network.load_state_dict(torch.load(folder / "checkpoints" / f"{name}.pth", weights_only=True))
        return network

    monkeypatch.setattr(clip_loader, "vit_base", make)
    monkeypatch.setattr(open_clip_loader, "vit_base", make)
    monkeypatch.setattr(torch.hub, "load", from_hub)
    monkeypatch.setattr(dreamsim.feature_extraction.extractor, "DINOHead", TinyHead)


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_networks(monkeypatch, tiny_transformer)


class TinyHead(nn.Module):
    """Where the package puts DINO's projection, which no distance reads."""

    def __init__(self, *_: Any) -> None:
        super().__init__()
        self.mlp = nn.ModuleList([nn.Linear(2, 2), nn.Identity(), nn.Linear(2, 2), nn.Identity(), nn.Linear(2, 2)])
        self.last_layer = nn.Linear(2, 2, bias=False)


@contextlib.contextmanager
def hub_directory_kept() -> Iterator[None]:
    before = torch.hub.get_dir()
    with contextlib.redirect_stdout(io.StringIO()):
        yield
    torch.hub.set_dir(before)


def write_folder(name: str, folder: Path, make: Callable[..., VisionTransformer] = tiny_transformer) -> Path:
    """The files that the package unpacks and torch.hub adds, with random weights, in their real formats."""
    variant = VARIANTS[name]
    settings = dreamsim_args["model_config"][variant.kind]
    (folder / "checkpoints").mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for kind in settings["model_type"].split(","):
        network = make({"6": 16, "4": 14, "2": 32}[kind[-1]])
        width = network.embed_dim
        if "clip" in kind:
            network.pos_drop = nn.LayerNorm(width)
        for value in network.parameters():
            value.data.normal_(std=0.5, generator=generator)
        if "clip" in kind:
            state = {**network.state_dict(), "proj": torch.randn(width, 24, generator=generator)}
            torch.save({"state_dict": state}, folder / f"{kind}_pretrain.pth.tar")
            continue
        torch.save(network.state_dict(), folder / "checkpoints" / f"{kind}.pth")
        head = {f"module.head.{key}": value for key, value in TinyHead().state_dict().items()}
        torch.save({"student": head}, folder / f"{kind}_pretrain.pth")
    with hub_directory_kept():
        model = dreamsim.model.PerceptualModel(**settings, device="cpu", load_dir=str(folder), normalize_embeds=True)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=0.5, lora_dropout=0.3, target_modules=["qkv"]))
    for key, value in adapted.named_parameters():
        if "lora_" in key:
            value.data.normal_(std=0.2, generator=generator)
    adapted.save_pretrained(folder / variant.entries[-1])
    return folder


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(variant: str, tmp_path: Path) -> Path:
    return write_folder(variant, tmp_path / "some" / "nested" / "folder")


def packages_own(variant: str, folder: Path) -> tuple[Any, Any]:
    with hub_directory_kept():
        return dreamsim.model.dreamsim(
            pretrained=True, device="cpu", cache_dir=str(folder), dreamsim_type=VARIANTS[variant].kind
        )


def test_the_distance_is_the_packages_own(variant: str, folder: Path, pictures: Pictures) -> None:
    model, preprocess = packages_own(variant, folder)
    first, second = pictures(3, 3, 4), pictures(3, 3, 4, seed=1)  # enlarged, so that patches differ
    prepared = [
        torch.cat([preprocess(Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0)))) for image in images])
        for images in (first, second)
    ]
    with torch.no_grad():
        expected = model(*prepared)
    features = load(variant, weights=str(folder))
    embeddings = [features(images)["features"] for images in (first, second)]
    torch.testing.assert_close(1 - (embeddings[0] * embeddings[1]).sum(dim=1), expected, rtol=1e-5, atol=1e-6)
    pair = load_pair(variant, weights=str(folder))
    torch.testing.assert_close(pair(first, second), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pair(first[:1], second[:1]), expected[:1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pair(first.float(), second.float()), expected, rtol=0.02, atol=1e-3)  # never rounded
    assert (expected > 1e-3).all()
    assert (features.identity.name, features.identity.origin) == (variant, "custom")
    assert pair.identity == features.identity


def test_embeddings_have_mean_zero_and_length_one(variant: str, folder: Path, pictures: Pictures) -> None:
    embeddings = load(variant, weights=str(folder))(pictures(2, 30, 30))["features"]
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(embeddings.mean(dim=1), torch.zeros(2), rtol=0, atol=1e-6)


def test_the_global_hub_directory_is_restored_and_nothing_said(
    variant: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = torch.hub.get_dir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(variant, weights=str(folder))
    assert torch.hub.get_dir() == before
    assert capsys.readouterr().out == ""


def test_it_is_restored_after_an_error_too(tmp_path: Path) -> None:
    folder = write_folder("dreamsim_dino_vitb16", tmp_path)
    (folder / "checkpoints" / "dino_vitb16.pth").unlink()
    before = torch.hub.get_dir()
    with pytest.raises(
        FileNotFoundError, match=r"come from torch\.hub.*`synthqual weights fetch dreamsim_dino_vitb16`"
    ):
        load("dreamsim_dino_vitb16", weights=str(folder))
    assert torch.hub.get_dir() == before


def test_every_weight_is_in_the_identity(tmp_path: Path) -> None:
    name = "dreamsim_clip_vitb32"
    folder = write_folder(name, tmp_path)
    before = load(name, weights=str(folder)).identity
    assert load(name, weights=str(folder)).identity == before
    path = folder / "clip_vitb32_pretrain.pth.tar"
    state = torch.load(path, weights_only=True)
    state["state_dict"]["proj"][0, 0] += 1  # outside of the package's state dict
    torch.save(state, path)
    assert load(name, weights=str(folder)).identity != before


def test_the_table_is_the_packages() -> None:
    for variant in VARIANTS.values():
        assert variant.url == dreamsim_weights[variant.kind]
    assert set(VARIANTS) == {"dreamsim", *(f"dreamsim_{kind}" for kind in dreamsim_weights if is_single(kind))}


def is_single(kind: str) -> bool:
    return kind not in ("ensemble", "synclr_vitb16") and not kind.endswith("_patch")


@pytest.mark.parametrize("place", ["weights", "dreamsim"])
def test_a_weights_folder_may_hold_the_packages_folder_or_be_it(tmp_path: Path, place: str) -> None:
    name = "dreamsim_open_clip_vitb32"
    write_folder(name, tmp_path / place)
    weights_dir = str(tmp_path / place if place == "weights" else tmp_path)
    assert load(name, weights_dir=weights_dir).identity.origin == "unverified"
    (requirement,) = required_weights(name, weights_dir)
    assert requirement.path == tmp_path / place


def test_what_torch_hub_adds_is_required_too(tmp_path: Path) -> None:
    folder = write_folder("dreamsim", tmp_path / "dreamsim")
    requirements = required_weights("dreamsim", str(tmp_path))
    assert [requirement.path for requirement in requirements] == [folder, None, None]
    (folder / "facebookresearch_dino_main").mkdir()
    assert required_weights("dreamsim", str(tmp_path))[1].path == folder / "facebookresearch_dino_main"


def archive(folder: Path, path: Path) -> Path:
    return Path(shutil.make_archive(str(path), "zip", folder))


@pytest.mark.usefixtures("no_network")
def test_an_archive_is_unpacked_once_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: Pictures
) -> None:
    name = "dreamsim_clip_vitb32"
    packed = archive(write_folder(name, tmp_path / "source"), tmp_path / "packed")
    asked = []

    def download(url: str, path: str, **_: Any) -> None:
        asked.append(url)
        Path(path).write_bytes(packed.read_bytes())

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    target = tmp_path / "deeply" / "nested"
    downloaded, given = load(name, weights_dir=str(target)), load(name, weights=str(tmp_path / "source"))
    assert load(name, weights_dir=str(target)).identity == downloaded.identity == given.identity
    assert asked == [VARIANTS[name].url]
    assert not list((target / "dreamsim").glob(".partial*"))
    assert not list(target.rglob("*.zip"))
    default = load(name)
    assert default.identity == given.identity
    assert (Path(torch.hub.get_dir()) / "dreamsim" / "clip_vitb32_single_lora").is_dir()


@pytest.mark.parametrize("content", ["truncated", "other"])
@pytest.mark.usefixtures("no_network")
def test_a_damaged_archive_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    name = "dreamsim_clip_vitb32"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "readme.txt").write_text("not weights")
    source = write_folder(name, tmp_path / "source") if content == "truncated" else tmp_path / "other"
    packed = archive(source, tmp_path / "packed").read_bytes()
    packed = packed[: len(packed) // 2] if content == "truncated" else packed
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, path, **_: Path(path).write_bytes(packed))
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded \((File is not a zip|the archive did not)"):
        load(name, weights_dir=str(tmp_path / "target"))
    assert not list((tmp_path / "target" / "dreamsim").glob("*lora"))


def test_a_folder_without_the_files_names_them(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"has no clip_vitb32_pretrain\.pth\.tar, clip_vitb32_single_lora\. The"
    ):
        load("dreamsim_clip_vitb32", weights=str(tmp_path))


@pytest.mark.parametrize("damage", ["truncated", "other network"])
def test_damaged_weights_are_named_in_few_words(tmp_path: Path, damage: str) -> None:
    name = "dreamsim_clip_vitb32"
    path = write_folder(name, tmp_path) / "clip_vitb32_pretrain.pth.tar"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        state = torch.load(path, weights_only=True)["state_dict"]
        torch.save({"state_dict": {f"other.{key}": value for key, value in state.items()} | {"proj": 0}}, path)
    with pytest.raises(ValueError, match="do not fit dreamsim_clip_vitb32 or are damaged") as caught:
        load(name, weights=str(tmp_path))
    assert len(str(caught.value)) < 600


def test_autocast_works(tmp_path: Path, pictures: Pictures) -> None:
    name = "dreamsim_clip_vitb32"
    folder = write_folder(name, tmp_path)
    half, full = (load(name, weights=str(folder), precision=p) for p in ("bfloat16", "float32"))
    images = pictures(2, 30, 30)
    torch.testing.assert_close(half(images)["features"], full(images)["features"], rtol=0.2, atol=0.05)
    assert half.identity != full.identity


def test_the_adapter_is_a_safetensors_file(tmp_path: Path) -> None:
    folder = write_folder("dreamsim_clip_vitb32", tmp_path) / "clip_vitb32_single_lora"
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 4
    assert (folder / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_the_full_size_ensemble(tmp_path: Path, pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_networks(monkeypatch, vit_base)
    folder = write_folder("dreamsim", tmp_path, vit_base)
    embeddings = load("dreamsim", weights=str(folder))(pictures(2, 64, 64))["features"]
    assert embeddings.shape == (2, 768 + 24 + 24)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))


def test_projections_follow_the_network_to_its_device(tmp_path: Path) -> None:
    extractor = load("dreamsim_clip_vitb32", weights=str(write_folder("dreamsim_clip_vitb32", tmp_path / "weights")))
    extractor.network.to("meta")
    (part,) = backbones(extractor.network.model)
    assert part.proj.is_meta
    assert not any(name.rpartition(".")[2] == "proj" for name in extractor.network.state_dict())
