"""One attempt of a body: threads of its own, and what it can know of itself."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from anyio import CapacityLimiter, Event, create_task_group, from_thread, wait_all_tasks_blocked

from reflow import Flow, Retry, StepInfo, current_step, gather, race, sleep, step, workflow
from reflow._engine.perform import Attempt, attempt
from reflow.testing import VirtualClock
from tests.support.bodies import Steps, give
from tests.support.world import World

pytestmark = pytest.mark.anyio

INFO = StepInfo("r", "flow", "body", "0", attempt=1)


class Blocked:
    """A plain function that blocks its thread until it is released; `began` is set when `size` of them do."""

    def __init__(self, size: int = 1) -> None:
        self.began = Event()
        self._size = size
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()
        self._release = threading.Event()

    def __call__(self, value: int) -> int:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
            is_last = self.running == self._size
        if is_last:
            from_thread.run_sync(self.began.set)
        self._release.wait()
        with self._lock:
            self.running -= 1
        return value

    def release(self) -> None:
        """Let all of them go on."""
        self._release.set()


async def test_the_key_is_the_same_on_every_attempt(world: World) -> None:
    """[27] The idempotency key is the same on every attempt and in every engine, and another one for every step and
    run."""
    seen: list[tuple[int, str]] = []

    async def flaky() -> None:
        seen.append((current_step().attempt, current_step().idempotency_key))
        if current_step().attempt < 3:
            raise ConnectionError

    @workflow
    def flow() -> Flow[None]:
        yield step(flaky).options(retry=Retry(max_attempts=3, initial_delay="1h", jitter=False, backoff="constant"))
        yield gather(step(flaky).options(retry=Retry(initial_delay=0)))

    await world.settle(flow(), run_id="run")
    await world.continued(flow, run_id="run", after="1h")
    await world.continued(flow, run_id="run", after="1h")

    assert [(number, "run:0") for number in (1, 2, 3)] + [(number, "run:1.0") for number in (1, 2, 3)] == seen


@pytest.mark.parametrize("sync", [False, True])
async def test_an_attempt(anyio_backend: str, sync: bool) -> None:
    """An attempt gives a value or an error, and knows its step while it lasts, no longer."""

    async def on_the_loop(fail: bool) -> StepInfo:
        return in_a_thread(fail)

    def in_a_thread(fail: bool) -> StepInfo:
        if fail:
            raise ValueError("no")
        return current_step()

    fn = in_a_thread if sync else on_the_loop
    limiter = CapacityLimiter(1)
    good = await attempt(step(fn, False), INFO, limiter, VirtualClock())
    bad = await attempt(step(fn, True), INFO, limiter, VirtualClock())

    assert Attempt(INFO, None) == good
    assert (None, "ValueError('no')") == (bad.value, repr(bad.error))
    with pytest.raises(Exception, match="outside a step body"):
        current_step()


async def test_threads_are_bounded(world: World) -> None:
    """Plain bodies run in at most `threads` threads; the others wait for one."""
    blocked = Blocked(2)

    @workflow
    def flow() -> Flow[list[int]]:
        values = yield from gather(*(step(blocked, number) for number in range(6)))
        return list(values)

    async with world.engine(flow, threads=2) as engine:
        run = await engine.enqueue(flow())
        await blocked.began.wait()
        await wait_all_tasks_blocked()
        blocked.release()
        result = await run.result()

    assert [0, 1, 2, 3, 4, 5] == result
    assert 2 == blocked.most


async def test_threads_of_their_own(world: World) -> None:
    """However many plain bodies block, the storage goes on, and so do async bodies and the threads of others."""
    blocked = Blocked()

    @workflow
    def blocking() -> Flow[int]:
        return (yield from step(blocked, 1))

    @workflow
    def quick(value: int) -> Flow[int]:
        first = yield from step(give, value)
        yield step(give, value)
        return first

    async with world.engine(blocking, quick, threads=1) as engine, world.engine(quick, threads=1) as other:
        runs = [await engine.enqueue(blocking()) for _ in range(50)]
        await blocked.began.wait()
        results = [await engine.execute(quick(1)), await other.execute(quick(2))]
        blocked.release()
        await runs[0].result()

    assert [1, 2] == results


async def test_an_abandoned_thread_gives_its_place_back(world: World) -> None:
    """A body that lost a race while it waited for a thread never begins."""
    blocked = Blocked()
    began: list[int] = []

    def late() -> None:
        began.append(1)

    @workflow
    def flow() -> Flow[int]:
        winner: Any = yield race(step(late), step(give, 7))
        return int(winner.value)

    @workflow
    def blocking() -> Flow[int]:
        return (yield from step(blocked, 1))

    async with world.engine(flow, blocking, threads=1) as engine:
        holding = await engine.enqueue(blocking())
        await blocked.began.wait()
        result = await engine.execute(flow())
        blocked.release()
        await holding.result()

    assert (7, []) == (result, began)


@pytest.mark.parametrize("ends_by", ["a timeout", "a lost race"])
async def test_an_abandoned_thread_keeps_its_place(world: World, ends_by: str) -> None:
    """However often bodies that hang are given up and tried again, they never are in more than `threads` threads at
    once; when these end, their places are free again."""
    hanging, afterwards = Blocked(2), Blocked(2)
    is_over = Event()

    async def after_both() -> None:
        await hanging.began.wait()

    @workflow
    def hangs(number: int) -> Flow[int]:
        body = step(hanging, number)
        if ends_by == "a timeout":
            return (yield from body.options(timeout="1m", retry=Retry(max_attempts=3, initial_delay=0)))
        yield race(body, step(after_both))
        is_over.set()
        return (yield from body)

    @workflow
    def quick(number: int) -> Flow[int]:
        return (yield from step(afterwards, number))

    async with world.engine(hangs, quick, threads=2, lease="1d") as engine:
        runs = [await engine.enqueue(hangs(number)) for number in range(2)]
        await hanging.began.wait()
        if ends_by == "a timeout":
            world.clock.advance("1m")
        else:
            await is_over.wait()
        runs += [await engine.enqueue(quick(number)) for number in range(2)]
        for _ in range(10):
            await wait_all_tasks_blocked()
        hung = hanging.running, afterwards.running
        hanging.release()
        await afterwards.began.wait()
        afterwards.release()
        results = [await run.result() for run in runs]

    assert ((2, 0), 2, 2) == (hung, hanging.most, afterwards.most)
    assert [0, 1, 0, 1] == results


@pytest.mark.parametrize("limit", [None, "1h"])
async def test_bodies_do_not_share_context(world: World, limit: str | None) -> None:
    """Two runs side by side do not see each other's step, whichever way their bodies run."""
    steps = Steps("a", "b")
    seen: list[bool] = []

    async def look(name: str) -> None:
        before = current_step()
        await steps(name)
        seen.append(before == current_step())

    @workflow
    def flow(name: str) -> Flow[None]:
        yield step(look, name).options(timeout=limit)

    async with world.engine(flow) as engine, create_task_group():
        runs = [await engine.enqueue(flow(name)) for name in "ab"]
        await steps.until("a begins", "b begins")
        for name in "ab":
            steps.held[name].set()
        for run in runs:
            await run.result()

    assert [True, True] == seen


async def test_a_clock_that_is_put_back(anyio_backend: str) -> None:
    """A clock that is put back, even to before the attempt began, does not cut an attempt short: its time is over when
    the clock says so."""
    clock, steps, attempts = VirtualClock(), Steps("held"), list[Attempt]()
    timed = step(steps, "held").options(timeout="1m")

    async def make() -> None:
        attempts.append(await attempt(timed, INFO, CapacityLimiter(1), clock))

    began = clock.now()
    async with create_task_group() as tasks:
        tasks.start_soon(make)
        await clock.has_timer("1m")
        clock.turn_to(began - 3_600_000_000)
        await wait_all_tasks_blocked()
        early = list(steps.log)
        clock.turn_to(began + 60_000_000)

    assert ["held begins"] == early
    assert ["StepTimeoutError"] == [type(made.error).__name__ for made in attempts]


async def test_a_body_that_blocks_the_loop(world: World) -> None:
    """A body that lets more time pass than a lease lasts, without ever waiting, keeps its run: nothing begins twice."""
    began: list[int] = []

    async def busy(number: int) -> int:
        began.append(number)
        world.clock.advance("1h")
        return number

    @workflow
    def flow() -> Flow[list[int]]:
        values: list[int] = []
        for number in range(10):
            values.append((yield from step(busy, number)))
        yield sleep(0)
        return values

    async with world.engine(flow, lease="30s") as engine:
        run = await engine.enqueue(flow())
        result = await run.result()
        executions = (await run.info()).executions

    assert list(range(10)) == result == began
    assert 1 == executions
