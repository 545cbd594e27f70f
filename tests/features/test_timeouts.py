"""Timeouts: a limit for each attempt."""

from __future__ import annotations

import threading

import pytest
from anyio import CancelScope, Event, from_thread, get_cancelled_exc_class, sleep_forever, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from reflow import Flow, Retry, RunFailedError, StepTimeoutError, current_step, gather, step, workflow
from tests.support.world import World

pytestmark = pytest.mark.anyio


class Endless:
    """A body that never ends by itself; `begun` is set with each attempt, `cancelled` when it is cancelled."""

    def __init__(self) -> None:
        self.begun = Event()
        self.cancelled = Event()
        self.attempts: list[int] = []

    async def __call__(self) -> None:
        self.attempts.append(current_step().attempt)
        begun, self.begun = self.begun, Event()
        begun.set()
        try:
            await sleep_forever()
        finally:
            self.cancelled.set()


async def test_an_attempt_that_takes_too_long(world: World) -> None:
    """[45] An attempt longer than `timeout=` ends with `StepTimeoutError`, which carries the limit, says "timed out"
    and reaches the workflow's `except`."""
    body = Endless()
    caught: list[StepTimeoutError] = []

    @workflow
    def flow() -> Flow[str]:
        try:
            yield step(body).options(timeout="90s", name="slow")
        except StepTimeoutError as error:
            caught.append(error)
            return "too slow"
        return "done"

    begun = body.begun
    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow())
        await begun.wait()
        world.clock.advance("90s")
        result = await run.result()

    assert "too slow" == result
    assert [("slow", "0", 1, 90.0)] == [(error.step, error.position, error.attempts, error.limit_s) for error in caught]
    assert "step 'slow' failed after 1 attempt: StepTimeoutError: timed out after 90 s" == str(caught[0])


async def test_a_timeout_fails_the_run(world: World) -> None:
    """[45] Uncaught, a timeout is a real failure: the run has failed, caused by `StepTimeoutError`."""
    body = Endless()

    @workflow
    def flow() -> Flow[None]:
        yield step(body).options(timeout="90s")

    begun = body.begun
    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow())
        await begun.wait()
        world.clock.advance("90s")
        with pytest.raises(RunFailedError, match="timed out after 90 s") as failed:
            await run.result()

    assert failed.value.is_caused_by(StepTimeoutError)
    assert "0" == failed.value.failure.position


async def test_the_limit_is_per_attempt(world: World) -> None:
    """[46] The timeout is per attempt; a timed-out attempt counts as one and is retried like any failure."""
    body = Endless()

    @workflow
    def flow() -> Flow[int]:
        try:
            yield step(body).options(timeout="1m", retry=Retry(max_attempts=3, initial_delay=0))
        except StepTimeoutError as error:
            return error.attempts
        return 0

    begun = body.begun
    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow())
        for _ in range(3):
            await begun.wait()
            begun = body.begun
            world.clock.advance("1m")
        result = await run.result()

    assert [1, 2, 3] == body.attempts
    assert 3 == result


async def test_in_time(world: World) -> None:
    """[46] An attempt that ends within the limit is not touched by it, afterwards neither."""
    begun, go = Event(), Event()

    async def body() -> str:
        begun.set()
        await go.wait()
        return "in time"

    async def later() -> str:
        world.clock.advance("1m")
        return "later"

    @workflow
    def flow() -> Flow[list[str]]:
        first = yield from step(body).options(timeout="1m")
        second = yield from step(later).options(timeout=None)
        return [first, second]

    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow())
        await begun.wait()
        world.clock.advance("59s")
        go.set()
        result = await run.result()

    assert ["in time", "later"] == result


async def test_no_timeout_means_no_limit(world: World) -> None:
    """[46] Without a timeout an attempt may take for ever."""
    begun, go = Event(), Event()

    async def body() -> str:
        begun.set()
        await go.wait()
        return "at last"

    @workflow
    def flow() -> Flow[str]:
        return (yield from step(body))

    async with world.engine(flow, lease="1000d") as engine:
        run = await engine.enqueue(flow())
        await begun.wait()
        world.clock.advance("300d")
        go.set()
        result = await run.result()

    assert "at last" == result


async def test_an_async_body_is_cancelled(world: World) -> None:
    """[47] An async body whose time is over is really cancelled, before the run goes on."""
    body = Endless()
    seen: list[bool] = []

    async def after() -> None:
        seen.append(body.cancelled.is_set())

    @workflow
    def flow() -> Flow[None]:
        try:
            yield step(body).options(timeout="1m")
        except StepTimeoutError:
            yield step(after)

    begun = body.begun
    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow())
        await begun.wait()
        world.clock.advance("1m")
        await run.result()

    assert [True] == seen


@pytest.mark.parametrize("behaviour", ["raises another error", "returns a value", "cleans up for a while"])
async def test_a_body_that_makes_something_else_of_it(world: World, behaviour: str) -> None:
    """[45] Whatever an async body makes of its cancellation, it was too late: the step has timed out."""
    begun = Event()

    async def body() -> str:
        begun.set()
        try:
            await sleep_forever()
        except get_cancelled_exc_class():
            if behaviour == "returns a value":
                return "late"
            if behaviour == "cleans up for a while":
                with CancelScope(shield=True):
                    await checkpoint()
                raise
            raise ConnectionError("interrupted") from None
        return "never"

    @workflow
    def flow() -> Flow[str]:
        try:
            result = yield from step(body).options(timeout="1m")
        except StepTimeoutError:
            return "timed out"
        return result

    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow())
        await begun.wait()
        world.clock.advance("1m")
        result = await run.result()

    assert "timed out" == result


async def test_a_thread_runs_on(world: World) -> None:
    """[47] A thread cannot be cancelled: it runs on, the run does not wait for it, and its late result is dropped."""
    begun, ended = Event(), Event()
    go = threading.Event()

    def body() -> str:
        from_thread.run_sync(begun.set)
        go.wait()
        from_thread.run_sync(ended.set)
        return "late"

    @workflow
    def flow() -> Flow[str]:
        try:
            result = yield from step(body).options(timeout="1m")
        except StepTimeoutError:
            return "timed out"
        return result

    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow(), run_id="r")
        await begun.wait()
        world.clock.advance("1m")
        result = await run.result()
        go.set()
        await ended.wait()

    info = await world.info()
    assert ("timed out", "timed out") == (result, info.output)
    assert ["failed"] == [entry.status for entry in info.entries]


async def test_side_by_side_each_has_its_own(world: World) -> None:
    """[52] Each member of a gather has its own timeout: one that times out takes nothing from the other's time."""
    short, long = Endless(), Event()

    async def patient() -> str:
        await long.wait()
        return "patient"

    def timed() -> Flow[str]:
        try:
            yield step(short).options(timeout="1m")
        except StepTimeoutError:
            long.set()
        return "timed out"

    @workflow
    def flow() -> Flow[list[str]]:
        results = yield from gather(timed(), step(patient).options(timeout="2m"))
        return list(results)

    begun = short.begun
    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow())
        await begun.wait()
        world.clock.advance("1m")
        result = await run.result()

    assert ["timed out", "patient"] == result


async def test_waiting_for_a_thread_is_not_the_bodys_time(world: World) -> None:
    """The limit of a plain `def` body counts from when it has a thread, not from when it asked for one."""
    holding, go_on = Event(), threading.Event()

    def hold() -> str:
        from_thread.run_sync(holding.set)
        assert go_on.wait(20)
        return "held"

    def quick() -> str:
        return "in time"

    @workflow
    def flow() -> Flow[list[str]]:
        values = yield from gather(step(hold), step(quick).options(timeout="1s"))
        return list(values)

    async with world.engine(flow, threads=1) as engine:
        run = await engine.enqueue(flow())
        await holding.wait()
        await wait_all_tasks_blocked()
        world.clock.advance("5s")
        await wait_all_tasks_blocked()
        go_on.set()
        result = await run.result()

    assert ["held", "in time"] == result
