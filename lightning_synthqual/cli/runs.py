"""The reports of a run on disk."""

from dataclasses import replace
from pathlib import Path

from lightning_synthqual.evaluation.report import Report
from lightning_synthqual.reporting.files import REPORTS, StoredInfluences, influences_path, read_lines

_REPORT = "report.json"  # what `synthqual evaluate` writes


def find_reports(folder: Path, names: tuple[str, ...] = (REPORTS, _REPORT)) -> Path:
    """The one file of reports in a folder, or below it at any depth.

    Args:
        folder: Folder to search.
        names: Names of such files, the preferred one first. A file in a folder below another file's folder belongs to
            a further monitor of the same run, and is left out.

    Raises:
        ValueError: If there is none, or there are several.
    """
    for name in names:
        everywhere = sorted(folder.rglob(name))
        folders = {path.parent for path in everywhere}
        found = [path for path in everywhere if folders.isdisjoint(path.parent.parents)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"`{folder}` holds several {name}: {', '.join(map(str, found))}; name one's folder.")
    raise ValueError(f"`{folder}` holds no {' and no '.join(names)}.")


def read_reports(path: Path) -> list[Report]:
    """The reports of a ``report.json`` or ``reports.jsonl``, in order.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it holds something else.
    """
    try:
        lines = read_lines(path) if path.suffix == ".jsonl" else [path.read_text(encoding="utf-8")]
        reports = [Report.from_json(line) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"`{path}` is no report ({type(error).__name__}: {error}).") from error
    return [replace(report, influences=StoredInfluences(_beside(path, report), report.scalars)) for report in reports]


def _beside(path: Path, report: Report) -> Path:
    """Where the influences of a report in a file are."""
    if path.suffix == ".jsonl":
        return influences_path(path.parent, report)
    return path.with_suffix(".influences.safetensors")
