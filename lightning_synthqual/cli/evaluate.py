"""``synthqual evaluate``: finished images, or a generator's checkpoint, against real images."""

import argparse
import sys
from pathlib import Path
from typing import Any

from lightning_synthqual.cli.arguments import add_weights_dir, extractor, options, size, verbose, words
from lightning_synthqual.cli.checkpoints import load_generator
from lightning_synthqual.evaluation.offline import evaluate
from lightning_synthqual.evaluation.report import Report
from lightning_synthqual.importing import resolve_object
from lightning_synthqual.reporting.files import INFLUENCES, write_influences
from lightning_synthqual.reporting.progress import Bars

_CHECKPOINTS = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")
_OF_A_CHECKPOINT = ("model", "trust_checkpoint", "num_samples", "sampler", "labels", "precision")


def add(commands: Any) -> None:
    """Add the command to those of ``synthqual``."""
    parser = commands.add_parser(
        "evaluate", help="score images, or a generator's checkpoint, against real images", parents=[verbose()]
    )
    _add_images(parser.add_argument_group("images"))
    _add_measures(parser.add_argument_group("what is measured"))
    _add_checkpoint(parser.add_argument_group("a checkpoint as --fake"))
    _add_running(parser)
    parser.set_defaults(run=run)


def _add_images(group: Any) -> None:
    group.add_argument("--real", required=True, metavar="PATH", help="training images: a folder, or .npy or .npz file")
    group.add_argument("--held-out", metavar="PATH", help="real images that were not trained on; default: none")
    group.add_argument("--fake", required=True, metavar="PATH", help="generated images; or with --module a checkpoint")
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


def _add_measures(group: Any) -> None:
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
    group.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all draws; default: %(default)s")


def _add_checkpoint(group: Any) -> None:
    group.add_argument(
        "--module",
        metavar="PATH",
        help="import path of the LightningModule, or of a function that returns the module whose weights are loaded; "
        "default: none, --fake has finished images",
    )
    group.add_argument(
        "--model",
        metavar="PATH",
        help="import path of a function from the module to the part of it to sample; default: the module",
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
        help="import path of a function (module, n, generator) -> images; default: module(z) or sample_images",
    )
    group.add_argument("--labels", choices=("data", "uniform"), help="labels to generate images of; default: none")
    group.add_argument(
        "--precision", metavar="NAME", help="precision of sampling, such as bf16-mixed; default: the checkpoint's own"
    )


def _add_running(parser: argparse.ArgumentParser) -> None:
    output = "folder for report.json, report.html and tables"
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
    given = {**of_checkpoint, "num_real": parsed.num_real}
    report = evaluate(
        parsed.real,
        fake,
        held_out=parsed.held_out,
        reference=parsed.reference,
        metrics=parsed.metrics,
        extractors=dict(map(extractor, parsed.extractors)),
        options=options(parsed.options),
        batch_size=parsed.batch_size,
        image_range=tuple(parsed.image_range),
        real_range=tuple(parsed.real_range) if parsed.real_range else None,
        image_size=parsed.image_size,
        device=parsed.device,
        weights_dir=parsed.weights_dir,
        cache_dir=parsed.cache_dir,
        cache_key=parsed.cache_key,
        cache_check=parsed.cache_check,
        num_workers=parsed.num_workers,
        seed=parsed.seed,
        skip_unreadable=parsed.skip_unreadable,
        progress=None if parsed.quiet or not sys.stderr.isatty() else Bars(),
        **{name: value for name, value in given.items() if value is not None},
    )
    (parsed.output / INFLUENCES).unlink(missing_ok=True)  # of an earlier evaluation
    (parsed.output / "report.json").write_text(report.to_json() + "\n", encoding="utf-8")
    if report.influences:
        write_influences(parsed.output / INFLUENCES, report.influences)
    print(report)
    _write_page_and_tables(report, parsed.output, f"{parsed.fake} against {parsed.real}")
    print(f"Written to {parsed.output / 'report.html'}")


def _generator(parsed: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The module to sample, and the arguments of ``evaluate`` that concern it."""
    sampler = resolve_object(parsed.sampler, "--sampler")
    model = resolve_object(parsed.model, "--model")
    loaded = load_generator(parsed.fake, parsed.module, trusted=parsed.trust_checkpoint)
    module = loaded.module if model is None else _chosen(model, loaded.module, parsed.model)
    return module, {
        "sampler": sampler,
        "num_samples": parsed.num_samples,
        "labels": parsed.labels,
        "precision": parsed.precision or loaded.precision,
    }


def _chosen(model: Any, module: Any, path: str) -> Any:
    from torch import nn

    chosen = model(module) if callable(model) else model
    if not isinstance(chosen, nn.Module):
        raise TypeError(f"`--model {path}` must return the module to sample, but returned {type(chosen).__name__}.")
    return chosen


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

    # Names of files may hold bytes that are no UTF-8.
    (folder / "report.html").write_text(page(report, title), encoding="utf-8", errors="backslashreplace")
    for name, table in report.tables.items():
        path = folder / f"{name}.csv"
        path.write_text(table.to_csv(), encoding="utf-8", errors="backslashreplace", newline="")
