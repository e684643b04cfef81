import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchmetrics.image.fid import NoTrainInceptionV3

from lightning_synthqual.extractors import Extractor, inception, load
from lightning_synthqual.extractors.inception import PUBLISHED
from lightning_synthqual.extractors.registry import CATALOGUE
from lightning_synthqual.extractors.weights import DIRECTORY_VARIABLE, sha256_of_file
from lightning_synthqual.metrics.catalogue import metrics_by_name

BICUBIC = Image.Resampling.BICUBIC
Pictures = Callable[..., Tensor]
Relative = Callable[[Tensor, Tensor], float]


@pytest.fixture(scope="module")
def extractor(inception_weights: Path) -> Extractor:
    return load("inception", weights=str(inception_weights))


@pytest.fixture(scope="module")
def reference(inception_weights: Path) -> FeatureExtractorInceptionV3:
    return FeatureExtractorInceptionV3("reference", ["2048", "logits_unbiased"], str(inception_weights))


@pytest.fixture(scope="module")
def outputs(extractor: Extractor, pictures: Pictures) -> dict[str, Tensor]:
    return extractor(pictures(1, 20, 20))


@pytest.mark.parametrize("size", [(17, 23), (32, 32), (64, 64), (299, 299), (320, 256), (1, 1)])
def test_features_are_those_of_torch_fidelity(
    extractor: Extractor,
    reference: FeatureExtractorInceptionV3,
    pictures: Pictures,
    relative: Relative,
    size: tuple[int, int],
) -> None:
    images = pictures(2, *size)
    pool, logits = reference(images)
    outputs = extractor(images)
    assert list(outputs) == ["pool", "logits"]
    assert relative(outputs["pool"], pool) < 1e-5
    assert relative(outputs["logits"], logits) < 1e-5
    assert relative(pool[:1], pool[1:]) > 0.005


@pytest.mark.parametrize("size", [(32, 32), (320, 256)])
def test_antialiased_features_are_those_of_torchmetrics(
    inception_weights: Path, pictures: Pictures, relative: Relative, size: tuple[int, int]
) -> None:
    theirs = NoTrainInceptionV3("theirs", ["2048", "logits_unbiased"], str(inception_weights))
    images = pictures(2, *size)
    pool, logits = theirs._torch_fidelity_forward(images)
    extractor = load("inception_antialias", weights=str(inception_weights))
    outputs = extractor(images)
    assert relative(outputs["pool"], pool) < 1e-5
    assert relative(outputs["logits"], logits) < 1e-5
    assert relative(load("inception", weights=str(inception_weights))(images)["pool"], pool) > 1e-3


def test_clean_features_are_those_of_pillows_floats(
    inception_weights: Path, reference: FeatureExtractorInceptionV3, pictures: Pictures, relative: Relative
) -> None:
    images = pictures(2, 40, 60)
    resized = [
        np.stack([np.array(Image.fromarray(channel.float().numpy()).resize((299, 299), BICUBIC)) for channel in image])
        for image in images
    ]
    x = (torch.from_numpy(np.stack(resized)).clamp(0, 255) - 128) / 128
    for layer in list(reference.children())[:-1]:
        x = layer(x)
    found = load("inception_clean", weights=str(inception_weights))(images)["pool"]
    assert relative(found, x.flatten(1)) < 1e-5


def test_only_the_published_protocol_makes_fid(inception_weights: Path) -> None:
    names = ["inception", "inception_antialias", "inception_clean"]
    identities = [load(name, weights=str(inception_weights)).identity for name in names]
    assert [identity.name for identity in identities] == names
    assert len({identity.preprocessing for identity in identities}) == 3
    assert len({identity.weights for identity in identities}) == 1
    (fid,) = metrics_by_name(["fid"], CATALOGUE)
    (clean,) = metrics_by_name(["fd_inception_clean"], CATALOGUE)
    assert (fid.extractor, clean.extractor) == ("inception", "inception_clean")
    with pytest.raises(ValueError, match="fid_inception_clean"):
        metrics_by_name(["fid_inception_clean"], CATALOGUE)


def test_no_batch_norm_is_left(extractor: Extractor) -> None:
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in extractor.network.modules())
    convolution = extractor.network.trunk.Mixed_5b.branch1x1.conv
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_moves_the_features_and_the_identity_says_so(
    inception_weights: Path, outputs: dict[str, Tensor], pictures: Pictures, relative: Relative
) -> None:
    half = load("inception", weights=str(inception_weights), precision="bfloat16")
    found = half(pictures(1, 20, 20))["pool"]
    assert found.dtype == torch.float32
    assert 1e-4 < relative(found, outputs["pool"]) < 0.1
    assert half.identity.precision == "bfloat16"


def test_outputs_and_identity(extractor: Extractor, outputs: dict[str, Tensor], inception_weights: Path) -> None:
    assert {name: (tuple(value.shape), value.dtype) for name, value in outputs.items()} == {
        "pool": ((1, 2048), torch.float32),
        "logits": ((1, 1008), torch.float32),
    }
    assert extractor.embedding == "pool"
    assert extractor.identity.name == "inception"
    assert extractor.identity.origin == "custom"
    assert extractor.identity.weights == sha256_of_file(inception_weights)
    assert not any(part.training for part in extractor.network.modules())
    assert not any(parameter.requires_grad for parameter in extractor.network.parameters())


def test_logits_have_no_bias(extractor: Extractor, outputs: dict[str, Tensor]) -> None:
    weight = extractor.network.trunk.fc.weight
    torch.testing.assert_close(outputs["logits"], outputs["pool"] @ weight.T, rtol=1e-4, atol=1e-4)


def test_custom_weights_get_a_warning(inception_weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load("inception", weights=str(inception_weights))
    (record,) = caplog.records
    assert "not known to be the published ones" in record.getMessage()
    assert str(inception_weights) in record.getMessage()


def test_weights_of_another_network_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(torch.nn.Linear(2048, 10).state_dict(), path)
    with pytest.raises(ValueError, match=r"other\.pth` does not fit .*: \d+ of \d+ entries differ") as caught:
        load("inception", weights=str(path))
    assert len(str(caught.value)) < 600


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("way", ["no file", "no network", "empty weights_dir"])
def test_missing_weights_name_file_origin_and_both_ways(tmp_path: Path, way: str) -> None:
    places = {
        "no file": {"weights": str(tmp_path / "mine.pth")},
        "no network": {},
        "empty weights_dir": {"weights_dir": str(tmp_path)},
    }
    name = "mine.pth" if way == "no file" else PUBLISHED.filename
    with pytest.raises(FileNotFoundError) as caught:
        load("inception", **places[way])
    message = str(caught.value)
    assert f"{name}`" in message.split(". ")[0]
    assert PUBLISHED.url in message
    assert "extractors={'inception': {'weights': 'path/to/file'}}" in message
    assert "weights_dir=" in message
    assert DIRECTORY_VARIABLE in message
    if way != "no file":
        assert "Name or service not known" in message


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("way", ["weights_dir", "environment"])
def test_weights_are_found_by_their_published_name(
    inception_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    (tmp_path / PUBLISHED.filename).symlink_to(inception_weights)
    if way == "environment":
        monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
        found = load("inception")
    else:
        found = load("inception", weights_dir=str(tmp_path))
    assert found.identity.weights == sha256_of_file(inception_weights)
    assert found.identity.origin == "custom"


def test_a_file_without_batch_counters_fits(extractor: Extractor, inception_weights: Path, tmp_path: Path) -> None:
    state = torch.load(inception_weights, weights_only=True)
    path = tmp_path / "old.pth"
    torch.save({name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}, path)
    assert len(torch.load(path, weights_only=True)) < len(state)
    found = load("inception", weights=str(path))
    assert torch.equal(found.network.trunk.fc.weight, extractor.network.trunk.fc.weight)


def test_weights_with_the_published_hash_are_published(
    inception_weights: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inception, "PUBLISHED", replace(PUBLISHED, sha256=sha256_of_file(inception_weights)[:8]))
    with caplog.at_level(logging.WARNING):
        found = load("inception", weights=str(inception_weights))
    assert found.identity.origin == "published"
    assert not caplog.records


@pytest.mark.slow
def test_the_scores_of_the_whole_way_are_torch_fidelitys(inception_weights, pictures, tmp_path):
    from torch.utils.data import Dataset

    from lightning_synthqual import evaluate

    class PictureSet(Dataset):
        def __init__(self, images):
            self.images = images

        def __len__(self):
            return len(self.images)

        def __getitem__(self, index):
            return self.images[index]

    real = PictureSet(pictures(40, 32, 32, seed=1))
    fake = PictureSet(pictures(40, 32, 32, seed=2) // 2 + 90)
    report = evaluate(
        real,
        fake,
        metrics=("fid", "kid", "precision", "recall"),
        extractors={"inception": {"weights": str(inception_weights)}},
        cache_dir=str(tmp_path),
    )
    theirs = torch_fidelity.calculate_metrics(
        input1=fake,
        input2=real,
        fid=True,
        kid=True,
        prc=True,
        kid_subsets=1,
        kid_subset_size=40,
        feature_extractor="inception-v3-compat",
        feature_layer_prc="2048",
        feature_extractor_weights_path=str(inception_weights),
        cuda=False,
        cache=False,
        verbose=False,
    )
    # On a full-size subset their estimator is the exact statistic.
    assert report.scalars["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    assert report.scalars["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert report.scalars["precision"] == pytest.approx(theirs["precision"], abs=1e-6)
    assert report.scalars["recall"] == pytest.approx(theirs["recall"], abs=1e-6)
    assert report.protocol["extractors"]["inception"]["weights"] == "custom"
