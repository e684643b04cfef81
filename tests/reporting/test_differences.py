"""Differences of reports: what may be compared, what is paired, and what is said where it is not."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_synthqual import Report, compare, evaluate
from lightning_synthqual.metrics.base import Influence
from lightning_synthqual.reporting.differences import difference_of, with_change

PROTOCOL: dict[str, Any] = {
    "num_samples": 100,
    "seed": 0,
    "reference": {"role": "real", "num_images": 50, "size": [8, 8], "fingerprint": "a" * 40},
    "other_real": {"role": "held_out", "num_images": 20, "fingerprint": "b"},
    "extractors": {"wavelet": {"weights": "none"}},
    "metrics": {
        "fd_wavelet": {"extractor": "wavelet", "direction": "min"},
        "closer_to_train_wavelet": {"extractor": "wavelet", "both_sets": True},
        "vendi_wavelet": {"extractor": "wavelet", "direction": "max"},
    },
    "sampling": {"kind": "latent", "latent_shape": [4], "labels": None, "repeatable": True, "batch_size": 64},
}
NAMES = ("fd_wavelet", "closer_to_train_wavelet", "vendi_wavelet")


def report(draw: int = 0, step: int = 0, generated: int = 100, **changes: Any) -> Report:
    """A report whose images have most of what they add to the scores in common."""
    common = torch.randn(150, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    rows = common + 0.1 * torch.randn(150, generator=torch.Generator().manual_seed(draw), dtype=torch.float64)
    value, real = 1.0 + draw, {"vendi_wavelet": rows[:0]}
    influences = {name: Influence(torch.tensor(value), rows[:generated], real.get(name, rows[100:])) for name in NAMES}
    scalars = dict.fromkeys(NAMES, value)
    scalars |= {f"{name}_std": float(each.std) for name, each in influences.items()}
    protocol = copy.deepcopy(PROTOCOL)
    for key, value in changes.items():
        protocol[key] = {**protocol[key], **value} if isinstance(value, dict) else value
    return Report(scalars, protocol, step=step, influences=influences)


def test_paired_differences_are_surer():
    found = compare(report(1), report(0))
    assert list(found) == list(NAMES)
    assert all(each.paired and each.value == 1.0 for each in found.values())
    assert 0 < (found["fd_wavelet"].std or 0) < 0.2 * report().scalars["fd_wavelet_std"]


@pytest.mark.parametrize(
    ("other", "unpaired", "why"),
    [
        ({"seed": 3}, NAMES, "the latents differ (seed: 0 / 3)"),
        ({"sampling": {"latent_shape": [5]}}, NAMES, "the latents differ (latent_shape: [4] / [5])"),
        ({"sampling": {"repeatable": False}}, NAMES, "the sampler gives other images each time it is seeded alike"),
        ({"sampling": {"batch_size": 32}}, (), ""),  # latents are seeded one by one
        ({"sampling": None}, NAMES, "finished images may be of any latents"),
        ({"reference": {"fingerprint": "c"}}, NAMES[:2], "the real images differ (reference fingerprint: "),
        ({"other_real": {"fingerprint": "c"}}, NAMES[1:2], "the real images differ (other_real fingerprint: b / c)"),
        ({"generated_rows": 90}, NAMES, "the numbers of generated images differ: 100 and 90"),
    ],
)
def test_what_does_not_pair_is_said_in_one_line(caplog, other, unpaired, why):
    rows = other.get("generated_rows", 100)
    second = report(1, generated=rows, **{key: value for key, value in other.items() if key != "generated_rows"})
    found = compare(report(0), second)
    assert [name for name, each in found.items() if not each.paired] == list(unpaired)
    for name in unpaired:
        errors = [each.scalars[f"{name}_std"] for each in (report(0), second)]
        assert found[name].std == pytest.approx(sum(error**2 for error in errors) ** 0.5)
    assert len(caplog.messages) == bool(unpaired)
    assert why in caplog.text
    assert all(name in caplog.text for name in unpaired)


def test_samplers_pair_by_blocks_and_by_their_code():
    sampler = {"kind": "sampler", "sampler": {"name": "train.draw", "code": "1"}}
    one, other = report(0, sampling=sampler), report(1, sampling={**sampler, "batch_size": 32})
    assert not compare(one, other)["fd_wavelet"].paired
    script = {"kind": "sampler", "sampler": {"name": "__main__.draw", "code": "1"}}
    assert compare(one, report(1, sampling=script))["fd_wavelet"].paired
    changed = {"kind": "sampler", "sampler": {"name": "train.draw", "code": "2"}}
    assert not compare(one, report(1, sampling=changed))["fd_wavelet"].paired


def test_labels_of_other_real_images_are_other_labels():
    labelled = {"sampling": {"labels": "data"}}
    one, other = report(0, **labelled), report(1, reference={"fingerprint": "c"}, **labelled)
    assert not compare(one, other)["vendi_wavelet"].paired


def test_finished_images_are_paired_where_it_is_known(caplog):
    one, other = (report(seed, sampling=None) for seed in (0, 1))
    assert not compare(one, other)["fd_wavelet"].paired
    assert compare(one, other, paired=True)["fd_wavelet"].paired


def test_what_is_measured_otherwise_is_not_compared(caplog):
    metrics = {**PROTOCOL["metrics"], "fd_wavelet": {"extractor": "wavelet", "direction": "min", "k": 2}}
    found = compare(report(0), report(1, metrics=metrics))
    assert list(found) == list(NAMES[1:])
    assert "Not compared: fd_wavelet (options k: None / 2)." in caplog.text
    with pytest.raises(ValueError, match=r"no value in common .*extractor weights: none / other"):
        compare(report(0), report(1, extractors={"wavelet": {"weights": "other"}}))
    with pytest.raises(ValueError, match=r"one has a, the other b"):
        compare(Report({"a": 1.0}, {}), Report({"b": 1.0}, {}))


def test_a_report_states_its_change():
    before, now = report(0, step=10), report(1, step=20)
    found = with_change(now, before)
    expected = compare(now, before)["fd_wavelet"]
    assert (found.scalars["fd_wavelet_change"], found.scalars["fd_wavelet_change_std"]) == expected[:2]
    assert found.protocol["change"] == {"since": 10, "paired": list(NAMES)}
    assert with_change(now, None) is now
    other = with_change(now, report(0, step=10, seed=4)).protocol["change"]
    assert other == {"since": 10, "paired": [], "unpaired": {"the latents differ (seed: 0 / 4)": list(NAMES)}}


def test_gaps_are_compared_one_by_one():
    rows = {"kd_gap": 0.5, "kd_gap_std": 0.1}
    assert difference_of("kd_gap", Report(rows, {}), Report(rows, {})) == (0.0, pytest.approx(0.1 * 2**0.5), False)
    with pytest.raises(ValueError, match="no value in common"):
        compare(Report({"kd": 1.0, "kd_gap": 1.0}, {}), Report({"kd_gap": 1.0, "fd": 2.0}, {}))


class Waves(nn.Module):
    """A generator of two numbers."""

    latent_dim = 2

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        grid = torch.linspace(0, 3, 16)
        waves = (z[:, :1, None] * grid).sin()[:, :, None] * (z[:, 1:, None] * grid).cos()[..., None]
        return (self.strength * waves).expand(-1, 3, -1, -1)


def test_reports_of_two_generators_are_paired(clouds, tmp_path, caplog):
    arguments = {"metrics": ["kd_pixels"], "num_samples": 60, "cache_dir": tmp_path}
    one, other = (evaluate(clouds[0], Waves(strength), **arguments) for strength in (0.9, 0.95))
    found = compare(one, other)["kd_pixels"]
    assert found.value == one.scalars["kd_pixels"] - other.scalars["kd_pixels"]
    assert found.paired
    assert 0 < (found.std or 0) < 0.5 * one.scalars["kd_pixels_std"]
    assert not caplog.messages


def test_finished_images_have_influences_too(clouds, tmp_path):
    found = evaluate(clouds[0], TensorDataset(clouds[2][:][0]), metrics=["kd_pixels"], cache_dir=tmp_path)
    assert [len(rows) for rows in found.influences["kd_pixels"][1:]] == [40, 60]
