"""`Sandbox`: an engine for tests, on memory and in virtual time, in which steps may be stubbed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeAlias, TypeVar

import anyio
from anyio import CapacityLimiter, create_task_group, sleep_forever
from msgspec import Struct

from reflow import (
    Call,
    Clock,
    Codec,
    ConfigError,
    Duration,
    Engine,
    EntryInfo,
    Event,
    Failure,
    MemoryStorage,
    NonDeterminismError,
    Run,
    RunCancelledError,
    RunFailedError,
    RunStatus,
    StepInfo,
    StorageAdapter,
    TestRunIncompleteError,
    Workflow,
)
from reflow._core.duration import to_instant, to_micros
from reflow._core.steps import Step
from reflow._core.transcript import Transcript
from reflow._engine.perform import Attempt
from reflow.testing.clock import VirtualClock
from reflow.testing.replaying import assert_replays, transcript_of
from reflow.testing.stubs import StandIns, Stubs

__all__ = ["Finished", "Sandbox", "SentEvent"]

R = TypeVar("R")

# Longer than any test: nobody else is there to be looked for, or to take a run over.
_NEVER_US = 10**17
_LEASE = "500000d"


SentEvent: TypeAlias = tuple[str | Event[Any], Any] | tuple[str | Event[Any], Any, Duration]
"""An event that a test sends: an `Event` or its name, the payload, and after which virtual time; without one it is sent
at the beginning."""


class Finished(Struct, Generic[R], frozen=True, kw_only=True):
    """A run that has ended in a test.

    `error` is set of one that failed. `journal` has its entries in the order in which outcomes arrived, `duration` is
    how long it took in virtual time, `transcript` can be kept and replayed.
    """

    run_id: str
    workflow: str
    status: RunStatus
    output: R | None
    error: Failure | None
    journal: tuple[EntryInfo, ...]
    duration: timedelta
    transcript: Transcript

    @property
    def result(self) -> R:
        """What the workflow returned; `RunFailedError` or `RunCancelledError` where it did not."""
        if self.error is not None:
            raise RunFailedError(self.run_id, self.workflow, self.error)
        if self.status is RunStatus.CANCELLED:
            raise RunCancelledError(self.run_id, self.workflow)
        return self.output  # type: ignore[return-value]


class _Sent(NamedTuple):
    after_us: int
    name: str
    payload: Any


def _event(given: SentEvent, codec: Codec) -> _Sent:
    """What is to be sent; raises what `send_event` would raise for it."""
    if not isinstance(given, tuple) or len(given) not in (2, 3):
        raise ConfigError(f"events has {given!r}; write (event, payload) or (event, payload, after)")
    event, payload, *after = given
    declared = event if isinstance(event, Event) else Event(event)
    declared.encode(payload, codec)
    return _Sent(to_micros(after[0], what="the time of an event") if after else 0, declared.name, payload)


def _of_the_same_code(error: NonDeterminismError, workflow: str) -> NonDeterminismError:
    """The error with other words: nothing was changed between the run and its replay."""
    error.message = (
        f"workflow {workflow!r} does not do the same in the same run when it is replayed, at position "
        f"{error.position}: recorded {error.recorded}, now {error.yielded} ({error.location}). Its code decides by "
        "what may be different the next time: the clock, random, the order of a set, a global, or I/O outside of "
        "steps. Take the time from now(), randomness from new_random(), and all else from steps"
    )
    error.args = (error.message,)
    return error


class Sandbox(Engine):
    """An engine for tests: `async with Sandbox([signup], stubs={charge_card: "receipt 1"}) as sandbox: ...`

    It has all verbs of `Engine`, a `MemoryStorage`, and a `clock` that jumps to the next timer whenever everything
    waits for it. So `await sandbox.clock.sleep("14d")` lets two weeks pass at once, with all that happens in them. The
    clock begins at `start`, and jumps by no more than `limit` in all. `stubs` say what steps do instead of their
    bodies; those without one run for real, in no virtual time, or with `real=False` not at all. When it is left without
    an error, it raises `ConfigError` where a step had no stub then, or ran for real although a stub is called almost as
    it is.
    """

    def __init__(
        self,
        workflows: Iterable[Workflow[..., Any]],
        *,
        stubs: Stubs | None = None,
        real: bool = True,
        start: datetime | None = None,
        limit: Duration = "10000d",
        storage: StorageAdapter | None = None,
        clock: VirtualClock | None = None,
        lease: Duration = _LEASE,
        **options: Any,
    ) -> None:
        self.clock = clock or VirtualClock(start=start)
        self._stand_ins = StandIns(stubs, self.clock, real=real)
        super().__init__(
            storage or MemoryStorage(), workflows, clock=self.clock, lease=lease, grace=0, strict=True, **options
        )
        self._new_worker = partial(self._new_worker, perform=self._attempt, look_us=_NEVER_US)
        self._new_scheduler = partial(self._new_scheduler, look_us=_NEVER_US)
        self._worker, self._scheduler = self._new_worker(), self._new_scheduler()
        self._limit = limit
        self._jumping = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as entering:
            await entering.enter_async_context(self.clock.autojump(limit=self._limit))
            await super().__aenter__()
            self._jumping = entering.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, traceback)
        finally:
            await self._jumping.aclose()
        if error is None:
            self._check_stubs()

    async def begin(self, call: Call[R], *, run_id: str, events: Iterable[SentEvent] = ()) -> Run[R]:
        """Enqueue `call`, and send it these events in their time. Each is sent once, however often a run begins."""
        sent = [_event(given, self._codec) for given in events]
        run = await self.enqueue(call, run_id=run_id)
        if sent:
            assert self._tasks is not None, "entered first"
            self._tasks.start_soon(self._send, run, sent)
        return run

    async def _send(self, run: Run[Any], sent: list[_Sent]) -> None:
        info = await run.info()
        began_at = to_instant(info.created_at, what="the beginning")
        for number, event in sorted(enumerate(sent), key=lambda numbered: numbered[1].after_us):
            send_at = began_at + event.after_us
            while self.clock.now() < send_at:
                await self.clock.wait(anyio.Event(), send_at)
            await self.send_event(run.run_id, event.name, event.payload, event_id=f"event {number}")

    async def finished(self, run: Run[R]) -> Finished[R]:
        """Wait until the run has ended, and show it.

        `TestRunIncompleteError` where it still waits when nothing more can happen: no timer is left within the limit,
        and the test does nothing but wait.
        """
        ended = await self.ends(run)
        info = await run.info()
        if not ended:
            self._check_stubs()
            children = (await self.list_runs(parent=run.run_id)).runs
            waiting = [run.run_id, *(child.run_id for child in children if not child.status.is_terminal)]
            reasons = [await self.why(run_id) for run_id in waiting]
            raise TestRunIncompleteError(run.run_id, info.status, "; ".join(reasons))
        return Finished(
            run_id=run.run_id,
            workflow=run.workflow,
            status=info.status,
            output=info.output,
            error=info.error,
            journal=info.entries,
            duration=info.updated_at - info.created_at,
            transcript=await transcript_of(run.run_id, self._storage, self._codec),
        )

    async def ends(self, run: Run[Any]) -> bool:
        """Wait until the run has ended: True; or until nothing more can happen: False."""
        ended = False
        async with create_task_group() as tasks:

            async def give_up() -> None:
                await self.clock.stalled()
                tasks.cancel_scope.cancel()

            tasks.start_soon(give_up)
            await self._wait_for(run._end, run.run_id)  # pyright: ignore[reportPrivateUsage]
            ended = True
            tasks.cancel_scope.cancel()
        return ended

    async def check_determinism(self) -> None:
        """Replay all runs as far as they have got, against the code: `NonDeterminismError` where a workflow body would
        not do the same again, with the same arguments."""
        workflows = [self._registered.require(name, version) for name, version in self._registered.keys]
        cursor: str | None = None
        while True:
            page = await self.list_runs(cursor=cursor)
            for run in page.runs:
                if (run.workflow, run.version) in self._registered.keys:
                    transcript = await transcript_of(run.run_id, self._storage, self._codec)
                    try:
                        assert_replays(workflows, transcript)
                    except NonDeterminismError as error:
                        raise _of_the_same_code(error, run.workflow) from None
            if (cursor := page.cursor) is None:
                return

    def _check_stubs(self) -> None:
        registered = self._registered
        self._stand_ins.check([registered.require(name, version) for name, version in registered.keys])

    async def _attempt(self, step: Step[Any], info: StepInfo, threads: CapacityLimiter, clock: Clock) -> Attempt:
        return await self._stand_ins.perform(step, info, threads, clock)

    async def _look_for_ends(self) -> None:
        """Nothing ends elsewhere."""
        await sleep_forever()
