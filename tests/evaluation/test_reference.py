"""The real sets: floors, gaps, duplicates, what is kept, and what is not read."""

from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from lightning_synthqual import Metric, evaluate
from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.evaluation.plan import make_plan
from lightning_synthqual.evaluation.reference import open_real
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.metrics import frechet_distance, kernel_distance


@pytest.fixture
def arguments(tmp_path, flat):
    """The extractor ``flat``, and a cache of this test's own."""
    return {"extractors": {"flat": flat}, "cache_dir": str(tmp_path / "cache")}


def test_held_out_images_give_floors_and_gaps(clouds, arguments):
    train, held_out, fake = clouds
    metrics = ("fd_flat", "kd_flat", "kd_rbf_flat", "recall_flat")
    arguments["metrics"] = metrics
    scalars = evaluate(train, fake, held_out=held_out, **arguments).scalars
    plain = evaluate(train, fake, **arguments).scalars
    assert {name: scalars[name] for name in plain} == plain
    beside = {"fd_flat_floor", "kd_flat_floor", "kd_flat_gap", "kd_rbf_flat_floor", "kd_rbf_flat_gap"}
    beside.add("recall_flat_floor")
    assert set(scalars) - set(plain) == beside | {"kd_flat_gap_std", "kd_rbf_flat_gap_std"}
    real, other, generated = (arguments["extractors"]["flat"](dataset.tensors[0]) for dataset in clouds)
    for name, options in (("kd_flat", {}), ("kd_rbf_flat", {"kernel": "rbf"})):
        floor = kernel_distance(real, other, **options).value.item()
        assert scalars[f"{name}_floor"] == pytest.approx(floor, rel=1e-9)
        to_held_out = kernel_distance(other, generated, **options).value.item()
        chosen = np.sort(np.random.default_rng(0).permutation(60)[:50])
        to_train = kernel_distance(real[chosen], generated, **options).value.item()
        assert scalars[f"{name}_gap"] == pytest.approx(to_held_out - to_train, rel=1e-6, abs=1e-12)
    chosen = np.sort(np.random.default_rng(0).permutation(50)[:40])
    assert scalars["fd_flat_floor"] == pytest.approx(frechet_distance(real, other[chosen]).item(), rel=1e-9)


def test_the_gap_has_its_sign_whichever_set_is_the_reference(clouds, arguments):
    train, held_out, fake = clouds
    arguments["metrics"] = ["kd_flat"]
    one = evaluate(train, fake, held_out=held_out, **arguments)
    other = evaluate(train, fake, held_out=held_out, reference="held_out", **arguments)
    assert other.scalars["kd_flat_gap"] == pytest.approx(one.scalars["kd_flat_gap"], rel=1e-9)
    assert other.scalars["kd_flat_floor"] == pytest.approx(one.scalars["kd_flat_floor"], rel=1e-9)
    assert one.protocol["other_real"]["role"] == "held_out"
    assert one.protocol["other_real"]["num_images"] == 50
    assert other.protocol["other_real"]["role"] == "real"


def test_copies_of_training_images_open_the_gap(clouds, arguments):
    train, held_out, _ = clouds
    arguments["metrics"] = ["kd_flat"]
    copied = evaluate(train, TensorDataset(train.tensors[0][:40]), held_out=held_out, **arguments)
    assert copied.scalars["kd_flat_gap"] > 0


def test_a_frechet_floor_needs_as_many_images_as_were_generated(clouds, arguments, caplog):
    train, held_out, fake = clouds
    arguments["metrics"] = ["fd_flat", "kd_flat"]
    few = TensorDataset(held_out.tensors[0][:30])
    scalars = evaluate(train, fake, held_out=few, **arguments).scalars
    assert "fd_flat_floor" not in scalars
    assert "kd_flat_floor" in scalars
    assert "fd_flat_floor is not reported: `held_out` has 30 images, but 40 are needed" in caplog.text


def test_another_real_set_of_too_few_images_for_the_subsets(clouds, arguments, caplog):
    train, held_out, fake = clouds
    options = {"kid": {"subsets": 2, "subset_size": 35}}
    arguments["metrics"] = ["kd_flat"]
    few = TensorDataset(held_out.tensors[0][:30])
    scalars = evaluate(train, fake, held_out=few, options=options, **arguments).scalars
    assert set(scalars) == {"kd_flat", "kd_flat_std"}
    assert "kd_flat_floor is not reported" in caplog.text
    assert "kd_flat_gap is not reported" in caplog.text


class Stream(IterableDataset[Tensor]):
    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __iter__(self) -> Any:
        return iter(self.images)


def test_a_stream_and_a_dataset_of_the_same_images_do_not_spoil_each_others_cache(clouds, arguments, caplog):
    train, _, fake = clouds
    stream = Stream(train.tensors[0])
    scores = [evaluate(real, fake, metrics=["kd_flat"], **arguments).scalars for real in (train, stream, train, stream)]
    assert scores[1:] == scores[:1] * 3
    assert "not used" not in caplog.text


class Counted(Dataset[Tensor]):
    """Notes which items are read."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.log: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        self.log.append(index)
        return self.images[index]


def test_of_a_data_set_that_is_known_few_items_are_read(pictures, arguments):
    real, fake = Counted(pictures(600, 4, 4)), TensorDataset(pictures(40, 4, 4, seed=1))
    few = 256 + 16 + 4  # told apart by the first, looked at, sizes
    scores = []
    for check, least, most in (("sample", 600, 600 + few), ("sample", 256, few), ("full", 1200, 1200 + few)):
        real.log.clear()
        scores.append(evaluate(real, fake, metrics=["kd_flat"], cache_check=check, **arguments).scalars)
        assert least <= len(real.log) <= most
    assert scores == scores[:1] * 3
    real.images[np.random.default_rng(0).permutation(600)[:9]] = 0
    assert evaluate(real, fake, metrics=["kd_flat"], **arguments).scalars != scores[0]


def test_duplicates_are_found_where_features_but_not_digests_are_known(pictures, arguments, caplog):
    real, fake = Counted(pictures(300, 4, 4)), TensorDataset(pictures(40, 4, 4, seed=1))
    held_out = TensorDataset(torch.cat([pictures(30, 4, 4, seed=2), real.images[7:8]]))
    evaluate(real, fake, metrics=["kd_flat"], **arguments)
    for _ in range(2):
        caplog.clear()
        real.log.clear()
        evaluate(real, fake, held_out=held_out, metrics=["kd_flat"], **arguments)
        assert "1 of 31 images of `held_out` are also in `real` (item 30)" in caplog.text
    assert len(real.log) < 300


def test_images_that_no_metric_compares_with_are_not_read(clouds, arguments):
    train, _, fake = clouds
    broken = TensorDataset(torch.full((9, 3, 16, 16), torch.nan))
    report = evaluate(train, fake, held_out=broken, metrics=["vendi_flat"], **arguments)
    assert report.protocol["other_real"] is None
    with pytest.raises(ValueError, match="held_out"):
        evaluate(train, fake, held_out=broken, metrics=["kd_flat"], **arguments)


@pytest.mark.parametrize(("num_real", "complete"), [(None, True), (59, False), (60, True), (61, True)])
def test_whether_the_real_images_are_all_there_are(clouds, tmp_path, num_real, complete):
    plan = make_plan(["fd_pixels"], cache_dir=str(tmp_path), num_real=num_real)
    main = Evaluator(Workspace(plan, Ranks()), *open_real(plan, clouds[0], None)).reference.main
    assert main is not None
    assert main.complete == complete


def test_features_of_unlike_identity_are_never_compared(clouds, tmp_path):
    plan = make_plan(["fd_pixels"], cache_dir=str(tmp_path))
    evaluator = Evaluator(Workspace(plan, Ranks()), ImageSet(clouds[0], "real"))
    extractor = evaluator.workspace.extractors["pixels"]
    extractor.identity = replace(extractor.identity, preprocessing="another")
    with pytest.raises(ValueError, match="cannot be compared"):
        evaluator.evaluate_images(ImageSet(clouds[2], "fake"))


def test_the_set_that_a_plan_compares_with():
    images = TensorDataset(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    compared, other = open_real(make_plan(["fd_pixels"], reference="held_out"), images, images)
    assert (compared.role, other.role) == ("held_out", "real")
    assert open_real(make_plan(["fd_pixels"]), images, None)[1] is None
    assert open_real(make_plan(["ppl"]), None, None) == (None, None)
    with pytest.raises(ValueError, match="The images to compare with, `real`, are missing"):
        open_real(make_plan(["fd_pixels"]), None, images)
    with pytest.raises(ValueError, match="The images to compare with, `held_out`, are missing"):
        open_real(make_plan(["fd_pixels"], reference="held_out"), images, None)


def write(folder: Path, images: Tensor, names: list[str]) -> Path:
    folder.mkdir()
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name)
    return folder


def test_held_out_images_that_are_training_images_are_counted_and_named(clouds, arguments, tmp_path, caplog):
    train, held_out, _ = (each.tensors[0] for each in clouds)
    mixed = held_out[:20].clone()
    mixed[3], mixed[7] = train[11], train[59]
    folder = write(tmp_path / "held_out", mixed, [f"moon_{index:02}.png" for index in range(20)])
    report = evaluate(clouds[0], clouds[2], held_out=folder, metrics=["kd_flat"], **arguments)
    assert "kd_flat_gap" in report.scalars
    assert "2 of 20 images of `held_out` are also in `real` (moon_03.png, moon_07.png)" in caplog.text
    caplog.clear()
    swapped = evaluate(
        clouds[0], clouds[2], held_out=TensorDataset(mixed), reference="held_out", metrics=["kd_flat"], **arguments
    )
    assert swapped.protocol["reference"]["role"] == "held_out"
    assert "2 of 20 images of `held_out` are also in `real` (item 3, item 7)" in caplog.text


def test_held_out_images_that_are_all_training_images_are_an_error(clouds, arguments):
    train, _, fake = clouds
    with pytest.raises(ValueError, match="All 30 images of `held_out` are also in `real`"):
        evaluate(train, fake, held_out=TensorDataset(train.tensors[0][:30]), metrics=["kd_flat"], **arguments)


def test_duplicates_are_found_among_cached_features_too(clouds, arguments, tmp_path, caplog):
    train, held_out, fake = clouds
    mixed = held_out.tensors[0].clone()
    mixed[0] = train.tensors[0][0]
    folders = {
        "real": write(tmp_path / "real", train.tensors[0], [f"{index:02}.png" for index in range(60)]),
        "held_out": write(tmp_path / "other", mixed, [f"{index:02}.png" for index in range(50)]),
    }
    for metrics in (["vendi_flat"], ["kd_flat"], ["kd_flat"]):  # the first one needs no digests
        caplog.clear()
        evaluate(fake=fake, metrics=metrics, **folders, **arguments)
        assert ("1 of 50 images of `held_out`" in caplog.text) == (metrics == ["kd_flat"])


class Centre(Metric):
    """A user's metric whose preparation is counted."""

    calls: list[int] = []

    def prepare(self, real: Tensor) -> Any:
        self.calls.append(len(real))
        return {"mean": real.double().mean(0), "count": torch.tensor(len(real))}

    def score(self, state: Any, fake: Tensor) -> Any:
        return {"shift": (fake.double().mean(0) - state["mean"]).norm(), "count": state["count"]}


class OtherCentre(Centre):
    """The same with other code."""

    def prepare(self, real: Tensor) -> Any:
        self.calls.append(len(real))
        return {"mean": real.double().median(0).values, "count": torch.tensor(len(real))}


class Untidy(Centre):
    """A state of more than tensors and plain values is prepared each time."""

    def prepare(self, real: Tensor) -> Any:
        self.calls.append(len(real))
        return {"mean": real.double().mean(0), "count": 5, "range": range(5)}


class Views(Centre):
    """A state of tensors that share memory."""

    def prepare(self, real: Tensor) -> Any:
        self.calls.append(len(real))
        rows = real.double()
        return {"mean": rows.mean(0), "count": rows[0, 0], "rows": rows, "first": rows[:10]}


@pytest.fixture
def calls():
    """How often a metric was prepared, and from how many rows."""
    Centre.calls.clear()
    return Centre.calls


def test_the_state_of_a_users_metric_is_prepared_once(clouds, arguments, calls):
    train, _, fake = clouds

    def run(metric, real=train, **changes):
        return evaluate(real, fake, metrics=[metric], **{**arguments, **changes}).scalars

    first = run(Centre("mine", extractor="flat"))
    assert run(Centre("mine", extractor="flat")) == first
    assert calls == [60]
    expected = (
        arguments["extractors"]["flat"](fake.tensors[0]).double().mean(0)
        - arguments["extractors"]["flat"](train.tensors[0]).double().mean(0)
    ).norm()
    assert first == pytest.approx({"mine_shift": expected.item(), "mine_count": 60.0}, rel=1e-6)


@pytest.mark.parametrize("change", ["code", "attribute", "images", "extractor", "folder"])
def test_the_state_of_a_users_metric_is_prepared_again_for_another(clouds, arguments, calls, tmp_path, change):
    train, held_out, fake = clouds
    metric = Centre("mine", extractor="flat")
    evaluate(train, fake, metrics=[metric], **arguments)
    changed = {"code": OtherCentre("mine", extractor="flat"), "extractor": Centre("mine", extractor="pixels")}
    other = changed.get(change, Centre("mine", extractor="flat"))
    if change == "attribute":
        other.scale = 2.0
    if change == "folder":
        arguments["cache_dir"] = str(tmp_path / "another")
    evaluate(held_out if change == "images" else train, fake, metrics=[other], **arguments)
    assert calls == [60, 50 if change == "images" else 60]


def test_a_state_of_anything_is_prepared_each_time(clouds, arguments, calls):
    for _ in range(2):
        evaluate(clouds[0], clouds[2], metrics=[Untidy("mine", extractor="flat")], **arguments)
    assert calls == [60, 60]


def test_a_state_of_tensors_that_share_memory(clouds, arguments, calls):
    reports = [evaluate(clouds[0], clouds[2], metrics=[Views("mine", extractor="flat")], **arguments) for _ in range(2)]
    assert reports[0].scalars == reports[1].scalars
    assert calls[0] == 60


def test_a_state_is_prepared_without_a_cache(clouds, arguments, calls):
    plan = make_plan([Centre("mine", extractor="flat")], **arguments)
    for _ in range(2):
        Evaluator(Workspace(plan, Ranks(), use_cache=False), ImageSet(clouds[0], "real"))
    assert calls == [60, 60]
    assert not Path(arguments["cache_dir"]).exists()


PREPARING = {"frechet": "fit_gaussian", "kernel": "within_sums", "manifold": "squared_radii_for"}


def test_a_second_start_computes_nothing_of_the_reference_again(clouds, arguments, counted, monkeypatch):
    train, held_out, _ = clouds
    metrics = ("fd_flat", "kd_flat", "kd_rbf_flat", "precision_flat", "recall_flat", "density_flat", "coverage_flat")
    plan, called = make_plan(metrics, **arguments), []
    for module, name in PREPARING.items():
        function = getattr(import_module(f"lightning_synthqual.metrics.{module}"), name)
        spy = partial(lambda name, function, *args, **kwargs: called.append(name) or function(*args, **kwargs), name)
        monkeypatch.setattr(f"lightning_synthqual.metrics.{module}.{name}", partial(spy, function))

    def start() -> tuple[Evaluator, list[str], int]:
        called.clear()
        real = counted(train.tensors[0])
        passes: list[int] = []
        network = arguments["extractors"]["flat"].register_forward_hook(lambda *_: passes.append(1))
        evaluator = Evaluator(Workspace(plan, Ranks()), ImageSet(real, "real", cache_key="these"))
        network.remove()
        return evaluator, list(called), real.reads

    first, prepared, reads = start()
    assert set(prepared) == set(PREPARING.values())
    assert reads >= 60
    second, prepared, reads = start()
    assert prepared == []
    assert reads <= 2  # the size of the images
    fake = ImageSet(held_out, "fake")
    assert second.evaluate_images(fake).scalars == first.evaluate_images(fake).scalars
