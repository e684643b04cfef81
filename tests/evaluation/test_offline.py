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
from lightning_synthqual.evaluation import networks as networks_module
from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.evaluation.settings import Settings
from lightning_synthqual.extractors.base import Extractor, Identity
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.metrics import frechet_distance, inception_score, kernel_distance, precision_recall

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
    errors = {"fd_pixels_std", "precision_pixels_std", "recall_pixels_std"}
    assert all(report.scalars[name] >= 0 for name in errors)
    assert {name: value for name, value in report.scalars.items() if name not in errors} == pytest.approx(
        {
            "fd_pixels": frechet_distance(real, fake).item(),
            "kd_pixels": kernel.value.item(),
            "kd_pixels_std": kernel.std.item(),
            "precision_pixels": manifold.precision.item(),
            "recall_pixels": manifold.recall.item(),
        },
        rel=1e-6,
    )
    assert list(report.scalars) == [name + suffix for name in METRICS for suffix in ("", "_std")]


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


@pytest.fixture
def clouds():
    """Training, held-out and generated pictures: noise of three strengths."""
    generator = torch.Generator().manual_seed(0)

    def draw(count, low):
        return TensorDataset(torch.randint(low, 256 - low, (count, 3, 16, 16), dtype=torch.uint8, generator=generator))

    return draw(60, 20), draw(50, 24), draw(40, 40)


class Flat(nn.Module):
    """Box averages, 48 features."""

    def forward(self, images):
        return nn.functional.avg_pool2d(images.float() / 255, 4).flatten(1)


class TwoOutputs(nn.Module):
    """Like the Inception network a pool and logits."""

    def forward(self, images):
        pool = images.float().flatten(1)[:, :30] / 255
        return {"pool": pool, "logits": 5 * pool[:, :12]}


@pytest.fixture
def inception(monkeypatch):
    """Put a network into the place of the Inception network."""

    def put(network, embedding):
        extractor = Extractor(network, Identity("inception", "custom", "none"), embedding=embedding)
        monkeypatch.setattr(networks_module, "load_configured", lambda *_: extractor)

    return put


def test_held_out_images_give_floors_and_gaps(clouds, tmp_path):
    train, held_out, fake = clouds
    metrics = ("fd_flat", "kd_flat", "kd_rbf_flat", "recall_flat")
    arguments = {"metrics": metrics, "extractors": {"flat": Flat()}, "cache_dir": str(tmp_path)}
    scalars = evaluate(train, fake, held_out=held_out, **arguments).scalars
    plain = evaluate(train, fake, **arguments).scalars
    assert {name: scalars[name] for name in plain} == plain
    beside = {"fd_flat_floor", "kd_flat_floor", "kd_flat_gap", "kd_rbf_flat_floor", "kd_rbf_flat_gap"}
    assert set(scalars) - set(plain) == beside
    real, other, generated = (Flat()(dataset.tensors[0]) for dataset in clouds)
    for name, options in (("kd_flat", {}), ("kd_rbf_flat", {"kernel": "rbf"})):
        floor = kernel_distance(real, other, **options).value.item()
        assert scalars[f"{name}_floor"] == pytest.approx(floor, rel=1e-9)
        to_held_out = kernel_distance(other, generated, **options).value.item()
        chosen = np.sort(np.random.default_rng(0).permutation(60)[:50])
        to_train = kernel_distance(real[chosen], generated, **options).value.item()
        assert scalars[f"{name}_gap"] == pytest.approx(to_held_out - to_train, rel=1e-6, abs=1e-12)
    chosen = np.sort(np.random.default_rng(0).permutation(50)[:40])
    assert scalars["fd_flat_floor"] == pytest.approx(frechet_distance(real, other[chosen]).item(), rel=1e-9)


def test_the_gap_has_its_sign_whichever_set_is_the_reference(clouds, tmp_path):
    train, held_out, fake = clouds
    arguments = {"metrics": ["kd_flat"], "extractors": {"flat": Flat()}, "cache_dir": str(tmp_path)}
    one = evaluate(train, fake, held_out=held_out, **arguments)
    other = evaluate(train, fake, held_out=held_out, reference="held_out", **arguments)
    assert other.scalars["kd_flat_gap"] == pytest.approx(one.scalars["kd_flat_gap"], rel=1e-9)
    assert other.scalars["kd_flat_floor"] == pytest.approx(one.scalars["kd_flat_floor"], rel=1e-9)
    assert one.protocol["counterpart"]["role"] == "held_out"
    assert one.protocol["counterpart"]["num_images"] == 50
    assert other.protocol["counterpart"]["role"] == "real"


def test_copies_of_training_images_open_the_gap(clouds, tmp_path):
    train, held_out, _ = clouds
    arguments = {"metrics": ["kd_flat"], "extractors": {"flat": Flat()}, "cache_dir": str(tmp_path)}
    copied = evaluate(train, TensorDataset(train.tensors[0][:40]), held_out=held_out, **arguments)
    assert copied.scalars["kd_flat_gap"] > 0


def test_a_frechet_floor_needs_as_many_images_as_were_generated(clouds, tmp_path, caplog):
    train, held_out, fake = clouds
    arguments = {"metrics": ["fd_flat", "kd_flat"], "extractors": {"flat": Flat()}, "cache_dir": str(tmp_path)}
    few = TensorDataset(held_out.tensors[0][:30])
    scalars = evaluate(train, fake, held_out=few, **arguments).scalars
    assert "fd_flat_floor" not in scalars
    assert "kd_flat_floor" in scalars
    assert "fd_flat_floor is left out: 30 images in `held_out` are fewer than 40" in caplog.text


def test_a_counterpart_of_too_few_images_for_the_subsets(clouds, tmp_path, caplog):
    train, held_out, fake = clouds
    options = {"kid": {"subsets": 2, "subset_size": 35}}
    arguments = {"metrics": ["kd_flat"], "extractors": {"flat": Flat()}, "cache_dir": str(tmp_path)}
    few = TensorDataset(held_out.tensors[0][:30])
    scalars = evaluate(train, fake, held_out=few, options=options, **arguments).scalars
    assert set(scalars) == {"kd_flat", "kd_flat_std"}
    assert "kd_flat_floor is left out" in caplog.text
    assert "kd_flat_gap is left out" in caplog.text


def test_images_that_no_metric_compares_with_are_not_read(clouds, tmp_path):
    train, _, fake = clouds
    broken = TensorDataset(torch.full((9, 3, 16, 16), torch.nan))
    arguments = {"extractors": {"flat": Flat()}, "cache_dir": str(tmp_path)}
    report = evaluate(train, fake, held_out=broken, metrics=["recall_flat"], **arguments)
    assert report.protocol["counterpart"] is None
    with pytest.raises(ValueError, match="held_out"):
        evaluate(train, fake, held_out=broken, metrics=["kd_flat"], **arguments)


def test_the_inception_score_reads_the_logits(clouds, tmp_path, inception):
    train, _, fake = clouds
    inception(TwoOutputs(), "pool")
    scalars = evaluate(train, fake, metrics=["isc", "fid"], cache_dir=str(tmp_path)).scalars
    outputs = [TwoOutputs()(dataset.tensors[0]) for dataset in (train, fake)]
    expected = inception_score(outputs[1]["logits"])
    assert scalars["isc"] == pytest.approx(expected.mean.item(), rel=1e-9)
    assert scalars["isc_std"] == pytest.approx(expected.std.item() / 3, rel=1e-9)
    assert scalars["fid"] == pytest.approx(frechet_distance(*(o["pool"] for o in outputs)).item(), rel=1e-9)


def test_an_output_that_the_extractor_does_not_give(clouds, tmp_path, inception):
    inception(Flat(), "features")
    with pytest.raises(ValueError, match="isc reads the output 'logits' of extractor 'inception', which"):
        evaluate(clouds[0], clouds[2], metrics=["isc"], cache_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["fid50k", "fid50k_full", "kid50k_full", "is50k"])
def test_published_names_are_for_published_numbers_of_images(clouds, tmp_path, inception, name):
    inception(TwoOutputs(), "pool")
    message = f"{name} is a published protocol, which generates 50000 images, but here are 40. Set `num_samples=50000`"
    with pytest.raises(ValueError, match=message):
        evaluate(clouds[0], clouds[2], metrics=[name], cache_dir=str(tmp_path))


@pytest.mark.parametrize(("num_real", "complete"), [(None, True), (59, False), (60, True), (61, True)])
def test_whether_the_real_images_are_all_there_are(clouds, tmp_path, num_real, complete):
    evaluator = Evaluator(Settings(metrics=["fd_pixels"], cache_dir=str(tmp_path)))
    assert evaluator.prepare(ImageSet(clouds[0], "real", num_images=num_real)).complete == complete


def test_a_trial_does_not_insist_on_published_numbers(clouds, tmp_path, inception):
    inception(TwoOutputs(), "pool")
    evaluator = Evaluator(Settings(metrics=["fid50k"], cache_dir=str(tmp_path), trial=True))
    evaluator.prepare(ImageSet(clouds[0], "real"))
    assert evaluator.evaluate_images(ImageSet(clouds[2], "fake")).scalars["fid50k"] > 0


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
    extractor = evaluator.networks.extractors["pixels"]
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
    assert list(report.scalars) == ["fd_Smallest", "fd_Smallest_std", "kd_Smallest", "kd_Smallest_std"]
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
