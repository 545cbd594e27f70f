"""Hooks of an engine: no run feels them, whatever they do."""

from __future__ import annotations

from typing import Any

import pytest
from anyio import Event, create_task_group, fail_after, wait_all_tasks_blocked

from reflow import (
    Flow,
    HookError,
    LifecycleEvent,
    ReflowError,
    RunCancelledError,
    RunFailedError,
    RunStatus,
    step,
    workflow,
)
from reflow.events import (
    RunCancelled,
    RunCompleted,
    RunFailed,
    StepCompleted,
    StepFailed,
)
from reflow.storage.records import ScheduleRow
from tests.support.bodies import Steps
from tests.support.lifecycle import OF_PAIR, Watcher, brief, fail, give, nap, pair
from tests.support.world import World

pytestmark = pytest.mark.anyio

FAILURES = (RunFailed, StepFailed)


# ---- no failure ------------------------------------------------------------------------------------------------------


async def test_cancelling(world: World) -> None:
    """[135][176] Cancellation is not failure: the end of the clean-up is told, and no hook hears of a failure."""
    told = Watcher()
    steps = Steps("work")

    @workflow
    def flow() -> Flow[None]:
        try:
            yield step(steps, "work").options(name="work")
        finally:
            yield step(give, 1).options(name="clean_up")

    async with world.engine(flow, hooks=[told]) as engine:
        run = await engine.enqueue(flow(), run_id="r")
        await steps.until("work begins")
        world.clock.advance("1s")
        await engine.cancel("r")
        with pytest.raises(RunCancelledError):
            await run.result()

    assert [
        "RunStarted",
        "StepStarted work 1",
        "StepStarted clean_up 1",
        "StepCompleted clean_up 1",
        "RunCancelled",
    ] == told.lines()
    assert 1_000_000 == told.only(RunCancelled).duration_us


@pytest.mark.parametrize("grace", [0, "1h"])
async def test_shutdown(world: World, grace: Any) -> None:
    """[176] Shutdown is not failure: no hook hears of one, whether the body in flight may end or is cancelled."""
    told = Watcher()
    steps = Steps("first")

    @workflow
    def flow() -> Flow[None]:
        yield step(steps, "first")
        yield step(steps, "second")

    async with create_task_group() as tasks:
        async with world.engine(flow, hooks=[told], grace=grace) as engine:
            await engine.enqueue(flow(), run_id="r")
            await steps.until("first begins")
            if grace:
                tasks.start_soon(_release, steps, "first")

    assert not any(isinstance(event, (*FAILURES, RunCancelled, RunCompleted)) for event in told.events)
    assert len(told.all_of(StepCompleted)) == len((await world.info()).entries)


async def _release(steps: Steps, name: str) -> None:
    await wait_all_tasks_blocked()
    steps.held[name].set()


# ---- no run feels a hook ---------------------------------------------------------------------------------------------


async def test_a_throwing_hook(world: World) -> None:
    """[166] A hook that throws at each event is reported each time, with itself as source, and changes nothing."""
    reported: list[ReflowError] = []
    told = Watcher()

    async def broken(event: LifecycleEvent) -> None:
        raise LookupError(brief(event))

    info = await world.settle(pair(1), hooks=[broken, told], on_error=reported.append)

    assert (RunStatus.COMPLETED, 1, OF_PAIR) == (info.status, info.output, told.lines())
    assert OF_PAIR == [str(error.__cause__) for error in reported]
    assert {True} == {isinstance(error, HookError) and error.source.endswith("broken") for error in reported}


async def test_throwing_in_the_reporting(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """[166] An error in the reporting changes nothing either, and is logged."""

    def broken(told: object) -> None:
        raise LookupError("no such table")

    info = await world.settle(pair(1), hooks=[broken], on_error=broken)
    messages = {record.getMessage().partition(":")[0] for record in caplog.records}
    caplog.clear()

    assert (RunStatus.COMPLETED, {"on_error raised when it was told"}) == (info.status, messages)


async def test_a_run_waits_for_its_hooks(world: World) -> None:
    """[166] An async hook is awaited: the body starts, and the next thing happens, when it has returned."""
    steps = Steps()
    may_return = {"StepStarted": Event(), "StepCompleted": Event()}
    held: list[str] = []

    async def slow(event: LifecycleEvent) -> None:
        if (name := type(event).__name__) in may_return:
            held.append(name)
            await may_return[name].wait()

    @workflow
    def flow() -> Flow[None]:
        yield step(steps, "a")
        yield step(steps, "b")

    seen: list[Any] = []
    async with world.engine(flow, hooks=[slow]) as engine:
        run = await engine.enqueue(flow(), run_id="r")
        for name in ["StepStarted", "StepCompleted"]:
            while held[-1:] != [name]:
                await wait_all_tasks_blocked()
            await wait_all_tasks_blocked()
            seen.append(list(steps.begun))
            may_return[name].set()
        await run.result()

    assert [[], ["a"]] == seen
    assert ["a", "b"] == steps.begun


async def test_copies(world: World) -> None:
    """[167] Nothing that is done to a payload reaches the workflow, what is stored, or another hook."""
    told = Watcher()

    def spoil(event: LifecycleEvent) -> None:
        match event:
            case StepCompleted(value=value) | RunCompleted(output=value):
                value.append("spoiled")
            case StepFailed(error=error):
                (error.args or ())[0].append("spoiled")
            case _:
                pass

    @workflow
    def failing() -> Flow[None]:
        yield step(fail, [1]).options(raises=ValueError)

    info = await world.settle(pair([1]), hooks=[spoil, told, spoil])
    await world.settle(failing(), hooks=[spoil, told, spoil], run_id="f")
    failed = await world.info("f")

    assert [[1], [1], [1]] == [*(entry.value for entry in info.entries), info.output]
    assert [[1], [1]] == [event.value for event in told.all_of(StepCompleted)]
    assert [1] == told.only(RunCompleted).output
    assert [[1]] == list(told.only(StepFailed).error.args)
    assert failed.entries[0].error == told.only(StepFailed).error


# ---- hooks that do not return ----------------------------------------------------------------------------------------

HANGS_AT = ["RunStarted", "StepStarted first 1", "StepCompleted first 1"]


@pytest.mark.parametrize("hangs_at", HANGS_AT)
async def test_cancelling_interrupts_a_hook(world: World, hangs_at: str) -> None:
    """[136][168] Cancelling a run interrupts the hook that does not return; the run ends, and its slot is free for the
    next."""
    told = Watcher(hangs_at)
    async with world.engine(pair, hooks=[told], concurrency=1) as engine:
        run = await engine.enqueue(pair(1), run_id="r")
        await told.until(hangs_at)
        found = await engine.cancel("r")
        with pytest.raises(RunCancelledError):
            await run.result()
        told.hangs_at = None
        result = await engine.execute(pair(2))

    assert (True, 2) == (found, result)
    assert [*OF_PAIR[: OF_PAIR.index(hangs_at) + 1], "RunCancelled"] == told.lines()


async def test_other_runs_go_on(world: World) -> None:
    """[136] A hook that does not return for one run holds up no other."""
    told = Watcher()

    async def hang(event: LifecycleEvent) -> None:
        if event.run_id == "r":
            await Event().wait()

    async with world.engine(pair, hooks=[told, hang], grace=0) as engine:
        await engine.enqueue(pair(1), run_id="r")
        await told.until("RunStarted")
        results = [await engine.execute(pair(number)) for number in range(5)]

    assert [0, 1, 2, 3, 4] == results
    assert ["RunStarted"] == told.lines()


@pytest.mark.parametrize("hangs_at", HANGS_AT)
async def test_leaving_interrupts_a_hook(world: World, hangs_at: str) -> None:
    """[168][176] Leaving the engine interrupts the hook that does not return; the run is given back, and the next
    engine goes on with it at once."""
    told = Watcher(hangs_at)
    with fail_after(30):
        async with world.engine(pair, hooks=[told], grace=0) as engine:
            await engine.enqueue(pair(1), run_id="r")
            await told.until(hangs_at)

    assert await world.given_back()
    assert 1 == (await world.continued(pair)).output


async def test_leaving_interrupts_a_hook_at_the_end(world: World) -> None:
    """[168] Leaving interrupts a hook that does not return when it is told of the end, which stands."""
    told = Watcher("RunCompleted")
    with fail_after(30):
        async with world.engine(pair, hooks=[told], grace=0) as engine:
            await engine.enqueue(pair(1), run_id="r")
            await told.until("RunCompleted")

    assert RunStatus.COMPLETED == (await world.info()).status


async def test_losing_the_lease_interrupts_a_hook(world: World) -> None:
    """[168][176] An engine whose lease is lost interrupts the hook that does not return, and tells of no failure."""
    told = Watcher("StepCompleted first 1")
    engine = world.engine(pair, hooks=[told])
    await engine.enqueue(pair(1), run_id="r")
    async with create_task_group() as tasks:
        tasks.start_soon(engine.tick)
        await told.until("StepCompleted first 1")
        await world.lease_ends()
        await world.engine(pair).drain()
        world.clock.advance("10s")

    assert RunStatus.COMPLETED == (await world.info()).status
    assert OF_PAIR[:3] == told.lines()


# ---- what no run is to feel ------------------------------------------------------------------------------------------


async def test_a_failing_schedule(world: World) -> None:
    """[159] A schedule that cannot be fired is reported to `on_error`, once, with its key and the reason; other
    schedules and runs go on."""
    reported: list[ReflowError] = []
    engine = world.engine(nap, on_error=reported.append)
    now = world.clock.now()
    await world.storage.put_schedule(
        ScheduleRow("bad", "nap", 1, world.codec.encode({}), "now and then", "skip", "allow", now, now, now, now)
    )
    await engine.schedule(nap(), every="10m", key="good")
    counts: list[int] = []
    for _ in range(2):
        world.clock.advance("10m")
        await engine.drain()
        counts.append(len((await engine.list_runs()).runs))
    [error] = reported

    assert [1, 2] == counts
    assert "schedule 'bad' could not be fired" in str(error)
    assert error.__cause__ is not None


async def test_a_failing_run_is_no_such_error(world: World) -> None:
    """A run that fails is told of by its own events, and not to `on_error`."""
    reported: list[ReflowError] = []

    @workflow
    def flow() -> Flow[None]:
        yield step(fail)

    async with world.engine(flow, on_error=reported.append) as engine:
        with pytest.raises(RunFailedError):
            await engine.execute(flow())

    assert [] == reported
