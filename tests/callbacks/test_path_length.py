"""Path lengths while training."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from lightning_synthqual import QualityMonitor, QualityStopping


class Style(pl.LightningModule):
    """Reads the noise of its images from a buffer, which training itself redraws."""

    latent_dim = 4

    def __init__(self, mapping: bool = True) -> None:
        super().__init__()
        if mapping:
            self.mapping = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.paint = nn.Linear(8, 3 * 8 * 8)
        self.register_buffer("noise_const", torch.randn(8, 8))

    def synthesis(self, w):
        return torch.tanh(self.paint(w).view(-1, 3, 8, 8) + self.noise_const)

    def forward(self, z):
        return self.synthesis(self.mapping(z) if hasattr(self, "mapping") else z.repeat(1, 2))

    def training_step(self, batch, batch_idx):
        fake = self(torch.randn(len(batch[0]), 4))
        self.noise_const.normal_()
        return (fake - batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


def squared(one, other):
    return (one - other).square().mean(dim=(1, 2, 3))


PPL = {"ppl": {"num_pairs": 20, "distance": squared}}


@pytest.mark.parametrize("metrics", [("ppl_w_full",), ("ppl_z_end", "fd_wavelet", "ppl2_w_end")])
def test_training_is_bit_identical_and_stops_on_path_lengths(loader, trainer, tmp_path, metrics):
    weights, generators = [], []
    for watched in (False, True):
        pl.seed_everything(2, verbose=False)
        quality = QualityMonitor(
            metrics=metrics, options=PPL, num_samples=40, batch_size=16, cache_dir=str(tmp_path / "cache")
        )
        stop = QualityStopping(f"quality/{metrics[0]}", patience=9)
        module = Style()
        trainer(*((quality, stop) if watched else ()), max_epochs=3).fit(module, loader)
        weights.append([tensor.clone() for tensor in module.state_dict().values()])
        generators.append(torch.rand(3))
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))
    assert torch.equal(*generators)
    assert len(quality.reports) == 3
    assert {*metrics, f"{metrics[0]}_std"} <= set(quality.reports[-1].scalars)
    assert stop.best_score == min(report.scalars[metrics[0]] for report in quality.reports) > 0


def test_a_module_without_a_mapping_is_an_error_before_training(loader, trainer):
    quality = QualityMonitor(metrics=("ppl_w_end",), options=PPL)
    module = Style(mapping=False)
    with pytest.raises(ValueError, match=r"Path lengths in w need `mapping` of Style, which is not there"):
        trainer(quality).fit(module, loader)
    assert module.trainer.global_step == 0


def test_a_smoke_test_takes_few_pairs(loader, trainer):
    quality = QualityMonitor(metrics=("ppl_z_full",), options={"ppl": {"distance": squared}})
    trainer(quality, fast_dev_run=True).fit(Style(), loader)
    assert quality.reports[-1].protocol["metrics"]["ppl_z_full"]["num_pairs"] == 16
