"""Leaving an engine: what is in flight may end, the rest is given back."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from anyio import (
    Event,
    create_task_group,
    from_thread,
    get_cancelled_exc_class,
    sleep_forever,
    wait_all_tasks_blocked,
)

from reflow import (
    Client,
    Engine,
    Flow,
    MemoryStorage,
    Retry,
    RunInfo,
    RunStatus,
    SQLiteStorage,
    gather,
    race,
    sleep,
    step,
    workflow,
)
from reflow.events import LifecycleEvent, RunStarted, StepStarted
from tests.support.bodies import Steps, give
from tests.support.tapped import Gate, TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio


async def test_steps_in_flight_may_end(world: World) -> None:
    """[195] Leaving lets steps in flight finish; their results are kept, and no further step starts."""
    steps = Steps("first")

    @workflow
    def flow() -> Flow[None]:
        yield step(steps, "first")
        yield step(steps, "second")

    async with create_task_group() as tasks:
        async with world.engine(flow, grace="1h") as engine:
            await engine.enqueue(flow(), run_id="r")
            await steps.until("first begins")
            tasks.start_soon(release, steps, "first")

    assert ["first begins", "first ends"] == steps.log
    assert ["first"] == [entry.value for entry in (await world.info()).entries]
    assert await world.given_back()


@pytest.mark.parametrize("shape", ["one step", "side by side", "timed", "retried", "in a race"])
async def test_steps_that_take_too_long(world: World, shape: str) -> None:
    """[195][196] Steps that outlast the grace period are cancelled: the run is neither failed nor cancelled, and has no
    entry for them."""
    steps = Steps("held", "also held")

    @workflow
    def flow() -> Flow[None]:
        held = step(steps, "held")
        match shape:
            case "one step":
                yield held
            case "side by side":
                yield gather(held, step(steps, "also held"), sleep("1h"))
            case "timed":
                yield held.options(timeout="1h")
            case "retried":
                yield held.options(retry=Retry(max_attempts=5, initial_delay=0))
            case _:
                yield race(held, sleep("1h"))

    async with world.engine(flow, grace=0) as engine:
        await engine.enqueue(flow(), run_id="r")
        await steps.until("held begins")

    assert "held is cancelled" in steps.log
    assert [] == [entry for entry in (await world.info()).entries if entry.kind == "step"]
    assert await world.given_back()


@pytest.mark.parametrize("limit", [None, "1h"])
@pytest.mark.parametrize("side_by_side", [False, True])
async def test_what_a_body_makes_of_shutdown(world: World, side_by_side: bool, limit: str | None) -> None:
    """[38][176] A body that answers its cancellation by shutdown with an error of its own has not failed: the next
    engine begins it again, as the same attempt."""
    begun = Event()
    attempts: list[int] = []

    async def body() -> str:
        attempts.append(1)
        if len(attempts) > 1:
            return "done"
        begun.set()
        try:
            await sleep_forever()
        except get_cancelled_exc_class():
            raise ConnectionError("interrupted") from None
        return "never"

    @workflow
    def flow() -> Flow[str]:
        command = step(body).options(timeout=limit)
        if side_by_side:
            winner: Any = yield from race(command, sleep("1h"))
            return str(winner.value)
        return (yield from command)

    async with world.engine(flow, grace=0) as engine:
        await engine.enqueue(flow(), run_id="r")
        await begun.wait()
    assert await world.given_back()
    info = await world.continued(flow)

    assert (RunStatus.COMPLETED, "done", 2) == (info.status, info.output, info.executions)
    assert [1] == [entry.attempts for entry in info.entries if entry.kind == "step"]


async def test_the_next_engine_continues_at_once(world: World) -> None:
    """[197] Leases are given back: the next engine continues at once, the clock stands still."""
    steps = Steps("second")

    @workflow
    def flow() -> Flow[list[str]]:
        first = yield from step(steps, "first")
        second = yield from step(steps, "second")
        return [first, second]

    async with world.engine(flow, grace=0) as engine:
        await engine.enqueue(flow(), run_id="r")
        await steps.until("second begins")
    steps.held["second"].set()
    async with world.engine(flow) as engine:
        result = await (await engine.handle("r")).result()

    assert ["first", "second"] == result
    assert ["first", "second", "second"] == steps.begun


async def test_later_enqueues_stay_pending() -> None:
    """[195] What is enqueued after leaving stays pending, for the next engine."""

    @workflow
    def flow() -> Flow[int]:
        return (yield from step(give, 7))

    world = World(MemoryStorage())
    async with world.engine(flow) as engine:
        pass
    run = await engine.enqueue(flow(), run_id="r")
    before = (await run.info()).status
    info = await world.continued(flow)

    assert (RunStatus.PENDING, 7) == (before, info.output)


@pytest.mark.parametrize(("shape", "begun"), [("one step", ["a"]), ("side by side", ["a"]), ("timer", [])])
async def test_leaving_during_a_write(world: World, shape: str, begun: list[str]) -> None:
    """[195] A step is not started when leaving has begun during the write before it."""
    steps = Steps()

    @workflow
    def flow() -> Flow[None]:
        if shape == "timer":
            yield gather(step(steps, "b"), sleep("1h"))
        yield step(steps, "a")
        if shape == "side by side":
            yield gather(step(steps, "b"), step(steps, "c"))
        yield step(steps, "b")

    tapped = TappedStorage(world.storage)
    gate = tapped.hold("save_progress")
    async with create_task_group() as tasks:
        async with world.engine(flow, storage=tapped, grace="1h") as engine:
            await engine.enqueue(flow(), run_id="r")
            await gate.arrived.wait()
            tasks.start_soon(open_later, gate)

    assert begun == steps.begun
    assert await world.given_back()


@pytest.mark.parametrize("grace", ["1h", 0])
async def test_between_claim_and_start(world: World, grace: Any) -> None:
    """[196] Shutdown between the claim of a run and its start executes nothing."""
    steps = Steps()

    @workflow
    def flow() -> Flow[None]:
        yield step(steps, "first")

    tapped = TappedStorage(world.storage)
    gate = tapped.hold_answer("claim_runs")
    async with create_task_group() as tasks:
        async with world.engine(flow, storage=tapped, grace=grace) as engine:
            await engine.enqueue(flow(), run_id="r")
            await gate.arrived.wait()
            tasks.start_soon(open_later, gate)

    assert [] == steps.log
    assert await world.given_back()


async def release(steps: Steps, name: str) -> None:
    """Let a body end once nobody can do anything else."""
    await wait_all_tasks_blocked()
    steps.held[name].set()


async def open_later(gate: Gate) -> None:
    """Open it once nobody can do anything else."""
    await wait_all_tasks_blocked()
    gate.open()


async def test_a_sleeping_run_is_left_alone(world: World) -> None:
    """Shutdown does not touch runs that sleep, also where they were just about to."""
    steps = Steps("held")

    @workflow
    def flow() -> Flow[None]:
        yield step(steps, "held")
        yield sleep("14d")

    async with create_task_group() as tasks:
        async with world.engine(flow, grace="1h") as engine:
            await engine.enqueue(flow(), run_id="r")
            await steps.until("held begins")
            tasks.start_soon(release, steps, "held")

    info = await world.info()
    assert (RunStatus.SLEEPING, ["completed", "sleeping"]) == (info.status, [entry.status for entry in info.entries])


async def test_a_thread_that_outlives_the_engine(world: World) -> None:
    """A plain function cannot be interrupted: its run is given back without waiting for it."""
    begun, ended = Event(), Event()
    go = threading.Event()

    def body() -> None:
        from_thread.run_sync(begun.set)
        go.wait()
        from_thread.run_sync(ended.set)

    @workflow
    def flow() -> Flow[None]:
        yield step(body)

    async with world.engine(flow, grace=0) as engine:
        await engine.enqueue(flow(), run_id="r")
        await begun.wait()
    back = await world.given_back()
    go.set()
    await ended.wait()

    assert back


@pytest.mark.parametrize("shape", ["one step", "side by side", "timed", "both", "answered"])
@pytest.mark.parametrize("sync", [False, True])
def test_the_end_of_an_event_loop(tmp_path: Path, shape: str, sync: bool) -> None:
    """[176][196] The end of `asyncio.run`, which cancels each task by itself, is no failure of what was in flight:
    neither to hooks nor in the storage; all runs are given back."""
    begun, told, go = list[int](), list[LifecycleEvent](), threading.Event()

    def begins(number: int) -> None:
        begun.append(number)
        if len(begun) == expected:
            all_begun.get_loop().call_soon_threadsafe(all_begun.set_result, None)

    def in_a_thread(number: int) -> None:
        begins(number)
        go.wait()

    async def on_the_loop(number: int) -> None:
        begins(number)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if shape == "answered":
                raise ConnectionError("interrupted") from None
            raise

    @workflow
    def flow(number: int) -> Flow[None]:
        body = step(in_a_thread if sync else on_the_loop, number)
        if shape in ("timed", "both"):
            body = body.options(timeout="1h")
        yield gather(body, body, sleep("1h")) if shape in ("side by side", "both") else body

    async def serve() -> None:
        async with Engine(storage, [flow], hooks=[told.append]) as engine:
            for number in range(10):
                await engine.enqueue(flow(number), run_id=str(number))
            await asyncio.Event().wait()

    async def main() -> None:
        nonlocal all_begun
        all_begun = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve())
        await all_begun
        assert not serving.done()

    async def infos() -> list[RunInfo | None]:
        async with Client(storage) as client:
            return [await client.get_run(str(number)) for number in range(10)]

    all_begun: asyncio.Future[None]
    storage = SQLiteStorage(tmp_path / "test.db", durability="process")
    expected = 20 if shape in ("side by side", "both") else 10
    asyncio.run(main())
    go.set()
    runs = asyncio.run(infos())

    assert 10 * [(RunStatus.PENDING, None, [])] == [
        run and (run.status, run.error, [entry for entry in run.entries if entry.kind == "step"]) for run in runs
    ]
    assert {RunStarted, StepStarted} == {type(event) for event in told}
    assert expected == len(begun)
