"""Markdown tables of the results, and the statistics in them."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

Row = dict[str, Any]
"""One measurement: its figures, or `error`."""


def print_table(title: str, header: Sequence[str], lines: Iterable[Sequence[object]], notes: str = "") -> None:
    """Prints a table under a heading, with notes below it."""
    cells = [list(header), ["---"] * len(header), *([cell(value) for value in line] for line in lines)]
    print(f"\n## {title}\n")
    print("\n".join(f"| {' | '.join(line)} |" for line in cells))
    if notes:
        print(f"\n{notes}")


def cell(value: object) -> str:
    """Formats a value of a table; a number has about three digits."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            digits = 0 if value >= 100 or value == int(value) else 1 if value >= 10 else 2
            return f"{value:,.{digits}f}"
        case int():
            return f"{value:,}"
    return str(value)


def with_range(value: float, values: Iterable[float]) -> str:
    """Formats a value with the range of the values that it summarizes."""
    values = list(values)
    return f"{cell(value)} ({cell(min(values))} to {cell(max(values))})"


def middle(rows: Iterable[Row], figure: str) -> float | None:
    """Returns the median of a figure; None if no row has it."""
    found = [row[figure] for row in rows if row.get(figure) is not None]
    return median(found) if found else None


def percentile(values: Sequence[float], percent: int) -> float:
    """Returns a percentile of values."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def grouped(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Groups rows by the values of some keys, in the order of their first rows."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def print_problems(rows: Iterable[Row]) -> bool:
    """Prints what the rows report as failed or wrong; returns whether that is nothing."""
    good = True
    for row in rows:
        for problem in [*([row["error"]] if "error" in row else []), *row.get("wrong", [])[:40]]:
            named = ("case", "page", "history", "side", "conversations", "attack", "model", "moment", "repetition")
            print(f"- {', '.join(f'{name} {row[name]}' for name in named if name in row)}: {problem}")
            good = False
    return good
