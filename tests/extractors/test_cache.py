import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lightning_synthqual import evaluate
from lightning_synthqual.extractors import Extractor, Identity, cache
from lightning_synthqual.extractors.cache import FeatureCache, default_directory

IDENTITY = Identity("mine", weights="abc", preprocessing="none")
OUTPUTS = {"pool": torch.arange(12.0).reshape(3, 4), "logits": torch.randn(5, 3).T}


def equal(found: dict[str, Tensor] | None, expected: dict[str, Tensor]) -> bool:
    return found is not None and found.keys() == expected.keys() and all(found[k].equal(expected[k]) for k in found)


@pytest.fixture
def saved(tmp_path: Path) -> FeatureCache:
    features = FeatureCache(tmp_path / "deep" / "cache")
    features.save("data", IDENTITY, OUTPUTS)
    return features


def test_what_was_saved_is_loaded(saved: FeatureCache) -> None:
    assert equal(saved.load("data", IDENTITY), OUTPUTS)
    assert equal(FeatureCache(str(saved.directory)).load("data", IDENTITY), OUTPUTS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.uint8])
def test_other_types_and_empty_tensors_are_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    outputs = {"a": torch.arange(6).reshape(2, 3).to(dtype), "b": torch.zeros(2, 0, dtype=dtype)}
    FeatureCache(tmp_path).save("data", IDENTITY, outputs)
    found = FeatureCache(tmp_path).load("data", IDENTITY)
    assert equal(found, outputs)
    assert found is not None
    assert found["a"].dtype == dtype


def test_other_data_and_other_networks_are_not_found(saved: FeatureCache, caplog: pytest.LogCaptureFixture) -> None:
    assert saved.load("other data", IDENTITY) is None
    assert saved.load("data", Identity("mine", weights="abd", preprocessing="none")) is None
    assert not caplog.records


def test_the_file_is_plain_safetensors_that_say_what_they_are(saved: FeatureCache) -> None:
    with safe_open(saved.path("data", IDENTITY), framework="pt") as file:
        assert sorted(file.keys()) == ["logits", "pool"]
        assert torch.equal(file.get_tensor("pool"), OUTPUTS["pool"])
        assert json.loads(file.metadata()["identity"])["weights"] == "abc"


def test_one_file_is_left_and_no_partial_one(saved: FeatureCache) -> None:
    saved.save("data", IDENTITY, {"pool": torch.ones(2, 2)})
    assert list(saved.directory.iterdir()) == [saved.path("data", IDENTITY)]
    assert equal(saved.load("data", IDENTITY), {"pool": torch.ones(2, 2)})


@pytest.mark.parametrize("damage", ["truncated", "empty", "header", "data", "foreign", "unsigned", "other type"])
def test_a_damaged_file_is_none_with_a_warning(
    saved: FeatureCache, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path = saved.path("data", IDENTITY)
    content = path.read_bytes()
    changed = {
        "truncated": content[:-5],
        "empty": b"",
        "header": content[:8] + b"#" + content[9:],
        "data": content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
        "foreign": b"neither safe nor tensors" * 40,
    }
    if damage in changed:
        path.write_bytes(changed[damage])
    else:
        save_file({"pool": OUTPUTS["pool"].to(torch.bfloat16 if damage == "other type" else torch.float32)}, path)
    assert saved.load("data", IDENTITY) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "damaged" in record.getMessage()
    assert str(path) in record.getMessage()
    saved.save("data", IDENTITY, OUTPUTS)
    assert equal(saved.load("data", IDENTITY), OUTPUTS)


def test_an_impossible_directory_costs_only_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    features = FeatureCache(tmp_path / "file" / "below")
    features.save("data", IDENTITY, OUTPUTS)
    (record,) = caplog.records
    assert "could not be cached" in record.getMessage()
    assert features.load("data", IDENTITY) is None


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error")])
def test_a_failing_disk_costs_only_a_warning_and_leaves_nothing(
    saved: FeatureCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail(tensors: Any, path: str, metadata: Any) -> None:
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(cache, "save_file", fail)
    saved.save("data", IDENTITY, {"pool": torch.ones(1, 1)})
    assert str(error) in caplog.text
    assert list(saved.directory.iterdir()) == [saved.path("data", IDENTITY)]
    assert equal(saved.load("data", IDENTITY), OUTPUTS)


def test_a_forbidden_directory_is_none_with_a_warning(
    saved: FeatureCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def forbidden(*_: Any, **__: Any) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", forbidden)
    assert saved.load("data", IDENTITY) is None
    assert "Permission denied" in caplog.text


def test_the_default_directory_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert FeatureCache().directory == default_directory() == tmp_path / "lightning_synthqual"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_directory() == tmp_path / "home" / ".cache" / "lightning_synthqual"


LOADED = """
import re, sys, torch
from pathlib import Path
from lightning_synthqual.extractors import Identity
from lightning_synthqual.extractors.cache import FeatureCache

def own():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

cache, identity = FeatureCache(sys.argv[1]), Identity("mine", weights="abc", preprocessing="none")
cache.load("nothing", identity)
before = own()
found = cache.load("data", identity, verify=True)
loaded = own()
total = float(found["pool"].sum())
print(loaded - before, own() - before, total)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says how much memory is a process's own")
def test_what_is_loaded_is_mapped_and_takes_no_memory_of_the_process(tmp_path: Path) -> None:
    rows = torch.ones(8000, 1000)  # 32 MB
    assert FeatureCache(tmp_path).save("data", IDENTITY, {"pool": rows})
    done = subprocess.run([sys.executable, "-c", LOADED, str(tmp_path)], capture_output=True, text=True, check=True)
    loading, reading, total = map(float, done.stdout.split())
    assert total == rows.numel()
    assert loading < 0.2 * rows.nbytes
    assert reading < 0.2 * rows.nbytes


def test_content_is_compared_with_its_checksum_where_it_is_asked_for(saved: FeatureCache) -> None:
    path = saved.path("data", IDENTITY)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert saved.load("data", IDENTITY, verify=False) is not None
    assert saved.load("data", IDENTITY) is None


def test_the_checksum_is_that_of_the_file(saved: FeatureCache) -> None:
    first = saved.digest("data", IDENTITY)
    assert first == saved.digest("data", IDENTITY)
    assert saved.digest("other data", IDENTITY) is None
    saved.save("data", IDENTITY, {name: rows + 1 for name, rows in OUTPUTS.items()})
    assert saved.digest("data", IDENTITY) not in (None, first)


PROBE = torch.tensor([[100.0, -3.0], [0.5, 0.25]])


def test_fewer_rows_than_the_data_has_images_are_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    features = FeatureCache(tmp_path)
    features.save("data", IDENTITY, OUTPUTS)
    assert equal(features.load("data", IDENTITY, rows=3), OUTPUTS)
    assert features.load("data", IDENTITY, rows=4) is None
    assert "has 3 rows instead of 4" in caplog.text


def test_outputs_of_unequal_numbers_of_rows_are_computed_again(tmp_path: Path) -> None:
    features = FeatureCache(tmp_path)
    features.save("data", IDENTITY, {"pool": torch.ones(3, 2), "logits": torch.ones(2, 2)})
    assert features.load("data", IDENTITY) is None


def test_the_file_of_other_data_does_not_pass_for_these(saved: FeatureCache, caplog: pytest.LogCaptureFixture) -> None:
    saved.path("data", IDENTITY).rename(saved.path("other data", IDENTITY))
    assert saved.load("other data", IDENTITY) is None
    assert "damaged" in caplog.text


@pytest.mark.parametrize(
    ("factor", "precision", "same"),
    [(1.0, "float32", True), (1 + 1e-5, "float32", True), (1.001, "float32", False), (1.01, "bfloat16", True)],
)
def test_features_of_another_network_are_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, factor: float, precision: str, same: bool
) -> None:
    features, identity = FeatureCache(tmp_path), replace(IDENTITY, precision=precision)
    features.save("data", identity, OUTPUTS, probe=PROBE)
    found = features.load("data", identity, probe=PROBE * torch.tensor([[1.0], [factor]]))
    assert equal(found, OUTPUTS) if same else found is None
    assert ("the network gives other features now" in caplog.text) != same


@pytest.mark.parametrize(("before", "now"), [(None, PROBE), (PROBE, PROBE[:, :1])])
def test_a_probe_of_another_kind_is_of_another_network(tmp_path: Path, before: Tensor | None, now: Tensor) -> None:
    features = FeatureCache(tmp_path)
    features.save("data", IDENTITY, OUTPUTS, probe=before)
    assert features.load("data", IDENTITY, probe=now) is None
    assert equal(features.load("data", IDENTITY), OUTPUTS)


def test_names_of_open_clip_make_names_of_files(tmp_path: Path) -> None:
    identity = replace(IDENTITY, name="ViT-B-32:openai")
    assert FeatureCache(tmp_path).path("data", identity).name.startswith("ViT-B-32-openai-")


class Factor(nn.Module):
    """Features that depend on a plain attribute alone."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, ::8, ::8].float().flatten(1) * self.factor


@pytest.mark.parametrize("stated", [False, True])
def test_networks_that_differ_in_an_attribute_do_not_share_features(
    tmp_path: Path, pictures: Callable[..., Tensor], stated: bool
) -> None:
    """Of a module the identity tells; of an extractor whose identity the user states, the probe."""
    real, fake = (TensorDataset(pictures(40, 16, 16, seed=seed)) for seed in (0, 1))

    def score(factor: float, directory: Path) -> float:
        network = Extractor(Factor(factor), IDENTITY) if stated else Factor(factor)
        report = evaluate(real, fake, metrics=["kd_mine"], extractors={"mine": network}, cache_dir=str(directory))
        return report.scalars["kd_mine"]

    score(1.0, tmp_path / "shared")
    assert score(1.01, tmp_path / "shared") == score(1.01, tmp_path / "other")
