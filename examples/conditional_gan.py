"""Trains a small class-conditional GAN on handwritten digits, scored with labels drawn from the data.

With ``labels="data"`` image i gets the label of a real digit that is drawn by i, so the generated set has the classes
in the proportions of the real one, and the same labels at every evaluation. Features are those of a classifier of
digits (``own_extractor.py``), which in the end also says how many images show the digit that was asked for. About two
minutes on two CPU cores; no network, no account.
"""

import argparse
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from lunar_gan import print_scores
from own_extractor import CLASSES, digits, extractor, train_classifier
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, RandomSampler

from lightning_synthqual import QualityCheckpoint, QualityMonitor, QualityStopping

LATENT_DIM, WIDTH, BATCH = 32, 64, 32
METRICS = ("fd_digits", "kd_digits", "precision_digits", "recall_digits", "coverage_digits")


class Generator(nn.Module):
    """Noise (N, latent_dim) and labels (N,) to images (N, 1, 16, 16) in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim = LATENT_DIM  # tells the monitor what to sample from
        self.classes = nn.Embedding(CLASSES, LATENT_DIM)
        self.start = nn.Linear(2 * LATENT_DIM, 16 * 2 * WIDTH)
        self.layers = nn.Sequential(
            nn.BatchNorm2d(2 * WIDTH),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * WIDTH, WIDTH, 3, 1, 1),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(WIDTH, 1, 3, 1, 1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """The noise with the label's embedding appended."""
        maps = self.start(torch.cat([z, self.classes(labels)], dim=1)).view(-1, 2 * WIDTH, 4, 4)
        images: Tensor = self.layers(maps)
        return images


class Discriminator(nn.Module):
    """Images (N, 1, 16, 16) and labels (N,) to scores (N,): positive for real images of that digit."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, WIDTH, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(WIDTH, 2 * WIDTH, 4, 2, 1), nn.LeakyReLU(0.2)
        )
        self.score = nn.Linear(2 * WIDTH * 16, 1)
        self.classes = nn.Embedding(CLASSES, 2 * WIDTH * 16)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """A projection on the label's direction (Miyato and Koyama 2018)."""
        features = self.layers(images).flatten(1)
        projection = (features * self.classes(labels)).sum(dim=1) / features.shape[1] ** 0.5
        scores: Tensor = self.score(features).squeeze(1) + projection
        return scores


class ConditionalGAN(LightningModule):
    """A GAN with the non-saturating loss, a gradient penalty (R1) and a running average of its generator."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = Generator()
        self.discriminator = Discriminator()
        self.average = AveragedModel(self.generator, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)
        self.average.requires_grad_(False)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One for each network."""
        networks = (self.generator, self.discriminator)
        return [torch.optim.Adam(network.parameters(), lr=5e-4, betas=(0.0, 0.99)) for network in networks]

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """A step of the discriminator, then one of the generator."""
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        generator_optimizer, discriminator_optimizer = optimizers
        real, labels = batch
        fake = self.generator(torch.randn(len(real), LATENT_DIM, device=self.device), labels)

        score = self.discriminator(real.requires_grad_(), labels)
        loss = F.softplus(-score).mean() + F.softplus(self.discriminator(fake.detach(), labels)).mean()
        self.log("loss/discriminator", loss, prog_bar=True)
        (gradient,) = torch.autograd.grad(score.sum(), real, create_graph=True)
        discriminator_optimizer.zero_grad()
        self.manual_backward(loss + 0.1 * gradient.square().sum(dim=(1, 2, 3)).mean())
        discriminator_optimizer.step()

        loss = F.softplus(-self.discriminator(fake, labels)).mean()
        self.log("loss/generator", loss, prog_bar=True)
        generator_optimizer.zero_grad()
        self.manual_backward(loss)
        generator_optimizer.step()
        self.average.update_parameters(self.generator)


def averaged_generator(gan: ConditionalGAN) -> nn.Module:
    """The network that the monitor samples from."""
    return gan.average.module


@torch.no_grad()
def share_recognised(gan: ConditionalGAN, classifier: nn.Module, each: int = 50) -> float:
    """How many of ``each`` images per digit the classifier takes for the digit that was asked for."""
    labels = torch.arange(CLASSES).repeat_interleave(each)
    z = torch.randn(len(labels), LATENT_DIM, generator=torch.Generator().manual_seed(0))
    images = averaged_generator(gan.eval())(z, labels)
    return float((classifier(images).argmax(dim=1) == labels).float().mean())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a small conditional GAN on handwritten digits.")
    parser.add_argument("--output", type=Path, default=Path("runs/conditional"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batches", type=int, default=150, help="of an epoch; an evaluation follows each")
    parser.add_argument("--num-samples", type=int, default=1000, help="generated images per evaluation")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)  # the networks are too small for more
    seed_everything(args.seed, workers=True)
    train_set, held_out_set = digits()
    classifier = train_classifier(train_set)

    quality = QualityMonitor(
        real=train_set,
        held_out=held_out_set,
        metrics=METRICS,
        num_samples=args.num_samples,
        batch_size=250,
        labels="data",
        per_class=True,  # which digits are drawn well: tables, bars, and means over the digits
        extractors={"digits": extractor(classifier)},
        model=averaged_generator,
    )
    stopping = QualityStopping(monitor="quality/fd_digits", patience=5)
    checkpoint = QualityCheckpoint(monitor="quality/fd_digits", save_top_k=1)
    table = CSVLogger(args.output, name="")
    trainer = Trainer(max_epochs=args.epochs, logger=table, callbacks=[quality, stopping, checkpoint])
    sampler = RandomSampler(train_set, num_samples=args.batches * BATCH)
    gan = ConditionalGAN()
    trainer.fit(gan, DataLoader(train_set, BATCH, sampler=sampler))

    print_scores(quality.reports, METRICS)
    print("\ndigit  fd_digits")
    for digit, metric, value, error, _ in quality.reports[-1].tables["per_class"].rows:
        if metric == "fd_digits":
            print(f"{digit:>5}  {value:.3g} ± {error:.2g}")
    best = torch.load(checkpoint.best_model_path, map_location="cpu", weights_only=True)
    gan.load_state_dict(best["state_dict"])
    print(f"\ndigits as asked  {share_recognised(gan, classifier):.0%} of the best checkpoint's")
    print(f"best checkpoint  {checkpoint.best_model_path}")


if __name__ == "__main__":
    main()
