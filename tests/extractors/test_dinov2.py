from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from dreamsim.feature_extraction.extractor import ViTExtractor
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from lightning_synthqual.extractors import dinov2, load
from lightning_synthqual.extractors.dinov2 import resample_positions

Pictures = Callable[..., Tensor]
Relative = Callable[[Tensor, Tensor], float]


def pretrained(architecture: str = "vit_small_patch14_dinov2") -> nn.Module:
    """A random network at the size at which the weights are published, 518 px, and not blind to its input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(architecture, img_size=518, num_classes=0).eval()
        for name, value in network.named_parameters():
            if name.endswith("gamma"):
                nn.init.ones_(value)  # the usual 1e-5 would leave only the residual path
            if name == "pos_embed":
                nn.init.normal_(value, std=0.5)
    return network


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return pretrained()


@pytest.fixture(scope="module")
def weights(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dinov2") / "model.safetensors"
    save_file(network.state_dict(), path)
    return path


def hubs_positions(positions: Tensor, side: int = 224) -> Tensor:
    """The published resampling, as the dreamsim package has it for its DINO networks."""
    resample = ViTExtractor._fix_pos_enc(14, (14, 14))
    patches = (side // 14) ** 2
    return resample(SimpleNamespace(pos_embed=positions), torch.empty(1, 1 + patches, positions.shape[2]), side, side)


@pytest.mark.parametrize("grid", [16, 20, 36, 37])
def test_position_embeddings_are_resampled_as_the_hub_does(grid: int) -> None:
    positions = torch.randn(1, 1 + 37 * 37, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resample_positions(positions, grid), hubs_positions(positions, 14 * grid))


def test_features_are_the_class_token_of_the_hubs_network(
    network: nn.Module, weights: Path, pictures: Pictures, relative: Relative
) -> None:
    images = pictures(3, 40, 70)
    theirs = timm.create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0).eval()
    state = network.state_dict()
    theirs.load_state_dict({**state, "pos_embed": hubs_positions(state["pos_embed"])})
    resized = [np.array(Image.fromarray(image.permute(1, 2, 0).numpy()).resize((224, 224), 3)) for image in images]
    pixels = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        tokens = theirs.forward_features((pixels - mean[:, None, None]) / std[:, None, None])
    found = load("dinov2_vits14", weights=str(weights))(images)["features"]
    assert relative(found, tokens[:, 0]) < 1e-6
    assert relative(found[:1], found[1:2]) > 0.01


def test_timms_own_resampling_would_be_another_network(
    network: nn.Module, weights: Path, pictures: Pictures, relative: Relative
) -> None:
    theirs = timm.create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0).eval()
    theirs.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(network.state_dict(), theirs))
    ours = load("dinov2_vits14", weights=str(weights))
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert relative(ours.network.trunk(images), theirs(images)) > 1e-3


def test_the_hubs_file_format_loads_too(network: nn.Module, weights: Path, pictures: Pictures, tmp_path: Path) -> None:
    path = tmp_path / "dinov2_vits14_pretrain.pth"
    torch.save({"mask_token": torch.zeros(1, 384), **network.state_dict()}, path)
    hubs, timms = load("dinov2_vits14", weights_dir=str(tmp_path)), load("dinov2_vits14", weights=str(weights))
    assert (hubs.identity.origin, timms.identity.origin) == ("unverified", "custom")
    images = pictures(2, 30, 30)
    assert torch.equal(hubs(images)["features"], timms(images)["features"])


def test_a_network_for_224_pixels_loads_as_it_is(pictures: Pictures, tmp_path: Path, relative: Relative) -> None:
    theirs = timm.create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0).eval()
    torch.save(theirs.state_dict(), tmp_path / "small.pth")
    ours = load("dinov2_vits14", weights=str(tmp_path / "small.pth"))
    assert torch.equal(ours.network.trunk.pos_embed, theirs.pos_embed)


def test_weights_of_another_size_are_an_error(weights: Path) -> None:
    with pytest.raises(ValueError, match=r"does not fit VisionTransformer: .*\(384,\), network: \(768,\)") as caught:
        load("dinov2_vitb14", weights=str(weights))
    assert len(str(caught.value)) < 600


def test_weights_with_registers_are_an_error(network: nn.Module, tmp_path: Path) -> None:
    torch.save({**network.state_dict(), "register_tokens": torch.zeros(1, 4, 384)}, tmp_path / "reg4.pth")
    with pytest.raises(ValueError, match=r"1 of 175 entries differ, for example register_tokens"):
        load("dinov2_vits14", weights=str(tmp_path / "reg4.pth"))


def test_no_name_means_a_network_with_registers() -> None:
    assert not any("reg4" in architecture for architecture in dinov2.ARCHITECTURES.values())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "columns"), [("dinov2", 1024), ("dinov2_vitb14", 768)])
def test_the_full_size_networks(name: str, columns: int, pictures: Pictures, tmp_path: Path) -> None:
    save_file(pretrained(dinov2.ARCHITECTURES[name].partition(".")[0]).state_dict(), tmp_path / "model.safetensors")
    features = load(name, weights=str(tmp_path / "model.safetensors"))(pictures(2, 64, 64))["features"]
    assert features.shape == (2, columns)
    assert torch.isfinite(features).all()
