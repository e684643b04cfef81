import csv
import json
import pickle
import random
import sys
from pathlib import Path
from types import ModuleType

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_synthqual import QualityMonitor, Report, evaluate
from lightning_synthqual.callbacks import ReportListener
from lightning_synthqual.extractors.base import Extractor, Identity


class Probe(ReportListener, Callback):
    """Remembers where evaluations happened."""

    def __init__(self):
        self.batches = []

    def on_quality_report(self, trainer, prefix, report):
        self.batches.append(trainer.fit_loop.epoch_loop.batch_progress.total.ready)


def run_state(trainer, module):
    """Everything that decides how a run goes on."""
    return {
        "weights": {k: v.clone() for k, v in module.state_dict().items()},
        "optimizers": [o.state_dict() for o in trainer.optimizers],
        "flags": [m.training for m in module.modules()],
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        "gradients": [p.grad for p in module.parameters()],
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32),
    }


def assert_same(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


@pytest.mark.parametrize("validates", [False, True])
@pytest.mark.parametrize("raises", [False, True])
def test_training_is_bit_identical_with_the_callback(tiny_gan, monitor, trainer, loader, validates, raises):
    def failing(module, n, generator):
        random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
        if module.trainer.global_step > 2:
            raise ArithmeticError("on purpose")
        return module(torch.randn(n, 4))

    states, reports = [], []
    for watched in (False, True):
        module = tiny_gan(validates=validates)
        quality = monitor(on_error="warn", sampler=failing if raises else None, every_n_train_batches=3)
        run = trainer(*([quality] if watched else []))
        run.fit(module, loader, loader if validates else None)
        states.append(run_state(run, module))
        reports.append(quality.reports)
    assert_same(*states)
    assert len(reports[1]) == (0 if raises else 2)


def test_frozen_submodules_keep_their_flags(tiny_gan, monitor, trainer, loader):
    module = tiny_gan()
    seen = []

    class Freeze(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            pl_module.generator[1].eval()

        def on_train_epoch_end(self, trainer, pl_module):
            seen.append([m.training for m in pl_module.modules()])

    trainer(monitor(), Freeze()).fit(module, loader)
    assert not seen[0][list(module.modules()).index(module.generator[1])]
    assert seen[0].count(False) == 1


@pytest.mark.parametrize(
    ("arguments", "fit", "validates", "expected"),
    [
        ({}, {}, False, [4, 8]),
        ({}, {}, True, [4, 8]),
        ({}, {"val_check_interval": 2}, True, [2, 4, 6, 8]),
        ({}, {"limit_val_batches": 0}, True, [4, 8]),
        ({}, {"max_epochs": 4, "check_val_every_n_epoch": 2}, True, [8, 16]),
        ({"every_n_epochs": 2}, {"max_epochs": 5}, False, [8, 16]),
        ({"every_n_epochs": 2}, {"max_epochs": 5}, True, [8, 16]),
        ({"every_n_epochs": 2, "evaluate_at_end": True}, {"max_epochs": 5}, False, [8, 16, 20]),
        ({"every_n_epochs": 1, "evaluate_at_end": True}, {}, False, [4, 8]),
        ({"every_n_train_batches": 3}, {}, False, [3, 6]),
        ({"every_n_train_batches": 3}, {}, True, [3, 6]),
        ({"every_n_train_batches": 4, "every_n_epochs": 1}, {}, False, [4, 8]),
        ({"every_n_train_batches": 3}, {"max_epochs": -1, "max_steps": 12}, False, [3, 6]),
        ({"evaluate_at_end": True}, {"limit_train_batches": 3}, False, [3, 6]),
        ({"every_n_train_batches": 3}, {"limit_train_batches": 2, "limit_val_batches": 1}, True, [3]),
        ({"every_n_train_batches": 100, "evaluate_at_end": True}, {"max_time": {"days": 1}}, True, [8]),
        ({"every_n_train_batches": 100, "evaluate_at_end": True}, {"max_epochs": -1, "max_steps": 10}, False, [5]),
    ],
)
def test_schedule(tiny_gan, monitor, trainer, loader, arguments, fit, validates, expected):
    probe = Probe()
    run = trainer(monitor(**arguments), probe, **fit)
    run.fit(tiny_gan(validates=validates), loader, loader if validates else None)
    assert probe.batches == expected


class OneOptimizer(pl.LightningModule):
    latent_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 3 * 8 * 8)
        self.autocast: list[bool] = []

    def forward(self, z):
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        return torch.tanh(self.net(z)).view(-1, 3, 8, 8)

    def training_step(self, batch, batch_idx):
        return self(torch.randn(8, 4)).float().square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize(("every", "expected"), [(1, list(range(1, 9))), (3, [3, 6])])
def test_accumulated_batches_are_batches(monitor, trainer, loader, every, expected):
    probe = Probe()
    run = trainer(monitor(every_n_train_batches=every), probe, accumulate_grad_batches=4)
    run.fit(OneOptimizer(), loader)
    assert run.global_step == 2
    assert probe.batches == expected


def test_max_time_ends_with_an_evaluation(monitor, trainer, loader):
    class Clock(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 2:  # as the Timer does when the time is up
                trainer.should_stop = True

    probe = Probe()
    run = trainer(Clock(), monitor(every_n_train_batches=100, evaluate_at_end=True), probe, max_epochs=5, min_epochs=0)
    run.fit(OneOptimizer(), loader)
    assert probe.batches == [3]


def test_the_generator_samples_in_the_trainers_precision_and_extractors_in_their_own(monitor, trainer, loader):
    seen = []

    class Extractor(nn.Module):
        def forward(self, images):
            seen.append(torch.is_autocast_enabled("cpu"))
            return images.float().flatten(1)

    module = OneOptimizer()
    quality = monitor(metrics=("kd_mine",), extractors={"mine": Extractor()})
    run = trainer(quality, precision="bf16-mixed", max_epochs=1)
    run.fit(module, loader)
    assert all(module.autocast)
    assert len(module.autocast) > len(loader)
    assert seen
    assert not any(seen)
    assert torch.is_autocast_enabled("cpu") is False


def test_batches_are_counted_on_over_a_resume(tiny_gan, monitor, trainer, loader, tmp_path):
    probe = Probe()
    run = trainer(monitor(every_n_train_batches=3), probe, max_epochs=1)
    run.fit(tiny_gan(), loader)
    run.save_checkpoint(tmp_path / "x.ckpt")
    run = trainer(monitor(every_n_train_batches=3), probe, max_epochs=3)
    run.fit(tiny_gan(), loader, ckpt_path=tmp_path / "x.ckpt")
    assert probe.batches == [3, 6, 9, 12]


def test_fast_dev_run_evaluates_a_few_images_and_leaves_nothing(tiny_gan, monitor, trainer, loader, tmp_path):
    quality = monitor(num_samples=10_000, metrics=("kd_pixels",))
    trainer(quality, fast_dev_run=True).fit(tiny_gan(validates=True), loader, loader)
    assert [report.protocol["num_samples"] for report in quality.reports] == [16]
    assert not list(tmp_path.rglob("*"))


def test_scores_stand_at_the_step_of_the_losses(tiny_gan, monitor, trainer, loader, tmp_path):
    for validates in (False, True):
        folder = tmp_path / str(validates)
        quality = monitor(every_n_train_batches=None)
        run = trainer(quality, logger=CSVLogger(folder), accumulate_grad_batches=1)
        run.fit(tiny_gan(validates=validates), loader, loader if validates else None)
        with next(folder.rglob("metrics.csv")).open() as file:
            rows = list(csv.DictReader(file))
        losses = [int(row["step"]) for row in rows if row["loss"]]
        scores = [int(row["step"]) for row in rows if row["quality/fd_wavelet"]]
        assert losses == list(range(8))
        assert scores == [3, 7] == [report.step for report in quality.reports]
        assert [int(float(row["epoch"])) for row in rows if row["quality/fd_wavelet"]] == [0, 1]


def test_step_within_an_epoch(tiny_gan, monitor, trainer, loader, tmp_path):
    quality = monitor(every_n_train_batches=3)
    trainer(quality, logger=CSVLogger(tmp_path)).fit(tiny_gan(), loader)
    with next(tmp_path.rglob("metrics.csv")).open() as file:
        rows = list(csv.DictReader(file))
    assert [report.step for report in quality.reports] == [2, 5]
    assert [int(row["step"]) for row in rows if row["quality/fd_wavelet"]] == [2, 5]


def test_every_report_is_on_disk_with_its_pictures(tiny_gan, monitor, trainer, loader, tmp_path):
    quality = monitor()
    run = trainer(quality, logger=CSVLogger(tmp_path / "logs"))
    run.fit(tiny_gan(), loader)
    lines = (tmp_path / "logs/lightning_logs/version_0/reports.jsonl").read_text().splitlines()
    assert [Report.from_json(line) for line in lines] == quality.reports
    row = json.loads(lines[0])
    assert set(row) == {"schema", "step", "epoch", "scalars", "protocol", "timings"}
    metrics = ("fd_wavelet", "kd_pixels", "recall_wavelet")
    assert {name + suffix for name in metrics for suffix in ("", "_std")} == set(row["scalars"])
    pictures = sorted(path.name for path in tmp_path.rglob("samples/*.png"))
    assert pictures == ["step=3.png", "step=7.png"]


def test_without_a_logger_the_reports_go_to_the_root_dir(tiny_gan, monitor, trainer, loader, tmp_path):
    trainer(monitor()).fit(tiny_gan(), loader)
    assert len((tmp_path / "reports.jsonl").read_text().splitlines()) == 2


def test_wandb_gets_scalars_and_the_grid_in_one_row(tiny_gan, monitor, trainer, loader, tmp_path, read_wandb, caplog):
    import wandb

    logger = WandbLogger(offline=True, save_dir=tmp_path, project="x")
    quality = monitor()
    trainer(quality, logger=logger).fit(tiny_gan(), loader)
    wandb.finish()
    assert "failed" not in caplog.text
    records = read_wandb(tmp_path)
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    ours = [row for row in rows if "quality/fd_wavelet" in row]
    assert ours, (len(records), [sorted(row) for row in rows], [r.WhichOneof("record_type") for r in records])
    assert [row["trainer/global_step"] for row in ours] == [3, 7]
    for row, report in zip(ours, quality.reports, strict=True):
        assert row["quality/fd_wavelet"] == report.scalars["fd_wavelet"]
        assert row["quality/samples/_type"] == "image-file"
    media = list(tmp_path.rglob("media/images/quality/*.png"))
    assert len(media) == 2
    summaries = {r.metric.name: r.metric.summary for r in records if r.HasField("metric")}
    assert summaries["quality/fd_wavelet"].min
    assert summaries["quality/recall_wavelet"].max
    config = {
        item.key or "/".join(item.nested_key): item.value_json
        for record in records
        if record.HasField("config")
        for item in record.config.update
    }
    assert json.loads(config["quality/protocol"])["num_samples"] == 50


def test_every_logger_gets_the_scalars(tiny_gan, monitor, trainer, loader, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    loggers = [CSVLogger(tmp_path / "csv"), TensorBoardLogger(tmp_path / "tb")]
    quality = monitor()
    trainer(quality, logger=loggers).fit(tiny_gan(), loader)
    events = event_accumulator.EventAccumulator(loggers[1].log_dir)
    events.Reload()
    points = [(event.step, event.value) for event in events.Scalars("quality/kd_pixels")]
    expected = [(report.step, pytest.approx(report.scalars["kd_pixels"])) for report in quality.reports]
    assert points == expected


def test_a_broken_logger_does_not_stop_the_run(tiny_gan, monitor, trainer, loader, tmp_path, caplog):
    class Broken(CSVLogger):
        def log_metrics(self, metrics, step=None):
            if any(name.startswith("quality/") for name in metrics):
                raise ConnectionError("no server")

    trainer(monitor(), logger=Broken(tmp_path)).fit(tiny_gan(), loader)
    assert "no server" in caplog.text
    assert len(next(tmp_path.rglob("reports.jsonl")).read_text().splitlines()) == 2


def test_the_number_in_training_is_the_number_afterwards(tiny_gan, monitor, trainer, loader, images, levels):
    module = tiny_gan(validates=True)
    quality = monitor()
    run = trainer(quality)
    run.fit(module, loader, loader)
    logged = levels(quality.reports[-1])
    [result] = run.validate(module, loader, verbose=False)
    assert {name.removeprefix("quality/"): value for name, value in result.items()} == pytest.approx(logged, rel=1e-6)
    [result] = run.test(module, loader, verbose=False)
    assert result["quality/fd_wavelet"] == pytest.approx(logged["fd_wavelet"], rel=1e-6)

    from lightning_synthqual.images.sampling import Sampler

    with torch.no_grad():
        blocks = list(Sampler(module.eval()).blocks(50, 16))
    fake = TensorDataset(torch.cat([block.images for block in blocks]))
    report = evaluate(TensorDataset(images), fake, metrics=("fd_wavelet", "kd_pixels", "recall_wavelet"))
    assert report.scalars == pytest.approx(logged, rel=1e-9)


def test_the_scores_do_not_depend_on_the_batch_size(tiny_gan, monitor, trainer, loader):
    scores = []
    for batch_size in (7, 64):
        quality = monitor(batch_size=batch_size)
        trainer(quality, max_epochs=1).fit(tiny_gan(), loader)
        scores.append(quality.reports[0].scalars)
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)


def test_lightnings_early_stopping_sees_the_scores(tiny_gan, monitor, trainer, loader):
    stop = EarlyStopping("quality/fd_wavelet", patience=1, mode="min", min_delta=1e9)
    run = trainer(monitor(), stop, max_epochs=10)
    run.fit(tiny_gan(validates=True), loader, loader)
    assert run.current_epoch == 2


def test_a_second_run_finds_the_reference_in_the_cache(tiny_gan, monitor, trainer, loader, caplog):
    with caplog.at_level("INFO"):
        trainer(monitor()).fit(tiny_gan(), loader)
        assert "features of 61 images computed" in caplog.text
        caplog.clear()
        trainer(monitor()).fit(tiny_gan(), loader)
    assert "features of 61 images found in the cache" in caplog.text


def test_a_corrupt_cache_file_is_recomputed(tiny_gan, monitor, trainer, loader, tmp_path, caplog):
    first, second = monitor(), monitor()
    trainer(first).fit(tiny_gan(), loader)
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    trainer(second).fit(tiny_gan(), loader)
    assert "damaged" in caplog.text
    assert second.reports[0].scalars == first.reports[0].scalars


def test_held_out_images_give_floors_and_gaps(tiny_gan, monitor, trainer, loader, images):
    quality = monitor(held_out=TensorDataset(images[:31].flip(3)), num_samples=30)
    trainer(quality, fast_dev_run=True).fit(tiny_gan(), loader)
    trainer(quality, max_epochs=2).fit(tiny_gan(), loader)
    first, *_, last = quality.reports[1:]
    beside = {"fd_wavelet_floor", "kd_pixels_floor", "kd_pixels_gap", "recall_wavelet_floor"}
    assert beside == {name for name in last.scalars if name.endswith(("_floor", "_gap"))}
    assert first.scalars["fd_wavelet_floor"] == last.scalars["fd_wavelet_floor"]
    assert first.scalars["kd_pixels_gap"] != last.scalars["kd_pixels_gap"]
    assert last.protocol["other_real"]["role"] == "held_out"


def test_published_protocols_show_their_counts_before_the_training(tiny_gan, monitor, trainer, loader, monkeypatch):
    network = Extractor(torch.nn.Flatten(), Identity("inception", "custom", "none"))
    monkeypatch.setattr("lightning_synthqual.evaluation.workspace.load_configured", lambda *_: network)
    with pytest.raises(ValueError, match=r"fid50k_full is a published protocol.*Set `num_samples=50000`"):
        trainer(monitor(metrics=("fid50k_full",))).fit(tiny_gan(), loader)
    trainer(monitor(metrics=("fid50k_full",)), fast_dev_run=True).fit(tiny_gan(), loader)


def test_reference_held_out(tiny_gan, monitor, trainer, loader, images):
    other = TensorDataset(images[:31].flip(3))
    quality = monitor(reference="held_out", held_out=other)
    trainer(quality).fit(tiny_gan(), loader)
    assert quality.reports[0].protocol["reference"]["role"] == "held_out"
    assert quality.reports[0].protocol["reference"]["num_images"] == 31


@pytest.mark.parametrize("labels", ["data", "uniform"])
def test_labels(tiny_gan, monitor, trainer, labelled, labels):
    module = tiny_gan(conditional=True)
    quality = monitor(labels=labels, real=labelled, evaluate_at_end=False)
    trainer(quality, max_epochs=1).fit(module, DataLoader(labelled, batch_size=16))
    assert set(module.seen_labels) == {0, 1, 2}
    assert quality.reports[0].protocol["sampling"]["labels"] == labels


def average_weights(pl_module):
    return torch.nn.Sequential(pl_module.generator, pl_module.head, torch.nn.Tanh(), torch.nn.Unflatten(1, (3, 8, 8)))


def test_model_getter_samples_from_what_it_returns(tiny_gan, monitor, trainer, loader):
    plain, getter = monitor(), monitor(model=average_weights)
    trainer(plain, max_epochs=1).fit(tiny_gan(), loader)
    trainer(getter, max_epochs=1).fit(tiny_gan(), loader)
    assert getter.reports[0].scalars == pytest.approx(plain.reports[0].scalars)
    assert getter.reports[0].protocol["sampling"]["model"]["name"] == f"{__name__}.average_weights"
    assert "model" not in plain.reports[0].protocol["sampling"]


def test_a_module_in_the_place_of_a_getter_is_an_error_at_once(monitor):
    with pytest.raises(
        TypeError,
        match=r"`model` must be a function `model\(pl_module\) .*model='ema'",
    ):
        monitor(model=torch.nn.Linear(1, 1))


def test_a_users_network_as_extractor(tiny_gan, monitor, trainer, loader):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
    quality = monitor(
        metrics=("fd_mine", "kd_flat"),
        extractors={
            "mine": {"network": network, "input_range": (0.0, 1.0)},
            "flat": {"network": "torch.nn.Flatten", "input_range": (0.0, 1.0)},
        },
    )
    trainer(quality).fit(tiny_gan(), loader)
    assert set(quality.reports[0].scalars) == {"fd_mine", "fd_mine_std", "kd_flat", "kd_flat_std"}
    assert network[1].weight.requires_grad


def test_the_callback_pickles(monitor):
    quality = pickle.loads(pickle.dumps(monitor()))
    assert quality.plan.names[0] == "fd_wavelet"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"metrics": ("fid_wavelet",)}, ValueError, "did you mean 'fd_wavelet'"),
        ({"metrics": ("fd_mine",)}, ValueError, "extractor 'mine'"),
        ({"metrics": "fid"}, TypeError, "metrics=\\('fid',\\)"),
        ({"reference": "test"}, ValueError, "'real' or 'held_out'"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"every_n_epochs": 0}, ValueError, "every_n_epochs"),
        ({"image_range": (1.0, -1.0)}, ValueError, "low < high"),
        ({"image_range": 255}, TypeError, "image_range"),
        ({"sampler": "no.such.thing"}, ValueError, "sampler"),
        ({"model": 3}, TypeError, "model"),
        ({"options": {"kid": {"subset": 3}}}, ValueError, "subsets"),
        ({"options": {"pr": {"k": 3}}}, ValueError, "precision"),
        ({"on_error": "ignore"}, ValueError, "on_error"),
        ({"labels": "random"}, ValueError, "labels"),
    ],
)
def test_bad_arguments_are_errors_at_construction(arguments, error, message):
    with pytest.raises(error, match=message):
        QualityMonitor(**arguments)


def constant(value, channels=3, dtype=torch.float32):
    def sampler(module, n, generator):
        return torch.full((n, channels, 8, 8), value, dtype=dtype)

    return sampler


def levels(module, n, generator):
    return torch.rand(n, 3, 8, 8, generator=generator) * 255


def negative(module, n, generator):
    return torch.rand(n, 3, 8, 8, generator=generator) * 2 - 1


def wrong_device(module, n, generator):
    raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sampler": constant(float("nan"))}, ValueError, "NaN"),
        ({"image_range": (0, 1)}, ValueError, r"`real_range=\(-1.0, 1.0\)`"),
        ({"sampler": constant(0.0, channels=4)}, ValueError, "4 channels"),
        ({"sampler": lambda module, n, generator: None}, TypeError, "NoneType"),
        ({"sampler": wrong_device}, RuntimeError, "generator=generator"),
        ({"real_range": (0, 255)}, ValueError, r"real_range=\(-1.0, 1.0\)"),
        ({"real": "no/such/folder"}, FileNotFoundError, "no/such/folder"),
        ({"real": [1, 2, 3]}, TypeError, "PIL"),
        ({"real": []}, ValueError, "empty"),
        ({"reference": "held_out"}, ValueError, "held_out"),
        ({"num_samples": 3}, ValueError, "at least 4 images"),
        ({"num_real": 3}, ValueError, "at least 4 images"),
        ({"metrics": ("fid",), "extractors": {"inception": {"weights": "no.pth"}}}, FileNotFoundError, "no.pth"),
        ({"labels": "data"}, ValueError, "label"),
        ({"extractors": {"mine": 3}, "metrics": ("fd_mine",)}, TypeError, "nn.Module"),
    ],
)
def test_bad_input_is_an_error_at_fit_start(tiny_gan, monitor, trainer, loader, arguments, error, message):
    module = tiny_gan()
    run = trainer(monitor(**arguments))
    with pytest.raises(error, match=message):
        run.fit(module, loader)
    assert run.global_step == 0


def test_an_empty_folder_is_an_error(tiny_gan, monitor, trainer, loader, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        trainer(monitor(real=tmp_path / "empty")).fit(tiny_gan(), loader)


def test_a_folder_with_too_few_pictures_is_an_error(tiny_gan, monitor, trainer, loader, tmp_path):
    for i in range(2):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"{i}.png")
    with pytest.raises(ValueError, match="at least 3 images, but `real` has 2"):
        trainer(monitor(real=tmp_path)).fit(tiny_gan(), loader)


def test_sampler_and_model_by_import_path(tiny_gan, monitor, trainer, loader, monkeypatch):
    module = ModuleType("users_code")
    module.sampler = lambda network, n, generator: network(torch.randn(n, 4, generator=generator))
    module.model = average_weights
    monkeypatch.setitem(sys.modules, "users_code", module)
    quality = monitor(sampler="users_code.sampler", model="users_code:model")
    trainer(quality, max_epochs=1).fit(tiny_gan(), loader)
    assert quality.reports[0].protocol["sampling"]["kind"] == "sampler"


def test_a_module_that_cannot_be_sampled_is_an_error(tiny_gan, monitor, trainer, loader):
    module = tiny_gan()
    module.latent_dim = None
    with pytest.raises(ValueError, match="latent_dim"):
        trainer(monitor()).fit(module, loader)


def test_a_collapsed_generator_gets_defined_values(tiny_gan, monitor, trainer, loader):
    quality = monitor(sampler=constant(0.25), metrics=("fd_wavelet", "kd_wavelet", "precision_pixels", "recall_pixels"))
    trainer(quality).fit(tiny_gan(), loader)
    assert all(np.isfinite(value) for value in quality.reports[0].scalars.values())
    assert quality.reports[0].scalars["recall_pixels"] == 0


def test_unlike_sizes_get_a_warning_naming_both(tiny_gan, monitor, trainer, loader, caplog):
    real = TensorDataset(torch.rand(40, 3, 12, 10) * 2 - 1)
    trainer(monitor(real=real)).fit(tiny_gan(), loader)
    assert "12x10" in caplog.text
    assert "8x8" in caplog.text
    caplog.clear()
    trainer(monitor(real=real, image_size=8)).fit(tiny_gan(), loader)
    assert "12x10" not in caplog.text


@pytest.mark.parametrize(
    ("sampler", "declared", "advice"),
    [
        (levels, (-1, 1), "pass `image_range=(0.0, 255.0)`"),
        (negative, (0, 1), "pass `image_range=(-1.0, 1.0)`"),
        (negative, (0, 255), "pass `image_range=(-1.0, 1.0)`"),  # as an unsquashed generator at its start
    ],
)
def test_a_generator_is_believed_with_one_warning(
    tiny_gan, monitor, trainer, loader, caplog, sampler, declared, advice
):
    quality = monitor(sampler=sampler, image_range=declared, real_range=(-1, 1))
    trainer(quality, max_epochs=2).fit(tiny_gan(), loader)
    assert len(quality.reports) == 2
    assert caplog.text.count(advice) == 1


def test_overshoot_is_clamped_and_its_share_reported(tiny_gan, monitor, trainer, loader):
    def overshooting(module, n, generator):
        x = torch.zeros(n, 3, 8, 8)
        x[:, :, :2] = 1.5
        return x + torch.rand(n, 1, 1, 1, generator=generator) * 0.1

    quality = monitor(sampler=overshooting)
    trainer(quality).fit(tiny_gan(), loader)
    assert quality.reports[0].protocol["generated"]["clamped_share"] == 0.25


def test_two_monitors_need_two_prefixes(tiny_gan, monitor, trainer, loader):
    with pytest.raises(ValueError, match="prefix"):
        trainer(monitor(), monitor(metrics=("kd_pixels",))).fit(tiny_gan(), loader)


def test_two_monitors_write_to_places_of_their_own(tiny_gan, monitor, trainer, loader, tmp_path):
    def monitors():
        seldom = monitor(prefix="seldom", metrics=("kd_pixels",), every_n_epochs=2, num_samples=30)
        return monitor(metrics=("fd_wavelet",), every_n_epochs=1), seldom

    def rows():
        paths = sorted(tmp_path.rglob("reports.jsonl"), key=lambda path: len(path.parts))
        return [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]

    saving = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    trainer(*monitors(), saving, max_epochs=4, enable_checkpointing=True).fit(tiny_gan(), loader)
    often, seldom = rows()
    assert [row["epoch"] for row in often] == [0, 1, 2, 3]
    assert [row["epoch"] for row in seldom] == [1, 3]
    assert "fd_wavelet" in often[0]["scalars"]
    assert "kd_pixels" in seldom[0]["scalars"]
    pictures = tmp_path.rglob(f"samples/step={seldom[-1]['step']}.png")
    assert {path.parents[1].relative_to(tmp_path) for path in pictures} == {Path(), Path("seldom")}

    trainer(*monitors(), max_epochs=4).fit(tiny_gan(), loader, ckpt_path=tmp_path / "epoch=1.ckpt")
    again = rows()
    assert [[row["epoch"] for row in of_one] for of_one in again] == [[0, 1, 2, 3], [1, 3]]
    assert again[0][:2] == often[:2]
    superseded = [
        json.loads(line)["epoch"] for line in (tmp_path / "reports.superseded.jsonl").read_text().splitlines()
    ]
    assert superseded == [2, 3]
