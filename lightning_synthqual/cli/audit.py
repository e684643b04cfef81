"""``synthqual audit``: which metric sees which fault, on the user's own images."""

import argparse
import sys
from pathlib import Path
from typing import Any

from lightning_synthqual.audit.faults import FAULTS
from lightning_synthqual.audit.run import audit
from lightning_synthqual.audit.verdict import verdict
from lightning_synthqual.cli.arguments import add_weights_dir, extractor, options, size, verbose, words
from lightning_synthqual.reporting.progress import Bars


def add(commands: Any) -> None:
    """Add the command to those of ``synthqual``."""
    parser = commands.add_parser(
        "audit", help="which metric sees which fault, on your own images", parents=[verbose()], epilog=_EPILOG
    )
    parser.add_argument("--real", required=True, metavar="PATH", help="real images: a folder, or .npy or .npz file")
    held_out = "real images that get the faults; default: a random half of --real, compared with the other half"
    parser.add_argument("--held-out", metavar="PATH", help=held_out)
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder for audit.json and audit.html"
    )
    names = "comma-separated extractors; default: %(default)s"
    parser.add_argument("--extractors", type=words, default="wavelet,pixels", metavar="NAMES", help=names)
    metrics = "comma-separated metrics without their extractor; default: %(default)s"
    parser.add_argument(
        "--metrics", type=words, default="fd,kd,precision,recall,coverage", metavar="NAMES", help=metrics
    )
    listed = f"comma-separated faults; default: all, {', '.join(FAULTS)}"
    parser.add_argument("--faults", type=words, metavar="NAMES", help=listed)
    parser.add_argument(
        "--num-images", type=int, metavar="N", help="number of images that get the faults; default: all"
    )
    parser.add_argument("--image-size", type=size, metavar="SIDE|HxW", help="resize the images; default: leave them")
    configuration = "weights file, import path or JSON of an extractor, as for evaluate; may be repeated"
    parser.add_argument(
        "--extractor", dest="configured", action="append", default=[], metavar="NAME=VALUE", help=configuration
    )
    option = "option of a metric, for example precision.k=5; may be repeated"
    parser.add_argument("--option", dest="options", action="append", default=[], metavar="FAMILY.KEY=JSON", help=option)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all draws; default: %(default)s")
    parser.add_argument("--device", default="cpu", help="device of the networks; default: %(default)s")
    parser.add_argument("--cache-dir", metavar="DIR", help="folder for features; default: $XDG_CACHE_HOME")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    add_weights_dir(parser)
    parser.set_defaults(run=run)


_EPILOG = (
    "Example: synthqual audit --real photos/train --held-out photos/test --extractors wavelet,dinov2 --output audit"
)


def run(parsed: argparse.Namespace) -> None:
    """Audit the metrics, write the passport and print what it says."""
    parsed.output.mkdir(parents=True, exist_ok=True)  # if it cannot be written, it is better to know now
    configured = dict(map(extractor, parsed.configured))
    found = audit(
        parsed.real,
        held_out=parsed.held_out,
        extractors={name: configured.get(name) for name in dict.fromkeys([*parsed.extractors, *configured])},
        metrics=parsed.metrics,
        faults=parsed.faults,
        num_images=parsed.num_images,
        seed=parsed.seed,
        options=options(parsed.options),
        image_size=parsed.image_size,
        device=parsed.device,
        weights_dir=parsed.weights_dir,
        cache_dir=parsed.cache_dir,
        progress=None if parsed.quiet or not sys.stderr.isatty() else Bars(),
    )
    found.save(parsed.output)
    said = verdict(found)
    print("\n".join(said.sentences))
    if said.line:
        print(f"\nRecommended: {said.line}")
    print(f"\nWritten: {parsed.output / 'audit.html'}, {parsed.output / 'audit.json'}")
