"""All commands at a glance, and those that the engine performs.

    yielded                kind             performed by                                     gives
    step(...)              step             the engine: runs the body, records its outcome   the body's return value
    sleep, sleep_until     sleep            the engine: a stored timer                       None
    wait_event(...)        wait_event       the engine: takes what is sent to the run        the payload
    now()                  now              the engine: reads the clock, once                datetime
    a call                 child            the engine: starts a run and waits for its end   its result
    spawn(call)            spawn            the engine: starts a run                         its id
    new_uuid()             new_uuid         replay itself, from run id and position          UUID
    new_random()           new_random       replay itself                                    random.Random
    patched(...)           patched          replay itself, from the journal                  bool
    gather(...)            gather           replay itself: opens its members                 tuple in argument order
    race(...)              race             replay itself: opens its members                 Winner
    continue_as_new(call)  continue_as_new  replay itself: ends the body                     nothing, ever

Only what the engine performs leaves an outcome in the journal; the others follow from what is there.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeAlias, assert_never

from reflow._core.definition import Call
from reflow._core.runs import Spawn
from reflow._core.steps import Step
from reflow._core.values import Now
from reflow._core.waits import Sleep, WaitEvent

__all__ = ["Performed", "result_type"]

Performed: TypeAlias = Step[Any] | Sleep | WaitEvent[Any] | Now | Call[Any] | Spawn
"""Commands that the engine performs, and that leave entries."""


def result_type(command: Performed) -> Any:
    """The type as which the outcome of `command` is read."""
    match command:
        case Step():
            return command.body.result_type
        case Sleep():
            return None
        case WaitEvent():
            return command.type
        case Now():
            return datetime
        case Call():
            return command.workflow.output_type
        case Spawn():
            return str
        case _:
            assert_never(command)
