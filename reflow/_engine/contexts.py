"""Awaiting within a context of one's own, without a task of one's own, which is a tenth of a step."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from types import coroutine
from typing import Any, TypeVar

__all__ = ["within"]

T = TypeVar("T")


@coroutine
def within(context: Context, awaited: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """What `awaited` gives, which sees and changes the variables of `context` alone. All else of the task is shared:
    its cancel scopes, and what is thrown into it."""
    go_on: Callable[[Any], Any] = awaited.send
    given: Any = None
    while True:
        try:
            yielded = context.run(go_on, given)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            # It would be in a cycle with its own traceback.
            given = None
        try:
            given = yield yielded
            go_on = awaited.send
        except BaseException as error:
            # Thrown in below, where it is not being handled: it would become the context of what the body raises later.
            go_on, given = awaited.throw, error
