"""Columns and records: what is selected, in which order, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct, json

from reflow._core.journal import Entry, Message, MessageKind, Timer
from reflow._core.status import RunStatus
from reflow.errors import StorageError
from reflow.storage.records import RunRow, ScheduleRow

__all__ = [
    "ENTRY",
    "MESSAGE",
    "RUN",
    "SCHEDULE",
    "TIMER",
    "as_text",
    "marks",
    "message_of",
    "padded",
    "run_of",
    "schedule_of",
]


def _columns(record: type[Struct]) -> str:
    return ", ".join(record.__struct_fields__)


RUN = _columns(RunRow)
ENTRY = _columns(Entry)
TIMER = _columns(Timer)
MESSAGE = _columns(Message)
SCHEDULE = _columns(ScheduleRow)

_STATUS, _REQUESTED, _DELIVERED, _TAGS = map(
    RunRow.__struct_fields__.index, ("status", "cancel_requested", "cancel_delivered", "tags")
)
_STATUS_OF = {status.value: status for status in RunStatus}
_PAUSED = ScheduleRow.__struct_fields__.index("paused")


def marks(columns: str) -> str:
    """As many question marks as there are columns."""
    return ", ".join("?" * len(columns.split(",")))


def padded(values: Sequence[Any]) -> tuple[str, list[Any]]:
    """Marks for `in (...)` and what is bound to them: padded to a power of two, so that there are few statements to
    prepare."""
    size = 1 << (len(values) - 1).bit_length()
    return "?, " * (size - 1) + "?", [*values, *[None] * (size - len(values))]


def as_text(texts: Sequence[object]) -> str | None:
    """Several texts in one column, as JSON; null where there are none."""
    return json.encode(texts).decode() if texts else None


def run_of(row: Iterable[Any]) -> RunRow:
    """The record of a row of `RUN`."""
    values = list(row)
    try:
        values[_STATUS] = _STATUS_OF[values[_STATUS]]
    except KeyError:
        raise StorageError("read a run", f"run {values[0]!r} has the unknown status {values[_STATUS]!r}") from None
    values[_REQUESTED] = bool(values[_REQUESTED])
    values[_DELIVERED] = bool(values[_DELIVERED])
    values[_TAGS] = json.decode(values[_TAGS], type=tuple[str, ...]) if values[_TAGS] else ()
    return RunRow(*values)


def message_of(row: Iterable[Any]) -> Message:
    """The record of a row of `MESSAGE`."""
    seq, kind, name, payload, status = row
    return Message(seq, MessageKind(kind), name, payload, RunStatus(status) if status else None)


def schedule_of(row: Iterable[Any]) -> ScheduleRow:
    """The record of a row of `SCHEDULE`."""
    values = list(row)
    values[_PAUSED] = values[_PAUSED] != 0
    return ScheduleRow(*values)
