"""The system's clock, and the one that tests turn."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from types import SimpleNamespace

import pytest
from anyio import Event, create_task_group, fail_after, wait_all_tasks_blocked

from reflow import Clock, StorageError
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


async def test_a_clock_that_is_put_back(monkeypatch: pytest.MonkeyPatch, anyio_backend: str) -> None:
    """A wait does not outlast the time that it was to take when the clock is put back meanwhile: who waits looks again.
    Nor does it take a new time for one that has come."""
    machine, clock = Machine(monkeypatch), SystemClock()
    machine.now_us = 3_600_000_000
    with fail_after(10):
        async with create_task_group() as tasks:
            tasks.start_soon(clock.wait, Event(), machine.now_us + 20_000)
            await wait_all_tasks_blocked()
            machine.now_us = 0

    assert 0 == clock.now()


async def test_a_virtual_clock_that_is_put_back(anyio_backend: str) -> None:
    """Who waits on a virtual clock looks again when it is turned back, and sleeps as long as it was to sleep by it."""
    clock, woken = VirtualClock(), list[str]()

    async def note(name: str, wait: Awaitable[None]) -> None:
        await wait
        woken.append(name)

    async with create_task_group() as tasks:
        tasks.start_soon(note, "waits", clock.wait(Event(), START + 1_000_000))
        tasks.start_soon(note, "sleeps", clock.sleep("1s"))
        await wait_all_tasks_blocked()
        clock.turn_to(START - 1_000_000)
        await wait_all_tasks_blocked()
        early = list(woken)
        clock.turn_to(START + 1_000_000)

    assert (["waits"], ["waits", "sleeps"]) == (early, woken)


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


class Machine:
    """The clock of a machine, in place of the real one; it stands still unless it is turned."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_us = 0
        monkeypatch.setattr("reflow._engine.clock.time", SimpleNamespace(time_ns=lambda: self.now_us * 1_000))

    async def answer(self, asked_at: int, there: int, answered_at: int, clock: SystemClock) -> int:
        """How far ahead `clock` is after a shared clock that showed `there` was asked between two instants."""

        async def shared() -> int:
            self.now_us = answered_at
            return there

        self.now_us = asked_at
        await clock.follow(shared)
        return clock.now() - self.now_us


@pytest.mark.parametrize(
    ("there", "ahead"),
    [(100, 0), (150, 0), (200, 0), (201, 1), (99, -1), (1_150, 950), (-850, -950), (3_600_000_200, 3_600_000_000)],
)
async def test_following_a_shared_clock(
    monkeypatch: pytest.MonkeyPatch, anyio_backend: str, there: int, ahead: int
) -> None:
    """[199] A clock that follows another is as far ahead as the answer leaves no doubt of: not at all, where the other
    may have shown the same between question and answer."""
    machine = Machine(monkeypatch)

    assert ahead == await machine.answer(100, there, 200, SystemClock())


async def test_following_again(monkeypatch: pytest.MonkeyPatch, anyio_backend: str) -> None:
    """[199] What was found stays as long as answers may agree with it, is made more exact by quick ones, and goes along
    when either clock is set."""
    machine, clock = Machine(monkeypatch), SystemClock()

    answers = [
        await machine.answer(asked_at, there, answered_at, clock)
        for asked_at, there, answered_at in [
            (100, 1_150, 200),  # 950 to 1050
            (300, 1_300, 400),  # 900 to 1000: may be
            (500, 1_510, 520),  # 990 to 1010
            (600, 9_000, 600),
            (700, 710, 720),
        ]
    ]

    assert [950, 950, 990, 8_400, 10] == answers


async def test_a_shared_clock_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, anyio_backend: str) -> None:
    """An error of the one that is asked comes out, and what was found before stays."""
    machine, clock = Machine(monkeypatch), SystemClock()
    assert 1_000 == await machine.answer(100, 1_100, 100, clock)

    async def failing() -> int:
        raise StorageError("time", "no answer")

    with pytest.raises(StorageError):
        await clock.follow(failing)

    assert 1_000 == clock.now() - machine.now_us


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
