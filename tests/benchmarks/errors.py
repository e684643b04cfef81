"""How honest standard errors are: reported ones over the spread of the values, in five settings.

    python tests/benchmarks/errors.py [--draws 60] [--threads 1]

Training, held-out and generated rows are drawn again and again from known distributions. A ratio of 1 means that the
reported error (root mean square over the draws) is the spread (standard deviation over the draws). A dash marks a value
that is the same in each draw. With 60 draws a ratio is known to about a tenth of itself.
"""

import argparse
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_synthqual.metrics.base import as_scores
from lightning_synthqual.metrics.manifold import DensityCoverageMetric, PrecisionRecallMetric
from lightning_synthqual.metrics.memorization import RealNeighbors

MEMORIZATION = (
    "train_distance",
    "held_out_distance",
    "null_distance",
    "closer_to_train",
    "copy_fraction",
    "copy_excess",
    "train_held_out_ratio",
    "authenticity",
)
MANIFOLD = ("precision", "recall", "density", "coverage")
NARROWER = 0.9  # scale of the generated rows
Values = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Setting:
    """Numbers of rows, dimensions, and whether rows have five tight modes or are one Gaussian."""

    train: int
    held_out: int
    generated: int
    dimensions: int
    modes: bool = False

    def __str__(self) -> str:
        kind = "five modes" if self.modes else "Gaussian"
        return f"{self.train} / {self.held_out} / {self.generated}, {self.dimensions}-D, {kind}"

    def rows(self, count: int, generator: torch.Generator, scale: float = 1.0) -> Tensor:
        """New rows (count, dimensions)."""
        noise = scale * torch.randn(count, self.dimensions, generator=generator)
        if not self.modes:
            return noise
        centres = 6 * torch.randn(5, self.dimensions, generator=torch.Generator().manual_seed(9))
        return centres[torch.randint(5, (count,), generator=generator)] + 0.3 * noise


SETTINGS = (
    Setting(200, 200, 200, 8),
    Setting(200, 200, 2000, 8),
    Setting(2000, 300, 300, 8),
    Setting(300, 300, 600, 32),
    Setting(200, 200, 600, 8, modes=True),
)


def measure(train: Tensor, held_out: Tensor, fake: Tensor) -> Values:
    """Values and their standard errors by name."""
    found = RealNeighbors(train, held_out, "euclidean", 2, 0).compare(fake)
    values = {name: (float(getattr(found.scalars, name)), float(found.influences[name].std)) for name in MEMORIZATION}
    for metric in (PrecisionRecallMetric("precision_recall"), DensityCoverageMetric("density_coverage")):
        scores = as_scores(metric, metric.score(metric.prepare(train), fake)).values
        values |= {
            name: (float(score.value), float(score.error)) for name, score in scores.items() if score.error is not None
        }
    return values


def ratios(setting: Setting, draws: int, generator: torch.Generator) -> dict[str, float | None]:
    """Reported over empirical standard error by name; ``None`` where the value never changes."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _ in range(draws):
        train, held_out = (setting.rows(count, generator) for count in (setting.train, setting.held_out))
        for name, pair in measure(train, held_out, setting.rows(setting.generated, generator, NARROWER)).items():
            found[name].append(pair)
    result: dict[str, float | None] = {}
    for name, pairs in found.items():
        values, errors = torch.tensor(pairs, dtype=torch.float64).T
        spread = float(values.std())
        result[name] = float(errors.square().nanmean().sqrt()) / spread if spread > 0 else None
    return result


def main() -> None:
    """Print a table with a row for each setting."""
    parser = argparse.ArgumentParser(description="Compare reported standard errors with the spread of the values.")
    parser.add_argument("--draws", type=int, default=60, help="of each setting")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(0)
    names = (*MEMORIZATION, *MANIFOLD)
    print("| train / held-out / generated | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    for setting in SETTINGS:
        found = ratios(setting, arguments.draws, generator)
        cells = [f"{value:.2f}" if (value := found.get(name)) is not None else "-" for name in names]
        print(f"| {setting} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
