"""Decisions by paired differences: on a score whose changes are known."""

import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_synthqual import Metric, QualityCheckpoint, QualityStopping, Report, Score, compare
from lightning_synthqual.callbacks.significance import pack_score, surely_differs, unpack_score
from lightning_synthqual.callbacks.stopping import StoppingReason
from lightning_synthqual.metrics.base import Influence


class Level(Metric):
    """The mean level of the images: what one image adds is its level."""

    direction = "min"

    def __init__(self, name: str = "level") -> None:
        super().__init__(name, extractor="pixels")

    def score(self, state: torch.Tensor, fake: torch.Tensor) -> Score:
        rows = fake.double().mean(dim=1)
        none = torch.empty(0, dtype=torch.float64)
        return Score(rows.mean(), influence=Influence(rows.mean(), rows - rows.mean(), none))


def report_of(rows: torch.Tensor, step: int = 0, **sampling) -> Report:
    influence = Influence(rows.mean(), rows - rows.mean(), torch.empty(0))
    protocol = {"seed": 0, "sampling": {"kind": "latent", "latent_shape": [2], **sampling}}
    scalars = {"level": rows.mean().item(), "level_std": influence.std.item()}
    return Report(scalars, protocol, step=step, influences={"level": influence})


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_small_change_of_the_same_latents_is_sure_and_of_others_it_is_not(rows):
    noise = 0.01 * torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one, other = report_of(rows), report_of(rows + 0.005 + noise)
    assert surely_differs("level", other, one, 2.0)
    assert not surely_differs("level", report_of(rows + noise), one, 4.0)
    assert not surely_differs("level", report_of(rows + 0.005 + noise, latent_shape=[3]), one, 2.0)
    assert surely_differs("level", other, one, None)
    assert surely_differs("level", other, None, 2.0)


def test_a_packed_score_decides_as_before(rows):
    one, other = report_of(rows), report_of(rows + 0.001 * rows.flip(0))
    again = unpack_score(pack_score(one))
    assert compare(other, again)["level"] == pytest.approx(compare(other, one)["level"], rel=1e-5)
    once_more = unpack_score(pack_score(again))
    assert compare(other, again) == compare(other, once_more)  # nothing is lost a second time
    assert sum(tensor.nbytes for tensor in pack_score(one)["influences"].values()) == 4 * 400


def test_only_sure_improvements_count_towards_patience(trainer, rows):
    noise = 0.2 * torch.randn(6, 400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise -= noise.mean(dim=1, keepdim=True)
    shifts = [0.0, -0.005, -0.01, -0.015, -0.1, -0.105]  # a standard error of a difference is 0.01
    plain = QualityStopping("quality/level", mode="min", patience=3)
    careful = QualityStopping("quality/level", mode="min", patience=3, significance=2.0)
    for step, shift in enumerate(shifts):
        for stopping in (plain, careful):
            if stopping.reason is StoppingReason.NOT_STOPPED:
                stopping.on_quality_report(trainer(), "quality", report_of(rows + shift + noise[step], step))
    assert plain.reason is StoppingReason.NOT_STOPPED
    assert (careful.reason, careful.stopped_step) == (StoppingReason.PATIENCE, 3)
    assert careful.best_score == pytest.approx(rows.mean().item())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.0, 0.0, 0.0, 0.0, 0.0], None),
        ([0.05, 0.07, 0.05, 0.07, 0.05], None),  # beyond chance, but never twice in a row
        ([-0.1, 0.07, 0.08], 2),
        ([0.05, 0.05, 0.05, 0.05, 0.05, 0.05], None),
    ],
)
@pytest.mark.parametrize("name", ["kd_wavelet_gap", "kid_gap", "cmmd_gap"])
def test_an_alarm_is_two_lower_bounds_in_a_row_above_zero(trainer, values, expected, name):
    stopping = QualityStopping(f"quality/{name}", patience=1)
    for step, value in enumerate(values):
        report = Report({name: value, f"{name}_std": 0.02}, {}, step=step)
        stopping.on_quality_report(trainer(), "quality", report)
        again = QualityStopping(f"quality/{name}", patience=1)  # a resumed run counts on
        again.load_state_dict(stopping.state_dict())
        stopping = again
    assert stopping.stopped_step == expected
    assert (stopping.reason is StoppingReason.ALARM) == (expected is not None)


def test_the_limit_of_an_alarm_can_be_moved(trainer):
    stopping = QualityStopping("quality/kid_gap", divergence_threshold=0.5, significance=1.0)
    for value in (0.4, 0.52, 0.53, 0.54):
        stopping.on_quality_report(trainer(), "quality", Report({"kid_gap": value, "kid_gap_std": 0.025}, {}))
    assert stopping.reason is StoppingReason.ALARM


def test_a_gap_is_monitored_only_where_there_are_held_out_images(tiny_gan, monitor, trainer, loader, images):
    stopping = QualityStopping("quality/kd_pixels_gap")
    with pytest.raises(ValueError, match="held_out"):
        trainer(monitor(), stopping).fit(tiny_gan(), loader)
    held_out = TensorDataset(images[:30].flip(3))
    run = trainer(monitor(held_out=held_out), QualityStopping("quality/kd_pixels_gap"), max_epochs=1)
    run.fit(tiny_gan(), loader)


LEVELS = [0.5, 0.3, 0.297, 0.1, 0.12, 0.0975]  # changes of 0.003 are ties: single images change by 0.03


def drifting(module, n: int, generator: torch.Generator) -> torch.Tensor:
    """Images whose level is that of their noise and of the epoch, and some more noise."""
    z, epoch = torch.randn(n, 2, generator=generator), module.trainer.current_epoch
    some = torch.sin(z[:, 0] * (10 + epoch))
    levels = 0.3 * z[:, 1].tanh() + LEVELS[epoch] + 0.03 * (some - some.mean())
    return levels[:, None, None, None].expand(-1, 3, 8, 8)


def saved_steps(keep: QualityCheckpoint) -> list[int]:
    return sorted(int(path.rpartition("step=")[2].partition(".")[0].partition("-")[0]) for path in keep.best_k_models)


def test_of_evaluations_that_tie_the_earliest_file_is_kept(tiny_gan, monitor, trainer, loader, tmp_path):
    def keeping(name: str, **arguments) -> QualityCheckpoint:
        return QualityCheckpoint("quality/level", dirpath=tmp_path / name, filename="{step}", **arguments)

    keeps = [keeping("plain"), keeping("careful", significance=2.0), keeping("two", significance=1.9, save_top_k=2)]
    quality = monitor(metrics=(Level(),), sampler=drifting)
    trainer(quality, *keeps, max_epochs=6, enable_checkpointing=True).fit(tiny_gan(), loader)
    assert [report.protocol["change"]["paired"] for report in quality.reports[1:]] == [["level"]] * 5
    assert [saved_steps(keep) for keep in keeps] == [[23], [15], [15, 23]]
    state = torch.load(keeps[1].best_model_path, weights_only=True)["callbacks"][keeps[1].state_key]
    [kept] = state["kept"].values()
    assert unpack_score(kept).step == 15
    assert kept["influences"]["level.fake"].shape == (50,)


def test_a_file_of_the_same_name_is_scored_anew(tiny_gan, monitor, trainer, loader, tmp_path):
    keep = QualityCheckpoint("quality/level", dirpath=tmp_path, filename="best", significance=2.0)
    quality = monitor(metrics=(Level(),), sampler=drifting)
    trainer(quality, keep, max_epochs=5, enable_checkpointing=True).fit(tiny_gan(), loader)
    [kept] = keep.state_dict()["kept"].values()
    assert unpack_score(kept).step == 15


def test_all_reports_of_a_run_can_be_compared(tiny_gan, monitor, trainer, loader, tmp_path):
    quality = monitor(metrics=(Level(), "kd_pixels"), sampler=drifting)
    trainer(quality, max_epochs=4).fit(tiny_gan(), loader)
    first, *_, last = quality.reports
    found = compare(last, first)["level"]
    assert found.paired
    assert found.std < 0.2 * last.scalars["level_std"]
    changes = sum(report.scalars["level_change"] for report in quality.reports[1:])
    assert found.value == pytest.approx(changes)
    again = quality.state_dict()["history"]
    assert again["influences"]["level.fake"].dtype == torch.float32
    assert len(list(tmp_path.rglob("influences/step=*.safetensors"))) == 4


def test_a_sampler_that_repeats_nothing_is_not_paired(tiny_gan, monitor, trainer, loader):
    own = torch.Generator().manual_seed(0)

    def careless(module, n, generator):
        return drifting(module, n, own)

    quality = monitor(metrics=(Level(),), sampler=careless)
    trainer(quality).fit(tiny_gan(), loader)
    last = quality.reports[-1]
    assert last.protocol["sampling"]["repeatable"] is False
    assert last.protocol["change"]["paired"] == []
    assert last.scalars["level_change_std"] > last.scalars["level_std"]


def scenes(count: int, seed: int) -> torch.Tensor:
    """Pictures of four random waves, float (count, 3, 16, 16)."""
    draw = torch.Generator().manual_seed(seed)
    grid = torch.linspace(-2, 2, 16)
    x, y = torch.meshgrid(grid, grid, indexing="ij")
    turns, shifts = torch.randn(count, 4, 2, generator=draw), 6 * torch.rand(count, 4, 1, 1, generator=draw)
    waves = torch.sin(turns[:, :, :1, None] * x + turns[:, :, 1:, None] * y + shifts)
    return (waves.mean(dim=1, keepdim=True)).expand(-1, 3, -1, -1)


def grain(count: int, seed: int) -> torch.Tensor:
    """Pictures that vary in many directions: a gap of a kernel distance is told by their number."""
    return 2 * torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) - 1


@pytest.mark.parametrize(
    ("name", "pictures", "copies", "fires"),
    [
        ("copy_excess_pixels", scenes, 0.0, False),
        ("copy_excess_pixels", scenes, 0.15, True),
        ("kd_pixels_gap", grain, 0.0, False),
        ("kd_pixels_gap", scenes, 0.0, False),
        ("kd_pixels_gap", grain, 0.5, True),
    ],
)
def test_copies_stop_the_training_and_invention_does_not(
    tiny_gan, monitor, trainer, loader, name, pictures, copies, fires
):
    train, held_out = pictures(150, 1), pictures(150, 2)

    def generator(module, n, generator):
        seed = int(torch.randint(2**31, (), generator=generator))
        invented = pictures(n, seed + module.trainer.current_epoch)
        planted = torch.rand(n, generator=generator) < copies
        chosen = torch.randint(len(train), (n,), generator=generator)
        noisy = train[chosen] + 0.01 * torch.randn(n, 3, 16, 16, generator=generator)
        return torch.where(planted[:, None, None, None], noisy, invented).clamp(-1, 1)

    quality = monitor(
        real=TensorDataset(train),
        held_out=TensorDataset(held_out),
        metrics=(name.removesuffix("_gap"),),
        num_samples=150,
        batch_size=50,
        sampler=generator,
    )
    stopping = QualityStopping(f"quality/{name}")
    run = trainer(quality, stopping, max_epochs=6)
    run.fit(tiny_gan(), loader)
    assert (stopping.reason is StoppingReason.ALARM) == fires
    assert len(quality.reports) == (2 if fires else 6)
