import json
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_synthqual import evaluate
from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.evaluation.settings import Settings
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.metrics import frechet_distance, kernel_distance, precision_recall

METRICS = ("fd_pixels", "kd_pixels", "precision_pixels", "recall_pixels")


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(0)
    real = torch.randint(0, 256, (41, 3, 32, 32), dtype=torch.uint8, generator=generator)
    fake = torch.randint(20, 236, (37, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return real, fake


def test_the_scores_are_the_functions_of_the_features(pictures, tmp_path):
    real, fake = (x.float().flatten(1) / 127.5 - 1 for x in pictures)
    report = evaluate(*map(TensorDataset, pictures), metrics=METRICS, cache_dir=str(tmp_path))
    kernel = kernel_distance(real, fake)
    manifold = precision_recall(real, fake)
    assert report.scalars == pytest.approx(
        {
            "fd_pixels": frechet_distance(real, fake).item(),
            "kd_pixels": kernel.value.item(),
            "kd_pixels_std": kernel.std.item(),
            "precision_pixels": manifold.precision.item(),
            "recall_pixels": manifold.recall.item(),
        },
        rel=1e-6,
    )
    assert list(report.scalars) == ["fd_pixels", "kd_pixels", "kd_pixels_std", "precision_pixels", "recall_pixels"]


def test_folders_datasets_and_loaders_give_the_same_numbers(pictures, tmp_path):
    for name, images in zip(("real", "fake"), pictures, strict=True):
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / name / f"{i:03}.png")
    arguments = {"metrics": METRICS, "cache_dir": str(tmp_path / "cache")}
    real, fake = map(TensorDataset, pictures)
    expected = evaluate(real, fake, **arguments).scalars
    assert evaluate(tmp_path / "real", str(tmp_path / "fake"), **arguments).scalars == expected
    loaders = DataLoader(real, 7, shuffle=True, drop_last=True), DataLoader(fake, 5)
    assert evaluate(*loaders, **arguments, batch_size=11).scalars == pytest.approx(expected, rel=1e-9)


def test_global_generators_and_the_network_are_left_alone(pictures, tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(3072, 4)).train()
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    extractors = {"mine": {"network": network, "input_range": (0, 1)}}
    report = evaluate(
        *map(TensorDataset, pictures), metrics=["fd_mine"], extractors=extractors, cache_dir=str(tmp_path)
    )
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert network.training
    assert report.protocol["extractors"]["mine"]["weights"] == "custom"


def test_held_out_as_reference(pictures, tmp_path):
    real, fake = map(TensorDataset, pictures)
    report = evaluate(real, fake, held_out=fake, reference="held_out", metrics=METRICS, cache_dir=str(tmp_path))
    assert report.scalars["fd_pixels"] == pytest.approx(0, abs=1e-6)
    assert report.protocol["reference"]["role"] == "held_out"
    with pytest.raises(ValueError, match="held_out"):
        evaluate(real, fake, reference="held_out", metrics=METRICS)


def test_mixed_sizes(tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for i in range(12):
        side = 16 if i % 3 else 24
        pixels = np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    report = evaluate(folder, folder, metrics=["fd_wavelet", "precision_wavelet"], cache_dir=str(tmp_path / "cache"))
    assert report.scalars["fd_wavelet"] == pytest.approx(0, abs=1e-9)
    assert report.scalars["precision_wavelet"] == 1.0
    assert report.pictures == {}


def test_nan_features_name_the_row(pictures, tmp_path):
    class Breaks(nn.Module):
        def forward(self, images):
            features = images.float().flatten(1)[:, :5]
            features[images[:, 0, 0, 0] == int(pictures[1][3, 0, 0, 0])] = torch.nan
            return features

    real = TensorDataset(torch.full((9, 3, 32, 32), 255, dtype=torch.uint8))
    with pytest.raises(ValueError, match="row 3"):
        evaluate(
            real,
            TensorDataset(pictures[1][:4]),
            metrics=["fd_mine"],
            extractors={"mine": Breaks()},
            cache_dir=str(tmp_path),
        )


def test_fewer_images_than_features_get_a_warning(pictures, tmp_path, caplog):
    evaluate(*map(TensorDataset, pictures), metrics=METRICS, cache_dir=str(tmp_path))
    assert "fd_pixels: 37 generated or 41 real images are fewer than the 3072 features" in caplog.text
    assert "kd_pixels" not in caplog.text


def test_too_few_images(pictures, tmp_path):
    real, fake = pictures
    with pytest.raises(ValueError, match="at least 4 images, but `fake` has 3"):
        evaluate(TensorDataset(real), TensorDataset(fake[:3]), metrics=METRICS, cache_dir=str(tmp_path))


def test_features_of_unlike_identity_are_never_compared(pictures, tmp_path):
    evaluator = Evaluator(Settings(metrics=["fd_pixels"], cache_dir=str(tmp_path)))
    evaluator.prepare(ImageSet(TensorDataset(pictures[0]), "real"))
    extractor = evaluator.extractors["pixels"]
    extractor.identity = replace(extractor.identity, preprocessing="another")
    with pytest.raises(ValueError, match="cannot be compared"):
        evaluator.evaluate_images(ImageSet(TensorDataset(pictures[1]), "fake"))


def test_any_model_of_open_clip_may_be_named(pictures, tmp_path):
    vision = {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8}
    text = {"context_length": 4, "vocab_size": 8, "width": 64, "heads": 1, "layers": 1}
    (tmp_path / "Smallest.json").write_text(json.dumps({"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(tmp_path / "Smallest.json")
    torch.save(open_clip.create_model("Smallest").state_dict(), tmp_path / "weights.pth")
    report = evaluate(
        *map(TensorDataset, pictures),
        metrics=["fd_Smallest", "kd_Smallest"],
        extractors={"Smallest": {"weights": str(tmp_path / "weights.pth")}},
        cache_dir=str(tmp_path / "cache"),
    )
    assert list(report.scalars) == ["fd_Smallest", "kd_Smallest", "kd_Smallest_std"]
    protocol = report.protocol["extractors"]["Smallest"]
    assert protocol["weights"] == "custom"
    assert protocol["precision"] == "float32"
    assert "Smallest, Pillow's bicubic to 16x16" in protocol["preprocessing"]


def test_a_network_whose_features_depend_on_the_size(tmp_path):
    real, fake = torch.zeros(9, 3, 8, 8, dtype=torch.uint8), torch.zeros(9, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="image_size="):
        evaluate(
            TensorDataset(real),
            TensorDataset(fake),
            metrics=["fd_flat"],
            extractors={"flat": {"network": nn.Flatten(), "input_range": (0, 1)}},
            cache_dir=str(tmp_path),
        )
