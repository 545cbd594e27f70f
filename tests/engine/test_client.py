"""The verbs that need no worker, and waiting for results."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest
from anyio import Event, create_task_group, fail_after, move_on_after, sleep_forever, wait_all_tasks_blocked

from reflow import (
    Client,
    ConfigError,
    Engine,
    Flow,
    MemoryStorage,
    ResultTimeoutError,
    RunCancelledError,
    RunFailedError,
    RunInfo,
    RunNotFoundError,
    RunStatus,
    SQLiteStorage,
    StorageError,
    sleep,
    step,
    workflow,
)
from reflow._engine.clock import SystemClock
from reflow._engine.ends import Ends
from reflow.storage.listeners import Wake
from reflow.storage.records import Ending, Lease, Progress
from tests.support.bodies import Steps, give
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio


@workflow
def quick(value: int) -> Flow[int]:
    """One step."""
    return (yield from step(give, value))


@workflow
def failing() -> Flow[None]:
    """Fails."""
    yield step(give, 1)
    raise LookupError("no")


async def test_result_waits(world: World) -> None:
    """`result()` waits until the run has ended; several may wait, and each gets a value of its own."""
    steps = Steps("held")

    @workflow
    def flow() -> Flow[list[str]]:
        return [(yield from step(steps, "held"))]

    results: list[list[str]] = []

    async def wait(run: Any) -> None:
        results.append(await run.result())

    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow())
        async with create_task_group() as tasks:
            for handle in (run, run, await engine.handle(run.run_id)):
                tasks.start_soon(wait, handle)
            await steps.until("held begins")
            await wait_all_tasks_blocked()
            early = list(results)
            steps.held["held"].set()

    assert [] == early
    assert [["held"]] * 3 == results
    results[0].append("mine")
    assert [["held"]] * 2 == results[1:]


async def test_a_result_is_told_once_it_is_stored(world: World) -> None:
    """[110] Nobody is told a result before the write that makes it true: until then it may be lost."""
    tapped = TappedStorage(world.storage)
    last_write = tapped.hold("save_progress")
    results: list[int] = []

    async def execute(engine: Engine) -> None:
        results.append(await engine.execute(quick(7)))

    async with world.engine(quick, storage=tapped) as engine, create_task_group() as tasks:  # type: ignore[arg-type]
        tasks.start_soon(execute, engine)
        await last_write.arrived.wait()
        await wait_all_tasks_blocked()
        early = list(results)
        last_write.open()

    assert ([], [7]) == (early, results)


async def test_the_end_is_signalled(world: World) -> None:
    """[127] Who waits for a run that ends in this process is told at once: the clock stands still."""
    before = world.clock.now()
    async with world.engine(quick, failing) as engine:
        result = await engine.execute(quick(7))
        with pytest.raises(RunFailedError, match="LookupError: no"):
            await engine.execute(failing())

    assert (7, before) == (result, world.clock.now())


async def test_a_run_of_another_engine(world: World) -> None:
    """[110] The result of a run that another engine advances is found by looking again, through its own handle."""
    clock = SystemClock()
    here, there = world.engine(quick, clock=clock), world.engine(quick, clock=clock)
    results: list[int] = []

    async def wait() -> None:
        results.append(await (await here.handle("r")).result())

    await there.enqueue(quick(7), run_id="r")
    async with create_task_group() as tasks:
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        await there.drain()

    assert [7] == results


async def test_a_run_through_another_adapter(anyio_backend: str, tmp_path: Any) -> None:
    """[110] So is that of another process: another adapter on the same file."""
    clock = SystemClock()
    worlds = [World(SQLiteStorage(tmp_path / "shared.db", durability="process")) for _ in range(2)]
    here, there = (world.engine(quick, clock=clock) for world in worlds)
    async with here, there:
        await there.enqueue(quick(7), run_id="r")
        result = await (await here.handle("r")).result()

    assert 7 == result


class Hinted(TappedStorage):
    """Its test gives the hints that somebody has written."""

    async def listen(self, wake: Wake) -> None:
        """Clauses Y, but for the hints."""
        self.wake = wake
        await sleep_forever()


async def test_an_end_in_another_process_is_heard_of(world: World) -> None:
    """[110] Who waits on an engine for a run that ends elsewhere looks when the storage hints at a write: the clock
    stands still."""
    before = world.clock.now()
    hinted, there = Hinted(world.storage), world.engine(quick)
    results: list[int] = []

    async def wait() -> None:
        results.append(await (await here.handle("r")).result())

    await there.enqueue(quick(7), run_id="r")
    async with world.engine(storage=hinted) as here, create_task_group() as tasks:  # type: ignore[arg-type]
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        await there.drain()
        hinted.wake(None)

    assert ([7], before) == (results, world.clock.now())


async def test_waiting_beyond_the_engine(world: World) -> None:
    """[110] Who waits for a result when the engine is left goes on waiting, and hears of the end elsewhere."""
    results: list[int] = []

    async def wait() -> None:
        results.append(await run.result())

    with fail_after(10):
        async with create_task_group() as tasks:
            async with world.engine(quick) as here:
                run = await here.enqueue(quick(7), delay="1h")
                tasks.start_soon(wait)
                await wait_all_tasks_blocked()
            there = world.engine(quick, storage=Hinted(world.storage))  # type: ignore[arg-type]
            world.clock.advance("1h")
            await there.drain()
            while not results:
                world.clock.advance("1s")
                await wait_all_tasks_blocked()

    assert [7] == results


async def test_waiting_beyond_the_storage(tmp_path: Path) -> None:
    """Who waits for a result when the last engine on the storage is left is told that the storage is closed."""

    async def wait() -> None:
        with pytest.raises(StorageError, match=r"was closed|is not open"):
            await run.result()

    with fail_after(10):
        async with create_task_group() as tasks, Engine(SQLiteStorage(tmp_path / "runs.db"), [quick]) as engine:
            run = await engine.enqueue(quick(7), delay="1h")
            tasks.start_soon(wait)
            await wait_all_tasks_blocked()


async def test_a_clock_that_is_put_back(world: World) -> None:
    """[110] Who waits, without a worker, for a run that ends elsewhere hears of it when the clock was put back."""
    there = world.engine(quick)
    await there.enqueue(quick(7), run_id="r")
    # A storage of its own: what ends through another one gives it no signal.
    here = await Client(Hinted(world.storage), clock=world.clock).handle("r")  # type: ignore[arg-type]
    results: list[object] = []

    async def wait() -> None:
        results.append(await here.result())

    with fail_after(10):
        async with create_task_group() as tasks:
            tasks.start_soon(wait)
            await world.clock.has_timer("1s")
            await there.drain()
            world.clock.turn_to(world.clock.now() - 3_600_000_000)

    assert [7] == results


async def test_a_clock_that_is_put_back_under_an_engine(world: World) -> None:
    """[110] Who waits on an engine hears as soon of ends elsewhere when the clock was put back."""
    clock, hinted, there = world.clock, Hinted(world.storage), world.engine(quick)
    results: list[object] = []

    async def wait() -> None:
        results.append(await (await here.handle("r")).result())

    await there.enqueue(quick(7), run_id="r")
    with fail_after(10):
        async with world.engine(storage=hinted) as here, create_task_group() as tasks:  # type: ignore[arg-type]
            tasks.start_soon(wait)
            await wait_all_tasks_blocked()
            hinted.wake(None)
            await wait_all_tasks_blocked()
            await there.drain()
            clock.turn_to(clock.now() - 3_600_000_000)
            await wait_all_tasks_blocked()
            clock.advance("1s")

    assert [7] == results


@pytest.mark.parametrize(("waiting", "pause"), [(1, 0.02), (10, 0.04), (1_000, 0.5)])
async def test_many_hints(world: World, waiting: int, pause: float) -> None:
    """However many hints come, there are pauses between the looks, the longer the more wait; the last hint is not
    lost."""
    hinted = Hinted(world.storage)
    looks: list[bool] = []
    async with world.engine(storage=hinted):  # type: ignore[arg-type]
        ends = [Ends.of(hinted).end_of(f"{n}") for n in range(waiting)]  # type: ignore[arg-type]
        for advance in (0, 0, pause - 0.01, 0.01, 0):
            news = ends[0].news()
            await wait_all_tasks_blocked()
            world.clock.advance(advance)
            hinted.wake(None)
            await wait_all_tasks_blocked()
            looks.append(news.is_set())

    assert (waiting, [True, False, False, True, False]) == (len(ends), looks)


async def test_a_result_that_is_there(world: World) -> None:
    """[110] The result of a run that ended long ago is there at once, for an engine that was never entered too."""
    await world.settle(quick(7))
    world.clock.advance("365d")

    assert 7 == await (await world.engine(quick).handle("r")).result()
    # Without the workflow's code it is the data as it is.
    assert 7 == await (await world.engine().handle("r")).result()


async def test_giving_up_waiting(world: World) -> None:
    """Who gives up waiting for a result leaves the run as it is, and others who wait too."""
    steps = Steps("held")

    @workflow
    def flow() -> Flow[str]:
        return (yield from step(steps, "held"))

    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow())
        await steps.until("held begins")
        async with create_task_group() as tasks:
            tasks.start_soon(run.result)
            await wait_all_tasks_blocked()
            with move_on_after(0):
                await run.result()
            steps.held["held"].set()
        result = await run.result()
        known = len(Ends.of(world.storage))
        del run, tasks
        gc.collect()
        kept = len(Ends.of(world.storage))

    assert ("held", 1, 0) == (result, known, kept)
    assert "held is cancelled" not in steps.log


async def test_waiting_no_longer_than(world: World) -> None:
    """`result(timeout=)` raises `ResultTimeoutError`, which is a `TimeoutError` and names run and limit, when its time
    is over, no earlier; the run goes on, and can be waited for again."""
    steps = Steps("held")

    @workflow
    def flow() -> Flow[str]:
        return (yield from step(steps, "held"))

    async with world.engine(flow) as engine, create_task_group() as tasks:
        run = await engine.enqueue(flow(), run_id="r")
        await steps.until("held begins")
        errors: list[ResultTimeoutError] = []
        over = Event()

        async def wait() -> None:
            with pytest.raises(
                TimeoutError, match=r"run 'r' of 'flow' has not ended within 90 s; it goes on"
            ) as caught:
                await run.result(timeout="1m30s")
            assert isinstance(caught.value, ResultTimeoutError)
            errors.append(caught.value)
            over.set()

        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        world.clock.advance(89.9)
        await wait_all_tasks_blocked()
        early = list(errors)
        world.clock.advance(0.2)
        await over.wait()
        steps.held["held"].set()
        result = await run.result(timeout=60)

    assert ([], 1, "held") == (early, len(errors), result)
    assert ("r", "flow", 90.0) == (errors[0].run_id, errors[0].workflow, errors[0].limit_s)


async def test_no_time_to_wait(world: World) -> None:
    """With a timeout of nothing `result` looks once: a result that is there is given, also one of another engine, and
    to a client."""
    here, there = world.engine(quick), world.engine(quick)
    async with here:
        run = await here.enqueue(quick(7), run_id="r", delay="1h")
        handle = await world.client().handle("r")
        for waiting in (run, handle):
            with pytest.raises(ResultTimeoutError):
                await waiting.result(timeout=0)
    world.clock.advance("2h")
    await there.drain()
    async with here:
        results = [await waiting.result(timeout=0) for waiting in (run, handle)]

    assert [7, 7] == results


@pytest.mark.parametrize("limit", ["soon", -1, True], ids=repr)
async def test_a_wrong_timeout(world: World, limit: Any) -> None:
    """A timeout of `result` that is no duration is a `ConfigError`."""
    run = await world.engine(quick).enqueue(quick(7))
    with pytest.raises(ConfigError, match="timeout is"):
        await run.result(timeout=limit)


async def test_the_end_comes_while_looking(world: World) -> None:
    """A run that ends between the look at the storage and the wait is not missed."""
    tapped = TappedStorage(world.storage)
    go = Event()

    async def body() -> int:
        await go.wait()
        return 7

    @workflow
    def flow() -> Flow[int]:
        return (yield from step(body))

    results: list[int] = []

    async def wait(run: Any) -> None:
        results.append(await run.result())

    async with world.engine(flow, storage=tapped) as engine:
        run = await engine.enqueue(flow())
        gate = tapped.hold_answer("get_run")
        async with create_task_group() as tasks:
            tasks.start_soon(wait, run)
            await wait_all_tasks_blocked()
            world.clock.advance("1s")
            await gate.arrived.wait()
            ended = tapped.done("save_progress")
            go.set()
            await ended.wait()
            await wait_all_tasks_blocked()
            gate.open()

    assert [7] == results


async def test_a_run_that_is_gone(world: World) -> None:
    """A handle whose run is not in the storage (any more) says so."""
    run = await world.engine(quick).enqueue(quick(7))
    elsewhere = World(MemoryStorage()).engine(quick)
    run._client = elsewhere

    with pytest.raises(RunNotFoundError, match="there is no run"):
        await run.result()
    with pytest.raises(RunNotFoundError, match="there is no run"):
        await run.info()


async def test_a_cancelled_run(world: World) -> None:
    """[135] `result()` of a run that was cancelled raises `RunCancelledError`."""
    engine = world.engine(quick)
    run = await engine.enqueue(quick(7), run_id="r")
    now = world.clock.now()
    await world.storage.claim_runs([("quick", 1)], limit=1, lease_id="mine", now=now, lease_until=now + 1)
    await world.storage.save_progress(Progress(Lease("r", "mine"), now, 0, [], [], [], Ending(RunStatus.CANCELLED)))

    with pytest.raises(RunCancelledError, match="run 'r' of 'quick' was cancelled"):
        await run.result()


async def test_a_sleeping_run_is_waited_for(world: World) -> None:
    """`result()` waits over sleeps as well."""

    @workflow
    def flow() -> Flow[str]:
        yield sleep("1h")
        return "awake"

    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow(), run_id="r")
        await engine.drain()
        asleep: RunInfo = await run.info()
        world.clock.advance("1h")
        result = await run.result()

    assert (RunStatus.SLEEPING, "awake") == (asleep.status, result)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncio_s_cancellation_of_a_caller(world: World) -> None:
    """A caller that asyncio cancels in the middle of `enqueue` or `result` (`asyncio.timeout`, `wait_for`) holds up
    nobody else: other runs are stored, advanced and waited for."""
    with fail_after(60):
        async with world.engine(quick) as engine:
            for number in range(40):
                tasks = [asyncio.ensure_future(engine.execute(quick(number))) for _ in range(3)]
                for _ in range(number % 7):
                    await asyncio.sleep(0)
                tasks[number % 3].cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                assert [number] * 2 == [task.result() for task in tasks if not task.cancelled()]
            assert 7 == await engine.execute(quick(7))


@pytest.mark.parametrize("fn", ["get_run", "handle"])
async def test_no_worker_needed(world: World, fn: str) -> None:
    """Looking at a run needs neither its workflow nor a worker."""
    await world.settle(quick(7))
    shown: Any = await getattr(world.engine(), fn)("r")

    assert ("r", "quick") == (shown.run_id, shown.workflow)
