"""What type checkers see of hooks and lifecycle events. Checked by mypy --strict and pyright strict, never executed."""

from __future__ import annotations

from datetime import datetime
from typing import Any, assert_never, assert_type

from reflow import (
    Failure,
    Hook,
    LifecycleEvent,
    ReflowError,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunParked,
    RunResumed,
    RunStarted,
    ScheduleFired,
    StepCompleted,
    StepFailed,
    StepRetrying,
    StepStarted,
    Stream,
)
from reflow._engine.observers import Observers


def every_class(event: LifecycleEvent) -> str:
    assert_type(event.run_id, str)
    assert_type(event.at, datetime)
    match event:
        case RunStarted() | RunResumed() | RunParked() | RunCancelled() | ScheduleFired():
            return event.workflow
        case RunCompleted(output=value) | StepCompleted(value=value):
            assert_type(value, Any)
            return str(value)
        case RunFailed(error=error) | StepFailed(error=error) | StepRetrying(error=error):
            assert_type(error, Failure)
            return error.message
        case StepStarted():
            return event.position
        case _:
            assert_never(event)


def sync_hook(event: LifecycleEvent) -> None: ...


async def async_hook(event: LifecycleEvent) -> None: ...


async def handler(error: ReflowError) -> None: ...


class Metrics:
    def __call__(self, event: LifecycleEvent) -> None: ...


async def observed() -> None:
    hooks: list[Hook] = [sync_hook, async_hook, Metrics()]
    observers = Observers([sync_hook, async_hook, Metrics()], handler)
    stream = observers.stream(buffer=5)
    assert_type(stream, Stream)
    async for event in stream:
        assert_type(every_class(event), str)
    async with observers.stream() as stream:
        every_class(await anext(stream))
    print(hooks)


def of_failures_only(event: RunFailed) -> None: ...


def wrong() -> None:
    Observers([of_failures_only])  # type: ignore[list-item]
    Observers(sync_hook)  # type: ignore[arg-type]
    Observers([], on_error=of_failures_only)  # type: ignore[arg-type]
