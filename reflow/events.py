"""Lifecycle events: what hooks and streams see of runs.

    RunStarted ──> StepStarted ──> StepCompleted ──> ... ──> RunCompleted
        │              │   ^  └──> StepFailed                RunFailed
        │              v   │                                 RunCancelled
        │          StepRetrying
        └──> RunParked ──> RunResumed ──> ...

They tell what has just been stored, or is about to be done; of what is only replayed there is nothing to tell. A step
that is interrupted, because it lost a race or its run is cancelled, has a start and no end. An engine that dies, loses
a lease or is stopped in the midst of a step says nothing: the next one says `RunResumed`, and starts again each step
that has no outcome yet.

The word *event* alone means what is sent to a run; see `wait_event`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from reflow.errors import Failure, ReflowError

__all__ = [
    "ErrorHandler",
    "Hook",
    "LifecycleEvent",
    "RunCancelled",
    "RunCompleted",
    "RunFailed",
    "RunParked",
    "RunResumed",
    "RunStarted",
    "ScheduleFired",
    "StepCompleted",
    "StepFailed",
    "StepRetrying",
    "StepStarted",
]


class _OfRun(Struct, frozen=True, kw_only=True, tag=True):
    """`at` is when it happened. `version` is that of the workflow."""

    run_id: str
    workflow: str
    version: int
    at: datetime


class _OfStep(_OfRun, frozen=True, kw_only=True):
    """`attempt` counts from 1. One that a crash has interrupted is made again, under the same number."""

    position: str
    step: str
    attempt: int


class RunStarted(_OfRun, frozen=True, kw_only=True):
    """A run is executed for the first time. `parent_id` is the run that it is a child of."""

    parent_id: str | None


class RunResumed(_OfRun, frozen=True, kw_only=True):
    """A run that began before is taken up: what it slept or waited for has come, or its engine has stopped or died.

    `executions` counts how often an engine has taken it up, this time included, since it last continued as new.
    """

    executions: int


class RunParked(_OfRun, frozen=True, kw_only=True):
    """A run has left the engine's memory, to go on later.

    It is `sleeping` until `due_at`; or `waiting` for an event or a child, until `due_at` at the latest where that is
    set; or `pending`, where it continues as new or its engine stops.
    """

    status: Literal["pending", "sleeping", "waiting"]
    due_at: datetime | None


class RunCompleted(_OfRun, frozen=True, kw_only=True):
    """A run has ended with `output`, `duration_us` microseconds after it was enqueued."""

    duration_us: int
    output: Any


class RunFailed(_OfRun, frozen=True, kw_only=True):
    """A run has ended with `error`, `duration_us` microseconds after it was enqueued."""

    duration_us: int
    error: Failure


class RunCancelled(_OfRun, frozen=True, kw_only=True):
    """A run was cancelled, and its clean-up is done, `duration_us` microseconds after it was enqueued."""

    duration_us: int


class StepStarted(_OfStep, frozen=True, kw_only=True):
    """The body of a step is about to be called: `attempt` says whether it is called again."""


class StepCompleted(_OfStep, frozen=True, kw_only=True):
    """The result of a step is stored: `value`, as the workflow receives it.

    `attempt` was the last, so it says how many were used; `duration_us` is how many microseconds it took.
    """

    duration_us: int
    value: Any


class StepFailed(_OfStep, frozen=True, kw_only=True):
    """A step has failed for good, and the workflow is given `error`.

    `attempt` was the last, so it says how many were used; `duration_us` is how many microseconds it took.
    """

    duration_us: int
    error: Failure


class StepRetrying(_OfStep, frozen=True, kw_only=True):
    """An attempt of a step has failed with `error` after `duration_us` microseconds; the next is due at `due_at`."""

    duration_us: int
    error: Failure
    due_at: datetime


class ScheduleFired(_OfRun, frozen=True, kw_only=True):
    """A schedule has enqueued this run.

    `key` is that of the schedule, `occurrence_at` the time for which the run stands; `skipped` is how many occurrences
    before it were missed and skipped.
    """

    key: str
    occurrence_at: datetime
    skipped: int


LifecycleEvent: TypeAlias = (
    RunStarted
    | RunResumed
    | RunParked
    | RunCompleted
    | RunFailed
    | RunCancelled
    | StepStarted
    | StepCompleted
    | StepFailed
    | StepRetrying
    | ScheduleFired
)
"""Any of them. The union is closed: a `match` over all of them may end in `assert_never`."""

Hook: TypeAlias = Callable[[LifecycleEvent], Awaitable[object] | None]
"""A function that is called with each lifecycle event; if it is async, the run waits for it."""

ErrorHandler: TypeAlias = Callable[[ReflowError], Awaitable[object] | None]
"""A function that is told of errors that no run feels, such as `HookError`; it may be async."""
