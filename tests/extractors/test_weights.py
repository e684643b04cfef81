import hashlib
import pickle
import socket
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import RemoteEntryNotFoundError
from safetensors.torch import save_file
from torch import nn

from lightning_synthqual.extractors import weights
from lightning_synthqual.extractors.weights import (
    PublishedWeights,
    WeightsFile,
    download,
    find_weights,
    hub_weights,
    load_state,
    read_state_dict,
    sha256_of_file,
    sha256_of_state,
)

DIGEST = hashlib.sha256(b"weights").hexdigest()
PUBLISHED = PublishedWeights("mine", "mine-0123.pth", "https://example.org/mine-0123.pth", DIGEST[:4])


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.delenv("LIGHTNING_SYNTHQUAL_WEIGHTS", raising=False)
    return tmp_path / "hub"


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_download_goes_to_the_hub_folder_once_and_is_verified(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def download(url: str, path: str, hash_prefix: str, progress: bool) -> None:
        calls.append((url, hash_prefix, progress))
        Path(path).write_bytes(b"weights")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    expected = WeightsFile(hub / "checkpoints" / PUBLISHED.filename, DIGEST, "published")
    assert find_weights(PUBLISHED, None, None) == expected
    assert find_weights(PUBLISHED, None, None) == expected
    assert calls == [(PUBLISHED.url, DIGEST[:4], False)]


@pytest.mark.parametrize(
    "error", [OSError("disk full"), RuntimeError('invalid hash value (expected "0123", got "9")'), TimeoutError("slow")]
)
def test_a_failed_download_says_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def download(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(FileNotFoundError) as caught:
        find_weights(PUBLISHED, None, None)
    assert all(part in str(caught.value) for part in (str(error), PUBLISHED.filename, PUBLISHED.url, "weights_dir="))


def test_given_weights_come_before_the_folder_and_the_folder_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / place / PUBLISHED.filename for place in ("given", "folder", "environment")]
    for file in files:
        file.parent.mkdir()
        file.touch()
    given, folder, environment = files
    monkeypatch.setenv("LIGHTNING_SYNTHQUAL_WEIGHTS", str(environment.parent))
    assert find_weights(PUBLISHED, str(given), str(folder.parent)).path == given
    assert find_weights(PUBLISHED, None, str(folder.parent)).path == folder
    assert find_weights(PUBLISHED, None, None).path == environment


def test_a_missing_file_is_not_replaced_by_a_download(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth` does not exist\. The published file is https://"):
        find_weights(PUBLISHED, str(tmp_path / "nowhere.pth"), str(tmp_path))


@pytest.mark.parametrize("new_format", [True, False])
def test_a_state_dict_is_read(tmp_path: Path, new_format: bool) -> None:
    state = nn.BatchNorm1d(3).state_dict()
    torch.save(state, tmp_path / "x.pth", _use_new_zipfile_serialization=new_format)
    found = read_state_dict(tmp_path / "x.pth")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("kept", [0, 1, 100, -20])
@pytest.mark.parametrize("new_format", [True, False])
def test_a_truncated_file_is_named(tmp_path: Path, kept: int, new_format: bool) -> None:
    path = tmp_path / "half.pth"
    torch.save(nn.Linear(30, 30).state_dict(), path, _use_new_zipfile_serialization=new_format)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"half\.pth` could not be read as a PyTorch state dict .* truncated"):
        read_state_dict(path)


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><title>404</title>",
        b"Not Found",
        b"version https://git-lfs.github.com/spec/v1",
        b"\x00" * 99,
    ],
)
def test_what_is_no_weights_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"page\.pth` could not be read"):
        read_state_dict(path)


@pytest.mark.parametrize("plain_pickle", [True, False])
def test_nothing_is_unpickled(tmp_path: Path, plain_pickle: bool) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    if plain_pickle:
        path.write_bytes(pickle.dumps(Evil(trace), protocol=2))
    else:
        torch.save({"weight": Evil(trace)}, path)
    with pytest.raises(ValueError, match=r"evil\.pth` could not be read"):
        read_state_dict(path)
    assert not trace.exists()
    torch.load(path, weights_only=False) if not plain_pickle else pickle.loads(path.read_bytes())
    assert trace.exists()


@pytest.mark.parametrize("content", [[torch.ones(2)], torch.ones(2), {"state_dict": {"a": 1}}, {"a": 1}, 3])
def test_what_is_no_dict_of_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth` must hold a dict of tensors"):
        read_state_dict(tmp_path / "x.pth")


def test_a_mismatch_names_a_few_entries_and_loads_nothing() -> None:
    network = nn.Sequential(*(nn.Linear(2, 2) for _ in range(100)))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = {f"wrong.{name}": torch.zeros_like(value) for name, value in before.items()}
    with pytest.raises(ValueError, match=r"x\.pth` does not fit Sequential: 400 of 400 entries differ") as caught:
        load_state(network, state, Path("x.pth"))
    assert str(caught.value).count("absent") == 3
    assert len(str(caught.value)) < 500
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_wrong_shape_names_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"1 of 2 entries differ, .* weight \(file: \(4, 3\), network: \(2, 3\)\)"):
        load_state(nn.Linear(3, 2), {"weight": torch.ones(4, 3), "bias": torch.ones(2)}, Path("x.pth"))


def test_only_batch_counters_may_be_absent() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    state = {name: torch.full_like(value, 2) for name, value in network.state_dict().items()}
    del state["1.num_batches_tracked"]
    load_state(network, state, Path("x.pth"))
    assert network[1].running_var.tolist() == [2.0, 2.0]
    del state["1.running_var"]
    with pytest.raises(ValueError, match=r"1 of 7 entries differ, for example 1\.running_var \(file: absent"):
        load_state(network, state, Path("x.pth"))


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(content)
    assert sha256_of_file(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_the_hash_of_a_state_tells_values_names_types_and_shapes_apart() -> None:
    def holder(name: str, value: torch.Tensor) -> nn.Module:
        network = nn.Module()
        network.register_buffer(name, value)
        return network

    values = torch.arange(4.0)
    networks = [
        holder("a", values),
        holder("b", values),
        holder("a", values + 1),
        holder("a", values.reshape(2, 2)),
        holder("a", values.view(torch.int32)),
        holder("a", values.bfloat16()),
        holder("a", torch.tensor(True)),
    ]
    assert len({sha256_of_state(network) for network in networks}) == 7
    assert sha256_of_state(holder("a", values.clone())) == sha256_of_state(networks[0])


@pytest.mark.parametrize(("content", "origin"), [(b"weights", "published"), (b"others", "custom")])
@pytest.mark.parametrize("way", ["given", "folder"])
def test_the_hash_tells_whose_weights_they_are(tmp_path: Path, content: bytes, origin: str, way: str) -> None:
    file = tmp_path / PUBLISHED.filename
    file.write_bytes(content)
    found = find_weights(PUBLISHED, str(file) if way == "given" else None, str(tmp_path))
    assert found == WeightsFile(file, hashlib.sha256(content).hexdigest(), origin)


def test_without_a_published_hash_a_published_name_is_not_proof(tmp_path: Path) -> None:
    published = PublishedWeights("mine", "mine.pth", "https://example.org/mine.pth")
    (tmp_path / "mine.pth").touch()
    assert find_weights(published, None, str(tmp_path)).origin == "unverified"
    assert find_weights(published, str(tmp_path / "mine.pth"), None).origin == "custom"


def test_a_damaged_download_is_an_error(hub: Path) -> None:
    file = hub / "checkpoints" / PUBLISHED.filename
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weigh")
    with pytest.raises(ValueError, match=rf"damaged: its SHA-256 starts with .* one with {DIGEST[:4]}\. Delete it"):
        find_weights(PUBLISHED, None, None)


def test_a_missing_file_is_downloaded_into_the_users_folder(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, path, **_: Path(path).write_bytes(b"weights"))
    assert find_weights(PUBLISHED, None, str(tmp_path / "mine")).path == tmp_path / "mine" / PUBLISHED.filename
    assert not hub.exists()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "mine"))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded .*Permission denied: .*mine"):
        find_weights(PUBLISHED, None, str(tmp_path / "mine"))


def test_a_real_download_is_whole_or_not_there(tmp_path: Path) -> None:
    source = tmp_path / "source.pth"
    source.write_bytes(b"weights")
    target = tmp_path / "new" / "target.pth"
    with pytest.raises(RuntimeError, match="invalid hash value"):
        download(source.as_uri(), target, "0000")
    assert list(target.parent.iterdir()) == []
    download(source.as_uri(), target, DIGEST[:8])
    assert [path.read_bytes() for path in target.parent.iterdir()] == [b"weights"]


class Hub:
    """A model hub that has some files, and keeps them in a cache as the real one does: by their hashes."""

    def __init__(self, cache: Path, **files: bytes) -> None:
        self.cache = cache
        self.files = files
        self.asked: list[str] = []

    def download(self, repository: str, file: str) -> str:
        self.asked.append(f"{repository}/{file}")
        stem = file.partition(".")[0]
        if stem not in self.files:
            response = httpx.Response(404, request=httpx.Request("GET", "https://example.org"))
            raise RemoteEntryNotFoundError("404", response=response)
        blob = self.cache / "blobs" / hashlib.sha256(self.files[stem]).hexdigest()
        link = self.cache / "snapshots" / file
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(self.files[stem])
        link.symlink_to(blob)
        return str(link)

    def find(self, repository: str, file: str) -> str | None:
        link = self.cache / "snapshots" / file
        return str(link) if link.exists() else None


@pytest.fixture
def model_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    hub = Hub(tmp_path / "cache", model=b"weights")
    monkeypatch.setattr(weights, "check_reachable", lambda _: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", hub.find)
    return hub


HUB = hub_weights("mine", "somebody/network", "safe.safetensors", "model.bin")


def test_a_file_of_a_hub_is_the_first_that_is_there_and_is_verified(model_hub: Hub) -> None:
    found = find_weights(HUB, None, None)
    assert (found.path.read_bytes(), found.sha256, found.origin) == (b"weights", DIGEST, "published")
    assert model_hub.asked == ["somebody/network/safe.safetensors", "somebody/network/model.bin"]
    assert find_weights(HUB, None, None) == found
    assert len(model_hub.asked) == 2
    found.path.resolve().write_bytes(b"weigh")
    with pytest.raises(ValueError, match="damaged"):
        find_weights(HUB, None, None)


def test_a_file_of_a_hub_goes_into_the_users_folder(model_hub: Hub, tmp_path: Path) -> None:
    found = find_weights(HUB, None, str(tmp_path / "mine"))
    assert found == WeightsFile(tmp_path / "mine" / "network" / "model.bin", DIGEST, "unverified")
    assert [path.name for path in found.path.parent.iterdir()] == ["model.bin"]
    assert find_weights(HUB, None, str(tmp_path / "mine")) == found
    assert len(model_hub.asked) == 2


def test_a_repository_without_the_file_is_named(model_hub: Hub) -> None:
    model_hub.files = {}
    with pytest.raises(FileNotFoundError, match=r"`network/safe\.safetensors` is not here and could not be downloaded"):
        find_weights(HUB, None, None)


@pytest.mark.parametrize("wrap", [lambda state: {"state_dict": state}, lambda state: state])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_what_training_scripts_wrap_around_is_taken_off(tmp_path: Path, wrap: Any, prefix: str) -> None:
    state = nn.Linear(2, 3).state_dict()
    torch.save(wrap({prefix + name: value for name, value in state.items()}), tmp_path / "x.pth")
    found = read_state_dict(tmp_path / "x.pth")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_safetensors_are_read_and_truncated_ones_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(nn.Linear(2, 3).state_dict(), path)
    assert read_state_dict(path).keys() == {"weight", "bias"}
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"x\.safetensors` could not be read as a safetensors file"):
        read_state_dict(path)


def test_without_a_network_the_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client would try again and again, for half a minute."""

    def refuse(address: tuple[str, int], timeout: float) -> Any:
        assert timeout < 10
        raise OSError("Name or service not known")

    def hub(*_: Any) -> str:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(FileNotFoundError, match=r"cannot be reached: Name or service not known"):
        find_weights(HUB, None, None)


def test_missing_weights_name_the_command_that_fetches_them_and_extractors_without_weights() -> None:
    text = weights.advice("inception", "file.pth", "https://example.org/file.pth")
    assert "`synthqual weights fetch inception`" in text
    assert "'wavelet' and 'pixels' need no weights" in text
