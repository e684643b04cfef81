import json
from functools import partial

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_synthqual import evaluate
from lightning_synthqual.metrics import frechet_distance, kernel_distance, precision_recall
from lightning_synthqual.metrics.catalogue import STUDIES
from lightning_synthqual.precision import in_precision

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


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_that_read_change_nothing(pictures, tmp_path, workers):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(pictures[0]):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number:02}.png")
    fake = TensorDataset(pictures[1])
    reports = [
        evaluate(folder, fake, metrics=METRICS, num_workers=number, cache_dir=str(tmp_path / f"{number}"))
        for number in (0, workers)
    ]
    assert reports[0].scalars == reports[1].scalars
    assert reports[0].protocol == reports[1].protocol


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
    assert set(report.pictures) == {"real_samples"}


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


class Net(nn.Module):
    """A generator whose images depend on the precision of its matrix products."""

    latent_dim = 8

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(8, 3 * 16 * 16)

    def forward(self, z):
        return torch.tanh(self.linear(z)).float().view(-1, 3, 16, 16)


def test_a_module_is_sampled_in_the_precision_of_its_trainer(pictures, tmp_path):
    given = {"metrics": ["kd_wavelet"], "num_samples": 30, "cache_dir": str(tmp_path), "batch_size": 8}
    real = TensorDataset(pictures[0][:, :, :16, :16])
    scores = {
        precision: evaluate(real, Net(), precision=precision, **given).scalars["kd_wavelet"]
        for precision in ("32-true", "bf16-mixed")
    }
    assert scores["32-true"] == evaluate(real, Net(), **given).scalars["kd_wavelet"]
    assert scores["32-true"] != scores["bf16-mixed"]
    module = Net()

    def sampler(module, n, generator):
        with in_precision(module, "bf16-mixed"):
            return module(torch.randn(n, 8, generator=generator))

    by_hand = evaluate(real, module, sampler=sampler, **given)
    assert by_hand.protocol["sampling"]["kind"] == "sampler"
    plain = evaluate(real, Net(), sampler=lambda m, n, g: m(torch.randn(n, 8, generator=g)), **given)
    assert by_hand.scalars != plain.scalars
    mixed = partial(evaluate, real, Net(), sampler=lambda m, n, g: m(torch.randn(n, 8, generator=g)), **given)
    assert mixed(precision="bf16-mixed").scalars == by_hand.scalars


def test_bad_arguments_are_errors_before_anything_is_opened(tmp_path):
    for arguments, error, message in (
        ({"precision": "8"}, ValueError, "`precision` must be '32-true'"),
        ({"num_samples": 1}, ValueError, "`num_samples` must be an integer of at least 2, but got 1"),
        ({"num_samples": "9"}, TypeError, "`num_samples` must be an integer of at least 2, but got '9'"),
        ({"num_real": 1}, ValueError, "`num_real` must be an integer of at least 2, or None, but got 1"),
    ):
        with pytest.raises(error, match=message):
            evaluate(tmp_path / "nowhere", tmp_path / "nowhere", metrics=METRICS, **arguments)


def test_some_of_the_real_images_are_chosen_by_the_seed(pictures, tmp_path):
    real, fake = map(TensorDataset, pictures)
    arguments = {"metrics": ["kd_pixels"], "cache_dir": str(tmp_path)}
    reports = [evaluate(real, fake, num_real=20, seed=seed, **arguments) for seed in (0, 0, 1)]
    assert [report.protocol["reference"]["num_images"] for report in reports] == [20] * 3
    assert reports[0].scalars == reports[1].scalars != reports[2].scalars
    assert evaluate(real, fake, num_real=1000, **arguments).protocol["reference"]["num_images"] == 41


class Halves(nn.Module):
    """A generator in two parts, one of which is averaged."""

    latent_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.net, self.net_ema = nn.Linear(4, 3 * 8 * 8), nn.Linear(4, 3 * 8 * 8)

    def forward(self, z):
        return torch.tanh(self.net(z)).unflatten(1, (3, 8, 8))


def averaged_half(module):
    half = Halves()
    half.net = module.net_ema
    return half


def test_model_chooses_the_part_of_a_module_that_is_sampled(pictures, caplog):
    torch.manual_seed(0)
    module, real = Halves(), pictures[0]
    arguments = {"metrics": ["kd_pixels"], "num_samples": 30, "image_range": (-1, 1)}
    own = evaluate(TensorDataset(real), module, **arguments)
    assert own.protocol["sampling"]["averages"] == {"net_ema": "model='net_ema'"}
    assert "`net_ema` (Linear): `model='net_ema'`" in caplog.text
    by_function = evaluate(TensorDataset(real), module, model=averaged_half, **arguments)
    by_path = evaluate(TensorDataset(real), module, model=f"{__name__}.averaged_half", **arguments)
    assert by_function.scalars == by_path.scalars != own.scalars
    assert by_path.scalars == evaluate(TensorDataset(real), averaged_half(module), **arguments).scalars
    assert "averages" not in by_path.protocol["sampling"]
    with pytest.raises(ValueError, match=r"`model='net_emma'` is neither .*Halves has the parts net, net_ema"):
        evaluate(TensorDataset(real), module, model="net_emma", **arguments)
    with pytest.raises(TypeError, match=r"`model=latent_dim` must return the module to sample, but returned int"):
        evaluate(TensorDataset(real), module, model="latent_dim", **arguments)


def test_a_study_of_finished_images_leaves_out_what_needs_the_generator(pictures, monkeypatch):
    monkeypatch.setitem(STUDIES, "study", ("recall_wavelet", "ppl_z_end"))
    images = TensorDataset(pictures[0])
    assert evaluate(images, images, metrics=["study"]).scalars == {"recall_wavelet": 1.0, "recall_wavelet_std": 0.0}
    with pytest.raises(ValueError, match="ppl_z_end samples a generator's latent space"):
        evaluate(images, images, metrics=["ppl_z_end"])
