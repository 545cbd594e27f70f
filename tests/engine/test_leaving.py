"""Runs that leave their engine while something is on its way: a heartbeat, or news."""

from __future__ import annotations

from typing import Any

import pytest
from anyio import Event, create_task_group, fail_after, wait_all_tasks_blocked

from reflow import Flow, MemoryStorage, gather, step, wait_event, workflow
from reflow.storage.records import Lease, Progress
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio


async def add(a: int, b: int) -> int:
    """A step."""
    return a + b


@workflow
def short() -> Flow[int]:
    """One step."""
    result = yield from step(add, 1, 2)
    return result


class BeatsDuringTheLastWrite(MemoryStorage):
    """Answers the write that ends a run only after a heartbeat has found its lease ended."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self)
        self.lost: list[Lease] = []
        self._beaten = Event()

    async def heartbeat(self, leases: Any, *, lease_until: int) -> list[Lease]:
        """Note what it finds lost."""
        self.lost = await super().heartbeat(leases, lease_until=lease_until)
        self._beaten.set()
        return self.lost

    async def save_progress(self, progress: Progress) -> bool:
        """Let the clock run on to the next heartbeat before answering."""
        saved = await super().save_progress(progress)
        if progress.ending:
            self.world.clock.advance("10s")
            await self._beaten.wait()
        return saved


async def test_a_heartbeat_does_not_drop_a_run_that_has_just_ended(caplog: pytest.LogCaptureFixture) -> None:
    """A heartbeat that finds the lease ended by the run's own last write takes nothing from it: whoever waits for the
    result is told, and no takeover is reported."""
    storage = BeatsDuringTheLastWrite()
    engine = storage.world.engine(short)
    async with engine:
        result = await engine.execute(short())

    assert 3 == result
    assert 1 == len(storage.lost)
    assert [] == caplog.messages


async def test_a_run_with_news_is_given_back_too(world: World) -> None:
    """[120] A run that was claimed as its engine was left, and for which there was news, is given back like any
    other: the next engine need not wait for the end of the lease."""

    @workflow
    def patient() -> Flow[Any]:
        return (yield wait_event("go"))

    storage = TappedStorage(world.storage)
    await world.engine(patient).enqueue(patient(), run_id="r")
    with fail_after(5):
        async with create_task_group() as tasks:
            claimed, asked = storage.hold_answer("claim_runs"), storage.hold("check_runs")
            engine = world.engine(patient, storage=storage, grace=0)
            async with engine:
                await claimed.arrived.wait()
                tasks.start_soon(engine.send_event, "r", "go", 1)
                await storage.done("send_message").wait()
                await wait_all_tasks_blocked()
                claimed.open()
                await asked.arrived.wait()

    assert await world.given_back()


async def test_an_error_raised_as_the_engine_is_left_has_no_strange_cause(world: World) -> None:
    """A body that raises when a run is given back fails with its own error: that the engine was being left is no cause
    of it."""
    may_end = Event()

    async def first() -> None:
        """Ends at once."""

    async def second() -> None:
        """Ends when it may."""
        await may_end.wait()

    @workflow
    def failing() -> Flow[None]:
        yield gather(step(first), step(second))
        raise ValueError("of its own")

    storage = TappedStorage(world.storage)
    engine = world.engine(failing, storage=storage, grace=0)
    with fail_after(5):
        async with engine:
            await engine.enqueue(failing(), run_id="r")
            writing = storage.hold("save_progress")
            await writing.arrived.wait()
            may_end.set()
            await wait_all_tasks_blocked()

    info = await world.info()
    assert info.error is not None
    assert ("ValueError", ()) == (info.error.type, info.error.causes)
