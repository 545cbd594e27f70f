"""The one write of an engine that advances a run.

It is what every step costs, so it is carried out for all calls of a batch together: one statement asks for all leases,
and rows of one kind are written by one statement, run many times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from sqlite3 import Connection
from typing import Any

from msgspec.structs import astuple

from reflow._core.journal import MessageKind
from reflow.errors import StorageError
from reflow.storage._sqlite.verbs.endings import end, request_cancel
from reflow.storage._sqlite.verbs.mailbox import Origin, alive, has_any_message, put_message, tell_parent
from reflow.storage._sqlite.verbs.rows import ENTRY, TIMER, marks
from reflow.storage._sqlite.verbs.runs import create_run
from reflow.storage.records import NewRun, Progress

__all__ = ["save_progress"]

_HELD = """select run_id, lease_id, id, (select max(seq) + 1 from reflow_entry where run = id), idle_claims,
    cancel_requested, parent, parent_position from reflow_run where lease_id is not null and run_id in"""
_APPEND = f"insert into reflow_entry (run, seq, {ENTRY}) values (?, ?, {marks(ENTRY)})"
_SET_TIMER = f"insert or replace into reflow_timer (run, {TIMER}) values (?, {marks(TIMER)})"
_DROP_TIMER = "delete from reflow_timer where run = ? and position = ?"
_CONSUME = "delete from reflow_message where run = ? and seq = ?"
_NOT_IDLE = "update reflow_run set idle_claims = 0 where id = ?"
_DELIVERED = "update reflow_run set cancel_requested = 0, cancel_delivered = 1 where id = ?"


class _Held:
    """A run whose lease is held, as far as the writes of this batch have brought it."""

    __slots__ = ("cancel_requested", "idle_claims", "length", "origin", "run")

    def __init__(self, run: int, length: int | None, idle_claims: int, cancel_requested: int, *origin: Any) -> None:
        self.run = run
        self.length = length or 0
        self.idle_claims = idle_claims
        self.cancel_requested = cancel_requested
        self.origin = origin


def save_progress(db: Connection, progresses: Sequence[Progress]) -> list[bool]:
    """Clauses F. The leases are looked up first; the transaction holds the write lock, so what they say stays true."""
    held = _held(db, [progress.lease.run_id for progress in progresses])
    appended: list[tuple[Any, ...]] = []
    answers: list[bool] = []
    for progress in progresses:
        lease = (progress.lease.run_id, progress.lease.lease_id)
        run = held.get(lease)
        answers.append(run is not None)
        if run is None:
            continue
        added = _advance(db, run, progress, appended)
        if progress.ending:
            if progress.ending.continued:
                # It empties the journal, with what this batch has for it.
                _append(db, appended)
            is_cancelled = bool(run.cancel_requested) and not progress.cancel_delivered
            end(db, run.run, progress.ending, progress.now, origin=Origin(*run.origin), cancel_requested=is_cancelled)
            del held[lease]
        elif run.idle_claims and (added or progress.timers):
            db.execute(_NOT_IDLE, (run.run,))
            run.idle_claims = 0
    _append(db, appended)
    return answers


def _held(db: Connection, run_ids: Sequence[str]) -> dict[tuple[str, str], _Held]:
    # Padded to a power of two, so that there are few statements to prepare.
    size = 1 << (len(run_ids) - 1).bit_length()
    rows = db.execute(f"{_HELD} ({', '.join('?' * size)})", (*run_ids, *[None] * (size - len(run_ids))))
    return {(run_id, lease_id): _Held(*rest) for run_id, lease_id, *rest in rows}


def _advance(db: Connection, run: _Held, progress: Progress, appended: list[tuple[Any, ...]]) -> bool:
    """Write what is new of a run, but for its entries, which are added to `appended`; whether there are some."""
    id = run.run
    if progress.ending and (problem := progress.ending.problem):
        raise StorageError("save_progress", problem)
    known = run.length - progress.recorded
    if known < 0:
        raise StorageError("save_progress", f"entries of run {progress.lease.run_id!r} are missing")
    before = run.length
    for entry in progress.entries[known:] if known else progress.entries:
        appended.append((id, run.length, *astuple(entry)))
        run.length += 1
    for timer in progress.timers:
        db.execute(_SET_TIMER, (id, *astuple(timer)))
    for position in progress.settled:
        db.execute(_DROP_TIMER, (id, position))
    if progress.consumed and not _consume(db, id, progress.consumed) and known == 0:
        raise StorageError("save_progress", f"messages of run {progress.lease.run_id!r} are missing")
    for child in progress.children:
        _start(db, child, progress.now)
    for run_id in progress.cancelled:
        request_cancel(db, run_id, progress.now)
    if progress.cancel_delivered:
        db.execute(_DELIVERED, (id,))
    return run.length > before


def _append(db: Connection, appended: list[tuple[Any, ...]]) -> None:
    if appended:
        db.executemany(_APPEND, appended)
        appended.clear()


def _consume(db: Connection, run: int, messages: Iterable[int]) -> bool:
    """Take messages out of the mailbox; whether all of them were there."""
    numbers = set(messages)
    return len(numbers) == sum(db.execute(_CONSUME, (run, seq)).rowcount for seq in numbers)


def _start(db: Connection, child: NewRun, now: int) -> None:
    row, created = create_run(db, child)
    if created or (parent := alive(db, child.parent)) is None:
        return
    name = child.parent_position or ""
    if has_any_message(db, parent, [(MessageKind.CHILD, name)]):
        return
    if not row.is_same_child(child):
        put_message(db, parent, now, MessageKind.CHILD, name, b"", None)
    elif row.status.is_terminal:
        tell_parent(db, Origin(row.parent, row.parent_position), now, row)
