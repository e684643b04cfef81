"""What several commands print."""

from collections.abc import Iterable


def print_table(rows: Iterable[tuple[str, ...]]) -> None:
    """Print rows in columns as wide as their widest cells."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())
