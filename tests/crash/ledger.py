"""The faults that tests really caused, counted by kind: the table that `nox -s crash` prints when its tests are over.

A test calls `fired` after the fault has happened, never before: what is planned and does not come to pass is not
counted. Tests come in two forms, chosen by `REFLOW_CRASH`: the short one is part of every run of the suite, the long
one (`nox -s crash -- long`) does the same more often.
"""

from __future__ import annotations

import os
from collections import Counter

__all__ = ["fired", "scaled", "table"]

_fired: Counter[tuple[str, str]] = Counter()


def fired(kind: str, where: str, times: int = 1) -> None:
    """Count faults: of what kind, such as "SIGKILL", and where they struck, such as "between two steps"."""
    _fired[kind, where] += times


def scaled(short: int, *, long: int) -> int:
    """How often to do something: `short` in every run of the suite, `long` in the long form."""
    return long if os.environ.get("REFLOW_CRASH") == "long" else short


def table() -> list[str]:
    """The lines of the table, kinds in order, the total last; nothing where no fault was counted."""
    if not _fired:
        return []
    rows = [(kind, where, f"{count:,}") for (kind, where), count in sorted(_fired.items())]
    rows.append(("all", "", f"{_fired.total():,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [f"{kind:<{widths[0]}}  {where:<{widths[1]}}  {count:>{widths[2]}}" for kind, where, count in rows]
