"""Trains a small autoencoder on patches of the Moon and scores its reconstructions of patches that it has not seen.

Image i is made of item i of the validation data, at every evaluation, so that scores of an image and its target
(``psnr``, ``ms_ssim``) stand beside distances of distributions: ``fd_wavelet`` of reconstructions is what is called
rFID where the features are Inception's. About a minute on two CPU cores; no network, no account.
"""

import argparse
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from lunar_gan import moon_patches, print_scores
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from lightning_synthqual import QualityCheckpoint, QualityMonitor

BATCH, WIDTH, CODE = 32, 32, 4
METRICS = ("fd_wavelet", "kd_wavelet", "psnr", "ms_ssim")


class Autoencoder(LightningModule):
    """Images (N, 1, 32, 32) in [-1, 1] to codes (N, 4, 8, 8), and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, WIDTH, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, CODE, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(CODE, WIDTH, 3, 1, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(WIDTH, WIDTH, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(WIDTH, 1, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """The reconstructions; the monitor calls it with the first entry of each item."""
        made: Tensor = self.decoder(self.encoder(images))
        return made

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """The mean squared error."""
        loss = F.mse_loss(self(batch[0]), batch[0])
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """The same of images that it is not trained on."""
        self.log("val_loss", F.mse_loss(self(batch[0]), batch[0]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a small autoencoder on patches of the Moon.")
    parser.add_argument("--output", type=Path, default=Path("runs/autoencoder"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batches", type=int, default=100, help="of an epoch; an evaluation follows each")
    parser.add_argument("--num-samples", type=int, default=1000, help="reconstructions per evaluation")
    args = parser.parse_args()

    torch.set_num_threads(1)  # the network is too small for more
    seed_everything(0, workers=True)
    train_set, val_set = map(TensorDataset, moon_patches())
    val_set = TensorDataset(val_set.tensors[0][:: max(1, len(val_set) // args.num_samples)][: args.num_samples])
    quality = QualityMonitor(real=val_set, inputs="val", metrics=METRICS, batch_size=250)
    keep = QualityCheckpoint(monitor="quality/psnr")
    trainer = Trainer(max_epochs=args.epochs, logger=CSVLogger(args.output, name=""), callbacks=[quality, keep])
    sampler = RandomSampler(train_set, num_samples=args.batches * BATCH)
    trainer.fit(Autoencoder(), DataLoader(train_set, BATCH, sampler=sampler), DataLoader(val_set, 250))

    print_scores(quality.reports, METRICS)
    pairs = args.output / "pairs.png"
    Image.fromarray(quality.reports[-1].pictures["psnr_pairs"]).save(pairs)
    print(f"\nbest, average and worst pairs  {pairs}")
    print(f"best checkpoint  {keep.best_model_path}")


if __name__ == "__main__":
    main()
