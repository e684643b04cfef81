"""Trains a small style-based GAN on patches of the Moon and watches how smooth its latent space is.

It measures the Fréchet distance and perceptual path lengths: how much an image changes with a small step of its latent,
in z and in w. Takes less than five minutes on two CPU cores, needs no download and no account; with the
published networks at hand, ``--distance lpips_vgg`` measures them as the papers do.
"""

import argparse
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from lunar_gan import BATCH, GAN, LATENT_DIM, WIDTH, averaged_generator, moon_patches, print_scores
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from lightning_synthqual import QualityCheckpoint, QualityMonitor, QualityStopping

METRICS = ("fd_wavelet", "recall_wavelet", "ppl_z_full", "ppl_w_full", "ppl_w_end", "ppl2_w_end")
STYLE_DIM = 64


class Mapping(nn.Sequential):
    """Noise (N, latent_dim), of which the length does not matter, to styles w (N, 64)."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(LATENT_DIM, STYLE_DIM), nn.LeakyReLU(0.2), nn.Linear(STYLE_DIM, STYLE_DIM))

    def forward(self, z: Tensor) -> Tensor:
        """Normalise, then the layers."""
        styles: Tensor = super().forward(F.normalize(z) * z.shape[1] ** 0.5)
        return styles


class StyledLayer(nn.Module):
    """A convolution whose maps get noise, are normalised, and take scale and shift from the style."""

    def __init__(self, before: int, after: int, side: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, after, 3, 1, 1)
        self.style = nn.Linear(STYLE_DIM, 2 * after)
        self.strength = nn.Parameter(torch.full((after, 1, 1), 0.1))
        self.register_buffer("noise_const", torch.randn(side, side))  # what path lengths redraw and share

    def forward(self, maps: Tensor, w: Tensor) -> Tensor:
        """Fresh noise while training, the buffer's while evaluating."""
        noise = torch.randn_like(maps[:, :1]) if self.training else self.get_buffer("noise_const")
        maps = F.instance_norm(self.convolution(maps) + self.strength * noise)
        scale, shift = self.style(w)[:, :, None, None].chunk(2, dim=1)
        return F.leaky_relu(maps * (1 + scale) + shift, 0.2)


class Synthesis(nn.Module):
    """Styles w (N, 64) to images (N, 1, 32, 32) in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(1, 4 * WIDTH, 4, 4))
        widths = (4 * WIDTH, 4 * WIDTH, 2 * WIDTH, WIDTH)
        sides = (4, 8, 16, 32)
        self.layers = nn.ModuleList(
            StyledLayer(before, after, side)
            for before, after, side in zip((4 * WIDTH, *widths), widths, sides, strict=False)
        )
        self.to_image = nn.Conv2d(WIDTH, 1, 3, 1, 1)

    def forward(self, w: Tensor) -> Tensor:
        """From 4 pixels a side, doubled by each layer but the first."""
        maps = self.start.expand(len(w), -1, -1, -1)
        for number, layer in enumerate(self.layers):
            maps = layer(F.interpolate(maps, scale_factor=2.0, mode="bilinear") if number else maps, w)
        return torch.tanh(self.to_image(maps))


class StyleGenerator(nn.Module):
    """What the monitor needs to measure path lengths: a mapping, a synthesis, and both of them in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim = LATENT_DIM
        self.mapping = Mapping()
        self.synthesis = Synthesis()

    def forward(self, z: Tensor) -> Tensor:
        """Noise to images."""
        images: Tensor = self.synthesis(self.mapping(z))
        return images


def contrast_distance(one: Tensor, other: Tensor) -> Tensor:
    """Squared distance (N,) of images on [0, 255] and of their reductions, in place of a network's."""
    total = one.new_zeros(len(one))
    for _ in range(3):
        total = total + ((one - other) / 255).square().mean(dim=(1, 2, 3))
        one, other = F.avg_pool2d(one, 2), F.avg_pool2d(other, 2)
    return total


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a small style-based GAN on patches of the Moon.")
    parser.add_argument("--output", type=Path, default=Path("runs/style"), help="for scores, samples and checkpoints")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batches", type=int, default=128, help="of an epoch; an evaluation follows each")
    parser.add_argument("--num-samples", type=int, default=1000, help="generated images per evaluation")
    parser.add_argument("--num-pairs", type=int, default=250, help="steps per path length")
    parser.add_argument("--distance", help="lpips_vgg, lpips_alex or dreamsim; default: one without weights")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)  # a second one helps little, and slows down where other programs run
    seed_everything(args.seed, workers=True)
    train_set, held_out_set = map(TensorDataset, moon_patches())
    sampler = RandomSampler(train_set, num_samples=args.batches * BATCH)

    quality = QualityMonitor(
        real=train_set,
        held_out=held_out_set,
        metrics=METRICS,
        num_samples=args.num_samples,
        batch_size=250,
        options={"ppl": {"num_pairs": args.num_pairs, "distance": args.distance or contrast_distance}},
        model=averaged_generator,
    )
    stopping = QualityStopping(monitor="quality/fd_wavelet", patience=5)
    checkpoint = QualityCheckpoint(monitor="quality/fd_wavelet", save_top_k=1)
    table = CSVLogger(args.output, name="")
    trainer = Trainer(max_epochs=args.epochs, logger=table, callbacks=[quality, stopping, checkpoint])
    trainer.fit(GAN(StyleGenerator()), DataLoader(train_set, BATCH, sampler=sampler))

    print_scores(quality.reports, METRICS)
    best = min(quality.reports, key=lambda report: report.scalars["fd_wavelet"])
    print(f"\nbest images      {Path(table.log_dir) / 'samples' / f'step={best.step}.png'}")
    print(f"best checkpoint  {checkpoint.best_model_path}")


if __name__ == "__main__":
    main()
