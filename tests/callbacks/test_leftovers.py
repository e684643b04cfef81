"""Files that a killed run has left are removed, and no others."""

import shutil
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_synthqual import QualityCheckpoint


@pytest.fixture
def fit(tiny_gan, monitor, trainer, loader, tmp_path):
    """Train with an evaluation every second batch; what is saved every epoch can be resumed from."""

    def run(epochs, *others, resumed=None):
        quality = monitor(metrics=("fd_wavelet",), real=loader, every_n_train_batches=2)
        keep = QualityCheckpoint("quality/fd_wavelet", save_top_k=2, dirpath=str(tmp_path / "best"), filename="{step}")
        saving = ModelCheckpoint(tmp_path / "last", filename="{epoch}", save_top_k=-1)
        fitting = trainer(quality, *others, keep, saving, max_epochs=epochs, enable_checkpointing=True)
        fitting.fit(tiny_gan(), loader, ckpt_path=None if resumed is None else tmp_path / "last" / resumed)
        return keep

    return run


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_files_of_a_killed_run_go_once_the_training_has_passed_them(fit, tmp_path):
    fit(1)
    fit(3, resumed="epoch=0.ckpt")
    after = names(tmp_path / "best")

    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer, *_) -> None:
            trainer.should_stop = True

    fit(3, Stop(), resumed="epoch=0.ckpt")  # after one batch: it has not passed them
    assert set(after) <= set(names(tmp_path / "best"))
    keep = fit(3, resumed="epoch=0.ckpt")
    assert names(tmp_path / "best") == after == sorted(Path(path).name for path in keep.best_k_models)
    assert len(after) == 2


def test_a_replaced_file_that_was_not_removed_goes_at_once(fit, tmp_path):
    keep = fit(1)
    first = keep.best_model_path
    shutil.copy(first, tmp_path / "copy.ckpt")
    fit(2, resumed="epoch=0.ckpt")
    shutil.copy(tmp_path / "copy.ckpt", first)  # as if the process had been killed before it removed the file
    known = fit(3, resumed="epoch=1.ckpt").best_k_models
    assert not Path(first).exists()
    assert names(tmp_path / "best") == sorted(Path(path).name for path in known)


def foreign_files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name.startswith("other")}


def test_no_other_file_is_touched(fit, tmp_path):
    """Neither those of another run in the same directory, nor copies, nor what cannot be read."""
    keep = fit(2)
    best = tmp_path / "best"
    shutil.copy(keep.best_model_path, best / "other-copy.ckpt")
    (best / "other-damaged.ckpt").write_bytes(b"PK")
    (best / "other.txt").write_text("notes")
    content = torch.load(keep.best_model_path, weights_only=True)
    state = content["callbacks"][keep.state_key]
    for name, change in {
        "other-run.ckpt": {"run_id": "another"},
        "other-folder.ckpt": {"dirpath": "/somewhere/else"},
        "other-version.ckpt": {"run_id": None},
    }.items():
        changed = {**state, "best_k_models": {str(best / name): torch.tensor(0.0)}, **change}
        torch.save({**content, "callbacks": {keep.state_key: changed}}, best / name)
    torch.save({"state_dict": {}}, best / "other-weights.ckpt")
    before = foreign_files(best)
    assert len(before) == 7
    fit(3, resumed="epoch=1.ckpt")
    fit(3, resumed="epoch=0.ckpt")
    assert foreign_files(best) == before


def test_a_run_that_starts_anew_removes_nothing(fit, tmp_path):
    fit(2)
    before = names(tmp_path / "best")
    fit(2)
    assert set(before) < set(names(tmp_path / "best"))
