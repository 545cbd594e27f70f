"""What passes between the engine and an adapter. Field names are column names; this is where they live.

Instants are integers, microseconds since 1970 UTC. Values are bytes that no adapter looks into. What is made for every
run or step is no business of the garbage collector's: it holds data alone, so it is in no cycle.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from reflow._core.journal import Entry, MessageKind, Timer
from reflow._core.status import RunStatus

__all__ = [
    "Claimed",
    "Continued",
    "DueSchedules",
    "Ending",
    "Lease",
    "NewRun",
    "Page",
    "Progress",
    "RunCount",
    "RunCounts",
    "RunFilter",
    "RunRow",
    "RunSignal",
    "ScheduleRow",
]


class NewRun(Struct, frozen=True, gc=False):
    """A run to be created. `rules` is the version of the replay rules it begins with.

    A child names its `parent`, which is told how it ends, and the position there, under which it is told. Positions of
    different generations of the parent must differ.
    """

    run_id: str
    workflow: str
    version: int
    rules: int
    input: bytes
    due_at: int
    created_at: int
    priority: int = 0
    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None
    parent: str | None = None
    parent_position: str | None = None

    def row(self) -> RunRow:
        """The run as it is stored at first."""
        # By position: this is done for every run, and names would take twice as long.
        return RunRow(
            self.run_id, self.workflow, self.version, self.rules, RunStatus.PENDING, self.priority, self.due_at, None,
            0, 0, 0, False, False, 0, self.created_at, self.created_at, self.tags, self.idempotency_key, self.parent,
            self.parent_position, self.input, None, None,
        )  # fmt: skip


class RunRow(Struct, frozen=True, gc=False):
    """A run as it is stored.

    `due_at` is when it next needs a worker: for a running one, when its lease is over. `executions` counts its claims,
    `idle_claims` those since it last got anywhere: it grows while a run kills every process that takes it up.
    `generation` counts how often it has continued as new. `last_message` is the number of the last message it was sent,
    0 where there was none. `updated_at` is the time of the last change of `status`.
    """

    run_id: str
    workflow: str
    version: int
    rules: int
    status: RunStatus
    priority: int
    due_at: int | None
    lease_id: str | None
    executions: int
    idle_claims: int
    generation: int
    cancel_requested: bool
    cancel_delivered: bool
    last_message: int
    created_at: int
    updated_at: int
    tags: tuple[str, ...]
    idempotency_key: str | None
    parent: str | None
    parent_position: str | None
    input: bytes
    output: bytes | None
    error: bytes | None

    def is_same_child(self, new: NewRun) -> bool:
        """Whether this run is what `new` would have created, at the same place of the same parent."""
        ids = (new.run_id, new.parent, new.parent_position)
        return (self.run_id, self.parent, self.parent_position) == ids


class Lease(Struct, frozen=True, gc=False):
    """The right to advance one run: every claim makes a new one."""

    run_id: str
    lease_id: str


class Claimed(Struct, frozen=True):
    """The answer to a claim: the runs, and when the next one of these workflows is due (None: nothing is waiting)."""

    runs: list[RunRow]
    next_due_at: int | None


class Continued(Struct, frozen=True, gc=False):
    """What a run goes on as, with an empty journal."""

    workflow: str
    version: int
    rules: int
    input: bytes


class Ending(Struct, frozen=True, gc=False):
    """How an execution ends: the state that the run is left in. The lease ends with it.

    `awaits` names the messages, by kind and name, for which the run need not wait until it is due. With `continued` the
    run is left pending, to begin anew as that.
    """

    status: RunStatus
    due_at: int | None = None
    output: bytes | None = None
    error: bytes | None = None
    awaits: tuple[tuple[MessageKind, str], ...] = ()
    continued: Continued | None = None

    @property
    def problem(self) -> str | None:
        """Why no run can be left so; None where one can."""
        if self.status is RunStatus.RUNNING:
            return "a run cannot end as running"
        if self.status.is_terminal and (self.due_at is not None or self.awaits):
            return f"a run that is {self.status} is not due, and awaits nothing"
        if self.status in (RunStatus.PENDING, RunStatus.SLEEPING) and self.due_at is None:
            return f"a run that is {self.status} has to be due at some time"
        if self.continued and self.status is not RunStatus.PENDING:
            return f"a run that continues as new is pending, not {self.status}"
        return None


class Progress(Struct, frozen=True, gc=False):
    """What an engine learned about a run since it last wrote: one write, all or nothing.

    `entries` follow the `recorded` ones already in the journal. `timers` replace those at their positions; the timers
    at the positions in `settled` go. `ending` is set where the execution ends with this write. `consumed` are the
    numbers of the messages that the entries have taken. `children` are the runs that it starts: children, which name
    it as their parent, and others, which have none. `cancelled` are runs whose cancellation follows from the entries.
    `cancel_delivered` is set where the entries say that the run has learned of its own.
    """

    lease: Lease
    now: int
    recorded: int
    entries: list[Entry]
    timers: Sequence[Timer] = ()
    settled: Sequence[str] = ()
    ending: Ending | None = None
    consumed: Sequence[int] = ()
    children: Sequence[NewRun] = ()
    cancelled: Sequence[str] = ()
    cancel_delivered: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it only adds entries: nobody else is concerned, and nothing has to be looked up."""
        return not (
            self.ending
            or self.timers
            or self.settled
            or self.consumed
            or self.children
            or self.cancelled
            or self.cancel_delivered
        )

    @property
    def is_news(self) -> bool:
        """Whether others may have something to do because of it: a run to start or to cancel, or one that waited for
        this one."""
        ending = self.ending
        return bool(self.children or self.cancelled) or (
            ending is not None and (ending.status.is_terminal or ending.continued is not None)
        )


class RunSignal(Struct, frozen=True, gc=False):
    """There is news for a run: it is to be cancelled, or it has messages.

    `last_message` is the number of the last one that it was sent, so an engine sees whether it knows them already.
    """

    run_id: str
    cancel_requested: bool
    last_message: int


class RunFilter(Struct, frozen=True):
    """Which runs are meant: what is left out does not matter; of `statuses` one must match, of `tags` all."""

    statuses: tuple[RunStatus, ...] = ()
    workflow: str | None = None
    tags: tuple[str, ...] = ()
    parent: str | None = None


class Page(Struct, frozen=True):
    """Some of the runs that were asked for, and where the next ones begin (None: these are the last)."""

    rows: list[RunRow]
    cursor: str | None


class RunCount(Struct, frozen=True):
    """How many runs of a workflow, in whatever version, have a status."""

    workflow: str
    status: RunStatus
    count: int


class RunCounts(Struct, frozen=True):
    """How many runs there are, and when the first of all is due: how long ago says how far behind the workers are."""

    counts: list[RunCount]
    next_due_at: int | None


class ScheduleRow(Struct, frozen=True):
    """A recurrence that starts runs. `version` None: the latest that the engine knows.

    `recurrence`, `missed` and `overlap` are texts that no adapter looks into. Times are counted from `anchor_at`; the
    next one is `next_at`. `last_run_id` is the last run that was started.
    """

    key: str
    workflow: str
    version: int | None
    input: bytes
    recurrence: str
    missed: str
    overlap: str
    anchor_at: int
    next_at: int
    created_at: int
    updated_at: int
    paused: bool = False
    last_run_id: str | None = None


class DueSchedules(Struct, frozen=True):
    """Schedules that are due, and when the next one of these workflows is (None: there is none)."""

    schedules: list[ScheduleRow]
    next_due_at: int | None
