"""A metric in a file elsewhere, of about fifteen lines, is named, logged, stopped and checkpointed on like ours."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lightning_synthqual import Metric, QualityCheckpoint, QualityStopping, evaluate
from lightning_synthqual.cli import main
from lightning_synthqual.metrics import Score

SCRIPT = Path(__file__).with_name("own_metric.py")
METRIC = '''
from lightning_synthqual import Metric


class MeanColour(Metric):
    """Squared distance of the mean pixels."""

    direction = "min"

    def __init__(self, name="mean_colour", extractor="pixels"):
        super().__init__(name, extractor=extractor)

    def prepare(self, real):
        return real.double().mean(0)

    def score(self, state, fake):
        return (fake.double().mean(0) - state).square().sum()
'''


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """The folder of the package that holds the metric; it is on the path of this process and of its children."""
    package = tmp_path / "elsewhere" / "stranger"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "colours.py").write_text(METRIC)
    monkeypatch.syspath_prepend(str(package.parent))
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), root, os.environ.get("PYTHONPATH", "")]))
    yield package
    for name in ("stranger.colours", "stranger"):
        sys.modules.pop(name, None)


@pytest.fixture
def train(tmp_path, stranger):
    def launch(devices: int, *arguments: str) -> list[dict]:
        output = tmp_path / f"{devices}{''.join(arguments)}"
        output.mkdir()
        command = [sys.executable, str(SCRIPT), "--devices", str(devices), "--output", str(output), *arguments]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
        processes = []
        for rank in range(devices):
            place = {**address, "LOCAL_RANK": str(rank)} if devices > 1 else {}
            with (output / f"{rank}.log").open("w") as log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **place}))
        try:
            codes = [process.wait(120) for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert codes == [0] * devices, [(output / f"{rank}.log").read_text()[-3000:] for rank in range(devices)]
        return [json.loads((output / f"rank{rank}.json").read_text()) for rank in range(devices)]

    return launch


@pytest.mark.parametrize(
    ("devices", "arguments"),
    [(2, ()), pytest.param(2, ("--yaml",), marks=pytest.mark.slow), pytest.param(1, (), marks=pytest.mark.slow)],
)
def test_a_training_stops_and_keeps_checkpoints_by_it(train, devices, arguments):
    """The third evaluation is the best, and two later ones are no better: larger values are worse."""
    for found in train(devices, *arguments):
        values = [scalars["mean_colour"] for scalars in found["scalars"]]
        # Pixels lie in [-1, 1]: a level l is off by l in each of 3072 numbers; the real images' mean is noisy.
        assert values == pytest.approx([3072 * level**2 for level in (0.8, 0.4, 0.2, 0.4, 0.6)], abs=15)
        assert (found["mode"], found["direction"], found["reason"]) == ("min", "min", "PATIENCE")
        assert found["kept"] == ["epoch=2.ckpt"]
        assert set(found["scalars"][0]) == {"mean_colour", "kd_pixels", "kd_pixels_std"}


def test_lightning_cli_finds_it_by_its_import_path(stranger, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("own_metric", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "LEVELS", (0.8, 0.4, 0.2))
    arguments = ["--devices", "1", "--output", str(tmp_path), "--yaml"]
    monkeypatch.setattr(sys, "argv", ["own_metric.py", *arguments])
    script.main()
    found = json.loads((tmp_path / "rank0.json").read_text())
    assert [scalars["mean_colour"] for scalars in found["scalars"]] == pytest.approx([1966.1, 491.5, 122.9], abs=15)
    assert (found["mode"], found["kept"]) == ("min", ["epoch=2.ckpt"])


def test_the_command_line_finds_it_by_its_import_path(stranger, tmp_path, pictures, capsys):
    for name, seed in (("real", 0), ("fake", 1)):
        np.save(tmp_path / f"{name}.npy", pictures(20, 8, 8, seed=seed).permute(0, 2, 3, 1).numpy())
    sets = [str(tmp_path / "real.npy"), str(tmp_path / "fake.npy")]
    words = ["evaluate", "--real", sets[0], "--fake", sets[1], "--output", str(tmp_path / "out"), "--device", "cpu"]
    words += ["--cache-dir", str(tmp_path / "cache"), "--quiet"]
    assert main([*words, "--metrics", "stranger.colours.MeanColour,fd_pixels"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    from stranger.colours import MeanColour

    expected = evaluate(*sets, metrics=[MeanColour(), "fd_pixels"], cache_dir=tmp_path / "other", device="cpu")
    assert report["scalars"] == expected.scalars
    assert next(iter(report["scalars"])) == "mean_colour"
    assert "mean_colour" in capsys.readouterr().out


class Several(Metric):
    """Values of which some are better when large, named only by what ``score`` returns."""

    def __init__(self, direction=None):
        super().__init__("several", extractor="pixels")
        self.direction = direction

    def score(self, state, fake):
        level = fake.double().mean()
        return {"level": Score(level, std=0.0), "darkness": -level}


class Closeness(Metric):
    direction = "max"

    def score(self, state, fake):
        return -(fake.double().mean(0) - state.double().mean(0)).square().sum()


def test_larger_values_may_be_better(tiny_gan, monitor, trainer, loader, tmp_path):
    quality = monitor(metrics=(Closeness("closeness", extractor="pixels"),))
    keep = QualityCheckpoint("quality/closeness", save_top_k=2, dirpath=tmp_path / "best")
    stop = QualityStopping("quality/closeness", patience=9)
    trainer(quality, keep, stop, max_epochs=4, enable_checkpointing=True).fit(tiny_gan(), loader)
    values = sorted(report.scalars["closeness"] for report in quality.reports)
    assert len(set(values)) == 4
    assert (keep.mode, stop.mode) == ("max", "max")
    assert sorted(value.item() for value in keep.best_k_models.values()) == pytest.approx(values[2:])
    assert stop.best_score == values[3]


def test_a_resumed_run_goes_on_with_what_was_best(tiny_gan, monitor, trainer, loader, tmp_path):
    def callbacks():
        metric = Closeness("closeness", extractor="pixels")
        keep = QualityCheckpoint("quality/closeness", dirpath=tmp_path / "best")
        return monitor(metrics=(metric,)), QualityStopping("quality/closeness", min_delta=1e9), keep

    first, second = callbacks(), callbacks()
    run = trainer(*first, max_epochs=2, enable_checkpointing=True)
    run.fit(tiny_gan(), loader)
    run.save_checkpoint(tmp_path / "last.ckpt")
    again = trainer(*second, max_epochs=2, enable_checkpointing=True)
    again.fit(tiny_gan(), loader, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert second[1].wait_count == first[1].wait_count == 1
    assert second[1].state_dict() == first[1].state_dict()
    assert second[2].best_model_score == first[2].best_model_score
    assert second[2].best_model_path == first[2].best_model_path


@pytest.mark.parametrize(("name", "mode"), [("several_level", "max"), ("several_darkness", "min")])
def test_a_metric_of_several_values_has_a_direction_for_each(tiny_gan, monitor, trainer, loader, name, mode):
    stop = QualityStopping(f"quality/{name}", patience=1, min_delta=1e9)
    run = trainer(monitor(metrics=(Several({"level": "max", "darkness": "min"}),)), stop, max_epochs=4)
    run.fit(tiny_gan(), loader)
    assert (stop.mode, run.current_epoch) == (mode, 2)


@pytest.mark.parametrize(
    ("metric", "name", "message"),
    [
        (Several(), "several_level", "direction of 'quality/several_level' is unknown.*`mode='min'`"),
        (Several({"level": "max"}), "several_level_std", "direction of 'quality/several_level_std' is unknown"),
        (Closeness("closeness", extractor="pixels"), "nearness", "waits for a score .* Logged are: quality/closeness"),
        (Closeness("closeness", extractor="pixels", reports={"closeness": ""}), "closeness_x", "nothing logs"),
    ],
)
@pytest.mark.parametrize("kind", [QualityStopping, QualityCheckpoint])
def test_what_is_unknown_is_an_error_before_data_are_read(
    tiny_gan, monitor, trainer, loader, kind, metric, name, message
):
    with pytest.raises(ValueError, match=message):
        trainer(monitor(metrics=(metric,)), kind(f"quality/{name}"), enable_checkpointing=True).fit(tiny_gan(), loader)


def test_a_given_mode_is_taken(tiny_gan, monitor, trainer, loader):
    stop, quality = QualityStopping("quality/several_level", mode="min"), monitor(metrics=(Several(),))
    trainer(quality, stop, max_epochs=1).fit(tiny_gan(), loader)
    assert stop.best_score == quality.reports[0].scalars["several_level"]
