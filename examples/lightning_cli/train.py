"""A variational autoencoder of handwritten digits under LightningCLI; what to measure stands in YAML.

    python examples/lightning_cli/train.py fit --config examples/lightning_cli/digits.yaml
    python examples/lightning_cli/train.py fit --config mine.yaml --config examples/lightning_cli/callbacks.yaml

The first command runs as it is, in less than a minute; ``callbacks.yaml`` is for configurations of your own.
"""

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

SIDE = 16


class Digits(LightningDataModule):
    """Handwritten digits, floats (1, 16, 16) in [0, 1].

    Args:
        batch_size: Images a batch.
    """

    def __init__(self, batch_size: int = 32) -> None:
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """What the monitor compares with, too, since its ``real`` is not set."""
        pixels = torch.tensor(load_digits().data, dtype=torch.float32).view(-1, 1, 8, 8) / 16
        images = F.interpolate(pixels, SIDE, mode="bilinear")
        return DataLoader(TensorDataset(images), self.batch_size, shuffle=True)


class Autoencoder(LightningModule):
    """A variational autoencoder; called with noise it is a generator.

    Args:
        latent_dim: Length of the noise; the monitor finds it among the hyperparameters.
        width: Of the hidden layers.
        beta: Weight of the divergence of the latents from noise.
        learning_rate: Of Adam.
    """

    def __init__(self, latent_dim: int = 8, width: int = 256, beta: float = 1.0, learning_rate: float = 1e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(SIDE * SIDE, width), nn.ReLU(), nn.Linear(width, 2 * latent_dim)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, width), nn.ReLU(), nn.Linear(width, SIDE * SIDE), nn.Unflatten(1, (1, SIDE, SIDE))
        )

    def forward(self, z: Tensor) -> Tensor:
        """Noise (N, latent_dim) to images (N, 1, 16, 16) in [0, 1]."""
        return torch.sigmoid(self.decoder(z))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """The negative evidence lower bound, in nats an image."""
        (images,) = batch
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        surprise = F.binary_cross_entropy_with_logits(self.decoder(z), images, reduction="sum")
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2
        loss: Tensor = (surprise + self.hparams["beta"] * divergence) / len(images)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.hparams["learning_rate"])


def main(args: list[str] | None = None) -> LightningCLI:
    """Run the command line, or ``args`` in its place."""
    return LightningCLI(Autoencoder, Digits, args=args)


if __name__ == "__main__":
    main()
