"""Crashes in process: a storage that dies at its n-th verb, and `crash_everywhere`, which tries every n.

Whatever an engine knows and has not stored is lost in a crash. So the states in which a crash can leave a run are
those between two verbs of the storage, and there are not many: a process that dies before the n-th verb, or just after
it, for every n, is every crash there is. (A body that dies half-way runs again as a whole: that is its own test.)
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from inspect import iscoroutinefunction
from operator import itemgetter
from typing import Any, NamedTuple, cast

from anyio import CapacityLimiter

from reflow import Call, Clock, Duration, Failure, MemoryStorage, StepInfo, StorageAdapter, Workflow
from reflow._core.steps import Step
from reflow._core.transcript import CODEC
from reflow._engine.perform import Attempt
from reflow.storage.records import Lease, RunFilter, RunRow
from reflow.testing.clock import VirtualClock
from reflow.testing.harness import blocking, workflows_of
from reflow.testing.sandbox import Sandbox, SentEvent
from reflow.testing.stubs import StandIns, Stubs

__all__ = ["VERBS", "Crash", "MortalStorage", "crash_everywhere"]

# Opening and closing are no events in the life of a run, nor is an engine's look for due schedules.
VERBS = frozenset(name for name, verb in vars(StorageAdapter).items() if iscoroutinefunction(verb)) - {
    "initialize",
    "close",
    "due_schedules",
}
"""The verbs of a storage at which a run may find its process dead."""

_RUN = "test"


class Crash(BaseException):
    """The process is gone. Nothing may catch it and go on; whoever tries to write meets it again."""


class MortalStorage:
    """Passes verbs on to `storage` until it dies at verb number `dies_at` (from 1), after it if `after` is set.

    From then on every verb raises `Crash`, as if the process had ended there: clean-up code cannot write either.
    """

    def __init__(self, storage: StorageAdapter, dies_at: int, *, after: bool) -> None:
        self.verbs: list[str] = []
        self._storage = storage
        self._dies_at = dies_at
        self._after = after

    @property
    def is_dead(self) -> bool:
        """Whether the crash has happened."""
        return len(self.verbs) >= self._dies_at

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._storage, name)
        return self._mortal(name, attribute) if name in VERBS else attribute

    def _mortal(self, name: str, verb: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.is_dead:
                raise Crash
            self.verbs.append(name)
            if self.is_dead and not self._after:
                raise Crash
            result = await verb(*args, **kwargs)
            if self.is_dead:
                raise Crash
            return result

        return call


# ---- every crash point of a workflow ---------------------------------------------------------------------------------


def crash_everywhere(
    call: Call[Any],
    *,
    stubs: Stubs | None = None,
    real: bool = True,
    events: Iterable[SentEvent] = (),
    workflows: Iterable[Workflow[..., Any]] = (),
    start: datetime | None = None,
    limit: Duration = "10000d",
    before_each: Callable[[], object] | None = None,
    fails: bool = False,
    backend: str = "asyncio",
) -> int:
    """Run `call` once without a crash; then again for each point at which its process can die, and resume it there.

    Each time the run must end as it did without a crash, and no body may run again whose result was stored. Returns how
    many points there were. Arguments are those of `run_workflow`; `before_each` is called before each run, to put back
    what bodies have changed. A run that fails without a crash is an error, unless it `fails` because it should.

    The next process is there at once, by the virtual clock, so that all times are the same. Raises `AssertionError`
    that names the point and tells the story, `TestRunIncompleteError` where the run does not end even without a crash.
    """
    __tracebackhide__ = True
    known = workflows_of(call, workflows, "crash_everywhere")
    sent = tuple(events)

    def new_world() -> _World:
        if before_each is not None:
            before_each()
        return _World(call, known, StandIns(stubs, clock := VirtualClock(start=start), real=real), sent, clock, limit)

    async def main() -> int:
        expected = await new_world().undisturbed(fails)
        points = 0
        for after in (False, True):
            dies_at = 1
            while await new_world().survives(dies_at, after, expected):
                dies_at += 1
            points += dies_at - 1
        return points

    return blocking(main, "crash_everywhere", backend)


class _World:
    """A storage, a clock, and the processes that work there, one after the other."""

    def __init__(
        self,
        call: Call[Any],
        workflows: tuple[Workflow[..., Any], ...],
        stand_ins: StandIns,
        events: tuple[SentEvent, ...],
        clock: VirtualClock,
        limit: Duration,
    ) -> None:
        self.workflows = workflows
        self.stand_ins = stand_ins
        self.clock = clock
        self.limit = limit
        self.storage = MemoryStorage()
        self._call = call
        self._events = events

    async def undisturbed(self, fails: bool) -> str:
        """How the run ends without a crash: well, unless it `fails` as it should."""
        async with _Process(self, self.storage) as process:
            run = await process.finished(await process.begin(self._call, run_id=_RUN, events=self._events))
        end = await self._end()
        if run.error is not None and not fails:
            raise AssertionError(
                f"without any crash the run is {end}; write fails=True if it should be\n{run.error.traceback}".rstrip()
            )
        if fails and run.error is None:
            raise AssertionError(f"without any crash the run is {end}, and not failed as fails=True says")
        return end

    async def survives(self, dies_at: int, after: bool, expected: str) -> bool:
        """Crash there and resume; False where the run ended before it came to that."""
        mortal = MortalStorage(self.storage, dies_at, after=after)
        first, second = _Process(self, mortal), _Process(self, self.storage)
        await self._live(first)
        if not mortal.is_dead:
            return False
        await self._end_leases()
        stored = await self._stored_steps()
        await self._live(second)
        end = await self._end()
        again = stored.intersection(second.begun)
        if end != expected or again:
            where = f"{'after' if after else 'before'} verb {dies_at}, {mortal.verbs[-1]}"
            problem = f"steps ran again whose results were stored: {_steps(again)}" if again else f"the run is {end}"
            story = [*first.story(), f"CRASH {where}", *second.story()]
            raise AssertionError(
                f"after a crash {where}, {problem}\nWithout a crash the run is {expected}\n  " + "\n  ".join(story)
            )
        return True

    async def _live(self, process: _Process) -> None:
        """Start or resume the run, and work until it ends, nothing more can happen, or the process dies."""
        try:
            async with process:
                await process.ends(await process.begin(self._call, run_id=_RUN, events=self._events))
        except BaseException as error:
            if not _is_crash(error):
                raise

    async def _end_leases(self) -> None:
        """The time of all leases is over."""
        leases = [Lease(row.run_id, row.lease_id) for row in await self._rows() if row.lease_id is not None]
        await self.storage.heartbeat(leases, lease_until=self.clock.now())

    async def _rows(self) -> list[RunRow]:
        return (await self.storage.list_runs(RunFilter(), limit=sys.maxsize)).rows

    async def _stored_steps(self) -> set[_Place]:
        """The steps whose results are stored, of all runs."""
        return {
            _Place(row.run_id, row.generation, entry.position)
            for row in await self._rows()
            for entry in (await self.storage.get_journal(row.run_id)).entries
            if entry.kind == Step.kind
        }

    async def _end(self) -> str:
        row = await self.storage.get_run(_RUN)
        assert row is not None, "begun"
        if row.error is not None:
            failure: Failure = CODEC.decode(row.error, Failure)
            return f"{row.status} with {failure}"
        return str(row.status) if row.output is None else f"{row.status} with {CODEC.decode(row.output, Any)!r}"


class _Place(NamedTuple):
    """A step of a run."""

    run_id: str
    generation: int
    position: str


class _Process(Sandbox):
    """An engine that notes which bodies begin."""

    def __init__(self, world: _World, storage: StorageAdapter | MortalStorage) -> None:
        adapter: Any = storage
        super().__init__(world.workflows, limit=world.limit, storage=adapter, clock=world.clock)
        # One for all: what a stub was used for in the first process is not asked for again in the second.
        self._stand_ins = world.stand_ins
        self.begun: list[_Place] = []
        self._told: list[tuple[int, str]] = []
        self._verbs: list[str] = getattr(storage, "verbs", [])

    async def _attempt(self, step: Step[Any], info: StepInfo, threads: CapacityLimiter, clock: Clock) -> Attempt:
        self.begun.append(_Place(info.run_id, info.generation, info.position))
        self._told.append((len(self._verbs), f"  step {step.name!r} at {info.position}, attempt {info.attempt}"))
        return await super()._attempt(step, info, threads, clock)

    def story(self) -> list[str]:
        """Verbs, where they were counted, and the bodies that began between them."""
        lines = [(number, f"{number} {verb}") for number, verb in enumerate(self._verbs, 1)]
        return [line for _, line in sorted([*lines, *self._told], key=itemgetter(0))]


def _is_crash(error: BaseException) -> bool:
    """Whether this is the crash and nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_crash, cast("BaseExceptionGroup[BaseException]", error).exceptions))
    return isinstance(error, Crash)


def _steps(places: Iterable[_Place]) -> str:
    return ", ".join(f"{place.position} of run {place.run_id!r}" for place in sorted(places))
