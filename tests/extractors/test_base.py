from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_synthqual.extractors import Extractor, Identity

Pictures = Callable[..., Tensor]
IDENTITY = Identity("mine", weights="none", preprocessing="nothing")


class Returns(nn.Module):
    """Calls a function on its input, so that a test can look inside the forward pass."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Any:
        return self.function(images)


def extract(function: Callable[[Tensor], Any], images: Tensor) -> dict[str, Tensor]:
    return Extractor(Returns(function), IDENTITY)(images)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"weights": "abc"},
        {"preprocessing": "resize"},
        {"precision": "bfloat16"},
    ],
)
def test_the_key_changes_with_whatever_changes_features(change: dict[str, str]) -> None:
    assert replace(IDENTITY, **change).key != IDENTITY.key
    assert replace(IDENTITY, **change) != IDENTITY
    assert replace(IDENTITY).key == IDENTITY.key


def test_the_same_weights_from_elsewhere_make_the_same_features() -> None:
    assert replace(IDENTITY, origin="unverified") == replace(IDENTITY, origin="published")
    assert replace(IDENTITY, origin="unverified").key == IDENTITY.key


def test_an_identity_describes_itself() -> None:
    identity = Identity("mine", weights="abc", preprocessing="resize", precision="bfloat16", origin="custom")
    assert identity.describe() == {
        "weights": "custom",
        "sha256": "abc",
        "preprocessing": "resize",
        "precision": "bfloat16",
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int64])
def test_features_are_float32_under_their_names(pictures: Pictures, dtype: torch.dtype) -> None:
    images = pictures(3, 4, 5)
    outputs = extract(lambda x: {"a": x.flatten(1).to(dtype), "b": x[:, 0, 0]}, images)
    assert torch.equal(outputs["a"], images.flatten(1).float())
    assert (outputs["b"].dtype, list(outputs)) == (torch.float32, ["a", "b"])


def test_a_single_tensor_bears_the_embeddings_name(pictures: Pictures) -> None:
    extractor = Extractor(Returns(lambda x: x[:, 0, 0]), IDENTITY, embedding="pool")
    assert list(extractor(pictures(2, 4, 4))) == ["pool"]
    assert list(extract(lambda x: x[:, 0, 0], pictures(2, 4, 4))) == ["features"]


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(2, 3, 4, 4), TypeError, "take uint8 images, but got torch.float32"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), ValueError, r"shape \(N, 3, H, W\), but got \(3, 4, 4\)"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), ValueError, r"but got \(2, 1, 4, 4\)"),
    ],
)
def test_other_images_are_refused(images: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        extract(lambda x: x[:, 0, 0], images)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda x: x, ValueError, r"'mine' must return features of shape \(N, D\), but 'features' has shape \(2, 3, 4"),
        (lambda x: x[:1, 0, 0], ValueError, r"has shape \(1, 4\) for 2 images"),
        (lambda x: (x[:, 0, 0],), TypeError, "must return tensors .* but 'features' is tuple"),
        (lambda x: {"a": x[:, 0, 0], "b": None}, TypeError, "but 'b' is NoneType"),
    ],
)
def test_other_features_are_refused(
    pictures: Pictures, function: Callable[[Tensor], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        extract(function, pictures(2, 4, 4))


def test_the_network_is_frozen() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    Extractor(network, IDENTITY)
    assert not any(part.training for part in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_no_graph_is_kept(pictures: Pictures) -> None:
    weight = torch.ones((), requires_grad=True)
    assert not extract(lambda x: weight * x[:, 0, 0], pictures(1, 4, 4))["features"].requires_grad


def test_the_trainers_autocast_does_not_reach_the_network(pictures: Pictures) -> None:
    matrix = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    images = pictures(2, 4, 4)
    expected = extract(lambda x: x[:, 0, 0].float() @ matrix, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = extract(lambda x: x[:, 0, 0].float() @ matrix, images)
    assert torch.equal(found["features"], expected["features"])


def test_bfloat16_is_a_choice_that_the_identity_states(pictures: Pictures) -> None:
    matrix = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    network = Returns(lambda x: x[:, 0, 0].float() @ matrix)
    images = pictures(2, 4, 4)
    exact = Extractor(network, IDENTITY)(images)["features"]
    half = Extractor(network, IDENTITY).with_precision("bfloat16")
    rounded = half(images)["features"]
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert torch.allclose(rounded, exact, rtol=0.05, atol=5.0)
    assert half.identity == replace(IDENTITY, precision="bfloat16")
    with pytest.raises(ValueError, match="'tf32' or 'bfloat16', but got 'float16'"):
        half.with_precision("float16")


def older() -> Any:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def newer() -> Any:
    backends = torch.backends
    places = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul)
    return [place.fp32_precision for place in places]


HAS_NEWER = hasattr(torch.backends.cuda.matmul, "fp32_precision")


@pytest.fixture
def _default_precision() -> Iterator[None]:
    yield
    if HAS_NEWER:
        torch.backends.fp32_precision = "none"
        for place in (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul):
            place.fp32_precision = "none"
        for place in (torch.backends.cudnn.conv, torch.backends.cudnn.rnn):
            place.fp32_precision = "tf32"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


@pytest.mark.usefixtures("_default_precision")
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(("precision", "allow_tf32"), [("highest", True), ("high", True), ("medium", False)])
def test_float32_stays_float32_and_the_trainings_choice_comes_back(
    pictures: Pictures, precision: str, allow_tf32: bool, fails: bool
) -> None:
    seen = []

    def look(images: Tensor) -> Tensor | None:
        seen.append(older())
        return None if fails else images[:, 0, 0]

    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = allow_tf32
    before = older(), newer() if HAS_NEWER else None
    if fails:
        with pytest.raises(TypeError):
            extract(look, pictures(1, 4, 4))
    else:
        extract(look, pictures(1, 4, 4))
    assert seen == [("highest", False, False)]
    assert (older(), newer() if HAS_NEWER else None) == before
    assert before[0] == (precision, allow_tf32, precision != "highest")


@pytest.mark.usefixtures("_default_precision")
@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_tf32_is_switched_on_where_it_is_chosen_and_off_again(
    pictures: Pictures, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_synthqual.precision.has_tf32", lambda device: True)
    seen = []
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = False
    before = older(), newer() if HAS_NEWER else None
    network = Returns(lambda x: seen.append((older(), newer() if HAS_NEWER else [])) or x[:, 0, 0])
    extractor = Extractor(network, IDENTITY).with_precision("tf32")
    extractor(pictures(1, 4, 4))
    assert extractor.identity == replace(IDENTITY, precision="tf32")
    assert seen[0][0] == ("high", True, True)
    assert seen[0][1][:3] == (["tf32"] * 3 if HAS_NEWER else [])
    assert (older(), newer() if HAS_NEWER else None) == before


@pytest.mark.parametrize("fails", [False, True])
def test_cudnn_tries_no_algorithms_and_the_trainings_choice_comes_back(
    pictures: Pictures, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    seen = []

    def look(images: Tensor) -> Tensor | None:
        seen.append(torch.backends.cudnn.benchmark)
        return None if fails else images[:, 0, 0]

    with pytest.raises(TypeError) if fails else nullcontext():
        extract(look, pictures(1, 4, 4))
    assert seen == [False]
    assert torch.backends.cudnn.benchmark is True


@pytest.mark.skipif(not HAS_NEWER, reason="this torch has only the older settings")
@pytest.mark.usefixtures("_default_precision")
@pytest.mark.parametrize("place", ["", "cuda.matmul", "cudnn.conv"])
def test_the_newer_precision_settings_are_respected(pictures: Pictures, place: str) -> None:
    seen = []
    target: Any = torch.backends
    for name in filter(None, place.split(".")):
        target = getattr(target, name)
    target.fp32_precision = "tf32"
    before = newer()
    extract(lambda x: seen.append(newer()) or x[:, 0, 0], pictures(1, 4, 4))
    assert "tf32" in before
    assert set(seen[0]) <= {"ieee", "none"}
    assert newer() == before


class RunsOutOfMemory(nn.Module):
    """Has memory for three images at a time."""

    def __init__(self, room: int = 3, error: Exception | None = None) -> None:
        super().__init__()
        self.room = room
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")
        self.asked: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append(len(images))
        if len(images) > self.room:
            raise self.error
        return images.flatten(1).float()


@pytest.mark.parametrize("library", ["cuDNN error: CUDNN", "CUDA error: CUBLAS"])
def test_libraries_that_allocate_memory_themselves_may_run_out_of_it(pictures: Pictures, library: str) -> None:
    images = pictures(10, 2, 2)
    network = RunsOutOfMemory(error=RuntimeError(f"{library}_STATUS_ALLOC_FAILED"))
    assert torch.equal(Extractor(network, IDENTITY)(images)["features"], images.flatten(1).float())
    with pytest.raises(RuntimeError, match="CUDNN_STATUS_EXECUTION_FAILED"):
        Extractor(RunsOutOfMemory(error=RuntimeError("CUDNN_STATUS_EXECUTION_FAILED")), IDENTITY)(images)


def test_batches_are_halved_until_they_fit_and_stay_so(pictures: Pictures, caplog: pytest.LogCaptureFixture) -> None:
    network = RunsOutOfMemory()
    extractor = Extractor(network, IDENTITY)
    images = pictures(10, 2, 2)
    assert torch.equal(extractor(images)["features"], images.flatten(1).float())
    assert network.asked == [10, 5, 2, 2, 2, 2, 2]
    assert [record.args[2] for record in caplog.records] == [5, 2]
    network.asked.clear()
    assert len(extractor(images[:5])["features"]) == 5
    assert network.asked == [2, 2, 1]


def test_a_network_that_comes_back_to_a_device_remembers_what_fitted_there(pictures: Pictures) -> None:
    network = RunsOutOfMemory()
    extractor, images = Extractor(network, IDENTITY), pictures(10, 2, 2)
    extractor(images)
    network.asked.clear()
    extractor.to("meta").to("cpu")(images)
    assert network.asked == [2, 2, 2, 2, 2]


def test_without_memory_for_one_image_the_error_stays(pictures: Pictures) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        Extractor(RunsOutOfMemory(room=0), IDENTITY)(pictures(4, 2, 2))


def test_a_pass_takes_no_more_than_a_fixed_number_of_images(pictures: Pictures) -> None:
    network = RunsOutOfMemory(room=1000)
    extractor = Extractor(network, IDENTITY)
    for device, most in (("cpu", 16), ("meta", 64)):
        network.asked.clear()
        extractor.to(device)
        assert len(extractor(pictures(150, 2, 2))["features"]) == 150
        assert network.asked == [most] * (150 // most) + [150 % most]


@pytest.mark.parametrize("name", ["wavelet", "my-net_2.1", "ViT-B-32:laion2b_s34b_b79k", "_x", "a" * 100])
def test_names_that_files_and_metrics_can_bear(name: str) -> None:
    assert Identity(name, weights="none", preprocessing="none").name == name


@pytest.mark.parametrize(
    "name", ["../../up", "/etc/x", "a/b", "a\\b", "..", ".hidden", "", "a b", "é", "a\n", "-x", "a" * 101]
)
def test_names_that_leave_their_folder_or_cannot_be_printed_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^The extractor name .* must consist of letters, digits, '_'"):
        Identity(name, weights="none", preprocessing="none")


def features_of(function: Callable[[Tensor], Any]) -> Extractor:
    return Extractor(Returns(function), IDENTITY)


def test_a_probe_is_the_features_of_two_fixed_images() -> None:
    seen: list[Tensor] = []

    def outputs(images: Tensor) -> dict[str, Tensor]:
        seen.append(images)
        return {"b": images[:, 0, 0, :3].float(), "a": images[:, 1, 0, :2].float()}

    probe = features_of(outputs).probe((24, 40))
    assert probe is not None
    (images,) = seen
    assert (images.dtype, images.shape) == (torch.uint8, (2, 3, 24, 40))
    assert torch.equal(probe, torch.cat([images[:, 1, 0, :2], images[:, 0, 0, :3]], dim=1).float())
    assert torch.equal(images[1, :, :8, :8], images[1, :, :1, :1].expand(3, 8, 8))
    assert not torch.equal(images[0], images[1])
    assert torch.equal(probe, features_of(outputs).probe([24, 40]))


def test_a_probe_tells_networks_of_equal_identity_apart() -> None:
    one, other = (features_of(lambda x, factor=factor: x.flatten(1) * factor) for factor in (1.0, 1.01))
    assert not torch.equal(one.probe((8, 8)), other.probe((8, 8)))


def test_a_probe_without_a_size_takes_one_that_suits_the_network() -> None:
    assert features_of(lambda x: x[:, 0, :, 200]).probe().shape == (2, 224)

    def only_small(images: Tensor) -> Tensor:
        return images.float().flatten(1) @ torch.ones(3 * 32 * 32, 4)

    assert features_of(only_small).probe().shape == (2, 4)
    assert features_of(only_small).probe((64, 64)) is None


def test_a_probe_leaves_random_generators_alone_and_is_the_same_with_dropout() -> None:
    extractor = features_of(lambda x: nn.functional.dropout(x.float().mean(dim=(2, 3)), 0.5, training=True))
    before = torch.get_rng_state()
    probe = extractor.probe()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert torch.equal(extractor.probe(), probe)


def test_the_device_is_where_the_network_is() -> None:
    assert Extractor(nn.Linear(1, 1, device="meta"), IDENTITY).device.type == "meta"
    assert features_of(torch.flatten).device.type == "cpu"
    assert features_of(torch.flatten).to("meta").device.type == "meta"
