"""`VirtualClock` that turns itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from anyio import Event, create_task_group, fail_after, sleep_forever, to_thread
from anyio.lowlevel import checkpoint

from reflow import ConfigError, Engine, Flow, MemoryStorage, sleep, workflow
from reflow.testing import VirtualClock
from reflow.testing.clock import START

pytestmark = pytest.mark.anyio


async def test_it_jumps_to_the_next_timer() -> None:
    """[191] While everything waits for the clock, it jumps from timer to timer, in their order."""
    clock, woken = VirtualClock(), []

    async def wait(days: int) -> None:
        await clock.sleep(f"{days}d")
        woken.append((days, (clock.now() - START) // 86_400_000_000))

    with fail_after(10):
        async with clock.autojump(), create_task_group() as tasks:
            for days in (300, 1, 20):
                tasks.start_soon(wait, days)

    assert [(1, 1), (20, 20), (300, 300)] == woken


async def test_it_does_not_jump_while_a_task_can_go_on() -> None:
    """No time passes while any task is busy, however often it lets others run."""
    clock, seen = VirtualClock(), []

    async def work() -> None:
        for _ in range(50):
            await checkpoint()
            seen.append(clock.now())

    async with clock.autojump(), create_task_group() as tasks:
        tasks.start_soon(work)
        await clock.sleep("1h")

    assert {START} == set(seen)


async def test_it_does_not_jump_while_it_is_held() -> None:
    """A thread is at work and says so: no time passes until it has ended."""
    clock = VirtualClock()
    release = Event()

    async def work() -> int:
        with clock.hold():
            await to_thread.run_sync(sum, range(2_000_000))
            return clock.now()

    async with clock.autojump(), create_task_group() as tasks:

        async def timer() -> None:
            await clock.sleep("1h")
            release.set()

        tasks.start_soon(timer)
        seen = await work()
        await release.wait()

    assert (START, START + 3_600_000_000) == (seen, clock.now())


async def test_its_patience_ends() -> None:
    """What holds the clock and gives no sign of life is waited for as long as the patience lasts."""
    clock = VirtualClock(patience=0.01)
    with fail_after(10):
        async with clock.autojump():
            with clock.hold():
                await clock.sleep("1d")

    assert timedelta(days=1) == clock.time - VirtualClock().time


async def test_it_jumps_no_further_than_the_limit() -> None:
    """A timer beyond the limit is not jumped to: everything waits and the clock is stalled."""
    clock = VirtualClock()
    async with clock.autojump(limit="10d"), create_task_group() as tasks:
        tasks.start_soon(clock.sleep, "11d")
        await clock.sleep("10d")
        await clock.stalled()
        tasks.cancel_scope.cancel()

    assert START + 864_000_000_000 == clock.now()


async def test_it_is_stalled_while_nobody_waits_for_a_time() -> None:
    """Where there is no timer at all the clock is stalled, and goes on when there is one."""
    clock = VirtualClock()
    async with clock.autojump(), create_task_group() as tasks:
        tasks.start_soon(sleep_forever)
        await clock.stalled()
        await clock.sleep("1s")
        await clock.stalled()
        tasks.cancel_scope.cancel()

    assert START + 1_000_000 == clock.now()


async def test_errors_pass_through() -> None:
    """An error inside `autojump` comes out as it is, in no group."""
    with pytest.raises(ZeroDivisionError):
        async with VirtualClock().autojump():
            raise ZeroDivisionError


async def test_it_begins_where_it_is_told() -> None:
    """`start` is an aware datetime; a naive one is refused."""
    start = datetime(2026, 3, 1, tzinfo=UTC)

    assert start == VirtualClock(start=start).time
    with pytest.raises(ConfigError):
        VirtualClock(start=datetime(2026, 3, 1))


@workflow
def nap(duration: str) -> Flow[str]:
    """Sleeps."""
    yield sleep(duration)
    return "rested"


async def test_any_engine_runs_on_it() -> None:
    """[191] An engine on memory whose clock jumps sleeps for a minute in no time."""
    clock = VirtualClock()
    async with clock.autojump(), Engine(MemoryStorage(), [nap], clock=clock) as engine:
        with fail_after(10):
            assert "rested" == await engine.execute(nap("1m"))

    assert 60 <= (clock.now() - START) / 1_000_000 < 63
