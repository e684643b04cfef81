"""Which reports belong to a run: in memory, in its checkpoints and in its file."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from lightning_synthqual import Report
from lightning_synthqual.callbacks.history import History
from lightning_synthqual.metrics.base import Influence
from lightning_synthqual.reporting.files import save_influences

METRICS = ("fd_wavelet", "kd_pixels")


def steps(directory: Path, name: str = "reports.jsonl") -> list[int]:
    path = directory / name
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def fit(tiny_gan, monitor, trainer, loader, tmp_path):
    """Train in a folder, as a process of its own would, and save a checkpoint at the end."""

    def run(*prefixes, epochs, resumed=None, folder="run", **arguments):
        arguments = {"metrics": METRICS, "every_n_train_batches": 2, "real": loader, **arguments}
        monitors = [monitor(prefix=prefix, **arguments) for prefix in prefixes or ("quality",)]
        fitting = trainer(*monitors, max_epochs=epochs, default_root_dir=str(tmp_path / folder))
        path = None if resumed is None else tmp_path / f"{resumed}.ckpt"
        fitting.fit(tiny_gan(), loader, ckpt_path=path)
        fitting.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return monitors

    return run


def test_a_run_that_starts_again_in_its_folder_has_no_row_twice(fit, tmp_path):
    fit(epochs=1)
    fit(epochs=2)
    assert steps(tmp_path / "run") == [1, 3, 5, 7]
    assert steps(tmp_path / "run", "reports.superseded.jsonl") == [1, 3]


@pytest.mark.parametrize(
    "changed",
    [
        {"metrics": METRICS[::-1]},
        {"metrics": ("recall_wavelet",)},
        {"metrics": (*METRICS, "recall_wavelet")},
        {"num_samples": 30},
    ],
)
def test_resumed_with_other_arguments_the_history_goes_on(fit, tmp_path, changed):
    fit(epochs=1)
    fit(epochs=3, resumed=1)
    shutil.copy(tmp_path / "1.ckpt", tmp_path / "again.ckpt")
    (quality,) = fit(epochs=2, resumed="again", **changed)
    assert steps(tmp_path / "run") == [1, 3, 5, 7] == [report.step for report in quality.reports]
    assert steps(tmp_path / "run", "reports.superseded.jsonl") == [5, 7, 9, 11]
    (quality,) = fit(epochs=3, resumed=2, folder="elsewhere", **changed)
    assert steps(tmp_path / "elsewhere") == [1, 3, 5, 7, 9, 11] == [report.step for report in quality.reports]


def test_resumed_with_another_prefix_the_file_goes_on(fit, tmp_path):
    fit("before", epochs=1)
    fit("before", epochs=2, resumed=1)
    (quality,) = fit("after", epochs=3, resumed=1)
    assert steps(tmp_path / "run") == [1, 3, 5, 7, 9, 11] == [report.step for report in quality.reports]
    assert steps(tmp_path / "run", "reports.superseded.jsonl") == [5, 7]
    fit("after", epochs=4, resumed=3)
    assert steps(tmp_path / "run") == list(range(1, 16, 2))


def test_resumed_from_a_run_that_was_not_watched_the_file_begins_there(fit, tmp_path, tiny_gan, trainer, loader):
    fitting = trainer(max_epochs=1)
    fitting.fit(tiny_gan(), loader)
    fitting.save_checkpoint(tmp_path / "1.ckpt")
    fit(epochs=2, resumed=1)
    assert steps(tmp_path / "run") == [5, 7]


def test_a_checkpoint_of_weights_alone_resumes_nothing(fit, tmp_path):
    fit(epochs=1)
    content = torch.load(tmp_path / "1.ckpt", weights_only=True)
    torch.save({key: value for key, value in content.items() if key != "callbacks"}, tmp_path / "weights.ckpt")
    (quality,) = fit(epochs=2, resumed="weights")
    assert steps(tmp_path / "run") == [1, 3, 5, 7] == [report.step for report in quality.reports]


def test_monitors_that_change_places_keep_their_histories(fit, tmp_path):
    fit("one", "two", epochs=1)
    two, one = fit("two", "one", epochs=2, resumed=1)
    assert [report.step for report in one.reports] == [report.step for report in two.reports] == [1, 3, 5, 7]
    assert steps(tmp_path / "run") == [1, 3, 5, 7]
    assert steps(tmp_path / "run" / "one") == [1, 3, 5, 7]


def test_the_state_of_version_0_1_is_found(fit, tmp_path):
    fit(epochs=1)
    content = torch.load(tmp_path / "1.ckpt", weights_only=True)
    (key,) = (key for key in content["callbacks"] if key.startswith("QualityMonitor"))
    old = "QualityMonitor{'prefix': 'quality', 'metrics': ('fd_wavelet',)}"
    state = content["callbacks"].pop(key)
    for row in state["history"]["rows"]:  # protocols were whole then
        state["history"]["protocols"][row["protocol"]] |= row.pop("varying")
    del state["history"]["influences"]
    content["callbacks"][old] = state
    content["callbacks"]["QualityMonitor{'prefix': 'quality2', 'metrics': ()}"] = {"last_batch": 0, "history": {}}
    torch.save(content, tmp_path / "old.ckpt")
    (quality,) = fit(epochs=2, resumed="old", folder="elsewhere")
    assert [report.step for report in quality.reports] == [1, 3, 5, 7]


def test_a_second_fit_evaluates_as_the_first_did(tiny_gan, monitor, trainer, loader, tmp_path):
    quality = monitor(metrics=METRICS, real=loader)
    for _ in range(2):
        trainer(quality).fit(tiny_gan(), loader)
    assert [report.step for report in quality.reports] == [3, 7, 3, 7]
    assert steps(tmp_path) == [3, 7]
    history = quality.state_dict()["history"]
    assert len(history["rows"]) == 2
    assert len(history["protocols"]) == 1  # but for the weights, which are others each time
    assert len({report.protocol["sampling"]["weights_checksum"] for report in quality.reports[2:]}) == 2


def test_a_fit_that_the_same_trainer_continues_is_the_same_run(tiny_gan, monitor, trainer, loader, tmp_path):
    quality, module = monitor(metrics=METRICS, real=loader, evaluate_at_end=True), tiny_gan(validates=True)
    fitting = trainer(quality)
    fitting.validate(module, loader, verbose=False)
    fitting.fit(module, loader, loader)
    fitting.fit_loop.max_epochs = 3
    fitting.fit(module, loader, loader)
    assert [report.step for report in quality.reports] == steps(tmp_path) == [0, 3, 7, 11]


def test_validating_a_checkpoint_forgets_nothing(fit, tmp_path, trainer, tiny_gan, loader):
    (quality,) = fit(epochs=1)
    fitting = trainer(quality, default_root_dir=str(tmp_path / "run"))
    fitting.validate(tiny_gan(validates=True), loader, ckpt_path=tmp_path / "1.ckpt", verbose=False)
    assert len(quality.reports) == 3
    assert len(steps(tmp_path / "run")) == 3


def test_damaged_rows_are_no_reason_to_stop(fit, tmp_path, caplog):
    fit("before", epochs=1)
    path = tmp_path / "run" / "reports.jsonl"
    path.write_text("{}\n" + path.read_text())
    fit("after", epochs=2, resumed=1)
    assert "its rows are not continued" in caplog.text
    assert steps(tmp_path / "run") == [5, 7]


def test_a_history_pickles():
    assert pickle.loads(pickle.dumps(History())).reports == []


def test_the_best_is_the_earliest_of_those_that_tie_and_no_single_evaluation():
    def report(step, stage=None, **scalars):
        sampling = {} if stage is None else {"stage": stage}
        return Report(scalars, {"sampling": sampling}, step=step)

    history = History()
    for each in (
        report(1, fid=5.0, recall=0.5, train_distance=1.0),
        report(2, fid=4.0, recall=0.25, fid_std=0.1),
        report(2, stage="test", fid=1.0, recall=1.0),
        report(3, fid=4.0),
    ):
        history.add(each, None)
    assert {name: each.step for name, each in history.best.items()} == {"fid": 2, "recall": 1}
    assert [each.step for each in history.fitted] == [1, 2, 3]
    assert history.newly_best == []
    history.add(report(4, fid=3.0, recall=0.5), None)
    assert history.newly_best == ["fid"]


def test_the_first_evaluation_is_not_called_the_best():
    history = History()
    history.add(Report({"fid": 5.0}, {}, step=1), None)
    assert history.newly_best == []


def test_single_evaluations_are_told_from_those_of_the_training(tiny_gan, monitor, trainer, loader, tmp_path):
    quality, module = monitor(metrics=METRICS, real=loader), tiny_gan(validates=True)
    fitting = trainer(quality, max_epochs=2)
    fitting.fit(module, loader)
    fitting.validate(module, loader, verbose=False)
    fitting.test(module, loader, verbose=False)
    stages = [report.protocol["sampling"].get("stage") for report in quality.reports]
    assert stages == [None, None, "validate", "test"]
    assert [report.in_fit for report in quality.reports] == [True, True, False, False]
    rows = [Report.from_json(line) for line in (tmp_path / "reports.jsonl").read_text().splitlines()]
    assert [row.in_fit for row in rows] == [True, True, False, False]
    fitting.fit_loop.max_epochs = 3
    fitting.fit(module, loader)
    assert quality.reports[-1].in_fit
    assert quality.reports[-1].protocol["change"]["since"] == quality.reports[1].step


def test_influences_of_single_evaluations_replace_none_of_the_training(tmp_path):
    influences = {"fid": Influence(torch.tensor(5.0), torch.tensor([1.0, -1.0]), torch.tensor([]))}
    fitted = Report({"fid": 5.0}, {}, step=7, influences=influences)
    tested = Report({"fid": 5.0}, {"sampling": {"stage": "test"}}, step=7, influences=influences)
    for report in (fitted, tested):
        save_influences(tmp_path, report)
    assert {path.name for path in (tmp_path / "influences").iterdir()} == {
        "step=7.safetensors",
        "test-step=7.safetensors",
    }
