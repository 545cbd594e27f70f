"""The step bodies of one run: those that are to be started, those under way, and what came of them.

A single body is performed in the runner's own task; only bodies that run side by side have tasks of their own, each in
a scope by which it is cancelled alone.
"""

from __future__ import annotations

from typing import Any

from anyio import CancelScope, CapacityLimiter, Event
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint_if_cancelled
from msgspec import Struct

from reflow._core.nodes import Open, lingers
from reflow._core.steps import Step
from reflow._engine.clock import Clock
from reflow._engine.perform import Attempt, Perform, StepInfo
from reflow._engine.teller import Teller
from reflow.storage.records import RunRow

__all__ = ["Arrival", "Bodies", "Ready"]


class Ready(Struct, frozen=True):
    """A step that is to be started, after so many attempts; the first began, or will begin, at `started_at`."""

    node: Open
    step: Step[Any]
    attempts: int
    started_at: int


class Arrival(Struct, frozen=True):
    """A body has ended: its last attempt was the one of this number, and began at `began_at`."""

    node: Open
    step: Step[Any]
    attempts: int
    started_at: int
    result: Attempt
    began_at: int


class Bodies:
    """`arrived` is set when a body ends that runs beside others, or when there is other news for the run."""

    def __init__(self, row: RunRow, threads: CapacityLimiter, clock: Clock, teller: Teller, perform: Perform) -> None:
        self.ready: dict[str, Ready] = {}
        self.arrivals: list[Arrival] = []
        self.arrived: Event | None = None
        self._row = row
        self._threads = threads
        self._clock = clock
        self._teller = teller
        self._perform = perform
        self._running: dict[str, tuple[CancelScope, Ready]] = {}
        # Cancelled, and still to end before another body may start.
        self._settling: set[CancelScope] = set()

    @property
    def is_running(self) -> bool:
        """Whether one is under way, or has still to end."""
        return bool(self._running or self._settling)

    def news(self) -> Event:
        """A new `arrived`."""
        self.arrived = Event()
        return self.arrived

    def wake(self) -> None:
        """Have the runner look up."""
        if self.arrived is not None:
            self.arrived.set()

    async def perform(self) -> None:
        """Perform the only one that is ready, here and now."""
        [ready] = self.ready.values()
        # It stays listed meanwhile: where it is interrupted, it is still to be started.
        arrival = await self._attempt(ready)
        self.ready.clear()
        self.arrivals.append(arrival)

    def start(self, tasks: TaskGroup) -> None:
        """Start all that are ready, unless a cancelled one has still to end."""
        if self._settling:
            return
        for position, ready in self.ready.items():
            scope = CancelScope()
            self._running[position] = scope, ready
            tasks.start_soon(self._run, scope, position, ready)
        self.ready.clear()

    def cancel(self, position: str) -> None:
        """The command there was cancelled, or has settled otherwise."""
        self.ready.pop(position, None)
        if running := self._running.pop(position, None):
            scope, ready = running
            scope.cancel()
            if not lingers(ready.node):
                # A gather raises once all of its members have settled: no body starts before this one has ended.
                self._settling.add(scope)

    def interrupted(self) -> None:
        """The tasks of those under way were all cancelled: make ready again, in the same attempt, what they were at."""
        self.ready.update((position, ready) for position, (_, ready) in self._running.items())
        self._running.clear()
        self._settling.clear()

    async def _run(self, scope: CancelScope, position: str, ready: Ready) -> None:
        with scope:
            # A body whose race was decided before it could begin does not begin.
            await checkpoint_if_cancelled()
            arrival = await self._attempt(ready)
            if not scope.cancel_called:
                self.arrivals.append(arrival)
        if not scope.cancel_called:
            del self._running[position]
        self._settling.discard(scope)
        self.wake()

    async def _attempt(self, ready: Ready) -> Arrival:
        node, step, number = ready.node, ready.step, ready.attempts + 1
        row = self._row
        if not self._teller.observers.is_idle:
            await self._teller.step_begins(node.position, step.name, number)
        # Also where nobody looks on: somebody may, when it ends.
        began_at = self._clock.now()
        info = StepInfo(row.run_id, row.workflow, step.name, node.position, number, row.generation)
        result = await self._perform(step, info, self._threads, self._clock)
        return Arrival(node, step, number, ready.started_at, result, began_at)
