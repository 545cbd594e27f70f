"""Tells the observers of an engine what becomes of one run.

What the execution takes in is kept until it is written, and told then: nobody hears of what a crash could still undo.
Values are decoded anew for each observer, so that none can touch what another one, or the workflow, has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypedDict, cast

from reflow._core.definition import Workflow
from reflow._core.duration import from_micros
from reflow._core.journal import Entry, Timer
from reflow._core.nodes import Open
from reflow._core.performed import result_type
from reflow._core.status import RunStatus
from reflow._engine.clock import Clock
from reflow._engine.observers import Observers
from reflow.codec import Codec
from reflow.errors import Failure
from reflow.events import (
    LifecycleEvent,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunParked,
    RunResumed,
    RunStarted,
    StepCompleted,
    StepFailed,
    StepRetrying,
    StepStarted,
)
from reflow.storage.records import Ending, RunRow

__all__ = ["Teller"]


class _Step(TypedDict):
    position: str
    step: str
    attempt: int


class Teller:
    """For one run; while nobody looks on (`observers.is_idle`) there is no need to call it."""

    def __init__(
        self, row: RunRow, workflow: Workflow[..., Any], observers: Observers, codec: Codec, clock: Clock
    ) -> None:
        self.observers = observers
        self._row = row
        self._workflow = workflow
        self._codec = codec
        self._clock = clock
        self._kept: deque[Callable[[], LifecycleEvent]] = deque()

    @property
    def has_news(self) -> bool:
        """Whether there is something to be told once it is written."""
        return bool(self._kept)

    async def begun(self) -> None:
        """The run was claimed, and its body stands where it stood before."""
        row, at = self._row, self._at()
        if row.executions == 1 and row.generation == 0:
            await self.observers.emit(lambda: RunStarted(**at, parent_id=row.parent))
        else:
            await self.observers.emit(lambda: RunResumed(**at, executions=row.executions))

    async def step_begins(self, position: str, step: str, attempt: int) -> None:
        """A body is about to run."""
        at, of = self._at(), _Step(position=position, step=step, attempt=attempt)
        await self.observers.emit(lambda: StepStarted(**at, **of))

    def step_settled(self, node: Open, entry: Entry, began_at: int) -> None:
        """A step has its outcome; to be told when that is written."""
        of, took = _Step(position=entry.position, step=entry.name, attempt=entry.attempts), entry.recorded_at - began_at
        self._kept.append(partial(self._settled, self._at(), of, took, entry, result_type(node.command)))

    def _settled(self, at: dict[str, Any], of: _Step, took: int, entry: Entry, type_: Any) -> LifecycleEvent:
        if entry.failed:
            return StepFailed(**at, **of, duration_us=took, error=self._codec.decode(entry.payload, Failure))
        return StepCompleted(**at, **of, duration_us=took, value=self._codec.decode(entry.payload, type_))

    def step_retries(self, timer: Timer, began_at: int) -> None:
        """An attempt has failed and there will be another; to be told when that is written."""
        at, took, data = self._at(), self._clock.now() - began_at, timer.failure or b""
        of, due_at = _Step(position=timer.position, step=timer.name, attempt=timer.attempts), from_micros(timer.due_at)
        codec = self._codec
        self._kept.append(
            lambda: StepRetrying(**at, **of, duration_us=took, error=codec.decode(data, Failure), due_at=due_at)
        )

    def forget(self) -> None:
        """What was kept will not be written."""
        self._kept.clear()

    async def written(self) -> None:
        """What was kept is on record."""
        while self._kept:
            await self.observers.emit(self._kept.popleft())

    async def left(self, ending: Ending) -> None:
        """The run was left so, and that is on record."""
        await self.observers.emit(partial(self._left, self._at(), self._clock.now() - self._row.created_at, ending))

    def _left(self, at: dict[str, Any], took: int, ending: Ending) -> LifecycleEvent:
        match ending.status:
            case RunStatus.COMPLETED:
                output = self._codec.decode(ending.output or b"", self._workflow.output_type)
                return RunCompleted(**at, duration_us=took, output=output)
            case RunStatus.FAILED:
                return RunFailed(**at, duration_us=took, error=self._codec.decode(ending.error or b"", Failure))
            case RunStatus.CANCELLED:
                return RunCancelled(**at, duration_us=took)
            case _:
                status = cast("Literal['pending', 'sleeping', 'waiting']", ending.status.value)
                due_at = None if ending.due_at is None else from_micros(ending.due_at)
                return RunParked(**at, status=status, due_at=due_at)

    def _at(self) -> dict[str, Any]:
        row = self._row
        at = from_micros(self._clock.now())
        return {"run_id": row.run_id, "workflow": row.workflow, "version": row.version, "at": at}
