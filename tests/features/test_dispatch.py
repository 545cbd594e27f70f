"""Concurrency and dispatch: who is advanced when."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from anyio import Event, create_task_group, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from reflow import (
    Engine,
    Flow,
    Retry,
    RunStatus,
    SQLiteStorage,
    StorageError,
    current_step,
    sleep,
    step,
    wait_event,
    workflow,
)
from tests.support.bodies import Meeting, Steps, give
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio


class Busy:
    """A body that counts how many of it run at once."""

    def __init__(self) -> None:
        self.most = 0
        self._now = 0

    async def __call__(self) -> None:
        self._now += 1
        self.most = max(self.most, self._now)
        await wait_all_tasks_blocked()
        self._now -= 1


@workflow
def quick(value: int) -> Flow[int]:
    """One step."""
    return (yield from step(give, value))


async def enqueue(engine: Engine, count: int) -> None:
    """Runs of `quick`."""
    for number in range(count):
        await engine.enqueue(quick(number), run_id=f"quick-{number}")


async def completed(world: World, count: int) -> int:
    """How many runs of `quick` have completed."""
    infos = [await world.info(f"quick-{number}") for number in range(count)]
    return sum(info.status == RunStatus.COMPLETED for info in infos)


async def test_so_many_at_once(world: World) -> None:
    """[123] Up to `concurrency` runs are advanced at once, and all of those slots are used."""
    meet = Meeting(4)

    @workflow
    def flow() -> Flow[int]:
        return (yield from step(meet, 1))

    async with world.engine(flow, concurrency=4) as engine:
        runs = [await engine.enqueue(flow()) for _ in range(4)]
        results = [await run.result() for run in runs]

    assert [1, 1, 1, 1] == results


async def test_never_more(world: World) -> None:
    """[123][125] Never more than `concurrency` runs are advanced at once, by overlapping ticks and drains neither."""
    busy = Busy()

    @workflow
    def flow() -> Flow[None]:
        yield step(busy)
        yield step(busy)

    async with world.engine(flow, concurrency=3) as engine, create_task_group() as tasks:
        for _ in range(20):
            await engine.enqueue(flow())
            tasks.start_soon(engine.tick)
        for _ in range(3):
            tasks.start_soon(engine.drain)

    assert 1 <= busy.most <= 3


async def test_a_free_slot_is_refilled_at_once(world: World) -> None:
    """[124] A free slot is refilled at once: one slow run never holds up others."""
    steps = Steps("slow")

    @workflow
    def slow() -> Flow[str]:
        return (yield from step(steps, "slow"))

    async with world.engine(slow, quick, concurrency=2) as engine:
        run = await engine.enqueue(slow())
        await steps.until("slow begins")
        await enqueue(engine, 20)
        for number in range(20):
            assert number == await (await engine.handle(f"quick-{number}")).result()
        during = await run.info()
        steps.held["slow"].set()
        await run.result()

    assert RunStatus.RUNNING == during.status


async def test_fewer_than_slots(world: World) -> None:
    """[123] Fewer due runs than slots are fine."""
    async with world.engine(quick, concurrency=50) as engine:
        result = await engine.execute(quick(7))

    assert 7 == result


async def test_runs_are_routed_by_workflow(world: World) -> None:
    """[113][123] An engine claims runs of its own workflows only."""

    @workflow
    def other() -> Flow[str]:
        return (yield from step(give, "other"))

    knows_both, knows_other = world.engine(quick, other), world.engine(other)
    await knows_both.enqueue(quick(1), run_id="quick")
    await knows_both.enqueue(other(), run_id="other")
    await knows_other.drain()

    assert [RunStatus.PENDING, RunStatus.COMPLETED] == [(await world.info(name)).status for name in ("quick", "other")]


async def test_tick_is_one_batch(world: World) -> None:
    """[125] `tick()` handles one batch and says how large it was; with nothing due it does nothing."""
    engine = world.engine(quick, concurrency=3)
    await enqueue(engine, 5)

    assert [3, 2, 0, 0] == [await engine.tick() for _ in range(4)]
    assert 5 == await completed(world, 5)


async def test_tick_without_workflows(world: World) -> None:
    """[113][125] Without workflows a tick does nothing."""
    await enqueue(world.engine(quick), 1)
    engine = world.engine()

    assert 0 == await engine.tick()
    assert 0 == await completed(world, 1)


async def test_drain(world: World) -> None:
    """[126] `drain()` returns when nothing is due, however many batches and parks that takes; sleeping runs do not hold
    it."""

    @workflow
    def sleeper() -> Flow[None]:
        yield sleep("1h")

    engine = world.engine(quick, sleeper, concurrency=2)
    await engine.enqueue(sleeper(), run_id="sleeper")
    await enqueue(engine, 9)
    await engine.drain()

    assert 9 == await completed(world, 9)
    assert RunStatus.SLEEPING == (await world.info("sleeper")).status


async def test_drain_waits_for_runs_in_the_making(world: World) -> None:
    """[126] `drain()` waits for what others advance here, and for what another claim is just fetching."""
    steps = Steps("held")

    @workflow
    def flow() -> Flow[str]:
        return (yield from step(steps, "held"))

    tapped = TappedStorage(world.storage)
    async with world.engine(flow, storage=tapped) as engine, create_task_group() as tasks:
        gate = tapped.hold_answer("claim_runs")
        await engine.enqueue(flow(), run_id="r")
        await gate.arrived.wait()
        drained = Event()

        async def drain() -> None:
            await engine.drain()
            assert "ends" in steps.log[-1]
            drained.set()

        tasks.start_soon(drain)
        tasks.start_soon(drain)
        gate.open()
        await steps.until("held begins")
        await wait_all_tasks_blocked()
        early = drained.is_set()
        steps.held["held"].set()
        await drained.wait()

    assert not early
    assert RunStatus.COMPLETED == (await world.info()).status


async def test_drain_with_retries(world: World) -> None:
    """[126] `drain()` goes through retries that are due at once, and leaves those alone that come later."""

    async def flaky() -> int:
        if current_step().attempt < 3:
            raise ConnectionError
        return current_step().attempt

    @workflow
    def flow(delay: int) -> Flow[int]:
        return (yield from step(flaky).options(retry=Retry(initial_delay=delay, jitter=False)))

    at_once = await world.settle(flow(0), run_id="at once")
    later = await world.settle(flow(60), run_id="later")

    assert (RunStatus.COMPLETED, 3) == (at_once.status, at_once.output)
    assert RunStatus.SLEEPING == later.status


async def test_drain_says_when_the_storage_fails(world: World) -> None:
    """`tick` and `drain` raise the `StorageError` of a failed claim to whoever called: nothing is lost, and the next
    call goes on."""
    tapped = TappedStorage(world.storage)
    engine = world.engine(quick, storage=tapped)
    await enqueue(engine, 1)
    tapped.fail("claim_runs", 2)

    for work in (engine.tick, engine.drain):
        with pytest.raises(StorageError, match="it was told to fail"):
            await work()
    await engine.drain()

    assert 1 == await completed(world, 1)


async def test_an_engine_outlives_failing_claims(world: World) -> None:
    """[120] An engine whose claims fail goes on claiming, a second later."""
    tapped = TappedStorage(world.storage)
    tapped.fail("claim_runs", 3)
    async with world.engine(quick, storage=tapped) as engine, create_task_group() as tasks:
        run = await engine.enqueue(quick(7))

        async def turn_the_clock() -> None:
            # Not on and on: a clock that runs ahead of a thread that writes would end leases.
            while tapped.failures["claim_runs"]:
                await world.clock.has_timer(within="1s")
                world.clock.advance("1s")
                await wait_all_tasks_blocked()
            world.clock.advance("1s")

        tasks.start_soon(turn_the_clock)
        result = await run.result()

    assert 7 == result


async def test_enqueue_wakes_the_engine(world: World) -> None:
    """[127] An idle engine starts what is enqueued on it at once: the clock stands still."""
    async with world.engine(quick) as engine:
        await wait_all_tasks_blocked()
        before = world.clock.now()
        result = await engine.execute(quick(7))

    assert (7, before) == (result, world.clock.now())


async def test_a_timer_wakes_the_engine(world: World) -> None:
    """[127] An idle engine wakes a sleeping run at its time, not at the next poll."""

    @workflow
    def flow() -> Flow[str]:
        yield sleep("300ms")
        return "awake"

    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow())
        await world.clock.has_timer(within="300ms")
        world.clock.advance("300ms")
        result = await run.result()

    assert "awake" == result


async def test_another_engine_s_enqueue_is_heard_of(world: World) -> None:
    """[127] An engine starts at once what another one in this process has stored: the clock stands still."""
    async with world.engine(quick) as engine:
        await wait_all_tasks_blocked()
        before = world.clock.now()
        await world.engine(quick).enqueue(quick(7), run_id="r")
        result = await (await engine.handle("r")).result()

    assert (7, before) == (result, world.clock.now())


@pytest.mark.parametrize("what", ["run", "event"])
async def test_another_process_is_heard_of(tmp_path: Path, what: str) -> None:
    """[127] An engine hears of what another process has written to the file, of runs and of events, without waiting for
    its next look: the clock stands still."""
    here, there = (World(SQLiteStorage(tmp_path / "test.db", durability="process")) for _ in range(2))
    steps = Steps("released")

    @workflow
    def flow() -> Flow[str]:
        said: str = yield wait_event("said", str)
        return (yield from step(steps, said))

    steps.held["released"].set()
    # A connection of its own is to the file what another process is.
    await there.storage.initialize()
    async with here.engine(flow) as engine:
        if what == "event":
            run = await engine.enqueue(flow(), run_id="r")
            while (await run.info()).status is not RunStatus.WAITING:
                await checkpoint()
        else:
            await there.engine(flow).enqueue(flow(), run_id="r")
        await there.send("r", "said", "released")
        await steps.until("released begins")
    await there.storage.close()

    assert ["released begins"] == steps.log[:1]


async def test_two_engines_share_the_work(world: World) -> None:
    """[112] Two engines on one storage finish every run, and each run is begun by one of them only."""
    began: list[int] = []

    async def note(number: int) -> int:
        began.append(number)
        return number

    @workflow
    def flow(number: int) -> Flow[int]:
        return (yield from step(note, number))

    async with world.engine(flow, concurrency=5) as first, world.engine(flow, concurrency=5) as second:
        runs = [await (first, second)[number % 2].enqueue(flow(number)) for number in range(40)]
        results = [await run.result() for run in runs]

    assert list(range(40)) == results
    assert list(range(40)) == sorted(began)


async def test_oldest_due_first(world: World) -> None:
    """[114] Runs are claimed in the order in which they are due."""
    order: list[int] = []

    async def note(number: int) -> None:
        order.append(number)

    @workflow
    def flow(number: int) -> Flow[None]:
        yield step(note, number)

    engine = world.engine(flow, concurrency=1)
    for number in range(10):
        await engine.enqueue(flow(number))
        world.clock.advance(timedelta(milliseconds=1))
    await engine.drain()

    assert list(range(10)) == order
