"""The states of a run, and the one table of transitions between them.

Every adapter's CHECK constraint and the diagram in docs/reference/status.md are generated from here.

    pending     due, or due later; never claimed yet, or given back by an engine that stopped
    running     an engine holds the lease
    sleeping    waits for a time: a timer, or the next attempt of a step
    waiting     waits for an event or a child
    completed   has an output
    failed      has an error
    cancelled   was cancelled, and its clean-up is done

A run has a lease exactly when it is running, and `due_at` (the time at which it next needs a worker) exactly when it
is not terminal; `waiting` without a limit has none either.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["TRANSITIONS", "RunStatus", "is_allowed"]


class RunStatus(StrEnum):
    """The state of a run."""

    PENDING = "pending"
    RUNNING = "running"
    SLEEPING = "sleeping"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    is_terminal: bool
    """Whether the run has ended: only `resume` leads out of it."""

    def __init__(self, name: str) -> None:
        # Kept, because it is asked for often, and to name a member takes Python 3.11 a while.
        self.is_terminal = name in ("completed", "failed", "cancelled")


_S = RunStatus

TRANSITIONS: dict[RunStatus, frozenset[RunStatus]] = {
    _S.PENDING: frozenset({_S.RUNNING, _S.CANCELLED}),
    # Running to running is a takeover; to pending, a lease given back.
    _S.RUNNING: frozenset(_S),
    _S.SLEEPING: frozenset({_S.RUNNING, _S.PENDING, _S.CANCELLED}),
    _S.WAITING: frozenset({_S.RUNNING, _S.PENDING, _S.CANCELLED}),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset({_S.PENDING}),
    _S.CANCELLED: frozenset({_S.PENDING}),
}
"""From each state, the states that may follow."""


def is_allowed(before: RunStatus, after: RunStatus) -> bool:
    """Whether a run may go from `before` to `after`."""
    return after in TRANSITIONS[before]
