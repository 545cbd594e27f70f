"""What passes between the engine and an adapter. Field names are column names; this is where they live.

Instants are integers, microseconds since 1970 UTC. Values are bytes that no adapter looks into.
"""

from __future__ import annotations

from msgspec import Struct

from reflow._core.journal import Entry, Timer
from reflow._core.status import RunStatus

__all__ = ["Claimed", "Ending", "Lease", "NewRun", "Progress", "RunRow"]


class NewRun(Struct, frozen=True):
    """A run to be created. `rules` is the version of the replay rules it begins with."""

    run_id: str
    workflow: str
    version: int
    rules: int
    input: bytes
    due_at: int
    created_at: int


class RunRow(Struct, frozen=True):
    """A run as it is stored.

    `due_at` is when it next needs a worker: for a running one, when its lease is over. `executions` counts its claims.
    `updated_at` is the time of the last change of `status`.
    """

    run_id: str
    workflow: str
    version: int
    rules: int
    status: RunStatus
    due_at: int | None
    lease_id: str | None
    executions: int
    created_at: int
    updated_at: int
    input: bytes
    output: bytes | None
    error: bytes | None


class Lease(Struct, frozen=True):
    """The right to advance one run: every claim makes a new one."""

    run_id: str
    lease_id: str


class Claimed(Struct, frozen=True):
    """The answer to a claim: the runs, and when the next one of these workflows is due (None: nothing is waiting)."""

    runs: list[RunRow]
    next_due_at: int | None


class Ending(Struct, frozen=True):
    """How an execution ends: the state that the run is left in. The lease ends with it."""

    status: RunStatus
    due_at: int | None = None
    output: bytes | None = None
    error: bytes | None = None


class Progress(Struct, frozen=True):
    """What an engine learned about a run since it last wrote: one write, all or nothing.

    `entries` follow the `recorded` ones already in the journal. `timers` replace those at their positions; the timers
    at the positions in `settled` go. `ending` is set where the execution ends with this write.
    """

    lease: Lease
    now: int
    recorded: int
    entries: list[Entry]
    timers: list[Timer]
    settled: list[str]
    ending: Ending | None = None
