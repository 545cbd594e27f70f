"""The system's clock, and the one that tests turn."""

from __future__ import annotations

import time

import pytest
from anyio import Event, create_task_group, fail_after, wait_all_tasks_blocked

from reflow import Clock
from reflow._engine.clock import SystemClock
from reflow.testing.clock import START, VirtualClock
from tests.support.clock import HastyClock

pytestmark = pytest.mark.anyio


def test_microseconds() -> None:
    """The system's clock gives microseconds since 1970 UTC."""
    before = time.time()
    now = SystemClock().now()
    after = time.time()

    assert isinstance(now, int)
    assert before - 0.001 <= now / 1_000_000 <= after + 0.001


async def test_waiting_for_a_time(anyio_backend: str) -> None:
    """A wait ends when its time has come, and not before."""
    clock = SystemClock()
    until = clock.now() + 2_000
    with fail_after(10):
        await clock.wait(Event(), until)

    assert clock.now() >= until


@pytest.mark.parametrize("until", ["an hour", "for ever"])
async def test_waiting_for_an_event(anyio_backend: str, until: str) -> None:
    """A wait ends when its event is set, whatever the time."""
    clock, event = SystemClock(), Event()
    with fail_after(10):
        async with create_task_group() as tasks:
            tasks.start_soon(clock.wait, event, clock.now() + 3_600_000_000 if until == "an hour" else None)
            await wait_all_tasks_blocked()
            event.set()

    assert event.is_set()


async def test_no_wait_at_all(anyio_backend: str) -> None:
    """A time that is past, or an event that is set, is not waited for."""
    for clock in (SystemClock(), VirtualClock()):
        done = Event()
        done.set()
        with fail_after(10):
            await clock.wait(Event(), clock.now() - 1)
            await clock.wait(Event(), clock.now())
            await clock.wait(done, None)
            await clock.wait(done, clock.now() + 3_600_000_000)


def test_the_protocol() -> None:
    """Both are clocks as far as the engine is concerned."""
    clocks: list[Clock] = [SystemClock(), VirtualClock()]

    assert 2 == len(clocks)


async def test_the_virtual_clock(anyio_backend: str) -> None:
    """A virtual clock stands still until it is turned; it wakes those whose time has come, and says who is next."""
    clock = VirtualClock()
    woken: list[int] = []

    async def wait(seconds: int) -> None:
        await clock.wait(Event(), START + seconds * 1_000_000)
        woken.append(seconds)

    async with create_task_group() as tasks:
        for seconds in (30, 10, 20):
            tasks.start_soon(wait, seconds)
        await clock.has_timer(within="10s")
        await wait_all_tasks_blocked()
        next_timer = clock.next_timer
        clock.advance("20s")
        await wait_all_tasks_blocked()
        early = sorted(woken)
        clock.advance("10s")

    assert START + 10_000_000 == next_timer
    assert ([10, 20], [10, 20, 30]) == (early, sorted(woken))
    assert clock.next_timer is None


async def test_a_hasty_clock(anyio_backend: str) -> None:
    """With `passes_at_once` short waits turn the clock themselves, long ones do not."""
    clock = HastyClock(passes_at_once="1s")
    with fail_after(10):
        await clock.wait(Event(), START + 1_000_000)

    assert START + 1_000_000 == clock.now()
