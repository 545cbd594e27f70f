"""Sleep: durable timers, for which nothing need stay alive."""

from __future__ import annotations

import gc
import weakref
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from anyio import create_task_group

from reflow import ConfigError, Flow, RunStatus, gather, now, sleep, sleep_until, step, workflow
from tests.support.bodies import give
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio


@workflow
def nap(duration: str) -> Flow[str]:
    """A sleep between two steps."""
    yield step(give, "before")
    yield sleep(duration)
    return (yield from step(give, "after"))


def instant(world: World) -> datetime:
    """What time it is in this world."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=world.clock.now())


async def test_a_sleeping_run(world: World) -> None:
    """[69] A sleeping run has status `sleeping`, no lease, and is due at its wake time."""
    info = await world.settle(nap("1h"))

    row = await world.storage.get_run("r")
    assert row is not None
    assert (RunStatus.SLEEPING, None) == (row.status, row.lease_id)
    assert instant(world) + timedelta(hours=1) == info.due_at


async def test_it_is_not_claimable_before_its_time(world: World) -> None:
    """[69] No engine claims it before its wake time, and one does at that time."""
    await world.settle(nap("1h"))
    early = await world.continued(nap, after="3599.999s")
    woken = await world.continued(nap, after="1ms")

    assert (RunStatus.SLEEPING, 1) == (early.status, early.executions)
    assert (RunStatus.COMPLETED, "after") == (woken.status, woken.output)


async def test_it_has_no_slot(world: World) -> None:
    """[69] Sleeping runs have no slot: with a concurrency of 1 a hundred may sleep, and others run."""
    engine = world.engine(nap, concurrency=1)
    for number in range(100):
        await engine.enqueue(nap("1h"), run_id=f"sleeper-{number}")
    await engine.enqueue(nap("0s"), run_id="quick")
    await engine.drain()

    assert RunStatus.COMPLETED == (await world.info("quick")).status
    assert RunStatus.SLEEPING == (await world.info("sleeper-99")).status


async def test_it_has_no_memory(world: World) -> None:
    """[69] What a sleeping run's body held is freed."""

    class Weighty:
        pass

    held: list[weakref.ref[Weighty]] = []

    @workflow
    def flow() -> Flow[None]:
        weighty = Weighty()
        held.append(weakref.ref(weighty))
        yield sleep("1h")
        del weighty

    engine = world.engine(flow)
    await engine.enqueue(flow())
    await engine.drain()
    gc.collect()

    assert [None] == [reference() for reference in held]


async def test_a_takeover_keeps_the_wake_time(world: World) -> None:
    """[70][71] The wake time is stored on first arrival: neither a restart nor a claim in between counts it anew."""

    @workflow
    def flow() -> Flow[datetime]:
        yield gather(sleep("1h"), sleep("20m"), sleep("40m"))
        return (yield from now())

    started = instant(world)
    await world.settle(flow())
    await world.continued(flow, after="30m")
    await world.continued(flow, after="15m")
    info = await world.continued(flow, after="15m")

    assert RunStatus.COMPLETED == info.status
    assert started + timedelta(hours=1) == datetime.fromisoformat(str(info.output))
    assert ["0.1", "0.2", "0.0"] == [entry.position for entry in info.entries if entry.kind == "sleep"]


async def test_it_counts_from_arrival(world: World) -> None:
    """[70] The duration counts from the moment at which the run arrives at the sleep, also after a slow step."""

    async def slow() -> None:
        world.clock.advance("10s")

    @workflow
    def flow() -> Flow[None]:
        yield step(slow)
        yield sleep("1h")

    started = instant(world)
    info = await world.settle(flow())

    assert started + timedelta(hours=1, seconds=10) == info.due_at


async def test_a_timer_that_came_due_unseen(world: World) -> None:
    """[71] A timer that came due while no engine ran fires at once on start."""
    await world.settle(nap("1h"))
    world.clock.advance("30d")
    async with world.engine(nap) as engine:
        result = await (await engine.handle("r")).result()

    assert "after" == result


@pytest.mark.parametrize("duration", [0, "0s", timedelta(0)])
async def test_a_sleep_of_nothing(world: World, duration: Any) -> None:
    """[72] A sleep of zero goes on without parking."""

    @workflow
    def flow() -> Flow[str]:
        yield sleep(duration)
        return "awake"

    info = await world.settle(flow())

    assert ("awake", 1) == (info.output, info.executions)
    assert [("sleep", "completed")] == [(entry.kind, entry.status) for entry in info.entries]


async def test_a_sleep_into_the_past(world: World) -> None:
    """[72] A sleep until an instant in the past goes on without parking."""

    @workflow
    def flow() -> Flow[str]:
        yield sleep_until(datetime(1999, 12, 31, tzinfo=UTC))
        return "awake"

    info = await world.settle(flow())

    assert ("awake", 1) == (info.output, info.executions)


async def test_a_sleep_of_years(world: World) -> None:
    """[72] A sleep of years works."""
    info = await world.settle(nap("36500d"))
    woken = await world.continued(nap, after="36500d")

    assert instant(world) == info.due_at
    assert "after" == woken.output


async def test_a_short_sleep_stays_in_memory(world: World) -> None:
    """A sleep of milliseconds keeps the run where it is: one claim, no replay, and the timer is stored all the same."""
    tapped = TappedStorage(world.storage)
    engine = world.engine(nap, storage=tapped)
    await engine.enqueue(nap("80ms"), run_id="r")
    async with create_task_group() as tasks:
        tasks.start_soon(engine.drain)
        await world.clock.has_timer(within="80ms")
        stored = await world.info()
        world.clock.advance("80ms")

    info = await world.info()
    assert ["completed", "sleeping"] == [entry.status for entry in stored.entries]
    assert ("after", 1, 0) == (info.output, info.executions, tapped.log.count("get_journal"))


async def test_another_engine_may_wake_it(world: World) -> None:
    """[73][74] Any engine that knows the workflow may wake it: earlier steps do not run again, and start and completion
    of the sleep come from two engines."""
    bodies: list[str] = []

    async def count(name: str) -> None:
        bodies.append(name)

    @workflow
    def flow() -> Flow[None]:
        yield step(count, "before")
        yield sleep("1h")
        yield step(count, "after")

    asleep = await world.settle(flow())
    info = await world.continued(flow, after="2h")

    assert ["before", "after"] == bodies
    assert ("sleeping", None) == (asleep.entries[1].status, asleep.entries[1].finished_at)
    woken = info.entries[1]
    assert ("completed", None) == (woken.status, woken.value)
    assert asleep.entries[1].started_at == woken.started_at
    assert instant(world) == woken.finished_at


async def test_it_is_computed_at_run_time(world: World) -> None:
    """[76] Durations and instants are computed at run time, in any time zone."""

    @workflow
    def flow() -> Flow[None]:
        hours = yield from step(give, 3)
        moment = yield from now()
        there = (moment + timedelta(hours=hours)).astimezone(timezone(timedelta(hours=9)))
        yield sleep_until(there)

    started = instant(world)
    info = await world.settle(flow())

    assert started + timedelta(hours=3) == info.due_at


@pytest.mark.parametrize("wrong", [datetime(2030, 1, 1), "2030-01-01", 1e9, None], ids=repr)
async def test_a_naive_datetime(world: World, wrong: Any) -> None:
    """[76] `sleep_until` refuses a naive datetime, and anything else, with a ConfigError at its line."""

    @workflow
    def flow() -> Flow[None]:
        yield step(give, 1)
        yield sleep_until(wrong)

    info = await world.settle(flow())

    assert info.error is not None
    assert (RunStatus.FAILED, "ConfigError") == (info.status, info.error.type)
    with pytest.raises(ConfigError, match="aware datetime"):
        sleep_until(wrong)


async def test_a_woken_run_ranks_by_its_time(world: World) -> None:
    """[77] A woken run ranks by its `due_at` among all due runs: it does not starve behind a backlog."""
    order: list[str] = []

    async def note(name: str) -> None:
        order.append(name)

    @workflow
    def sleeper() -> Flow[None]:
        yield sleep("10s")
        yield step(note, "sleeper")

    @workflow
    def other(name: str) -> Flow[None]:
        yield step(note, name)

    engine = world.engine(sleeper, other, concurrency=1)
    await engine.enqueue(sleeper())
    await engine.drain()
    for name in ("first", "second", "third"):
        world.clock.advance("6s")
        await engine.enqueue(other(name))
    await engine.drain()

    assert ["first", "sleeper", "second", "third"] == order


async def test_many_timers_at_once(world: World) -> None:
    """[51][71] Timers that come due together fire in the order of their times, each once."""

    @workflow
    def flow() -> Flow[int]:
        results = yield from gather(*(sleep(number) for number in range(30, 0, -1)))
        return len(results)

    await world.settle(flow())
    info = await world.continued(flow, after="1m")

    assert (RunStatus.COMPLETED, 30) == (info.status, info.output)
    assert [f"0.{index}" for index in range(29, -1, -1)] == [entry.position for entry in info.entries]
