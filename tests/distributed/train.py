"""A run on several processes; each writes what it found to ``<output>/rank<r>.json``."""

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_synthqual import Metric, QualityCheckpoint, QualityMonitor, QualityStopping
from lightning_synthqual.callbacks import ReportListener
from lightning_synthqual.evaluation.evaluator import Evaluator

PIXELS = 3 * 8 * 8
TRIED = 3  # calls of the sampler before the first evaluation: two images, a block that is timed, the two again
METRICS = ("fd_wavelet", "kd_pixels", "precision_wavelet", "recall_wavelet", "fd_mine", "ppl_z_full", "ppl2_w_end")


class Gan(pl.LightningModule):
    """The generator does not learn, so that every number of processes scores the same weights."""

    latent_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 16)
        self.head = nn.Linear(16, PIXELS)
        self.requires_grad_(False)
        self.critic = nn.Linear(PIXELS, 1)
        self.register_buffer("shift", torch.zeros(16))
        self.register_buffer("noise_const", torch.zeros(8, 8))

    def mapping(self, z: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(z) + self.shift)

    def synthesis(self, w: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.head(w).view(-1, 3, 8, 8) + self.noise_const)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.synthesis(self.mapping(z))

    def training_step(self, batch, batch_idx):
        self.shift.fill_(0.1 + self.global_rank)  # as BatchNorm statistics do, it differs between ranks
        return self.critic(batch[0].flatten(1)).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.critic.parameters(), 0.1)


def count_collectives() -> list[int]:
    """How often this process has spoken to the others in each evaluation."""
    counts: list[int] = []
    evaluate = Evaluator.evaluate

    def counting(self, *args, **kwargs):
        counts.append(0)
        report = evaluate(self, *args, **kwargs)
        counts.append(-1)
        return report

    def counted(function):
        def call(*args, **kwargs):
            if counts and counts[-1] >= 0:
                counts[-1] += 1
            return function(*args, **kwargs)

        return call

    Evaluator.evaluate = counting
    for name in ("all_reduce", "all_gather", "broadcast"):
        setattr(dist, name, counted(getattr(dist, name)))
    return counts


class Failing(Metric):
    """A metric that fails where it is told to."""

    def __init__(self, fails: Callable[[str], bool]) -> None:
        super().__init__("failing", extractor="wavelet")
        self.fails = fails

    def score(self, state, fake):
        if self.fails("scoring"):
            raise ArithmeticError("matrix on fire")
        return 0.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--fail-rank", type=int)
    parser.add_argument("--fail-stage", choices=["reading", "sampling", "extraction", "paths", "scoring"])
    parser.add_argument("--on-error", default="raise")
    parser.add_argument("--unwatched", action="store_true")
    parser.add_argument("--slow-logger", action="store_true")
    parser.add_argument("--unwritable", action="store_true")
    parser.add_argument("--memorization", action="store_true")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    return parser.parse_args()


def distance_that_fails(fails: Callable[[str], bool]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    calls = []

    def distance(one, other):
        calls.append(len(one))
        if fails("paths") and calls[-1] > 2 and len(calls) > 4:
            raise ZeroDivisionError("distance on fire")
        return (one - other).square().mean(dim=(1, 2, 3))

    return distance


class SlowLogger(pl.loggers.CSVLogger):
    """Takes its time over what the monitor writes."""

    def save(self):
        time.sleep(3 if self.slow else 0)
        super().save()

    slow = False


def time_publishing(quality: QualityMonitor) -> list[float]:
    """How many seconds this process spends on each report once it is made."""
    seconds: list[float] = []
    publish = quality._publish

    def timed(*args, **kwargs):
        started = time.perf_counter()
        SlowLogger.slow = True
        publish(*args, **kwargs)
        SlowLogger.slow = False
        seconds.append(time.perf_counter() - started)

    quality._publish = timed
    return seconds


class Listener(ReportListener, pl.Callback):
    def __init__(self) -> None:
        self.failures: list[str] = []

    def on_quality_failure(self, trainer, prefix, error) -> None:
        self.failures.append(str(error))


def make_logger(args: argparse.Namespace) -> pl.loggers.CSVLogger | bool:
    if args.unwritable:  # no file of this name can be made
        (args.output / "reports.jsonl").mkdir(exist_ok=True)
        return False
    return (SlowLogger if args.slow_logger else pl.loggers.CSVLogger)(args.output)


def memorization(images: torch.Tensor) -> dict:
    held_out = TensorDataset(images.flip(0)[:53].roll(1, -1))
    return {"held_out": held_out, "metrics": (*METRICS, "memorization_mine", "pairs_mine")}


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    pl.seed_everything(0, verbose=False)

    images = torch.rand(101, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    calls = {"sampling": 0}

    def this_rank_fails(stage: str) -> bool:
        return args.fail_stage == stage and args.fail_rank == module.global_rank

    class Data(TensorDataset):
        def __getitem__(self, index):
            if this_rank_fails("reading"):
                raise OSError("disk on fire")
            return super().__getitem__(index)

    class Network(nn.Module):
        def forward(self, images):
            if len(images) > 2 and this_rank_fails("extraction") and calls["sampling"] > TRIED:
                raise MemoryError("extractor on fire")
            return images.float().flatten(1)[:, ::16]

    def sampler(sampled, n, generator):
        calls["sampling"] += 1
        if this_rank_fails("sampling") and calls["sampling"] > TRIED:
            raise ValueError("sampler on fire")
        return sampled(torch.randn(n, 4, generator=generator))

    failing = [Failing(this_rank_fails)] if args.fail_stage == "scoring" else []
    collectives = count_collectives()
    module = Gan()
    quality = QualityMonitor(
        real=Data(images),
        **memorization(images) if args.memorization else {"metrics": (*METRICS, *failing)},
        options={
            "pairs": {"metrics": ("psnr", "mine"), "num_images": 50},
            "feature_space": {"methods": ("pca",)},
            "ppl": {"num_pairs": 43, "distance": distance_that_fails(this_rank_fails)},
        },
        extractors={"mine": Network()},
        num_samples=90,
        batch_size=args.batch_size,
        cache_dir=args.cache,
        on_error=args.on_error,
        sampler=sampler if args.fail_stage else None,
    )
    keep = QualityCheckpoint("quality/fd_wavelet", dirpath=str(args.output / "best"))
    stop = QualityStopping("quality/fd_wavelet", patience=2)
    listener = Listener()
    trainer = pl.Trainer(
        max_epochs=args.epochs,
        accelerator="cpu",
        devices=args.devices,
        strategy="ddp" if args.devices > 1 else "auto",
        logger=make_logger(args),
        default_root_dir=args.output,
        callbacks=[] if args.unwatched else [quality, keep, stop, listener],
        enable_checkpointing=not args.unwatched,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    seconds = time_publishing(quality) if args.slow_logger else []
    found = {"error": None}
    try:
        trainer.fit(module, DataLoader(TensorDataset(images), batch_size=8, shuffle=True))
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"
    found["failures"] = listener.failures
    found["checksums"] = [report.protocol["sampling"]["weights_checksum"] for report in quality.reports]
    found["scalars"] = [report.scalars for report in quality.reports]
    found["fingerprints"] = [report.protocol["reference"]["fingerprint"] for report in quality.reports]
    found["pairs"] = [report.tables["pairs_mine"].rows for report in quality.reports if report.tables]
    found["publishing"] = seconds
    found["collectives"] = collectives
    found["shift"] = module.shift[0].item()
    found["epochs"] = trainer.current_epoch
    found["generators"] = [random.random(), np.random.rand(), torch.rand(1).item()]  # noqa: NPY002
    found["critic"] = module.critic.weight.sum().item()
    (args.output / f"rank{trainer.global_rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
