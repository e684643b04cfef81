import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_synthqual.images.callables import describe_callable
from lightning_synthqual.images.randomness import preserved_generators
from lightning_synthqual.images.sampling import Sampler


@pytest.fixture(autouse=True)
def _own_random_numbers() -> Any:
    with preserved_generators():
        yield


class Plain(nn.Module):
    """Its picture is its latent: no arithmetic that could depend on the batch."""

    latent_dim = 12

    def forward(self, z: Tensor) -> Tensor:
        return z.reshape(-1, 3, 2, 2)


class Labelled(nn.Module):
    latent_dim = 3
    num_classes = 5

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        assert labels.dtype == torch.int64
        return (labels / 10.0).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2) + 0 * z[:, :, None, None]


class Noisy(nn.Module):
    """Draws noise of its own."""

    latent_dim = 2

    def forward(self, z: Tensor, *labels: Tensor) -> Tensor:
        return torch.randn(len(z), 3, 2, 2)


class Labels(list):
    def label(self, index: int) -> Any:
        return self[index]


def images_of(sampler: Sampler, count: int = 20, batch_size: int = 7, world_size: int = 1) -> Tensor:
    images: dict[int, Tensor] = {}
    for rank in range(world_size):
        for block in sampler.blocks(count, batch_size, rank, world_size):
            assert not images.keys() & set(block.positions)
            images.update(zip(block.positions, block.images, strict=True))
    assert sorted(images) == list(range(count))
    return torch.stack([images[position] for position in range(count)])


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_image_i_is_the_same_on_every_process(batch_size: int, world_size: int) -> None:
    expected = images_of(Sampler(Plain()), count=100, batch_size=100)
    assert torch.equal(images_of(Sampler(Plain()), 100, batch_size, world_size), expected)
    assert len(expected.unique(dim=0)) == 100


def test_a_smaller_set_is_the_beginning_of_a_larger_one() -> None:
    assert torch.equal(images_of(Sampler(Plain()), 30)[:10], images_of(Sampler(Plain()), 10))


def test_latents_are_standard_normal() -> None:
    latents: list[Tensor] = []
    sampler = Sampler(lambda z: latents.append(z) or z[:, :, None, None], owner=SimpleNamespace(latent_dim=3))
    images_of(sampler, 2000, 500)
    z = torch.cat(latents)
    assert z.shape == (2000, 3)
    assert z.mean().abs() < 0.05
    assert (z.std() - 1).abs() < 0.05


@pytest.mark.parametrize("module", [Plain(), Noisy()])
def test_every_evaluation_draws_the_same(module: nn.Module) -> None:
    sampler = Sampler(module)
    first = images_of(sampler)
    torch.rand(3)
    assert torch.equal(images_of(sampler), first)
    assert torch.equal(images_of(Sampler(module)), first)


@pytest.mark.parametrize("module", [Plain(), Noisy()])
def test_other_seeds_draw_others(module: nn.Module) -> None:
    assert not torch.equal(images_of(Sampler(module, seed=0)), images_of(Sampler(module, seed=1)))


def test_noise_inside_the_module_differs_from_block_to_block() -> None:
    images = images_of(Sampler(Noisy()), 14, 7)
    assert not torch.equal(images[:7], images[7:])


def test_noise_inside_the_module_does_not_depend_on_the_number_of_processes() -> None:
    assert torch.equal(images_of(Sampler(Noisy()), world_size=1), images_of(Sampler(Noisy()), world_size=3))


def test_every_process_calls_the_module_equally_often() -> None:
    calls = []
    for rank in range(3):
        sizes: list[int] = []
        sampler = Sampler(None, function=lambda _, n, g, sizes=sizes: sizes.append(n) or torch.zeros(n, 3, 1, 1))
        assert sum(len(block.positions) for block in sampler.blocks(22, 7, rank, 3)) in (7, 8)
        calls.append(len(sizes))
    assert calls == [2, 2, 2]


def test_a_block_knows_its_positions_and_values() -> None:
    second = list(Sampler(Plain()).blocks(20, 7))[1]
    assert second.positions == range(7, 14)
    assert second.seen.count == 7 * 12
    assert second.seen.low < -1 < 1 < second.seen.high


def test_the_samplers_generator_is_seeded_by_seed_and_block() -> None:
    def draw(module: Any, n: int, generator: torch.Generator) -> Tensor:
        assert module == "the module"
        assert generator.device.type == "cpu"
        return torch.randn(n, 3, 2, 2, generator=generator)

    def sampler(seed: int) -> Sampler:
        return Sampler("the module", function=draw, seed=seed)

    first = images_of(sampler(0))
    assert torch.equal(first, images_of(sampler(0)))
    assert torch.equal(first, images_of(sampler(0), world_size=3))
    assert not torch.equal(first, images_of(sampler(1)))
    assert not torch.equal(first[:7], first[7:14])
    assert sampler(0).protocol == {"kind": "sampler", "sampler": describe_callable(draw)}


def test_the_samplers_own_draws_from_global_generators_repeat() -> None:
    sampler = Sampler(None, function=lambda _, n, generator: torch.randn(n, 3, 2, 2))
    assert torch.equal(images_of(sampler), images_of(sampler, world_size=2))


def test_a_sample_images_method_is_used_before_latents() -> None:
    class WithMethod(Plain):
        def sample_images(self, n: int, generator: torch.Generator) -> Tensor:
            return torch.rand(n, 1, 2, 2, generator=generator)

    sampler = Sampler(WithMethod())
    images = images_of(sampler)
    assert torch.equal(images[:, 0], images[:, 2])
    assert images.min() >= 127
    assert sampler.protocol == {"kind": "sample_images", "sampler": describe_callable(WithMethod.sample_images)}


def test_a_function_is_used_before_the_method() -> None:
    module = SimpleNamespace(sample_images=lambda n, generator: None)
    images = images_of(Sampler(module, function=lambda _, n, g: torch.ones(n, 3, 1, 1)))
    assert images.unique().tolist() == [255]


@pytest.mark.parametrize(
    ("module", "owner", "shape"),
    [
        ({"latent_dim": 4}, {}, [4]),
        ({}, {"latent_dim": 4}, [4]),
        ({"hparams": {"latent_dim": 4}}, {}, [4]),
        ({}, {"hparams": {"latent_dim": 4}}, [4]),
        ({}, {"hparams": SimpleNamespace(latent_dim=4)}, [4]),
        ({"latent_dim": (4, 2, 2)}, {}, [4, 2, 2]),
        ({"latent_dim": [3, 1]}, {}, [3, 1]),
        ({"latent_dim": 4, "hparams": {"latent_dim": 5}}, {"latent_dim": 6}, [4]),
        ({"latent_dim": None, "hparams": {"latent_dim": 5}}, {"latent_dim": 6}, [5]),
    ],
)
def test_latent_dim_is_an_attribute_or_a_hyperparameter(
    module: dict[str, Any], owner: dict[str, Any], shape: list[int]
) -> None:
    seen: list[tuple[int, ...]] = []

    class Anything(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            seen.append(tuple(z.shape))
            return z.new_zeros(len(z), 3, 1, 1)

    network = Anything()
    for name, value in module.items():
        setattr(network, name, value)
    sampler = Sampler(network, owner=SimpleNamespace(**owner))
    images_of(sampler, 2, 2)
    assert seen == [(2, *shape)]
    assert sampler.protocol == {"kind": "latent", "latent_shape": shape, "labels": None}


def test_without_latent_dim_the_error_names_every_way() -> None:
    with pytest.raises(ValueError, match=r"No way to sample from Linear.*latent_dim.*sample_images.*sampler="):
        Sampler(nn.Linear(2, 2), owner=SimpleNamespace(hparams={"lr": 1.0}))


def test_uniform_labels_cover_the_classes_and_belong_to_the_sample() -> None:
    sampler = Sampler(Labelled(), labels="uniform", image_range=(0.0, 25.5))
    images = images_of(sampler, 200)
    assert images.unique().tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(images, images_of(sampler, 200, batch_size=33, world_size=2))
    assert sampler.protocol["labels"] == "uniform"


def test_uniform_labels_need_the_number_of_classes() -> None:
    with pytest.raises(ValueError, match="num_classes"):
        Sampler(Plain(), labels="uniform")


@pytest.mark.parametrize("kind", [int, torch.tensor])
def test_data_labels_come_from_real_items_by_sample(kind: Any) -> None:
    source = Labels(kind(label) for label in [7, 7, 7, 2])
    sampler = Sampler(Labelled(), labels="data", label_source=source, image_range=(0.0, 25.5))
    images = images_of(sampler, 200)
    assert images.unique().tolist() == [2, 7]
    assert 0.6 < (images == 7).float().mean() < 0.9
    assert torch.equal(images, images_of(sampler, 200, batch_size=33))


def test_reading_labels_does_not_change_the_noise_inside_the_module() -> None:
    class Augmented(Labels):
        reads = 0

        def label(self, index: int) -> int:
            if self.reads < 3:  # as of a dataset whose labels are remembered
                torch.rand(5)
            self.reads += 1
            return 0

    sampler = Sampler(Noisy(), labels="data", label_source=Augmented([0, 1]))
    assert torch.equal(images_of(sampler), images_of(sampler))


def test_a_wrong_number_of_images_is_an_error() -> None:
    sampler = Sampler(None, function=lambda module, n, generator: torch.zeros(n + 1, 3, 2, 2))
    with pytest.raises(ValueError, match="the sampler must return 7 images, but returned 8"):
        images_of(sampler)


def test_faults_of_the_pictures_name_their_maker() -> None:
    with pytest.raises(ValueError, match=r"`Flat.forward` must return images of shape"):
        images_of(Sampler(type("Flat", (Plain,), {"forward": lambda self, z: z})()))
    with pytest.raises(TypeError, match="the sampler must return a tensor"):
        images_of(Sampler(None, function=lambda *_: None))


@pytest.mark.parametrize("kind", ["sampler", "sample_images"])
def test_a_generator_on_the_wrong_device_is_told_what_to_do(kind: str) -> None:
    def draw(*_: Any) -> Tensor:
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")

    sampler = Sampler(None, function=draw) if kind == "sampler" else Sampler(SimpleNamespace(sample_images=draw))
    with pytest.raises(RuntimeError, match=r"Draw on the CPU and move: .*generator=generator\)\.to\(device") as caught:
        images_of(sampler)
    assert kind in str(caught.value)
    assert "but found 'cpu'" in str(caught.value)


def test_other_errors_of_the_sampler_pass_unchanged() -> None:
    error = RuntimeError("out of luck")

    def draw(*_: Any) -> Tensor:
        raise error

    with pytest.raises(RuntimeError) as caught:
        images_of(Sampler(None, function=draw))
    assert caught.value is error


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_latents_have_the_type_of_the_weights(dtype: torch.dtype) -> None:
    seen: list[Tensor] = []

    class Typed(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, z: Tensor) -> Tensor:
            seen.append(z)
            return super().forward(z * self.weight)

    images_of(Sampler(Typed().to(dtype)), 3)
    images_of(Sampler(Typed()), 3)
    assert seen[0].dtype == dtype
    assert torch.equal(seen[0], seen[1].to(dtype))


def test_the_context_is_entered_around_each_call() -> None:
    class Reports(Plain):
        def forward(self, z: Tensor) -> Tensor:
            assert torch.is_autocast_enabled("cpu")
            return super().forward(z)

    images_of(Sampler(Reports(), context=lambda: torch.autocast("cpu", dtype=torch.bfloat16)))
    assert not torch.is_autocast_enabled("cpu")


def test_a_sampler_that_takes_labels_gets_them_by_sample() -> None:
    seen: list[Tensor] = []

    def draw(module: Any, n: int, generator: torch.Generator, labels: Tensor) -> Tensor:
        seen.append(labels)
        return (labels / 10.0).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2)

    sampler = Sampler(SimpleNamespace(num_classes=5), function=draw, labels="uniform", image_range=(0.0, 25.5))
    images = images_of(sampler, 200)
    assert seen[0].shape == (7,)
    assert seen[0].dtype == torch.int64
    assert images.unique().tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(images, images_of(sampler, 200, batch_size=33, world_size=2))
    assert sampler.protocol == {"kind": "sampler", "sampler": describe_callable(draw), "labels": "uniform"}


def test_a_sample_images_method_that_takes_labels_gets_them() -> None:
    class WithMethod:
        def sample_images(self, n: int, generator: torch.Generator, labels: Tensor) -> Tensor:
            return labels.reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2)

    sampler = Sampler(WithMethod(), labels="data", label_source=Labels([3, 3]), image_range=(0.0, 255.0))
    assert sampler.kind == "sample_images"
    images, _ = sampler.draw(0, range(2))
    assert images.unique().tolist() == [3]


@pytest.mark.parametrize("kind", ["sampler", "sample_images"])
def test_labels_for_what_takes_none_are_an_error(kind: str) -> None:
    def draw(*arguments: Any) -> Tensor:
        raise AssertionError

    arguments = {"function": draw} if kind == "sampler" else {"module": SimpleNamespace(sample_images=draw)}
    with pytest.raises(ValueError, match=f"`labels='data'` was given, but the {kind} takes no labels"):
        Sampler(**{"module": None, **arguments}, labels="data", label_source=Labels([1]))


def test_a_sampler_that_needs_labels_says_so_at_once() -> None:
    with pytest.raises(ValueError, match="The sampler needs `labels`"):
        Sampler(None, function=lambda module, n, generator, labels: None)


def test_a_sampler_of_two_arguments_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match=r"as sampler\(module, n, generator\), but its signature is \(module, n\)"):
        Sampler(None, function=lambda module, n: None)


def test_a_sample_images_of_other_arguments_is_passed_over() -> None:
    class Saves(Plain):
        def sample_images(self) -> None:
            raise AssertionError

    assert torch.equal(images_of(Sampler(Saves())), images_of(Sampler(Plain())))


@pytest.mark.parametrize("size", [np.int64(12), np.array(12), torch.tensor(12), (np.int32(12),)])
def test_latent_dim_may_be_any_integer(size: Any) -> None:
    module = Plain()
    module.latent_dim = size
    assert torch.equal(images_of(Sampler(module)), images_of(Sampler(Plain())))


@pytest.mark.parametrize("size", ["12", 1.5, 0, (4, -1), ()])
def test_latent_dim_that_is_no_size_is_an_error(size: Any) -> None:
    module = Plain()
    module.latent_dim = size
    with pytest.raises(TypeError, match="`latent_dim` must be a positive integer or a tuple of such, but is"):
        Sampler(module)


def test_the_protocol_names_what_found_the_module() -> None:
    def getter(pl_module: Any) -> Any:
        return pl_module

    sampler = Sampler(Plain(), getter=getter, weights="averaged")
    assert sampler.protocol["weights"] == "averaged"
    assert sampler.protocol["model"] == describe_callable(getter)


def test_a_failing_module_says_how_it_was_called() -> None:
    with pytest.raises(RuntimeError, match=r"Labelled was called as module\(z\) with z of shape \(7, 3\)") as caught:
        images_of(Sampler(Labelled()))
    assert isinstance(caught.value.__cause__, TypeError)
    assert "pass `labels='uniform'` or `labels='data'`" in str(caught.value)


def test_running_out_of_memory_passes_unchanged() -> None:
    class Large(Plain):
        def forward(self, z: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("too much")

    with pytest.raises(torch.OutOfMemoryError, match=r"^too much$"):
        images_of(Sampler(Large()))


def test_sampling_leaves_the_owner_the_module_the_sampler_and_the_data_undisturbed() -> None:
    class Data(Labels):
        def __init__(self) -> None:
            super().__init__([0, 1])
            self.dice = np.random.default_rng(4)

        def label(self, index: int) -> int:
            return int(self.dice.integers(2))

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

    owner, module, data, own = Counts(), Counts(), Data(), torch.Generator().manual_seed(4)

    def draw(module: Any, n: int, generator: torch.Generator, labels: Tensor) -> Tensor:
        owner.calls += 1
        module.calls += 1
        assert not module.training
        assert not owner.training
        return torch.rand(n, 3, 2, 2, generator=own)

    sampler = Sampler(module, owner=owner, function=draw, labels="data", label_source=data)
    found = []
    for _ in range(2):
        with sampler.undisturbed():
            found.append(images_of(sampler))
    assert torch.equal(*found)
    assert owner.calls == module.calls == 0
    assert owner.training
    assert torch.equal(own.get_state(), torch.Generator().manual_seed(4).get_state())
    assert data.dice.random() == np.random.default_rng(4).random()


def test_noise_is_drawn_in_another_thread_and_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    draws = Sampler._draws

    def noted(self: Sampler, indices: range) -> Any:
        threads.append(threading.get_ident())
        return draws(self, indices)

    monkeypatch.setattr(Sampler, "_draws", noted)
    sampler = Sampler(Labelled(), labels="uniform")
    blocks = list(sampler.blocks(10, 4))
    assert threading.get_ident() not in threads
    for number, block in enumerate(blocks):
        images, _ = sampler.draw(number, block.positions)
        assert torch.equal(block.images, images)
    assert set(threads[3:]) == {threading.get_ident()}


class OwnThread:
    """Labels that only the thread that made them may read, as a connection to a data base."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()

    def __len__(self) -> int:
        return 5

    def label(self, index: int) -> int:
        assert threading.get_ident() == self.thread
        return index


def test_labels_of_real_items_are_read_by_the_caller() -> None:
    images = [block.images for block in Sampler(Labelled(), labels="data", label_source=OwnThread()).blocks(64, 16)]
    assert len(torch.cat(images)[:, 0, 0, 0].unique()) == 5
