"""Everything that an evaluation learned, in each logger and on disk, read back from what the loggers wrote."""

import csv
import json
import logging

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from lightning_synthqual import Metric, Score
from lightning_synthqual.metrics.base import Influence

METRICS = ("fd_mine", "memorization_mine", "pairs_mine")
PICTURES = {
    "samples",
    "neighbors_mine",
    "distances_mine",
    "pairs_mine_train",
    "pairs_mine_held_out",
    "pairs_mine_random",
    "pairs_mine_entropy",
    "feature_space_mine",
}
TABLES = {"neighbors_mine", "pairs_mine", "pairs_mine_summary"}


class Pixels(nn.Module):
    def forward(self, images):
        return images.float().flatten(1)[:, ::8] - 127.5


@pytest.fixture
def fit(tiny_gan, monitor, trainer, loader, images):
    def run(logger, **arguments):
        quality = monitor(
            **{
                "metrics": METRICS,
                "held_out": TensorDataset(images.flip(0)[:40].roll(1, -1)),
                "extractors": {"mine": Pixels()},
                "options": {
                    "pairs": {"metrics": ("psnr", "mine"), "num_images": 20},
                    "feature_space": {"methods": ("pca",)},
                    "memorization": {"shown": 3},
                },
            },
            **arguments,
        )
        trainer(quality, logger=logger).fit(tiny_gan(), loader)
        return quality.reports

    return run


def test_wandb_gets_pictures_and_tables_in_the_row_of_the_scalars(fit, tmp_path, read_wandb, caplog):
    import wandb

    reports = fit(WandbLogger(offline=True, save_dir=tmp_path, project="x"))
    wandb.finish()
    assert "failed" not in caplog.text
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in read_wandb(tmp_path)
        if record.HasField("history")
    ]
    ours = [row for row in rows if "quality/fd_mine" in row]
    assert [row["trainer/global_step"] for row in ours] == [report.step for report in reports]
    for row in ours:
        kinds = {key: row[f"{key}/_type"] for key in (f"quality/{name}" for name in PICTURES)}
        assert set(kinds.values()) == {"image-file"}
        tables = {key: row[f"quality/{key}_table/_type"] for key in TABLES}
        assert set(tables.values()) == {"table-file"}
        assert row["quality/pairs_mine_table/nrows"] == 60
        assert row["quality/neighbors_mine_table/nrows"] == 3
    files = list(tmp_path.rglob("media/table/quality/pairs_mine_table*.json"))
    assert len(files) == 2
    table = json.loads(files[0].read_text())
    assert table["columns"] == ["generated", "kind", "match", "psnr", "mine", "entropy"]
    # The pictures of a table travel in an artifact.
    contents = [
        entry.path
        for record in read_wandb(tmp_path)
        if record.HasField("artifact") and "neighbors_mine_table" in record.artifact.name
        for entry in record.artifact.manifest.contents
    ]
    assert len([path for path in contents if path.endswith(".png")]) >= 9, contents


class Even(Metric):
    """A metric whose influences are known."""

    direction = "max"

    def score(self, state, fake):
        values = fake.double().mean(1)
        return Score(values.mean(), influence=Influence(values.mean(), values - values.mean(), values[:0]))


def summaries_of(records):
    """The last summary of a run, by name."""
    items = [item for record in records if record.HasField("summary") for item in record.summary.update]
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def test_wandb_keeps_the_best_of_the_whole_run_and_no_extremes_of_changes(
    tiny_gan, monitor, trainer, loader, tmp_path, read_wandb
):
    import wandb

    def fit(folder, resumed=None, epochs=2):
        quality = monitor(metrics=(Even("even", extractor="pixels"),))
        logger = WandbLogger(offline=True, save_dir=tmp_path / folder, project="x")
        (tmp_path / folder).mkdir()
        fitting = trainer(quality, logger=logger, max_epochs=epochs)
        fitting.fit(tiny_gan(), loader, ckpt_path=resumed)
        fitting.save_checkpoint(tmp_path / f"{folder}.ckpt")
        wandb.finish()
        return quality.reports, read_wandb(tmp_path / folder)

    reports, records = fit("first")
    best = max(reports, key=lambda report: report.scalars["even"])
    kept = summaries_of(records)
    assert kept["quality/best/even"] == best.scalars["even"]
    assert kept["quality/best/even_step"] == best.step
    assert {name for name in kept if "/best/" in name} == {"quality/best/even", "quality/best/even_step"}
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    (change,) = (row["quality/even_change"] for row in rows if "quality/even_change" in row)
    assert change == reports[1].scalars["even_change"]
    asked = {r.metric.name: r.metric.summary for r in records if r.HasField("metric")}
    assert asked["quality/even"].max
    for name in ("quality/even_change", "quality/even_change_std"):
        assert (asked[name].min, asked[name].max) == (False, False)
        assert asked[name].last
    resumed, records = fit("second", tmp_path / "first.ckpt", epochs=3)
    best = max(resumed, key=lambda report: report.scalars["even"])
    assert len(resumed) == 3
    assert best is not resumed[-1]
    assert summaries_of(records)["quality/best/even_step"] == best.step


def test_tensorboard_gets_pictures_and_text(fit, tmp_path, caplog):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(tmp_path / "tb")
    reports = fit(logger)
    assert "failed" not in caplog.text
    events = event_accumulator.EventAccumulator(logger.log_dir, {"images": 0, "tensors": 0, "scalars": 0})
    events.Reload()
    assert {f"quality/{name}" for name in PICTURES} == set(events.Tags()["images"])
    grid = events.Images("quality/samples")
    assert [image.step for image in grid] == [report.step for report in reports]
    assert (grid[0].height, grid[0].width) == reports[0].pictures["samples"].shape[:2]
    assert {f"quality/{name}/text_summary" for name in (*TABLES, "protocol")} <= set(events.Tags()["tensors"])
    text = events.Tensors("quality/pairs_mine/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text.startswith("| generated | kind | match | psnr | mine | entropy |")
    assert "and 10 more rows, which are in the CSV file." in text
    points = [point.value for point in events.Scalars("quality/fd_mine")]
    assert points == pytest.approx([report.scalars["fd_mine"] for report in reports])


def test_mlflow_gets_pictures_and_files(fit, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger("runs", tracking_uri=f"file:{tmp_path / 'mlruns'}")
    reports = fit(logger)
    assert "failed" not in caplog.text
    folder = tmp_path / "mlruns" / logger.experiment_id / logger.run_id
    lines = (folder / "metrics" / "quality" / "fd_mine").read_text().splitlines()
    assert [float(line.split()[1]) for line in lines] == pytest.approx([r.scalars["fd_mine"] for r in reports])
    assert [int(line.split()[2]) for line in lines] == [report.step for report in reports]
    images = [path.name for path in (folder / "artifacts" / "images").glob("*.png")]
    assert len(images) == 2 * len(PICTURES)
    assert any(name.startswith("quality~samples+step+3") for name in images)
    table = folder / "artifacts" / "quality" / "pairs_mine" / f"step={reports[0].step}.csv"
    assert len(table.read_text().splitlines()) == 61
    protocol = json.loads((folder / "artifacts" / "quality" / "protocol.json").read_text())
    assert protocol == json.loads(json.dumps(reports[-1].protocol))


def test_everything_is_on_disk_whatever_the_logger(fit, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("lightning_synthqual.reporting.loggers._announced", set())
    with caplog.at_level(logging.INFO, logger="lightning_synthqual"):
        reports = fit(CSVLogger(tmp_path, name="run", version=0))
    folder = tmp_path / "run" / "version_0"
    assert caplog.text.count("CSVLogger takes scalars only; figures and tables are in") == 1
    lines = [json.loads(line) for line in (folder / "reports.jsonl").read_text().splitlines()]
    assert [line["scalars"] for line in lines] == [report.scalars for report in reports]
    for report in reports:
        for name in PICTURES:
            with Image.open(folder / name / f"step={report.step}.png") as picture:
                assert np.array_equal(np.array(picture), report.pictures[name])
        for name in TABLES:
            with (folder / name / f"step={report.step}.csv").open() as file:
                assert len(list(csv.reader(file))) == len(report.tables[name].rows) + 1
    written = (folder / "metrics.csv").read_text()
    assert "quality/closer_to_train_mine" in written


def test_without_any_logger_it_is_on_disk_too(fit, tmp_path):
    fit(False)
    assert (tmp_path / "reports.jsonl").is_file()
    assert (tmp_path / "neighbors_mine" / "step=3.png").is_file()
    assert (tmp_path / "pairs_mine" / "step=3.csv").is_file()


def test_one_line_tells_scores_seconds_and_share(fit, caplog):
    with caplog.at_level(logging.INFO):
        fit(False)
    lines = [record.getMessage() for record in caplog.records if "quality: step" in record.getMessage()]
    assert len(lines) == 2
    for line in lines:
        assert "fd_mine" in line
        assert "copy_fraction_mine " in line
        assert "train_distance_q01" not in line
        assert "sampling " in line
        assert "total " in line
        assert line.endswith("% of the time of training so far)")
        share = float(line.rsplit("(", 1)[1].split("%")[0])
        assert 0 < share <= 100


def test_samples_are_of_the_same_latents_at_every_evaluation(tiny_gan, monitor, trainer, loader, tmp_path):
    module = tiny_gan()
    module.configure_optimizers = lambda: (
        torch.optim.SGD(module.generator.parameters(), 0.0),
        torch.optim.SGD(module.critic.parameters(), 0.0),
    )
    module.generator[1].momentum = 0.0  # no statistics are learned either
    trainer(monitor()).fit(module, loader)
    first, second = (np.array(Image.open(tmp_path / "samples" / f"step={step}.png")) for step in (3, 7))
    assert np.array_equal(first, second)
