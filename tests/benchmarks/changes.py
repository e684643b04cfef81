"""How honest the standard errors of paired changes are, and what pairing is worth.

    python tests/benchmarks/changes.py simulate [--count 1000] [--draws 100] [--metrics fd,kd,...]
    python tests/benchmarks/changes.py run FOLDER [--metrics fd_wavelet,kd_wavelet]

``simulate`` draws real rows and latents again and again, and scores two generators that are a little apart on the same
latents. A cell is the reported error of the change (root mean square over the draws) over its spread (standard
deviation over the draws); where both generators have the same distribution, so that the true change is 0, the share of
draws whose change is beyond two of its errors is added. ``run`` reads the reports of a training: for each evaluation
the change since the one before, and how many times as many samples an independent comparison would need to be as sure.
"""

import argparse
import copy
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_synthqual.cli.runs import find_reports, read_reports
from lightning_synthqual.metrics.base import Metric, as_scores
from lightning_synthqual.metrics.difference import Difference, difference
from lightning_synthqual.metrics.frechet import FrechetDistance
from lightning_synthqual.metrics.kernel import PolynomialDistance, RbfDistance
from lightning_synthqual.metrics.manifold import DensityCoverageMetric, PrecisionRecallMetric
from lightning_synthqual.metrics.vendi import VendiScore

METRICS: dict[str, Metric] = {
    "fd": FrechetDistance("fd"),
    "kd": PolynomialDistance("kd"),
    "kd_rbf": RbfDistance("kd_rbf", sigma=4.0),
    "manifold": PrecisionRecallMetric("manifold"),
    "density": DensityCoverageMetric("density"),
    "vendi": VendiScore("vendi"),
}
COLUMNS = 16
Generator = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Setting:
    """Two generators of latents (n, 16), and the real rows.

    Args:
        name: What is shown.
        before: The generator before the change.
        after: The generator after it.
        real: Function of latents that gives real rows.
        unchanged: Whether both generators have the same distribution.
    """

    name: str
    before: Generator
    after: Generator
    real: Generator
    unchanged: bool = False


def settings(checkpoints: list[nn.Module], data: Generator) -> list[Setting]:
    """Linear and curved generators and those of a small GAN, against equal and other distributions."""
    draw = torch.Generator().manual_seed(1)
    weights, step, other = torch.randn(3, COLUMNS, COLUMNS, generator=draw) / COLUMNS**0.5
    turn = torch.linalg.matrix_exp(0.05 * (step - step.T))  # latents have the same distribution in any direction

    def linear(change: float, z: Tensor) -> Tensor:
        return z @ (weights + change * step)

    def tanh(change: float, z: Tensor) -> Tensor:
        return torch.tanh(2 * z @ (weights + change * step))

    found = []
    for name, family in (("linear", linear), ("tanh", tanh)):

        def before(z: Tensor, family: Callable[[float, Tensor], Tensor] = family) -> Tensor:
            return family(0.0, z)

        def after(z: Tensor, family: Callable[[float, Tensor], Tensor] = family) -> Tensor:
            return family(0.05, z)

        def turned(z: Tensor, family: Callable[[float, Tensor], Tensor] = family) -> Tensor:
            return family(0.0, z @ turn)

        def apart(z: Tensor, family: Callable[[float, Tensor], Tensor] = family) -> Tensor:
            return family(0.3, z) + 0.2 * other[0]

        found += [
            Setting(f"{name}, real as before", before, after, before),
            Setting(f"{name}, real apart", before, after, apart),
            Setting(f"{name}, unchanged, real equal", before, turned, before, unchanged=True),
            Setting(f"{name}, unchanged, real apart", before, turned, apart, unchanged=True),
        ]
    found += [
        Setting(f"GAN, step {500 * (i + 1)} to {500 * (i + 2)}", checkpoints[i], checkpoints[i + 1], data)
        for i in (0, len(checkpoints) - 2)
    ]
    return found


def trained() -> tuple[list[nn.Module], Generator]:
    """A small GAN after each 500 of its steps, and the data that it learns: two curved clouds."""
    torch.manual_seed(0)
    mixing = torch.randn(COLUMNS, COLUMNS) / COLUMNS**0.5
    offset = torch.randn(COLUMNS) / 2

    def data(z: Tensor) -> Tensor:
        return torch.tanh(1.5 * z @ mixing) + offset * z[:, :1].sign()

    generator = nn.Sequential(nn.Linear(COLUMNS, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, COLUMNS))
    critic = nn.Sequential(nn.Linear(COLUMNS, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2))
    critic.append(nn.Linear(64, 1))
    players = [torch.optim.Adam(each.parameters(), 5e-4, betas=(0.0, 0.99)) for each in (generator, critic)]
    checkpoints = []
    for step in range(1, 4001):
        real, fake = data(torch.randn(128, COLUMNS)).requires_grad_(), generator(torch.randn(128, COLUMNS))
        judged = critic(real)
        (slope,) = torch.autograd.grad(judged.sum(), real, create_graph=True)
        loss = nn.functional.softplus(-judged).mean() + nn.functional.softplus(critic(fake.detach())).mean()
        _step(players[1], loss + 0.5 * slope.square().sum(dim=1).mean())
        _step(players[0], nn.functional.softplus(-critic(fake)).mean())
        if step % 500 == 0:
            checkpoints.append(copy.deepcopy(generator).requires_grad_(False))
    return checkpoints, data


def _step(player: torch.optim.Optimizer, loss: Tensor) -> None:
    player.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    player.step()


def changes(setting: Setting, count: int, generator: torch.Generator, names: list[str]) -> dict[str, Difference]:
    """One draw of the real rows and the latents: the changes of all values."""
    real, latents = (torch.randn(count, COLUMNS, generator=generator) for _ in range(2))
    rows = setting.real(real)
    found = {}
    for name in names:
        metric = METRICS[name]
        state = metric.prepare(rows)
        before, after = (
            as_scores(metric, metric.score(state, each(latents))) for each in (setting.before, setting.after)
        )
        for value, score in after.values.items():
            found[value or name] = difference(score, before.values[value], paired=True)
    return found


def simulate(count: int, draws: int, names: list[str], only: str) -> None:
    """Print a table with a row for each setting whose name begins with ``only``."""
    header = False
    for setting in settings(*trained()):
        if not setting.name.startswith(only):
            continue
        generator = torch.Generator().manual_seed(0)
        found: dict[str, list[Difference]] = defaultdict(list)
        for _ in range(draws):
            for name, each in changes(setting, count, generator, names).items():
                found[name].append(each)
        if not header:
            print(f"| {count} rows, {draws} draws | " + " | ".join(found) + " |\n|" + "---|" * (len(found) + 1))
            header = True
        cells = [_cell(each, setting.unchanged) for each in found.values()]
        print(f"| {setting.name} | " + " | ".join(cells) + " |", flush=True)


def _cell(found: list[Difference], unchanged: bool) -> str:
    values = torch.tensor([each.value for each in found], dtype=torch.float64)
    errors = torch.tensor([each.std or 0.0 for each in found], dtype=torch.float64)
    spread = float(values.std())
    if spread == 0:
        return "-"
    ratio = f"{float(errors.square().mean().sqrt()) / spread:.2f}"
    beyond = (values.abs() > 2 * errors).double().mean()
    return f"{ratio}, {100 * float(beyond):.0f} %" if unchanged else ratio


def show_run(folder: Path, names: list[str]) -> None:
    """Print for each evaluation of a run its changes and what pairing is worth."""
    reports = read_reports(find_reports(folder))
    print("| step | " + " | ".join(f"{name}: change, paired z, unpaired z, samples" for name in names) + " |")
    print("|" + "---|" * (len(names) + 1))
    for before, now in pairwise(reports):
        cells = []
        for name in names:
            if f"{name}_change_std" not in now.scalars:
                cells.append("-")
                continue
            change, error = (now.scalars[f"{name}{suffix}"] for suffix in ("_change", "_change_std"))
            apart = sum(each.scalars[f"{name}_std"] ** 2 for each in (before, now)) ** 0.5
            worth = (apart / error) ** 2
            cells.append(f"{change:+.3g} ± {error:.2g}, {change / error:.1f}, {change / apart:.1f}, {worth:.1f}x")
        print(f"| {now.step} | " + " | ".join(cells) + " |")


def main() -> None:
    """Simulate, or read a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("simulate", "run"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=1000, help="real rows, and generated ones")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--only", default="", help="beginning of the names of the settings")
    parser.add_argument("--metrics", type=lambda text: text.split(","))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.what == "simulate":
        simulate(arguments.count, arguments.draws, arguments.metrics or list(METRICS), arguments.only)
    else:
        show_run(arguments.folder, arguments.metrics or ["fd_wavelet", "kd_wavelet"])


if __name__ == "__main__":
    main()
