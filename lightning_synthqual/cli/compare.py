"""``synthqual compare``: reports side by side, and how sure their differences are."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_synthqual.cli.arguments import verbose, words
from lightning_synthqual.cli.runs import find_reports, read_reports
from lightning_synthqual.evaluation.report import Report
from lightning_synthqual.reporting.compare import (
    FORMATS,
    Row,
    SideBySide,
    Value,
    explanation,
    letter,
    restricted,
    terminal,
)
from lightning_synthqual.reporting.differences import (
    Differences,
    compare,
    conditions_of,
    differences,
    differing,
    measure_of,
)

_SEEDS = (
    "Training again with another seed moves scores more than sampling does (about three times, arXiv:2606.20536); the "
    "errors here are of sampling alone."
)
_CHOSEN = "The best of several looks better than it is: chance has helped to choose it."


def add(commands: Any) -> None:
    """Add the command to those of ``synthqual``."""
    parser = commands.add_parser(
        "compare",
        help="reports side by side, with differences and how sure they are",
        description="A row per metric, and the differences of each further report from the first: B - A.",
        parents=[verbose()],
    )
    parser.add_argument(
        "reports",
        nargs="+",
        metavar="REPORT",
        help="report.json, reports.jsonl (the training's last evaluation), reports.jsonl:STEP, or the folder of a run "
        "(FOLDER:STEP)",
    )
    parser.add_argument("--metrics", type=words, help="comma-separated metrics; default: all")
    parser.add_argument("--format", choices=tuple(FORMATS), default="terminal", help="default: %(default)s")
    parser.add_argument(
        "--paired",
        action="store_true",
        help="image i of all reports is made of the same latent, though the reports do not say so: as in folders of "
        "images that several generators made of the same seeds",
    )
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> None:
    """Print the table, and below it what one has to know of it; of CSV on standard error."""
    titles = _distinct_parts(parsed.reports)
    reports = [_read_report(text) for text in parsed.reports]
    if parsed.metrics is not None:
        _check_metrics(parsed.metrics, reports)
        reports = [restricted(report, parsed.metrics) for report in reports]
    results = _differences(reports, parsed.paired)
    names = list(parsed.metrics or dict.fromkeys(name for report in reports for name in report.names))
    rows = [row for name in names for row in _rows(name, reports, results)]
    compared = SideBySide(titles, rows, _notes(reports, results, parsed.paired))
    if parsed.format == "terminal":
        print(terminal(compared, bold=sys.stdout.isatty()))
        return
    print(FORMATS[parsed.format](compared))
    if parsed.format == "csv":
        for note in compared.notes:
            print(note, file=sys.stderr)


def _check_metrics(metrics: Sequence[str], reports: Sequence[Report]) -> None:
    known = dict.fromkeys(name for report in reports for name in report.names)
    missing = [name for name in metrics if name not in known]
    if missing or not metrics:
        raise ValueError(f"The reports have no {', '.join(missing) or 'metrics'}. They have: {', '.join(known)}.")


def _differences(reports: Sequence[Report], paired: bool) -> list[Differences]:
    """Each further report minus the first.

    Raises:
        ValueError: If none has a value that was measured as one of the first was.
    """
    first, further = reports[0], reports[1:]
    results = [differences(report, first, paired=paired) for report in further]
    if further and not any(result.found for result in results):
        compare(further[0], first)  # which raises, and names what differs
    return results


def _rows(name: str, reports: Sequence[Report], results: Sequence[Differences]) -> list[Row]:
    """The rows of a metric: one for each way in which it was measured, that of the first report first."""
    measures = [json.dumps(measure_of(name, report.protocol), sort_keys=True) for report in reports]
    has = [name in report.scalars for report in reports]
    rows = []
    for measure in dict.fromkeys(each for each, known in zip(measures, has, strict=True) if known):
        own = [known and each == measure for each, known in zip(measures, has, strict=True)]
        direction = reports[own.index(True)].direction(name)
        values = [Value.of(report, name) if known else None for report, known in zip(reports, own, strict=True)]
        found = [result.found.get(name) if own[0] else None for result in results]
        rows.append(Row(name, direction, tuple(values), tuple(found)))
    return rows


def _notes(reports: Sequence[Report], results: Sequence[Differences], paired: bool) -> list[str]:
    """What one has to know of the differences, a line each."""
    if not results:
        return []
    return [
        explanation(each for result in results for each in result.found.values()),
        *_unpaired(reports, results, paired),
        *_conditions(reports, results),
        *_incomparable(results),
        _SEEDS,
        *([_CHOSEN] if len(reports) > 2 else []),
    ]


def _unpaired(reports: Sequence[Report], results: Sequence[Differences], paired: bool) -> list[str]:
    """Why differences are not paired, a line for each reason."""
    lines = []
    for reason, letters, names in _by_reason([result.unpaired for result in results]):
        every = {name for result in results for name, each in result.found.items() if each.std is not None}
        of = "" if set(names) == every else f" ({', '.join(names)})"
        lines.append(f"{letters} not paired with {letter(0)}{of}, so that errors are larger: {reason}.")
    if lines and not paired and not all(report.protocol.get("sampling") for report in reports):
        lines[-1] += " Where image i of all is made of the same latent, say `--paired`."
    return lines


def _conditions(reports: Sequence[Report], results: Sequence[Differences]) -> list[str]:
    """What differs besides the generators, a line for each report."""
    lines = []
    for place, (report, result) in enumerate(zip(reports[1:], results, strict=True), 1):
        one, other = (
            {key: value for name in result.found for key, value in conditions_of(name, each.protocol).items()}
            for each in (reports[0], report)
        )
        if one != other:
            what = differing([one, other])
            lines.append(
                f"{letter(0)} and {letter(place)} differ by more than the generator, which may move scores: {what}."
            )
    return lines


def _incomparable(results: Sequence[Differences]) -> list[str]:
    """What was not measured in the same way, a line for each difference."""
    return [
        f"{letters} measured in another way than {letter(0)}, in rows of their own: {', '.join(names)} ({what})."
        for what, letters, names in _by_reason([result.incomparable for result in results])
    ]


def _by_reason(found: Sequence[Mapping[str, Sequence[str]]]) -> list[tuple[str, str, list[str]]]:
    """Each reason with the letters of the reports that it concerns, and the names of the metrics."""
    reasons = dict.fromkeys(reason for each in found for reason in each)
    return [
        (
            reason,
            ", ".join(letter(place) for place, each in enumerate(found, 1) if reason in each),
            list(dict.fromkeys(name for each in found for name in each.get(reason, ()))),
        )
        for reason in reasons
    ]


def _distinct_parts(paths: Sequence[str]) -> list[str]:
    """The paths without the folders that all have in common."""
    parts = [Path(path).parts for path in paths]
    if len(set(parts)) < len(parts):
        raise ValueError("A report is named twice.")
    while len(paths) > 1 and min(map(len, parts)) > 1 and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    while len(paths) > 1 and min(map(len, parts)) > 1 and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    return ["/".join(part) for part in parts]


def _read_report(text: str) -> Report:
    path, step = _path_and_step(text)
    if path.is_dir():
        path = find_reports(path)
    reports = read_reports(path)
    if step is not None:
        reports = [report for report in reports if report.step == step]
    reports = [report for report in reports if report.in_fit] or reports
    if not reports:
        raise ValueError(f"`{path}` holds no report" + ("." if step is None else f" of step {step}."))
    return reports[-1]


def _path_and_step(text: str) -> tuple[Path, int | None]:
    path, colon, step = text.rpartition(":")
    if colon and step.isdigit() and not Path(text).exists():
        return Path(path), int(step)
    return Path(text), None
