"""Engine: entering, leaving, and what comes out of `async with`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from anyio import CancelScope, Event, create_task_group, fail_after, sleep_forever, wait_all_tasks_blocked

from reflow import ConfigError, Flow, MemoryStorage, SQLiteStorage, StorageError, step, workflow
from tests.support.bodies import Steps, give
from tests.support.world import World

pytestmark = pytest.mark.anyio


@workflow
def quick(value: int) -> Flow[int]:
    """One step."""
    return (yield from step(give, value))


async def test_entering_starts_to_claim(world: World) -> None:
    """[194] Entering starts claiming at once, what was enqueued before included."""
    engine = world.engine(quick)
    run = await engine.enqueue(quick(7))
    async with engine:
        result = await run.result()

    assert 7 == result


async def test_entering_twice(world: World) -> None:
    """[194] Entering an engine that is running is a ConfigError, and does nothing to it."""
    engine = world.engine(quick)
    async with engine:
        with pytest.raises(ConfigError, match="running already; make another Engine"):
            await engine.__aenter__()
        result = await engine.execute(quick(7))

    assert 7 == result


async def test_entering_with_a_storage_that_cannot_be_opened(tmp_path: Any) -> None:
    """A storage that cannot be opened raises its own error, not in a group; the engine may be entered later."""
    directory = tmp_path / "later"
    engine = World(SQLiteStorage(directory / "app.db", durability="process")).engine(quick)
    with pytest.raises(StorageError, match="does not exist"):
        await engine.__aenter__()
    directory.mkdir()
    async with engine:
        result = await engine.execute(quick(7))

    assert 7 == result


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_engine_that_was_not_entered(tmp_path: Any) -> None:
    """Verbs of an engine on a file that nobody has opened say what to do."""
    engine = World(SQLiteStorage(tmp_path / "app.db")).engine(quick)

    for verb in (engine.enqueue(quick(1)), engine.get_run("r"), engine.drain()):
        with pytest.raises(StorageError, match="is not open; enter the engine"):
            await verb


async def test_the_same_engine_may_be_entered_again(world: World) -> None:
    """An engine that was left may be entered again, and continues what it gave back."""
    steps = Steps("held")

    @workflow
    def flow() -> Flow[str]:
        return (yield from step(steps, "held"))

    engine = world.engine(flow, grace=0)
    async with engine:
        run = await engine.enqueue(flow())
        await steps.until("held begins")
    steps.held["held"].set()
    async with engine:
        result = await run.result()

    assert "held" == result


async def test_an_engine_that_was_left_can_be_drained() -> None:
    """After leaving, `drain` and `tick` work as before entering."""

    @workflow
    def flow() -> Flow[int]:
        return (yield from step(give, 7))

    engine = World(MemoryStorage()).engine(flow)
    async with engine:
        pass
    run = await engine.enqueue(flow())
    with fail_after(10):
        await engine.drain()

    assert 7 == await run.result()


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), ExceptionGroup("mine", [KeyError(1)])])
async def test_leaving_by_an_exception(world: World, error: BaseException) -> None:
    """[197] An exception raised inside `async with` comes out as itself, not in a group; the runs are given back
    without waiting."""
    steps = Steps("held")

    @workflow
    def flow() -> Flow[None]:
        yield step(steps, "held")

    async def serve() -> None:
        async with world.engine(flow, grace="1h") as engine:
            await engine.enqueue(flow(), run_id="r")
            await steps.until("held begins")
            raise error

    with pytest.raises(type(error)) as raised:
        await serve()

    assert error is raised.value
    assert await world.given_back()


class Shielded:
    """A storage whose verbs cannot be interrupted, and do nothing else that could be."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        if name == "listen":
            return self._storage.listen

        async def call(*args: Any, **kwargs: Any) -> Any:
            with CancelScope(shield=True):
                return await getattr(self._storage, name)(*args, **kwargs)

        return call


async def test_a_run_that_never_waits_can_be_stopped(world: World) -> None:
    """A run of quick steps, on a storage that cannot be interrupted, does not keep the engine from leaving."""
    counted: list[None] = []
    enough = Event()

    async def count() -> None:
        counted.append(None)
        if len(counted) == 20:
            enough.set()
        assert len(counted) < 1_000

    @workflow
    def flow() -> Flow[None]:
        while True:
            yield step(count)

    async def serve() -> None:
        async with world.engine(flow, storage=Shielded(world.storage)) as engine:  # type: ignore[arg-type]
            await engine.enqueue(flow(), run_id="r")
            await enough.wait()
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await serve()

    assert await world.given_back()
    assert len(counted) <= len((await world.info()).entries) + 1


@pytest.mark.parametrize("during", ["the block", "the grace period"])
async def test_leaving_by_cancellation(world: World, during: str) -> None:
    """[196][197] An engine that is cancelled from outside, in its block or in its grace period, gives its runs back and
    lets the cancellation pass."""
    steps = Steps("held")

    @workflow
    def flow() -> Flow[None]:
        yield step(steps, "held")

    async def serve(scope: CancelScope) -> None:
        with scope:
            async with world.engine(flow, grace="1h") as engine:
                await engine.enqueue(flow(), run_id="r")
                await steps.until("held begins")
                if during == "the block":
                    await sleep_forever()

    scope = CancelScope()
    async with create_task_group() as tasks:
        tasks.start_soon(serve, scope)
        await steps.until("held begins")
        await wait_all_tasks_blocked()
        scope.cancel()

    assert scope.cancelled_caught
    assert "held is cancelled" in steps.log
    assert await world.given_back()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("during", ["the block", "the grace period"])
async def test_leaving_by_asyncio_s_cancellation(world: World, during: str) -> None:
    """[196][197] asyncio's own `task.cancel()`, as Ctrl-C and `asyncio.timeout` use it, does the same."""
    steps = Steps("held")

    @workflow
    def flow() -> Flow[None]:
        yield step(steps, "held")

    async def serve() -> None:
        async with world.engine(flow, grace="1h") as engine:
            await engine.enqueue(flow(), run_id="r")
            await steps.until("held begins")
            if during == "the block":
                await sleep_forever()

    task = asyncio.create_task(serve())
    await steps.until("held begins")
    await wait_all_tasks_blocked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert "held is cancelled" in steps.log
    assert await world.given_back()


async def test_drain_ends_with_the_engine(world: World) -> None:
    """`drain` in another task returns when the engine is left, and what it advanced is given back."""
    steps = Steps("held")

    @workflow
    def flow() -> Flow[None]:
        yield step(steps, "held")

    with fail_after(30):
        async with create_task_group() as tasks:
            async with world.engine(flow, grace=0) as engine:
                await engine.enqueue(flow(), run_id="r")
                tasks.start_soon(engine.drain)
                tasks.start_soon(engine.drain)
                await steps.until("held begins")

    assert await world.given_back()
