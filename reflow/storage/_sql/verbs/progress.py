"""The one write of an engine that advances a run.

It is what every step costs, so it is carried out for all calls of a batch together: one statement asks for all leases,
and rows of one kind are written by one statement, run many times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec.structs import astuple

from reflow._core.journal import Entry, MessageKind
from reflow.errors import StorageError
from reflow.storage._sql.session import Database
from reflow.storage._sql.verbs.endings import END, end, end_values, request_cancel
from reflow.storage._sql.verbs.journal import read_entries
from reflow.storage._sql.verbs.mailbox import Origin, alive, has_any_message, put_message, tell_parent
from reflow.storage._sql.verbs.rows import ENTRY, TIMER, marks, padded
from reflow.storage._sql.verbs.runs import create_run
from reflow.storage.records import Ending, NewRun, Progress

__all__ = ["APPEND", "DROP_TIMER", "SET_TIMER", "save_progress"]

_HELD = """select run_id, lease_id, id, (select max(seq) + 1 from reflow_entry where run = id), idle_claims,
    cancel_requested, parent, parent_position from reflow_run where lease_id is not null and run_id in"""
APPEND = f"insert into reflow_entry (run, seq, {ENTRY}) values (?, ?, {marks(ENTRY)})"
_KNOWN = f"select {ENTRY} from reflow_entry where run = ? and seq >= ? order by seq"
SET_TIMER = f"""insert into reflow_timer (run, {TIMER}) values (?, {marks(TIMER)}) on conflict (run, position)
    do update set {", ".join(f"{column} = excluded.{column}" for column in TIMER.split(", "))}"""
DROP_TIMER = "delete from reflow_timer where run = ? and position = ?"
_CONSUME = "delete from reflow_message where run = ? and seq = ?"
_NOT_IDLE = "update reflow_run set idle_claims = 0 where id = ?"
_DELIVERED = "update reflow_run set cancel_requested = 0, cancel_delivered = 1 where id = ?"


class _Held:
    """A run whose lease is held, as far as the writes of this batch have brought it."""

    __slots__ = ("cancel_requested", "id", "idle_claims", "length", "parent", "parent_position")

    def __init__(self, row: tuple[Any, ...]) -> None:
        _, _, self.id, length, self.idle_claims, self.cancel_requested, self.parent, self.parent_position = row
        self.length: int = length or 0


class _Rows:
    """Rows that are written together: entries, timers, and runs that end without concerning any other run.

    `timers` has the last word on each, by run and position: None where it goes.
    """

    __slots__ = ("_db", "ended", "entries", "timers")

    def __init__(self, db: Database) -> None:
        self._db = db
        self.entries: list[tuple[Any, ...]] = []
        self.ended: list[tuple[Any, ...]] = []
        self.timers: dict[tuple[int, str], tuple[Any, ...] | None] = {}

    def write(self) -> None:
        """Write what is here."""
        if self.entries:
            self._db.executemany(APPEND, self.entries)
            self.entries.clear()
        if self.timers:
            if there := [row for row in self.timers.values() if row is not None]:
                self._db.executemany(SET_TIMER, there)
            if gone := [place for place, row in self.timers.items() if row is None]:
                self._db.executemany(DROP_TIMER, gone)
            self.timers.clear()
        if self.ended:
            self._db.executemany(END, self.ended)
            self.ended.clear()


def save_progress(db: Database, progresses: Sequence[Progress]) -> list[bool]:
    """Clauses F. The leases are looked up first; the transaction holds the write lock, so what they say stays true."""
    marks, bound = padded([progress.lease.run_id for progress in progresses])
    found = db.execute(f"{_HELD} ({marks})", bound)
    held = {row[:2]: _Held(row) for row in found}
    rows = _Rows(db)
    answers: list[bool] = []
    for progress in progresses:
        lease = (progress.lease.run_id, progress.lease.lease_id)
        run = held.get(lease)
        answers.append(run is not None)
        if run is not None:
            answers[-1] = _advance(db, run, progress, rows)
            if progress.ending:
                del held[lease]
    rows.write()
    return answers


def _advance(db: Database, run: _Held, progress: Progress, rows: _Rows) -> bool:
    known = run.length - progress.recorded
    if known < 0:
        raise StorageError("save_progress", f"entries of run {progress.lease.run_id!r} are missing")
    added = progress.entries
    if known:
        rows.write()
        if not _is_the_same(added, read_entries(db, _KNOWN, run.id, progress.recorded)):
            return False
        added = added[known:]
    for entry in added:
        rows.entries.append((run.id, run.length, *astuple(entry)))
        run.length += 1
    for timer in progress.timers:
        rows.timers[run.id, timer.position] = (run.id, *astuple(timer))
    for position in progress.settled:
        rows.timers[run.id, position] = None
    if progress.consumed and not _consume(db, run.id, progress.consumed) and known == 0:
        raise StorageError("save_progress", f"messages of run {progress.lease.run_id!r} are missing")
    if progress.children or progress.cancelled:
        # What concerns others is done in the order of the calls.
        rows.write()
        for child in progress.children:
            _start(db, child, progress.now)
        for run_id in progress.cancelled:
            request_cancel(db, run_id, progress.now)
    if progress.cancel_delivered:
        db.execute(_DELIVERED, (run.id,))
        run.cancel_requested = 0
    if progress.ending:
        _end(db, run, progress.ending, progress.now, rows)
    elif run.idle_claims and (added or progress.timers):
        db.execute(_NOT_IDLE, (run.id,))
        run.idle_claims = 0
    return True


def _is_the_same(entries: Sequence[Entry], known: Sequence[Entry]) -> bool:
    """Whether entries and those that are in their places are the same, as far as there are some."""
    return all(entry == there for entry, there in zip(entries, known, strict=False))


def _end(db: Database, run: _Held, ending: Ending, now: int, rows: _Rows) -> None:
    is_watched = run.parent is not None if ending.status.is_terminal else run.cancel_requested
    if is_watched or ending.awaits or ending.continued:
        rows.write()
        origin = Origin(run.parent, run.parent_position)
        end(db, run.id, ending, now, origin=origin, cancel_requested=bool(run.cancel_requested))
    else:
        rows.ended.append(end_values(run.id, ending, now))


def _consume(db: Database, run: int, messages: Iterable[int]) -> bool:
    """Take messages out of the mailbox; whether all of them were there."""
    numbers = set(messages)
    return len(numbers) == sum(db.execute(_CONSUME, (run, seq)).rowcount for seq in numbers)


def _start(db: Database, child: NewRun, now: int) -> None:
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
