import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from lightning_synthqual import QualityCheckpoint


def test_it_keeps_the_best_evaluations(tiny_gan, monitor, trainer, loader, tmp_path):
    quality = monitor()
    keep = QualityCheckpoint("quality/fd_wavelet", save_top_k=2, dirpath=str(tmp_path / "best"))
    trainer(quality, keep, max_epochs=5, enable_checkpointing=True).fit(tiny_gan(), loader)
    scores = sorted(report.scalars["fd_wavelet"] for report in quality.reports)
    assert sorted(value.item() for value in keep.best_k_models.values()) == pytest.approx(scores[:2])
    assert len(list((tmp_path / "best").glob("*.ckpt"))) == 2
    assert keep.best_model_score.item() == pytest.approx(scores[0])


@pytest.mark.parametrize("validates", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_each_evaluation_is_considered_once_whatever_the_order(
    tiny_gan, monitor, trainer, loader, tmp_path, validates, first
):
    quality = monitor(every_n_epochs=2)
    keep = QualityCheckpoint("quality/recall_wavelet", save_top_k=-1, dirpath=str(tmp_path / "all"))
    callbacks = [keep, quality] if first else [quality, keep]
    run = trainer(*callbacks, max_epochs=5, enable_checkpointing=True)
    run.fit(tiny_gan(validates=validates), loader, loader if validates else None)
    assert len(list((tmp_path / "all").glob("*.ckpt"))) == len(quality.reports) == 2


def test_the_checkpoint_holds_the_weights_that_were_scored(tiny_gan, monitor, trainer, loader, tmp_path):
    quality = monitor(every_n_train_batches=3)
    keep = QualityCheckpoint("quality/fd_wavelet", dirpath=str(tmp_path / "best"))
    trainer(quality, keep, enable_checkpointing=True).fit(tiny_gan(validates=True), loader, loader)
    best = min(report.scalars["fd_wavelet"] for report in quality.reports)
    again = monitor(real=loader)
    module = tiny_gan(validates=True)
    module.load_state_dict(torch.load(keep.best_model_path, weights_only=True)["state_dict"])
    trainer(again).validate(module, loader, verbose=False)
    assert again.reports[0].scalars["fd_wavelet"] == pytest.approx(best, rel=1e-9)


def test_save_last_and_default_folder(tiny_gan, monitor, trainer, loader, tmp_path):
    keep = QualityCheckpoint("quality/fd_wavelet", save_last=True)
    run = trainer(monitor(), keep, logger=CSVLogger(tmp_path), enable_checkpointing=True)
    run.fit(tiny_gan(), loader)
    folder = tmp_path / "lightning_logs/version_0/checkpoints"
    assert (folder / "last.ckpt").is_file()
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 16


def test_it_takes_part_in_the_final_evaluation(tiny_gan, monitor, trainer, loader, tmp_path):
    quality = monitor(every_n_epochs=10, evaluate_at_end=True)
    keep = QualityCheckpoint("quality/fd_wavelet", dirpath=str(tmp_path / "best"))
    trainer(quality, keep, enable_checkpointing=True).fit(tiny_gan(), loader)
    assert len(quality.reports) == 1
    assert keep.best_model_path


def test_a_monitor_that_nobody_logs_is_an_error_at_fit_start(tiny_gan, monitor, trainer, loader):
    with pytest.raises(ValueError, match="quality/fd_wavelet"):
        trainer(monitor(), QualityCheckpoint("quality/fid"), enable_checkpointing=True).fit(tiny_gan(), loader)


@pytest.mark.parametrize("schedule", [{}, {"every_n_epochs": 1}, {"every_n_train_batches": 3}])
def test_names_of_a_gans_files_have_the_loggers_step(tiny_gan, monitor, trainer, loader, tmp_path, schedule):
    quality = monitor(metrics=("fd_pixels",), **schedule)
    keep = QualityCheckpoint("quality/fd_pixels", dirpath=str(tmp_path / "all"), filename="{step}", save_top_k=-1)
    trainer(quality, keep, enable_checkpointing=True).fit(tiny_gan(validates=True), loader, loader)
    steps = [report.step for report in quality.reports]
    assert steps == ([2, 5] if "every_n_train_batches" in schedule else [3, 7])
    assert {path.name for path in (tmp_path / "all").iterdir()} == {f"step={step}.ckpt" for step in steps}
