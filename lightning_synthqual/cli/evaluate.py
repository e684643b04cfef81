"""``synthqual evaluate``: finished images, or a generator's checkpoint, against real images."""

import argparse
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from lightning_synthqual.cli.arguments import add_weights_dir, extractor, options, size, verbose, words
from lightning_synthqual.cli.checkpoints import load_generator
from lightning_synthqual.evaluation.offline import evaluate
from lightning_synthqual.evaluation.report import Report
from lightning_synthqual.importing import resolve_object
from lightning_synthqual.reporting.files import INFLUENCES, write_influences
from lightning_synthqual.reporting.findings import findings
from lightning_synthqual.reporting.progress import Bars

_CHECKPOINTS = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")
MODULE = "import path of the LightningModule, or of a function that returns the module whose weights are loaded"
_OF_A_CHECKPOINT = ("model", "trust_checkpoint", "num_samples", "sampler", "labels", "label_format", "precision")


def add(commands: Any) -> None:
    """Add the command to those of ``synthqual``."""
    parser = commands.add_parser(
        "evaluate", help="score images, or a generator's checkpoint, against real images", parents=[verbose()]
    )
    images = parser.add_argument_group("images")
    images.add_argument("--fake", required=True, metavar="PATH", help="generated images; or with --module a checkpoint")
    add_images(images)
    add_measures(parser.add_argument_group("what is measured"))
    checkpoint = parser.add_argument_group("a checkpoint as --fake")
    checkpoint.add_argument("--module", metavar="PATH", help=f"{MODULE}; default: none, --fake has finished images")
    add_checkpoint(checkpoint)
    add_running(parser, "folder for report.json, report.html and tables")
    parser.set_defaults(run=run)


def add_images(group: Any) -> None:
    """Add the options of images that a generator is compared with."""
    group.add_argument("--real", required=True, metavar="PATH", help="training images: a folder, or .npy or .npz file")
    group.add_argument("--held-out", metavar="PATH", help="real images that were not trained on; default: none")
    inputs = "what images are made of, one item for each: a folder, or .npy or .npz file; default: nothing"
    group.add_argument("--inputs", metavar="PATH", help=inputs)
    repeat = "use items of --inputs several times where there are fewer than samples"
    group.add_argument("--repeat-inputs", action="store_true", help=repeat)
    reference = "the real images that metrics compare with; default: %(default)s"
    group.add_argument("--reference", choices=("real", "held_out"), default="real", help=reference)
    group.add_argument("--num-real", type=int, metavar="N", help="number of real images to use; default: all")
    group.add_argument("--image-size", type=size, metavar="SIDE|HxW", help="resize real images; default: leave them")
    ends = ("LOW", "HIGH")
    image_range = "span of the values of generated images that are floats; default: -1 1"
    group.add_argument("--image-range", type=float, nargs=2, default=(-1.0, 1.0), metavar=ends, help=image_range)
    real_range = "the same for real images; default: --image-range"
    group.add_argument("--real-range", type=float, nargs=2, metavar=ends, help=real_range)
    group.add_argument("--skip-unreadable", action="store_true", help="leave out and count images that cannot be read")


def add_measures(group: Any) -> None:
    """Add the options of metrics."""
    metrics = ("fid", "kid", "precision", "recall")
    listed = f"comma-separated metrics; default: {','.join(metrics)}"
    group.add_argument("--metrics", type=words, default=metrics, metavar="NAMES", help=listed)
    group.add_argument(
        "--extractor",
        dest="extractors",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="the weights file of a known network, the import path of one of yours, or its configuration as JSON; may "
        "be repeated",
    )
    group.add_argument(
        "--option",
        dest="options",
        action="append",
        default=[],
        metavar="FAMILY.KEY=JSON",
        help="option of a metric, for example precision.k=5; may be repeated",
    )
    per_class = "score by class, too; finished images need folders of the same names on both sides"
    group.add_argument("--per-class", action="store_true", help=per_class)
    group.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all draws; default: %(default)s")


def add_checkpoint(group: Any) -> None:
    """Add the options of a generator that is made from a checkpoint."""
    group.add_argument(
        "--model",
        metavar="PATH",
        help="attribute path of the part of the module to sample, such as ema.ema_model; else the import path of a "
        "function from the module to that part; default: the module",
    )
    group.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="read objects of any class from the checkpoint, such as hyperparameters: this runs the code of those "
        "classes on what the file says, so use it only for files that you trust; default: tensors and plain values",
    )
    group.add_argument("--num-samples", type=int, metavar="N", help="number of images to generate; default: 10000")
    group.add_argument(
        "--sampler",
        metavar="PATH",
        help="import path of a function (module, n, generator) -> images, with --inputs (module, batch, generator); "
        "default: module(z), module(input) or sample_images",
    )
    group.add_argument("--labels", choices=("data", "uniform"), help="labels to generate images of; default: none")
    label_format = "index: labels are numbers of classes; one_hot: rows of floats; default: index"
    group.add_argument("--label-format", choices=("index", "one_hot"), help=label_format)
    group.add_argument(
        "--precision", metavar="NAME", help="precision of sampling, such as bf16-mixed; default: the checkpoint's own"
    )


def add_running(parser: argparse.ArgumentParser, output: str) -> None:
    """Add the options of where and how it is done; ``output`` describes the folder that is written."""
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help=output)
    batch_size = "images per forward pass; default: %(default)s"
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help=batch_size)
    parser.add_argument("--device", help="for example cpu or cuda:1; default: a GPU if there is one")
    add_weights_dir(parser)
    cache_dir = "folder for features of real images; default: $XDG_CACHE_HOME/lightning_synthqual"
    parser.add_argument("--cache-dir", metavar="DIR", help=cache_dir)
    cache_key = "name of the real images in the cache; default: a fingerprint of their content"
    parser.add_argument("--cache-key", metavar="NAME", help=cache_key)
    cache_check = "full: tell real images without a fingerprint of their own by every pixel; default: %(default)s"
    parser.add_argument("--cache-check", choices=("sample", "full"), default="sample", help=cache_check)
    num_workers = "processes that read images, 0 for none; default: as many as pay"
    parser.add_argument("--num-workers", type=int, metavar="N", help=num_workers)
    parser.add_argument("--quiet", action="store_true", help="show no progress bars")


def run(parsed: argparse.Namespace) -> None:
    """Evaluate, print the scores and write the report."""
    parsed.output.mkdir(parents=True, exist_ok=True)  # if it cannot be written, it is better to know now
    fake, of_checkpoint = _generator(parsed) if parsed.module else (_finished(parsed), {})
    report = evaluate(fake=fake, **{**measuring(parsed), **of_checkpoint})
    (parsed.output / INFLUENCES).unlink(missing_ok=True)  # of an earlier evaluation
    (parsed.output / "report.json").write_text(report.to_json() + "\n", encoding="utf-8")
    if report.influences:
        write_influences(parsed.output / INFLUENCES, report.influences)
    for finding in findings(report):
        print(finding.text)
    print(f"\n{report}")
    _write_page_and_tables(report, parsed.output, f"{parsed.fake} against {parsed.real}")
    print(f"Written to {parsed.output / 'report.html'}")


def measuring(parsed: argparse.Namespace) -> dict[str, Any]:
    """The arguments of ``evaluate`` that any generated images need."""
    given = {
        "real": parsed.real,
        "held_out": parsed.held_out,
        "reference": parsed.reference,
        "metrics": parsed.metrics,
        "extractors": dict(map(extractor, parsed.extractors)),
        "options": options(parsed.options),
        "batch_size": parsed.batch_size,
        "num_real": parsed.num_real,
        "image_range": tuple(parsed.image_range),
        "real_range": tuple(parsed.real_range) if parsed.real_range else None,
        "image_size": parsed.image_size,
        "device": parsed.device,
        "weights_dir": parsed.weights_dir,
        "cache_dir": parsed.cache_dir,
        "cache_key": parsed.cache_key,
        "cache_check": parsed.cache_check,
        "num_workers": parsed.num_workers,
        "inputs": parsed.inputs,
        "repeat_inputs": parsed.repeat_inputs,
        "per_class": parsed.per_class,
        "seed": parsed.seed,
        "skip_unreadable": parsed.skip_unreadable,
        "progress": None if parsed.quiet or not sys.stderr.isatty() else Bars(),
    }
    return {name: value for name, value in given.items() if value is not None}


def sampling(parsed: argparse.Namespace, precision: str | None) -> dict[str, Any]:
    """The arguments of ``evaluate`` that concern a generator.

    Args:
        parsed: The options.
        precision: The precision in which the training sampled it, if it is known.
    """
    given = {
        "sampler": resolve_object(parsed.sampler, "--sampler"),
        "model": parsed.model,
        "num_samples": parsed.num_samples,
        "labels": parsed.labels,
        "label_format": parsed.label_format,
        "precision": parsed.precision or precision,
        "device": parsed.device or ("cuda" if torch.cuda.is_available() else "cpu"),  # not where the module was made
    }
    return {name: value for name, value in given.items() if value is not None}


def _generator(parsed: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The module to sample, and the arguments of ``evaluate`` that concern it."""
    loaded = load_generator(parsed.fake, parsed.module, trusted=parsed.trust_checkpoint)
    return loaded.module, sampling(parsed, loaded.precision)


def _finished(parsed: argparse.Namespace) -> str:
    """The path of finished images."""
    path: str = parsed.fake
    if path.lower().endswith(_CHECKPOINTS) and not Path(path).is_dir():
        raise ValueError(
            f"`--fake {path}` is a checkpoint. Say by `--module package.Gan` which LightningModule it holds, or by "
            "`--module package.make` which function returns the module."
        )
    given = [name for name in _OF_A_CHECKPOINT if getattr(parsed, name)]
    if given:
        names = ", ".join(f"`--{name.replace('_', '-')}`" for name in given)
        raise ValueError(f"{names} needs a checkpoint as `--fake` and its `--module`, but finished images are scored.")
    return path


def _write_page_and_tables(report: Report, folder: Path, title: str) -> None:
    from lightning_synthqual.reporting.page import page

    command = ["synthqual", *sys.argv[1:]]
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    # Names of files may hold bytes that are no UTF-8.
    (folder / "report.html").write_text(
        page(report, title, command=shlex.join(command), date=date), encoding="utf-8", errors="backslashreplace"
    )
    for name, table in report.tables.items():
        path = folder / f"{name}.csv"
        path.write_text(table.to_csv(), encoding="utf-8", errors="backslashreplace", newline="")
