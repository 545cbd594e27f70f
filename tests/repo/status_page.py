"""docs/reference/status.md, made from the transition table:
`python -m tests.repo.status_page > docs/reference/status.md`."""

from __future__ import annotations

import inspect
import re

from reflow._core import status
from reflow._core.status import TRANSITIONS, RunStatus

__all__ = ["page"]

_HEAD = """\
# The states of a run

<!-- Generated from reflow/_core/status.py. Write it again with:
     python -m tests.repo.status_page > docs/reference/status.md -->

A run is in one of these states; `RunInfo.status` is a `RunStatus`, which is also a `str`.
"""

_AFTER_STATES = """
A run has a lease exactly when it is `running`. `due_at` says when a run next needs a worker: for a `pending` run the
time from which it may be claimed, for a `sleeping` one the time at which it wakes, for a `running` one the time at
which its lease is over. A run that has ended has none.

## From each state, the states that may follow
"""

_AFTER_TABLE = """
From `running` to `running` is a takeover: the lease was over, and another claim has replaced it. From `running` to
`pending` a lease is given back, by an engine that stops.

From `pending` a run goes to `cancelled` where it was never claimed; any other one is woken, and cancelled by an engine
that lets its clean-up steps run. From `failed` and `cancelled` the way back is `resume`.

## The same as a diagram
"""


def page() -> str:
    """The page as it has to be."""
    return "\n".join([_HEAD, *_states(), _AFTER_STATES, *_transitions(), _AFTER_TABLE, *_diagram(), ""])


def _states() -> list[str]:
    meanings = dict(re.findall(r"^    (\w+) +(.+)$", inspect.getdoc(status) or "", re.MULTILINE))
    rows = [f"| `{state}` | {meanings[state]} | {'yes' if state.is_terminal else 'no'} |" for state in RunStatus]
    return ["| state | meaning | has ended |", "|---|---|---|", *rows]


def _transitions() -> list[str]:
    rows = [f"| `{before}` | {', '.join(f'`{after}`' for after in _after(before)) or '-'} |" for before in RunStatus]
    return ["| from | to |", "|---|---|", *rows]


def _diagram() -> list[str]:
    arrows = [f"    {before} --> {after}" for before in RunStatus for after in _after(before)]
    return ["```mermaid", "stateDiagram-v2", "    [*] --> pending", *arrows, "```"]


def _after(before: RunStatus) -> list[RunStatus]:
    return [state for state in RunStatus if state in TRANSITIONS[before]]


if __name__ == "__main__":
    print(page(), end="")
