"""The one write of an engine that advances a run."""

from __future__ import annotations

from collections.abc import Iterable
from sqlite3 import Connection

from msgspec.structs import astuple

from reflow._core.journal import MessageKind
from reflow.errors import StorageError
from reflow.storage._sqlite.verbs.endings import end
from reflow.storage._sqlite.verbs.mailbox import Origin, alive, has_any_message, put_message, tell_parent
from reflow.storage._sqlite.verbs.rows import ENTRY, TIMER, marks
from reflow.storage._sqlite.verbs.runs import create_run
from reflow.storage.records import NewRun, Progress

__all__ = ["save_progress"]

_HELD = """select id, (select max(seq) from reflow_entry where run = id), idle_claims, cancel_requested, parent,
    parent_position from reflow_run where run_id = ? and lease_id = ?"""
_APPEND = f"insert into reflow_entry (run, seq, {ENTRY}) values (?, ?, {marks(ENTRY)})"
_SET_TIMER = f"insert or replace into reflow_timer (run, {TIMER}) values (?, {marks(TIMER)})"
_DROP_TIMER = "delete from reflow_timer where run = ? and position = ?"
_CONSUME = "delete from reflow_message where run = ? and seq = ?"
_NOT_IDLE = "update reflow_run set idle_claims = 0 where id = ?"
_DELIVERED = "update reflow_run set cancel_requested = 0, cancel_delivered = 1 where id = ?"


def save_progress(db: Connection, progress: Progress) -> bool:
    """Clauses F. The fence is the first statement; the transaction holds the write lock, so it stays true."""
    held = db.execute(_HELD, (progress.lease.run_id, progress.lease.lease_id)).fetchone()
    if held is None:
        return False
    run, last, idle_claims, cancel_requested, *origin = held
    ending = progress.ending
    if ending and ending.problem:
        raise StorageError("save_progress", ending.problem)
    length = 0 if last is None else last + 1
    known = length - progress.recorded
    if known < 0:
        raise StorageError("save_progress", f"entries of run {progress.lease.run_id!r} are missing")
    added = progress.entries[known:]
    for seq, entry in enumerate(added, length):
        db.execute(_APPEND, (run, seq, *astuple(entry)))
    for timer in progress.timers:
        db.execute(_SET_TIMER, (run, *astuple(timer)))
    for position in progress.settled:
        db.execute(_DROP_TIMER, (run, position))
    if not _consume(db, run, progress.consumed) and known == 0:
        raise StorageError("save_progress", f"messages of run {progress.lease.run_id!r} are missing")
    for child in progress.children:
        _start(db, child, progress.now)
    if progress.cancel_delivered:
        db.execute(_DELIVERED, (run,))
    if ending:
        is_cancelled = cancel_requested and not progress.cancel_delivered
        end(db, run, ending, progress.now, origin=Origin(*origin), cancel_requested=is_cancelled)
    elif idle_claims and (added or progress.timers):
        db.execute(_NOT_IDLE, (run,))
    return True


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
