import pytest
import torch

from lightning_synthqual import QualityStopping, Report
from lightning_synthqual.callbacks.stopping import StoppingReason


def decisions(stopping, values):
    return [stopping.decide(value).name for value in values]


def test_patience_counts_evaluations_without_improvement():
    stopping = QualityStopping("quality/fid", patience=2)
    assert decisions(stopping, [5, 4, 4, 3, 3.5, 3]) == ["NOT_STOPPED"] * 5 + ["PATIENCE"]


def test_an_improvement_must_exceed_min_delta():
    stopping = QualityStopping("quality/recall", patience=2, min_delta=0.1)
    assert decisions(stopping, [0.1, 0.15, 0.25, 0.3, 0.3]) == ["NOT_STOPPED"] * 4 + ["PATIENCE"]


@pytest.mark.parametrize(("monitor", "good", "bad"), [("quality/fid", 7.9, 101.0), ("quality/recall", 101.0, 7.9)])
def test_thresholds(monitor, good, bad):
    low, high = min(good, bad) + 0.1, max(good, bad) - 0.1
    first, second = (low, high) if good < bad else (high, low)
    stopping = QualityStopping(monitor, stopping_threshold=first, divergence_threshold=second)
    assert stopping.decide(50.0) is StoppingReason.NOT_STOPPED
    assert stopping.decide(good) is StoppingReason.STOPPING_THRESHOLD
    assert stopping.decide(bad) is StoppingReason.DIVERGENCE_THRESHOLD


def test_mode_is_the_metrics_own_direction():
    assert QualityStopping("quality/kd_wavelet").mode == "min"
    assert QualityStopping("quality/precision_mine").mode == "max"
    assert QualityStopping("quality/precision", mode="min").mode == "min"


def test_a_rare_evaluation_does_not_exhaust_the_patience(tiny_gan, monitor, trainer, loader):
    quality = monitor(every_n_epochs=3)
    stopping = QualityStopping("quality/fd_wavelet", patience=2, min_delta=1e9)
    run = trainer(stopping, quality, max_epochs=20)
    run.fit(tiny_gan(validates=True), loader, loader)
    assert len(quality.reports) == 3
    assert run.current_epoch == 9
    assert stopping.reason is StoppingReason.PATIENCE
    assert stopping.stopped_step == quality.reports[-1].step


def test_it_stops_within_an_epoch(tiny_gan, monitor, trainer, loader, caplog):
    stopping = QualityStopping("quality/fd_wavelet", stopping_threshold=1e9)
    run = trainer(monitor(every_n_train_batches=2), stopping, max_epochs=3)
    with caplog.at_level("INFO"):
        run.fit(tiny_gan(), loader)
    assert run.fit_loop.total_batch_idx + 1 == 2
    assert "better than the threshold" in caplog.text


def test_several_instances_keep_their_own_state(tiny_gan, monitor, trainer, loader, tmp_path):
    first = QualityStopping("quality/fd_wavelet", patience=5)
    second = QualityStopping("quality/recall_wavelet", patience=7)
    run = trainer(monitor(), first, second)
    run.fit(tiny_gan(), loader)
    run.save_checkpoint(tmp_path / "x.ckpt")
    again = [QualityStopping("quality/fd_wavelet", patience=5), QualityStopping("quality/recall_wavelet", patience=7)]
    run = trainer(monitor(), *again, max_epochs=2)
    run.fit(tiny_gan(), loader, ckpt_path=tmp_path / "x.ckpt", weights_only=True)
    assert [cb.state_dict() for cb in again] == [cb.state_dict() for cb in (first, second)]


def test_a_monitor_that_nobody_logs_is_an_error_at_fit_start(tiny_gan, monitor, trainer, loader):
    with pytest.raises(ValueError, match="quality/fd_wavelet"):
        trainer(monitor(), QualityStopping("quality/fid")).fit(tiny_gan(), loader)
    with pytest.raises(ValueError, match="no QualityMonitor"):
        trainer(QualityStopping("quality/fid")).fit(tiny_gan(), loader)
    with pytest.raises(ValueError, match=r"'loss'.* waits for a score that nothing logs"):
        trainer(monitor(), QualityStopping("loss")).fit(tiny_gan(), loader)
    with pytest.raises(ValueError, match="direction of 'quality/kd_pixels_std' is unknown"):
        trainer(monitor(), QualityStopping("quality/kd_pixels_std")).fit(tiny_gan(), loader)


def test_an_undefined_value_is_not_counted(trainer):
    stopping = QualityStopping("quality/fid", patience=1)
    stopping.on_quality_report(trainer(), "quality", Report({"kid": 1.0}, {}))
    assert stopping.wait_count == 0


@pytest.mark.parametrize(("stop_on_failure", "epochs"), [(False, 4), (True, 2)])
def test_it_stops_on_a_failed_evaluation_if_asked_to(
    tiny_gan, monitor, trainer, loader, caplog, stop_on_failure, epochs
):
    def collapsing(module, n, generator):
        images = module(torch.randn(n, 4, generator=generator))
        return images if module.trainer.current_epoch < 1 else images * float("nan")

    stopping = QualityStopping("quality/fd_wavelet", patience=1, min_delta=1e9, stop_on_failure=stop_on_failure)
    other = QualityStopping("other/kd_pixels", patience=9, stop_on_failure=True)
    quality = monitor(sampler=collapsing, on_error="warn")
    run = trainer(quality, monitor(prefix="other", metrics=("kd_pixels",)), stopping, other, max_epochs=4)
    with caplog.at_level("INFO"):
        run.fit(tiny_gan(), loader)
    assert len(quality.reports) == 1
    assert run.current_epoch == epochs
    assert stopping.wait_count == 0  # a failed evaluation says nothing about improvement
    expected = StoppingReason.FAILURE if stop_on_failure else StoppingReason.NOT_STOPPED
    assert stopping.reason is expected
    assert ("Stopping at step 7: the evaluation failed (ValueError: " in caplog.text) == stop_on_failure
    assert other.reason is StoppingReason.NOT_STOPPED
    again = QualityStopping("quality/fd_wavelet", stop_on_failure=True)
    again.load_state_dict(stopping.state_dict())
    assert again.reason is expected


@pytest.mark.parametrize("arguments", [{"patience": 0}, {"min_delta": -1.0}, {"mode": "best"}])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        QualityStopping("quality/fid", **arguments)
