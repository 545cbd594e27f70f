"""What a run looks like from outside: plain values, copies of what is stored."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from reflow._core.definition import Workflow
from reflow._core.duration import from_micros
from reflow._core.journal import NEVER, Entry, Journal, Timer
from reflow._core.status import RunStatus
from reflow.codec import Codec
from reflow.errors import Failure, SerializationError
from reflow.storage.records import RunRow

__all__ = ["EntryInfo", "EntryStatus", "RunInfo", "describe_run"]

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


class RunInfo(Struct, frozen=True):
    """A run and its journal, as `get_run` gives them.

    `due_at` is when the run next needs a worker; None once it has ended. `updated_at` is the time of the last change
    of status. `executions` counts how often an engine has claimed it.
    """

    run_id: str
    workflow: str
    version: int
    status: RunStatus
    input: Any
    output: Any
    error: Failure | None
    due_at: datetime | None
    executions: int
    created_at: datetime
    updated_at: datetime
    entries: tuple[EntryInfo, ...]


def describe_run(row: RunRow, journal: Journal, workflow: Workflow[..., Any] | None, codec: Codec) -> RunInfo:
    """`row` and `journal` in plain values; output typed where the workflow is known.

    `SerializationError`, naming run and place, where what is stored cannot be read or does not fit that type.
    """
    output_type = workflow.output_type if workflow else Any

    def read(data: bytes | None, type: Any, what: str) -> Any:
        try:
            return None if data is None else codec.decode(data, type)
        except SerializationError as error:
            raise error.about(f"{what} of run {row.run_id!r}") from None

    return RunInfo(
        run_id=row.run_id,
        workflow=row.workflow,
        version=row.version,
        status=row.status,
        input=read(row.input, Any, "the input"),
        output=read(row.output, output_type, "the output"),
        error=read(row.error, Failure, "the error"),
        due_at=_moment(row.due_at),
        executions=row.executions,
        created_at=from_micros(row.created_at),
        updated_at=from_micros(row.updated_at),
        entries=(
            *(_settled(entry, read) for entry in journal.entries),
            *(_waiting(timer, read) for timer in journal.timers),
        ),
    )


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
        # A cancel and a mark have nothing to say.
        value=read(entry.payload, Any, what) if entry.payload and not entry.failed else None,
        error=read(entry.payload, Failure, what) if entry.failed else None,
    )


def _waiting(timer: Timer, read: _Read) -> EntryInfo:
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
