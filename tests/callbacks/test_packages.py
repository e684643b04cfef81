"""`lightning.pytorch` and `pytorch_lightning` have different classes; the callbacks work in the trainers of both."""

import copy
import importlib
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_synthqual import QualityCheckpoint, QualityMonitor, QualityStopping, evaluate
from lightning_synthqual.callbacks import ReportListener

pytest.importorskip("pytorch_lightning")
METRIC = "fd_wavelet"


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def package(request):
    return importlib.import_module(request.param)


@pytest.fixture
def make_module(package):
    class Gan(package.LightningModule):
        """It learns, so that the weights of no two steps are the same."""

        latent_dim = 4

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Linear(4, 3 * 8 * 8)

        def forward(self, z):
            return torch.tanh(self.net(z)).view(-1, 3, 8, 8)

        def training_step(self, batch, batch_idx):
            return self(torch.randn(8, 4)).square().mean()

        def validation_step(self, batch, batch_idx):
            return None

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1.0)

    return Gan


@pytest.fixture
def make_trainer(package, tmp_path):
    def make(*callbacks, **arguments):
        defaults = {
            "max_epochs": 3,
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": str(tmp_path),
        }
        return package.Trainer(callbacks=list(callbacks), **{**defaults, **arguments})

    return make


def score(module, path, images) -> float:
    module.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    data = TensorDataset(images)
    return evaluate(data, module, metrics=(METRIC,), num_samples=50, batch_size=16).scalars[METRIC]


@pytest.mark.parametrize("schedule", [{}, {"every_n_train_batches": 3}], ids=["default", "batches"])
@pytest.mark.parametrize("checkpoint_first", [True, False])
def test_kept_files_hold_the_weights_that_were_scored(
    package, make_module, make_trainer, monitor, images, tmp_path, schedule, checkpoint_first
):
    loader = DataLoader(TensorDataset(images), 16)
    quality = monitor(metrics=(METRIC,), **schedule)
    keep = QualityCheckpoint(f"quality/{METRIC}", save_top_k=-1, dirpath=str(tmp_path / "best"))

    class Other(package.Callback):
        pass

    callbacks = [keep, Other(), quality] if checkpoint_first else [quality, keep, Other()]
    trainer = make_trainer(*callbacks)
    assert trainer.checkpoint_callback is keep
    assert trainer.checkpoint_callbacks == [keep]
    assert trainer.callbacks[-1] is keep
    trainer.fit(make_module(), loader, loader)
    labels = {path: value.item() for path, value in keep.best_k_models.items()}
    assert len(labels) == len(quality.reports) == (3 if not schedule else 4)
    assert len(set(labels.values())) == len(labels)
    for path, label in labels.items():
        assert score(make_module(), path, images) == pytest.approx(label, rel=1e-6)
    best = make_module()
    trainer.validate(best, loader, ckpt_path="best", verbose=False)
    assert quality.reports[-1].scalars[METRIC] == pytest.approx(min(labels.values()), rel=1e-6)
    assert trainer.ckpt_path == keep.best_model_path


def test_last_finds_the_last_checkpoint(make_module, make_trainer, monitor, images):
    loader = DataLoader(TensorDataset(images), 16)
    callbacks = monitor(metrics=(METRIC,)), QualityCheckpoint(f"quality/{METRIC}", save_last=True)
    make_trainer(*callbacks, max_epochs=1).fit(make_module(), loader, loader)
    resumed = make_trainer(monitor(metrics=(METRIC,)), QualityCheckpoint(f"quality/{METRIC}", save_last=True))
    resumed.fit(make_module(), loader, loader, ckpt_path="last")
    assert len(resumed.callbacks[0].reports) == 3


def test_a_listener_of_either_package_hears_of_reports_and_failures(
    package, make_module, make_trainer, monitor, images
):
    class Listener(ReportListener, package.Callback):
        def __init__(self) -> None:
            self.heard: list[tuple] = []

        def on_quality_report(self, trainer, prefix, report):
            self.heard.append((prefix, report.step))

        def on_quality_failure(self, trainer, prefix, error):
            self.heard.append((prefix, str(error)))

    def sampler(module, n, generator):
        if module.trainer.global_step > 4:
            raise ArithmeticError("sampler on fire")
        return module(torch.randn(n, 4, generator=generator))

    class Silent(ReportListener, package.Callback):
        pass

    listener, loader = Listener(), DataLoader(TensorDataset(images), 16)
    quality = monitor(metrics=(METRIC,), sampler=sampler, on_error="warn", prefix="mine")
    make_trainer(listener, Silent(), quality, max_epochs=2).fit(make_module(), loader, loader)
    assert listener.heard == [("mine", 3), ("mine", "sampler on fire")]


def test_callbacks_stay_what_they_are(package, monitor):
    stop = QualityStopping(f"quality/{METRIC}")
    for callback in (monitor(metrics=(METRIC,)), stop, QualityCheckpoint(f"quality/{METRIC}")):
        for same in (callback, pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback)):
            assert type(same) is type(callback)
            assert isinstance(same, package.Callback)
            assert same.state_key == callback.state_key
            assert isinstance(same, package.callbacks.ModelCheckpoint) == isinstance(same, QualityCheckpoint)


class Better(QualityCheckpoint):
    """A user's own subclass."""


def test_subclasses_too(package):
    assert isinstance(Better(f"quality/{METRIC}"), package.callbacks.Checkpoint)
    assert Better(f"quality/{METRIC}").mode == "min"


def test_nothing_is_imported_that_the_user_has_not_imported():
    """And a trainer whose package is imported last treats the callback right from the start of the fit."""
    code = """
import sys
from lightning_synthqual import QualityCheckpoint, QualityMonitor
first, quality = QualityCheckpoint("quality/fid"), QualityMonitor()
print("pytorch_lightning" in sys.modules)
import pytorch_lightning
trainer = pytorch_lightning.Trainer(callbacks=[first, quality], logger=False, accelerator="cpu")
first.setup(trainer, None, "fit")
print(trainer.checkpoint_callback is first, trainer.callbacks[-2] is first)
second = QualityCheckpoint("quality/fid")
for keep in first, second:
    trainer = pytorch_lightning.Trainer(callbacks=[keep, quality], logger=False, accelerator="cpu")
    print(trainer.checkpoint_callback is keep, trainer.callbacks[-1] is keep)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] + ["True"] * 6


def test_the_command_line_of_either_package_configures_them(package, make_module, tmp_path, monkeypatch):
    cli = importlib.import_module(f"{package.__name__}.cli")
    monkeypatch.setenv("COLUMNS", "200")
    entries = [
        {"class_path": "lightning_synthqual.QualityMonitor", "init_args": {"metrics": [METRIC], "num_samples": 50}},
        {"class_path": "lightning_synthqual.QualityCheckpoint", "init_args": {"monitor": f"quality/{METRIC}"}},
        {"class_path": "lightning_synthqual.QualityStopping", "init_args": {"monitor": f"quality/{METRIC}"}},
    ]
    arguments = {"trainer": {"callbacks": entries, "accelerator": "cpu", "logger": False}}
    made = cli.LightningCLI(
        make_module, run=False, save_config_callback=None, args=arguments, seed_everything_default=False
    )
    kinds = [type(callback) for callback in made.trainer.callbacks]
    assert {QualityMonitor, QualityStopping, QualityCheckpoint} <= set(kinds)
    assert kinds[-1] is QualityCheckpoint
