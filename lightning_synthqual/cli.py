"""The command ``synthqual``."""

import argparse
import json
import logging
import pickle
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lightning_synthqual.__about__ import __version__
from lightning_synthqual.evaluation.offline import evaluate
from lightning_synthqual.evaluation.report import Report
from lightning_synthqual.extractors import load, load_pair
from lightning_synthqual.extractors.registry import CATALOGUE, PAIRS, required_weights
from lightning_synthqual.extractors.weights import DIRECTORY_VARIABLE
from lightning_synthqual.importing import resolve_object
from lightning_synthqual.reporting.compare import compare
from lightning_synthqual.reporting.files import REPORTS, read_lines
from lightning_synthqual.reporting.progress import Bars

_BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Words after ``synthqual``; default: those of the process.

    Returns:
        The exit status: 0, or 2 for bad input, which also gets one line on standard error.
    """
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if parsed.verbose else logging.WARNING, format="%(message)s")
    try:
        parsed.run(parsed)
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        print(f"synthqual: {' '.join(str(error).split())}", file=sys.stderr)
        return _BAD_INPUT
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("synthqual", description="Quality of generated images.")
    parser.add_argument("--version", action="version", version=f"lightning-synthqual {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="say what is being done")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_evaluate(commands)
    comparing = commands.add_parser("compare", help="reports side by side")
    which = "report.json, or reports.jsonl (its last row) or reports.jsonl:STEP"
    comparing.add_argument("reports", nargs="+", metavar="REPORT", help=which)
    comparing.set_defaults(run=_compare)
    plotting = commands.add_parser("plot", help="learning curves of a run")
    plotting.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="a folder with reports.jsonl, at any depth")
    plotting.add_argument("--metrics", type=_words, help="comma-separated; default: all")
    plotting.add_argument("--output", type=Path, metavar="FILE", help="default: RUN_DIR/curves.png")
    plotting.set_defaults(run=_plot)
    weights = commands.add_parser("weights", help="the weights of the networks: what is there, what is missing")
    actions = weights.add_subparsers(title="actions", required=True, metavar="ACTION")
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument(
        "--weights-dir",
        metavar="DIR",
        help=f"a folder of weights by their published names; default: ${DIRECTORY_VARIABLE}, else the download folders "
        "of the libraries that the weights come from",
    )
    listing = actions.add_parser("list", parents=[folder], help="say which weights are here and which are missing")
    listing.add_argument("names", nargs="*", metavar="NAME", help="extractors or pair networks; default: all")
    listing.set_defaults(run=_list_weights)
    fetching = actions.add_parser("fetch", parents=[folder], help="download weights ahead of a run, and try them")
    fetching.add_argument("names", nargs="+", metavar="NAME", help="extractors or pair networks")
    fetching.set_defaults(run=_fetch_weights)
    return parser


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser("evaluate", help="score images, or a generator's checkpoint, against real images")
    parser.add_argument("--real", required=True, help="training images: a folder, or an .npy or .npz file")
    parser.add_argument("--held-out", help="real images that were not trained on, likewise")
    parser.add_argument("--fake", required=True, help="generated images, likewise; or with --module a checkpoint")
    parser.add_argument("--metrics", type=_words, default=("fid", "kid", "precision", "recall"), help="comma-separated")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="where report.json and .html go")
    parser.add_argument("--reference", choices=("real", "held_out"), default="real", help="what metrics compare with")
    parser.add_argument(
        "--extractor",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="the weights file of a known network, the import path of one of yours, or its configuration as JSON",
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="FAMILY.KEY=JSON", help="for example precision.k=5"
    )
    parser.add_argument("--image-size", type=_size, metavar="SIDE|HxW", help="resize the real images")
    parser.add_argument("--image-range", type=float, nargs=2, default=(-1.0, 1.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--real-range", type=float, nargs=2, metavar=("LOW", "HIGH"))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", help="default: a GPU if there is one")
    parser.add_argument("--weights-dir", metavar="DIR", help="a folder of weights by their published names")
    parser.add_argument("--cache-dir", metavar="DIR", help="where features of real images are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip-unreadable", action="store_true", help="leave out and count unreadable pictures")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    checkpoint = parser.add_argument_group("a checkpoint as --fake")
    checkpoint.add_argument("--module", metavar="PATH", help="import path of its LightningModule")
    checkpoint.add_argument("--num-samples", type=int, default=10_000)
    checkpoint.add_argument("--sampler", metavar="PATH", help="import path of a sampler(module, n, generator)")
    checkpoint.add_argument("--labels", choices=("data", "uniform"))
    parser.set_defaults(run=_evaluate)


def _evaluate(parsed: argparse.Namespace) -> None:
    parsed.output.mkdir(parents=True, exist_ok=True)  # if it cannot be written, it is better to know now
    report = evaluate(
        parsed.real,
        _load_checkpoint(parsed.fake, parsed.module) if parsed.module else parsed.fake,
        held_out=parsed.held_out,
        reference=parsed.reference,
        metrics=parsed.metrics,
        extractors=dict(_extractor(text) for text in parsed.extractor),
        options=_options(parsed.option),
        batch_size=parsed.batch_size,
        image_range=tuple(parsed.image_range),
        real_range=tuple(parsed.real_range) if parsed.real_range else None,
        image_size=parsed.image_size,
        device=parsed.device,
        weights_dir=parsed.weights_dir,
        cache_dir=parsed.cache_dir,
        seed=parsed.seed,
        num_samples=parsed.num_samples,
        sampler=resolve_object(parsed.sampler, "--sampler"),
        labels=parsed.labels,
        skip_unreadable=parsed.skip_unreadable,
        progress=None if parsed.quiet or not sys.stderr.isatty() else Bars(),
    )
    _write(report, parsed.output, f"{parsed.fake} against {parsed.real}")
    print(report)
    print(f"Written to {parsed.output / 'report.html'}")


def _write(report: Report, folder: Path, title: str) -> None:
    from lightning_synthqual.reporting.page import page

    (folder / "report.json").write_text(report.to_json() + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page(report, title), encoding="utf-8")
    for name, table in report.tables.items():
        table.write_csv(folder / f"{name}.csv")


def _load_checkpoint(path: str, module: str) -> Any:
    """The LightningModule of a checkpoint, of which nothing but plain values and tensors is read."""
    import torch

    kind = resolve_object(module, "--module")
    if not hasattr(kind, "load_from_checkpoint"):
        raise TypeError(f"`--module {module}` is no LightningModule: it has no `load_from_checkpoint`.")
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"The checkpoint `{path}` could not be read ({error}).") from error
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"The checkpoint `{path}` could not be read, or holds more than tensors and plain values "
            f"({str(error).splitlines()[0]}). Save it without such hyperparameters."
        ) from error
    return kind.load_from_checkpoint(path, map_location="cpu")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _size(text: str) -> int | tuple[int, int]:
    sides = [int(side) for side in text.lower().split("x")]
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _extractor(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not value:
        raise ValueError(f"`--extractor` takes NAME=VALUE, but got {text!r}.")
    if value.startswith("{"):
        return name, _json(value, "--extractor")
    return name, {"weights": value} if name in CATALOGUE or name in PAIRS else value


def _options(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        family, dot, option = key.partition(".")
        if not equals or not dot:
            raise ValueError(f"`--option` takes FAMILY.KEY=JSON, for example precision.k=5, but got {text!r}.")
        found.setdefault(family, {})[option] = _json(value, "--option")
    return found


def _json(text: str, argument: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"`{argument}` takes JSON (text in double quotes), but got {text!r}: {error}.") from error


def _compare(parsed: argparse.Namespace) -> None:
    titles = _unlike_parts(parsed.reports)
    reports = {title: _read_report(text) for title, text in zip(titles, parsed.reports, strict=True)}
    table, notes = compare(reports)
    _print_table([table.columns, *(tuple(map(str, row)) for row in table.rows)])
    for note in notes:
        print(note)


def _unlike_parts(paths: Sequence[str]) -> list[str]:
    """The paths without the folders that all have in common."""
    parts = [Path(path).parts for path in paths]
    if len(set(paths)) < len(paths):
        raise ValueError("A report is named twice.")
    while len(paths) > 1 and min(map(len, parts)) > 1 and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    while len(paths) > 1 and min(map(len, parts)) > 1 and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    return ["/".join(part) for part in parts]


def _read_report(text: str) -> Report:
    path, colon, step = text.rpartition(":")
    if not (colon and step.isdigit() and path.endswith(".jsonl")):
        path, step = text, ""
    lines = read_lines(Path(path)) if path.endswith(".jsonl") else [Path(path).read_text(encoding="utf-8")]
    try:
        reports = [Report.from_json(line) for line in lines]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"`{path}` is no report ({type(error).__name__}: {error}).") from error
    if step:
        reports = [report for report in reports if report.step == int(step)]
    if not reports:
        raise ValueError(f"`{path}` holds no report" + (f" of step {step}." if step else "."))
    return reports[-1]


def _plot(parsed: argparse.Namespace) -> None:
    from PIL import Image

    from lightning_synthqual.reporting.curves import curves

    everywhere = sorted(parsed.run_dir.rglob(REPORTS))
    folders = {path.parent for path in everywhere}
    found = [path for path in everywhere if folders.isdisjoint(path.parent.parents)]  # below a run: further monitors
    if len(found) != 1:
        which = f"several: {', '.join(map(str, found))}; name one's folder" if found else "no"
        raise ValueError(f"`{parsed.run_dir}` holds {which} {REPORTS}.")
    reports = [Report.from_json(line) for line in read_lines(found[0])]
    output = parsed.output or parsed.run_dir / "curves.png"
    Image.fromarray(curves(reports, parsed.metrics)).save(output)
    print(f"{len(reports)} evaluations drawn to {output}")


def _list_weights(parsed: argparse.Namespace) -> None:
    names = parsed.names or list(dict.fromkeys([*CATALOGUE, *PAIRS]))
    rows = [("NAME", "WEIGHTS", "WHERE")]
    for name in names:
        needed = required_weights(name, parsed.weights_dir)
        rows += [(name, item.filename, str(item.path or f"missing: {item.url}")) for item in needed]
        if not needed:
            rows.append((name, "none needed", ""))
    _print_table(rows)


def _fetch_weights(parsed: argparse.Namespace) -> None:
    for name in parsed.names:
        required_weights(name)  # an unknown name, before the first of many gigabytes
    for name in parsed.names:
        network = (load if _is_extractor(name) else load_pair)(name, weights_dir=parsed.weights_dir)
        where = ", ".join(str(item.path) for item in required_weights(name, parsed.weights_dir))
        print(f"{name}: {where or 'no weights needed'} (SHA-256 {network.identity.weights}, {network.identity.origin})")


def _is_extractor(name: str) -> bool:
    return name in CATALOGUE or name not in PAIRS


def _print_table(rows: Iterable[tuple[str, ...]]) -> None:
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
