"""Which cancel scope is the innermost: how the engine sees that a workflow body has left one open across a yield.

Entering and leaving a scope of our own around every step would tell the same, and cost a tenth of the step, on trio a
fifth. So this looks at what both libraries keep of a task. Neither promises that it stays: test_context.py in
tests/features has every way to hold a scope, on both, and fails when a new release keeps it elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from reflow.storage.loop import trio_here

__all__ = ["scope_probe"]


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
