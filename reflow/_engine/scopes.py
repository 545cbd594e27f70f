"""Where the task that runs now stands: which cancel scope is the innermost, and who has been cancelled.

By the innermost scope the engine sees that a workflow body has left one open across a yield. Entering and leaving a
scope of our own around every step would tell the same, and cost a tenth of the step, on trio a fifth. So this looks at
what both libraries keep of a task. Neither promises that it stays: test_context.py in tests/features has every way to
hold a scope, on both, and fails when a new release keeps it elsewhere.

Cancellation comes by scopes; on asyncio also by its own `cancel`, of which scopes show nothing: at the end of
`asyncio.run` all tasks are cancelled so. A task's own count of such calls does not tell whether it was: what a body
cancels by itself is counted too, with a timeout of some libraries or a scope that swallowed it. So a run goes by the
task in which the worker waits for it, where no user code runs, and which nobody cancels but to end the engine.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from anyio import current_effective_deadline, get_cancelled_exc_class, lowlevel

from reflow.storage.loop import trio_here

if TYPE_CHECKING:
    from asyncio import Task

__all__ = ["Waiting", "checkpoint_if_cancelled", "is_foreign", "scope_probe", "waiting", "waiting_here"]


class Waiting(NamedTuple):
    """A task of asyncio, and how often it had been cancelled before it waited for runs."""

    task: Task[Any]
    cancels: int


waiting: ContextVar[Waiting | None] = ContextVar("reflow_waiting", default=None)
"""Who waits for the run of this context; None on trio, and outside of runs."""


def waiting_here() -> Waiting | None:
    """The task that runs now; None on trio."""
    if trio_here() is not None:
        return None
    task = sys.modules["asyncio"].current_task()
    return Waiting(task, task.cancelling())


def is_foreign(error: BaseException) -> bool:
    """Whether it is a cancellation but not ours: user code has raised it, or awaited something that was cancelled."""
    if not isinstance(error, get_cancelled_exc_class()):
        return False
    return current_effective_deadline() > -math.inf and not _is_cancelled_by_asyncio()


async def checkpoint_if_cancelled() -> None:
    """Raise the event loop's cancellation where we were cancelled from outside: by a scope, or by asyncio's means."""
    await lowlevel.checkpoint_if_cancelled()
    if _is_cancelled_by_asyncio():
        raise get_cancelled_exc_class()


def _is_cancelled_by_asyncio() -> bool:
    if trio_here() is not None:
        return False
    who = waiting.get() or Waiting(sys.modules["asyncio"].current_task(), 0)
    return who.task.cancelling() > who.cancels


def scope_probe() -> Callable[[], object]:
    """A function that gives, for the task that runs now, what stands for its innermost cancel scope: another object
    after one was entered or left."""
    if (trio := trio_here()) is not None:
        task = trio.lowlevel.current_task()
        return lambda: task._cancel_status
    states: Any = sys.modules["anyio._backends._asyncio"]._task_states
    # There is one for every task that anyio has started, or in which a scope was entered.
    state = states[sys.modules["asyncio"].current_task()]
    return lambda: state.cancel_scope
