"""Random programs on real engines, in virtual time, in a world in which it is determined what comes after what.

Each attempt of a step is a piece of work that is ordered outside, under its key, and is done at an instant that follows
from when it was first ordered. Whoever orders it again, after a restart, waits for the same instant. No two pieces of
work take equally long, and no two waits (programs.py); so the order in which outcomes arrive is determined by the
program, and is the same in every storage, in every event loop, and however often the engine is stopped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, NamedTuple
from zlib import crc32

from anyio import CapacityLimiter, Event, create_task_group, fail_after
from msgspec.structs import replace

from reflow import Client, Clock, Flow, RunStatus, StepInfo, StorageAdapter, Workflow, step, workflow
from reflow._core.failure import read_failure
from reflow._core.journal import Entry, Timer
from reflow._core.steps import Step
from reflow._engine.perform import Attempt, attempt
from reflow.errors import Failure
from reflow.testing import Sandbox, VirtualClock
from reflow.testing.crash import VERBS
from tests.support.driven import CODEC, work
from tests.support.programs import Block, Declined, Do, Trace, frame_of

RUN = "r"
CANCEL = "cancel"
_LONGEST_WORK_US = 100_000_000
# Of virtual time, in which every program comes to its end; and of real time.
_LIMIT = "2d"
_LIMIT_S = 20
# All but `listen`, which goes on as long as the engine does.
_TAKE_TIME = {*VERBS, "initialize", "close"} - {"listen"}


class Plan(NamedTuple):
    """What happens from outside, in microseconds after the beginning: what is sent to the run (`CANCEL`, or the name of
    an event), no two at once; and when the engine is stopped and another one takes over."""

    sent: Sequence[tuple[int, str]] = ()
    stops: Sequence[int] = ()


class Played(NamedTuple):
    """What came of a program: all runs as they are stored, what the body saw, and which work was done when."""

    runs: dict[str, Any]
    seen: list[tuple[str, Any]]
    done: dict[tuple[str, int], int]

    @property
    def instants(self) -> list[int]:
        """When the run went on, in microseconds after the beginning."""
        return [entry["recorded_at"] for entry in self.runs[RUN]["entries"]]


class HeldStorage:
    """Passes verbs on to `storage`; virtual time stands still while one is under way, in whatever thread."""

    def __init__(self, storage: StorageAdapter, clock: VirtualClock) -> None:
        self._storage = storage
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._storage, name)
        return self._holding(attribute) if name in _TAKE_TIME else attribute

    def _holding(self, verb: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            with self._clock.hold():
                return await verb(*args, **kwargs)

        return call


class Stage(Sandbox):
    """An engine on which programs are played."""

    def __init__(self, played: Play, **options: Any) -> None:
        super().__init__(played.workflows, storage=played.storage, clock=played.clock, limit=_LIMIT, **options)
        self._play = played

    async def _attempt(self, step: Step[Any], info: StepInfo, threads: CapacityLimiter, clock: Clock) -> Attempt:
        ordered = replace(step, fn=partial(self._play.work, info), body=replace(step.body, is_async=True))
        return await attempt(ordered, info, threads, clock)


class Play:
    """A program, and the world around it."""

    def __init__(self, program: Block, storage: StorageAdapter) -> None:
        self.clock = VirtualClock()
        self.began_at = self.clock.now()
        self.storage: Any = HeldStorage(storage, self.clock)
        self.traces: list[Trace] = []
        self.done: dict[tuple[str, int], int] = {}
        self.client = Client(self.storage, clock=self.clock)

        @workflow(name="program")
        def flow() -> Flow[Any]:
            self.traces.append(Trace())
            return (yield from frame_of(program, self.traces[-1], "body"))

        self.flow = flow
        self.workflows: list[Workflow[..., Any]] = [flow, errand_in_earnest]

    async def work(self, info: StepInfo, do: Do) -> str:
        """A piece of work: once it is ordered, it is done at its time, wherever who ordered it has gone."""
        key = (info.idempotency_key, info.attempt)
        done_at = self.clock.now() + 1 + crc32(repr(key).encode()) % _LONGEST_WORK_US
        done_at = self.done.setdefault(key, done_at)
        await self.clock.wait(Event(), done_at)
        if do.name == "give_up":
            await self.client.cancel(info.run_id)
            await self.clock.wait(Event(), None)
        if do.ends == "badly" or info.attempt < do.tries:
            raise Declined(f"{info.step}@{info.position}", info.attempt)
        return f"{info.step}@{info.position}"

    # ---- playing it -------------------------------------------------------------------------------------------------

    async def played(self, plan: Plan) -> Played:
        """Play it to the end, with one engine after the other."""
        with fail_after(_LIMIT_S):
            async with self.client, create_task_group() as tasks:
                await self.client.enqueue(self.flow(), run_id=RUN)
                for after_us, what in plan.sent:
                    tasks.start_soon(self._send, after_us, what)
                for stop in [*sorted(plan.stops), None]:
                    async with Stage(self) as stage:
                        if await self._stalls(stop):
                            break
                found = await self._found()
                await stage.check_determinism()
        return found

    async def played_by_ticks(self, plan: Plan) -> Played:
        """The same by ticks, each of an engine of its own that is never entered."""
        async with AsyncExitStack() as leaving:
            await leaving.enter_async_context(self.client)
            await self.client.enqueue(self.flow(), run_id=RUN)
            for after_us, what in plan.sent:
                await self._send(after_us, what)
            await leaving.enter_async_context(self.clock.autojump(limit=_LIMIT))
            leaving.enter_context(fail_after(_LIMIT_S))
            while (due_at := (await self.storage.count_runs()).next_due_at) is not None:
                await self.clock.wait(Event(), due_at)
                await Stage(self).tick()
            return await self._found()

    async def _send(self, after_us: int, what: str) -> None:
        await self.clock.wait(Event(), self.began_at + after_us)
        await (self.client.cancel(RUN) if what == CANCEL else self.client.send_event(RUN, what, what))

    async def _stalls(self, stop: int | None) -> bool:
        """Wait until nothing more can happen: True; or until it is time to stop: False."""
        stalls = False
        async with create_task_group() as tasks:

            async def stalled() -> None:
                nonlocal stalls
                await self.clock.stalled()
                stalls = True
                tasks.cancel_scope.cancel()

            tasks.start_soon(stalled)
            await self.clock.wait(Event(), None if stop is None else self.began_at + stop)
            tasks.cancel_scope.cancel()
        return stalls

    # ---- looking at it ----------------------------------------------------------------------------------------------

    async def _found(self) -> Played:
        seen = list(self.traces[-1].seen) if self.traces else []
        page = await self.client.list_runs(limit=1_000)
        runs = {run.run_id: await self._stored(run.run_id) for run in page.runs}
        return Played(dict(sorted(runs.items())), seen, self.done)

    async def _stored(self, run_id: str) -> dict[str, Any]:
        row, journal = await self.storage.get_run(run_id), await self.storage.get_journal(run_id)
        return {
            "workflow": (row.workflow, row.version, row.generation, row.parent, row.parent_position),
            "status": row.status,
            "output": None if row.output is None else CODEC.decode(row.output, Any),
            "error": None if row.error is None else _plain(row.error),
            "entries": [self._entry(entry) for entry in journal.entries],
            "timers": [self._timer(timer) for timer in journal.timers],
            # Of several children that were cancelled together, any may be the first to tell of it.
            "messages": sorted((message.kind, message.name) for message in journal.messages),
        }

    def _entry(self, entry: Entry) -> dict[str, Any]:
        return {
            "position": entry.position,
            "command": str(entry),
            "outcome": _plain(entry.payload) if entry.failed else CODEC.decode(entry.payload or b"\xc0", Any),
            "failed": entry.failed,
            "attempts": entry.attempts,
            "recorded_at": entry.recorded_at - self.began_at,
            "digest": entry.digest,
        }

    def _timer(self, timer: Timer) -> Any:
        return timer.position, str(timer), timer.attempts, timer.due_at - self.began_at


@workflow(name="errand")
def errand_in_earnest(ends: str) -> Flow[Any]:
    """A child that ends as it is told: well, or with an error, or cancelled by somebody."""
    name = "give_up" if ends == "oddly" else "errand"
    return (yield step(work, Do(name, "badly" if ends == "badly" else "well")).options(name=name))


def _plain(data: bytes) -> Any:
    """A failure without tracebacks: they tell of event loops."""

    def without(failure: Failure) -> Failure:
        return replace(failure, traceback="", causes=tuple(map(without, failure.causes)))

    return without(read_failure(data, CODEC, "a failure"))


ENDED = {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED}
