"""Lifecycle events as tests need them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from anyio import Event

from reflow import Failure, Flow, LifecycleEvent, sleep, step, workflow
from reflow.events import RunFailed, RunParked, StepCompleted, StepFailed, StepRetrying, StepStarted

AT = datetime(2026, 1, 2, tzinfo=UTC)


def completed(value: Any, run_id: str = "r") -> StepCompleted:
    """A step has completed with `value`."""
    return StepCompleted(
        run_id=run_id,
        workflow="signup",
        version=1,
        at=AT,
        position="0",
        step="charge",
        attempt=2,
        duration_us=5,
        value=value,
    )


def failed() -> RunFailed:
    """A run has failed."""
    return RunFailed(
        run_id="r", workflow="signup", version=1, at=AT, duration_us=9, error=Failure("ValueError", "wrong")
    )


def brief(event: LifecycleEvent) -> str:
    """An event in a line: "StepStarted charge 1", "RunParked sleeping", "RunCompleted"."""
    name = type(event).__name__
    match event:
        case StepStarted() | StepCompleted() | StepFailed() | StepRetrying():
            return f"{name} {event.step} {event.attempt}"
        case RunParked():
            return f"{name} {event.status}"
        case _:
            return name


class Watcher:
    """A hook that keeps what it was told. It never returns from the event that `hangs_at` is the line of."""

    def __init__(self, hangs_at: str | None = None) -> None:
        self.events: list[LifecycleEvent] = []
        self.hangs_at = hangs_at
        self._news = Event()

    async def __call__(self, event: LifecycleEvent) -> None:
        self.events.append(event)
        news, self._news = self._news, Event()
        news.set()
        if brief(event) == self.hangs_at:
            await Event().wait()

    def lines(self, run_id: str = "r") -> list[str]:
        """What was told of a run, in a line each."""
        return [brief(event) for event in self.events if event.run_id == run_id]

    def all_of(self, kind: type[Any]) -> list[Any]:
        """The events of a class."""
        return [event for event in self.events if isinstance(event, kind)]

    def only(self, kind: type[Any]) -> Any:
        """The one event of a class."""
        [event] = self.all_of(kind)
        return event

    async def until(self, line: str, run_id: str = "r") -> None:
        """Wait until that was told of the run."""
        while line not in self.lines(run_id):
            await self._news.wait()


async def give(value: Any) -> Any:
    """Returns what it is given."""
    return value


async def fail(*args: Any) -> None:
    """Raises, with these arguments."""
    raise ValueError(*args)


@workflow
def pair(value: Any) -> Flow[Any]:
    """Two steps."""
    first = yield from step(give, value).options(name="first")
    second = yield from step(give, first).options(name="second")
    return second


@workflow
def nap() -> Flow[str]:
    """A step, a sleep, a step."""
    yield step(give, 1).options(name="before")
    yield sleep("1h")
    yield step(give, 2).options(name="after")
    return "rested"


OF_PAIR = [
    "RunStarted",
    "StepStarted first 1",
    "StepCompleted first 1",
    "StepStarted second 1",
    "StepCompleted second 1",
    "RunCompleted",
]
"""What is told of a run of `pair`, in a line each."""
