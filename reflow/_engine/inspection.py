"""What runs and schedules look like from outside: plain values, copies of what is stored."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

from anyio.lowlevel import checkpoint
from msgspec import Struct

from reflow._core.duration import from_micros
from reflow._core.journal import ENTRIES_AT_ONCE, NEVER, Entry, Journal, Timer
from reflow._core.schedule import Recurrence
from reflow._core.status import RunStatus
from reflow.codec import Codec
from reflow.errors import ConfigError, Failure, SerializationError
from reflow.storage.records import Page, RunCounts, RunRow, ScheduleRow

__all__ = [
    "EntryInfo",
    "EntryStatus",
    "RunInfo",
    "RunPage",
    "RunSummary",
    "ScheduleInfo",
    "Statistics",
    "describe_entry",
    "describe_page",
    "describe_run",
    "describe_schedule",
    "describe_statistics",
]

_Read: TypeAlias = Callable[[bytes | None, Any, str], Any]

EntryStatus: TypeAlias = Literal["completed", "failed", "sleeping", "waiting", "retrying"]


class EntryInfo(Struct, frozen=True):
    """One line of a run's journal, or a command that is not settled yet.

    `status` is `completed` or `failed`; or, of what is not settled, `sleeping` (a sleep), `waiting` (for an event or a
    child) or `retrying` (a step between two attempts), with `due_at` saying until when (None: without limit). `error`
    is the failure, of a retrying step the last one.
    """

    position: str
    kind: str
    name: str
    status: EntryStatus
    attempts: int
    started_at: datetime
    finished_at: datetime | None
    due_at: datetime | None
    value: Any
    error: Failure | None


class RunSummary(Struct, frozen=True, kw_only=True):
    """A run without its journal, as `list_runs` gives it.

    `due_at` is when the run next needs a worker; None once it has ended, and while it waits without limit.
    `updated_at` is the time of the last change of status. `executions` counts how often an engine has claimed it.
    """

    run_id: str
    workflow: str
    version: int
    status: RunStatus
    error: Failure | None
    priority: int
    tags: tuple[str, ...]
    idempotency_key: str | None
    parent: str | None
    is_cancel_requested: bool
    due_at: datetime | None
    executions: int
    created_at: datetime
    updated_at: datetime


class RunInfo(RunSummary, frozen=True, kw_only=True):
    """A run and its journal, as `get_run` gives them."""

    input: Any
    output: Any
    entries: tuple[EntryInfo, ...]


class RunPage(Struct, frozen=True):
    """Some runs, those created last first, and the `cursor` with which `list_runs` goes on (None: that was all)."""

    runs: tuple[RunSummary, ...]
    cursor: str | None


class Statistics(Struct, frozen=True):
    """How much there is, and how far behind the workers are.

    `runs` counts by workflow and status. `next_due_at` is when the first run is due, `behind_s` for how many seconds it
    has been due by now. `slots_used` and `slots_free` are those of this engine, None for a client. `commits` counts
    those of this process since it opened the storage, None where the storage does not tell.
    """

    runs: dict[str, dict[RunStatus, int]]
    next_due_at: datetime | None
    behind_s: float
    slots_used: int | None
    slots_free: int | None
    commits: int | None


class ScheduleInfo(Struct, frozen=True, kw_only=True):
    """A schedule as it is stored. `every` or `cron` is set; `version` is None where each run has the latest that the
    engine knows which starts it. `last_run_id` is the last run that was started, None before the first."""

    key: str
    workflow: str
    version: int | None
    input: Any
    every: timedelta | None
    cron: str | None
    tz: str
    missed: str
    overlap: str
    next_at: datetime | None
    is_paused: bool
    last_run_id: str | None
    created_at: datetime
    updated_at: datetime


async def describe_run(row: RunRow, journal: Journal, output_type: Any, codec: Codec) -> RunInfo:
    """`row` and `journal` in plain values, the output as an `output_type`.

    `SerializationError`, naming run and place, where what is stored cannot be read or does not fit that type.
    """
    with _naming(owner := f"run {row.run_id!r}"):
        read = _reader(owner, codec)
        entries: list[EntryInfo] = []
        for first in range(0, len(journal.entries), ENTRIES_AT_ONCE):
            await checkpoint()
            entries += (_settled(entry, read) for entry in journal.entries[first : first + ENTRIES_AT_ONCE])
        return RunInfo(
            **_summary(row, read),
            input=read(row.input, Any, "the input"),
            output=read(row.output, output_type, "the output"),
            entries=(*entries, *(_unsettled(timer, read) for timer in journal.timers)),
        )


def describe_page(page: Page, codec: Codec) -> RunPage:
    """The runs of a page in plain values."""
    return RunPage(tuple(_described(row, codec) for row in page.rows), page.cursor)


def _described(row: RunRow, codec: Codec) -> RunSummary:
    with _naming(owner := f"run {row.run_id!r}"):
        return RunSummary(**_summary(row, _reader(owner, codec)))


def describe_entry(run_id: str, entry: Entry, codec: Codec) -> EntryInfo:
    """An entry in plain values."""
    with _naming(owner := f"run {run_id!r}"):
        return _settled(entry, _reader(owner, codec))


def describe_statistics(counts: RunCounts, now: int, slots: tuple[int, int] | None, commits: int | None) -> Statistics:
    """Counts in plain values; `slots` are those used and those free."""
    runs: dict[str, dict[RunStatus, int]] = {}
    for count in counts.counts:
        runs.setdefault(count.workflow, {})[count.status] = count.count
    behind_us = 0 if counts.next_due_at is None else max(0, now - counts.next_due_at)
    used, free = slots or (None, None)
    return Statistics(runs, _moment(counts.next_due_at), behind_us / 1_000_000, used, free, commits)


def describe_schedule(row: ScheduleRow, codec: Codec) -> ScheduleInfo:
    """A schedule in plain values."""
    with _naming(owner := f"schedule {row.key!r}"):
        recurrence = Recurrence.parse(row.recurrence)
        assert recurrence.every is None or isinstance(recurrence.every, timedelta), "kept as a timedelta"
        return ScheduleInfo(
            key=row.key,
            workflow=row.workflow,
            version=row.version,
            input=_reader(owner, codec)(row.input, Any, "the input"),
            every=recurrence.every,
            cron=recurrence.cron,
            tz=recurrence.tz,
            missed=row.missed,
            overlap=row.overlap,
            next_at=_moment(row.next_at),
            is_paused=row.paused,
            last_run_id=row.last_run_id,
            created_at=from_micros(row.created_at),
            updated_at=from_micros(row.updated_at),
        )


@contextmanager
def _naming(owner: str) -> Generator[None]:
    """Inside `with`, what is stored of `owner` is read, and may be damaged."""
    try:
        yield
    except OverflowError:
        raise SerializationError(f"an instant of {owner}", "it lies beyond the calendar") from None
    except ConfigError as error:
        raise ConfigError(f"{owner}: {error}") from None


def _reader(owner: str, codec: Codec) -> _Read:
    def read(data: bytes | None, type: Any, what: str) -> Any:
        try:
            return None if data is None else codec.decode(data, type)
        except SerializationError as error:
            raise error.about(f"{what} of {owner}") from None

    return read


def _summary(row: RunRow, read: _Read) -> dict[str, Any]:
    return {
        "run_id": row.run_id,
        "workflow": row.workflow,
        "version": row.version,
        "status": row.status,
        "error": read(row.error, Failure, "the error"),
        "priority": row.priority,
        "tags": row.tags,
        "idempotency_key": row.idempotency_key,
        "parent": row.parent,
        "is_cancel_requested": row.cancel_requested,
        "due_at": _moment(row.due_at),
        "executions": row.executions,
        "created_at": from_micros(row.created_at),
        "updated_at": from_micros(row.updated_at),
    }


def _settled(entry: Entry, read: _Read) -> EntryInfo:
    what = f"the outcome of {entry} at position {entry.position}"
    return EntryInfo(
        position=entry.position,
        kind=entry.kind,
        name=entry.name,
        status="failed" if entry.failed else "completed",
        attempts=entry.attempts,
        started_at=from_micros(entry.started_at),
        finished_at=from_micros(entry.recorded_at),
        due_at=None,
        # Cancels and marks say all by being there.
        value=None if entry.failed else read(entry.payload or None, Any, what),
        error=read(entry.payload, Failure, what) if entry.failed else None,
    )


def _unsettled(timer: Timer, read: _Read) -> EntryInfo:
    return EntryInfo(
        position=timer.position,
        kind=timer.kind,
        name=timer.name,
        status="retrying" if timer.attempts else "sleeping" if timer.kind == "sleep" else "waiting",
        attempts=timer.attempts,
        started_at=from_micros(timer.started_at),
        finished_at=None,
        due_at=_moment(timer.due_at),
        value=None,
        error=read(timer.failure, Failure, f"the last failure of {timer} at position {timer.position}"),
    )


def _moment(instant: int | None) -> datetime | None:
    return None if instant is None or instant == NEVER else from_micros(instant)
