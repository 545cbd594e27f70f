"""How executions end: by a write of the engine or by a cancellation, and how a run that has ended goes on."""

from __future__ import annotations

from reflow._core.journal import MessageKind
from reflow._core.status import RunStatus
from reflow.storage._sql.session import Database
from reflow.storage._sql.verbs.mailbox import Origin, has_any_message, tell_parent, wake
from reflow.storage._sql.verbs.rows import ENTRY, as_text
from reflow.storage.records import Continued, Ending

__all__ = ["END", "end", "end_values", "request_cancel", "resume_run"]

END = """update reflow_run set status = ?, lease_id = null, due_at = ?, updated_at = ?, ended_at = ?, output = ?,
    error = ?, awaits = ?, idle_claims = 0 where id = ?"""
_CONTINUE = """update reflow_run set workflow = ?, version = ?, rules = ?, input = ?, generation = generation + 1,
    executions = 0, cancel_delivered = 0 where id = ?"""
_FORGET = [
    f"delete from {table} where run = ?"
    for table in ("reflow_entry", "reflow_cut_entry", "reflow_timer", "reflow_outcome")
]
_FORGET_CHILDREN = f"delete from reflow_message where run = ? and kind = '{MessageKind.CHILD}'"
_STATE = """select id, status, executions, parent, parent_position from reflow_run
    where run_id = ? and ended_at is null"""
_REQUEST = """update reflow_run set cancel_requested = 1
    where id = ? and cancel_requested = 0 and cancel_delivered = 0"""
_RESUME = f"""update reflow_run set status = '{RunStatus.PENDING}', due_at = ?, updated_at = ?, ended_at = null,
    output = null, error = null, idle_claims = 0, cancel_requested = 0, cancel_delivered = 0
    where run_id = ? and generation = ? and executions = ?
    and status in ('{RunStatus.FAILED}', '{RunStatus.CANCELLED}') returning id"""
_CUT = f"""insert into reflow_cut_entry (run, cut, seq, {ENTRY})
    select run, (select coalesce(max(cut), 0) + 1 from reflow_cut_entry where run = ?), seq, {ENTRY}
    from reflow_entry where run = ? and seq >= ?"""
# An outcome without an entry stays: its body is not to be called again.
_DROP_OUTCOMES = """delete from reflow_outcome where run = ?
    and position in (select position from reflow_entry where run = ? and seq >= ?)"""
_DROP_CUT = "delete from reflow_entry where run = ? and seq >= ?"
_DROP_TIMERS = "delete from reflow_timer where run = ?"


def end(db: Database, run: int, ending: Ending, now: int, *, origin: Origin, cancel_requested: bool = False) -> None:
    """Leave a run as `ending` says; tell its parent, or look whether there is news for it already."""
    if ending.continued:
        _continue(db, run, ending.continued)
    db.execute(END, end_values(run, ending, now))
    if ending.status.is_terminal:
        tell_parent(db, origin, now, ending)
    elif cancel_requested or has_any_message(db, run, ending.awaits):
        wake(db, run, now)


def end_values(run: int, ending: Ending, now: int) -> tuple[object, ...]:
    """What is bound to `END`."""
    ended_at = now if ending.status.is_terminal else None
    return ending.status, ending.due_at, now, ended_at, ending.output, ending.error, as_text(ending.awaits), run


def _continue(db: Database, run: int, new: Continued) -> None:
    for statement in (*_FORGET, _FORGET_CHILDREN):
        db.execute(statement, (run,))
    db.execute(_CONTINUE, (new.workflow, new.version, new.rules, new.input, run))


def request_cancel(db: Database, run_id: str, now: int) -> bool:
    """Clauses K."""
    row = db.execute(_STATE, (run_id,)).fetchone()
    if row is None:
        return False
    run, status, executions, *origin = row
    if status == RunStatus.PENDING and executions == 0:
        end(db, run, Ending(RunStatus.CANCELLED), now, origin=Origin(*origin))
    elif db.execute(_REQUEST, (run,)).rowcount:
        wake(db, run, now)
    return True


def resume_run(db: Database, run_id: str, generation: int, executions: int, keep: int, now: int) -> bool:
    """Clauses M."""
    row = db.execute(_RESUME, (now, now, run_id, generation, executions)).fetchone()
    if row is None:
        return False
    [run] = row
    db.execute(_CUT, (run, run, keep))
    db.execute(_DROP_OUTCOMES, (run, run, keep))
    db.execute(_DROP_CUT, (run, keep))
    db.execute(_DROP_TIMERS, (run,))
    db.execute(_FORGET_CHILDREN, (run,))
    return True
