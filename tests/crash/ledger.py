"""The faults that tests really caused, and the bugs that tests caught: the tables that `nox -s crash` prints when its
tests are over.

A test calls `fired` after the fault has happened, and `caught` after the bug was found, never before: what is planned
and does not come to pass is not counted. Tests come in two forms, chosen by `REFLOW_CRASH`: the short one is part of
every run of the suite, the long one (`nox -s crash -- long`) does the same more often.
"""

from __future__ import annotations

import os
from collections import Counter

__all__ = ["caught", "fired", "scaled", "tables"]

_fired: Counter[tuple[str, str]] = Counter()
_caught: set[tuple[str, str, str]] = set()


def fired(kind: str, where: str, times: int = 1) -> None:
    """Count faults: of what kind, such as "SIGKILL", and where they struck, such as "between two steps"."""
    _fired[kind, where] += times


def caught(bug: str, by: str, which: str = "") -> None:
    """Count a planted bug: what it is, and the tests that found it; `which` of several of a kind. One that is found
    again, on another event loop, is still one."""
    _caught.add((bug, by, which))


def scaled(short: int, *, long: int) -> int:
    """How often to do something: `short` in every run of the suite, `long` in the long form."""
    return long if os.environ.get("REFLOW_CRASH") == "long" else short


def tables() -> dict[str, list[str]]:
    """The lines of the tables, by title; of those in which something was counted."""
    bugs = Counter((bug, by) for bug, by, _ in _caught)
    counted = {"faults that were caused": _fired, "planted bugs, and what caught them": bugs}
    return {title: _table(counts) for title, counts in counted.items() if counts}


def _table(counts: Counter[tuple[str, str]]) -> list[str]:
    """Sorted, the total last."""
    rows = [(first, second, f"{count:,}") for (first, second), count in sorted(counts.items())]
    rows.append(("all", "", f"{counts.total():,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [f"{first:<{widths[0]}}  {second:<{widths[1]}}  {count:>{widths[2]}}" for first, second, count in rows]
