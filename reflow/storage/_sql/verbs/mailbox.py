"""The mailbox of a run: what is sent to it, and whom that wakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.json import decode

from reflow._core.journal import Message, MessageKind
from reflow._core.status import RunStatus
from reflow.storage._sql.session import Database
from reflow.storage._sql.verbs.rows import MESSAGE, marks, message_of, padded
from reflow.storage.records import Ending, RunRow, RunSignal

__all__ = [
    "Origin",
    "alive",
    "check_runs",
    "get_messages",
    "has_any_message",
    "put_message",
    "send_message",
    "tell_parent",
    "wake",
]

_ALIVE = "select id from reflow_run where run_id = ? and ended_at is null"
_WAKE = """update reflow_run set due_at = ? where id = ? and lease_id is null
    and (due_at is null or due_at > ?)"""
# What it awaits may be long, and does not matter where it is held or due already: then it is not to be woken.
_NUMBER = """update reflow_run set last_message = last_message + 1 where id = ? returning last_message,
    case when lease_id is null and (due_at is null or due_at > ?) then awaits end"""
_PUT = f"insert into reflow_message (run, {MESSAGE}) values (?, {marks(MESSAGE)})"
_NAMES = "select kind, name from reflow_message where run = ?"
_REMEMBER = "insert into reflow_message_id (run, message_id) values (?, ?) on conflict do nothing"
_AFTER = f"""select {MESSAGE} from reflow_message where run = (select id from reflow_run where run_id = ?) and seq > ?
    order by seq"""
_NEWS = """select run_id, cancel_requested, last_message, exists (select 1 from reflow_message where run = id)
    from reflow_run where run_id in"""


class Origin(NamedTuple):
    """By whom a run was started, and where; two times None for most runs."""

    parent: str | None
    parent_position: str | None


def alive(db: Database, run_id: str | None) -> int | None:
    """The row of a run that has not ended."""
    row = db.execute(_ALIVE, (run_id,)).fetchone()
    return row[0] if row else None


def wake(db: Database, run: int, now: int) -> None:
    """Make a run due, unless somebody holds it or it was due before."""
    db.execute(_WAKE, (now, run, now))


def put_message(
    db: Database, run: int, now: int, kind: MessageKind, name: str, payload: bytes, status: RunStatus | None
) -> None:
    """Put a message into the mailbox of a run, and wake it where it awaits that."""
    seq, awaits = db.execute(_NUMBER, (run, now)).fetchone()
    db.execute(_PUT, (run, seq, kind, name, payload, status))
    if awaits and [kind, name] in decode(awaits):
        wake(db, run, now)


def has_any_message(db: Database, run: int, names: Sequence[tuple[MessageKind, str]]) -> bool:
    """Whether a message of one of these kinds and names is in the mailbox."""
    wanted = set(names)
    return bool(wanted) and any(name in wanted for name in db.execute(_NAMES, (run,)))


def tell_parent(db: Database, origin: Origin, now: int, ended: RunRow | Ending) -> None:
    """Tell the parent of a run, where there is one, how it ended."""
    if origin.parent is not None and (run := alive(db, origin.parent)) is not None:
        payload = ended.output if ended.status is RunStatus.COMPLETED else ended.error
        put_message(db, run, now, MessageKind.CHILD, origin.parent_position or "", payload or b"", ended.status)


def get_messages(db: Database, run_id: str, after: int) -> list[Message]:
    """Clauses I."""
    return [message_of(row) for row in db.execute(_AFTER, (run_id, after))]


def send_message(db: Database, run_id: str, name: str, payload: bytes, now: int, message_id: str | None) -> bool:
    """Clauses J."""
    run = alive(db, run_id)
    if run is None:
        return False
    if message_id is None or db.execute(_REMEMBER, (run, message_id)).rowcount:
        put_message(db, run, now, MessageKind.EVENT, name, payload, None)
    return True


def check_runs(db: Database, run_ids: Sequence[str]) -> list[RunSignal]:
    """Clauses L."""
    marks, bound = padded(run_ids)
    news = {run_id: row for run_id, *row in db.execute(f"{_NEWS} ({marks})", bound)}
    known = ((run_id, news[run_id]) for run_id in run_ids if run_id in news)
    return [
        RunSignal(run_id, requested != 0, last) for run_id, (requested, last, has_any) in known if requested or has_any
    ]
