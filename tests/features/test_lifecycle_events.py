"""Lifecycle events: what is told of runs, in which order, and only what is true."""

from __future__ import annotations

from datetime import timedelta

import pytest
from anyio import Event, create_task_group, wait_all_tasks_blocked

from reflow import (
    Flow,
    LifecycleEvent,
    Retry,
    RunCancelledError,
    RunStatus,
    StepFailedError,
    continue_as_new,
    gather,
    race,
    spawn,
    step,
    wait_event,
    workflow,
)
from reflow._core.duration import from_micros
from reflow.events import (
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunParked,
    RunResumed,
    RunStarted,
    ScheduleFired,
    StepCompleted,
    StepFailed,
    StepRetrying,
    StepStarted,
)
from tests.support.bodies import Steps
from tests.support.crash import Crash, MortalStorage
from tests.support.lifecycle import OF_PAIR, Watcher, brief, fail, give, nap, pair
from tests.support.tapped import TappedStorage
from tests.support.workflows import SCENARIOS, Scenario
from tests.support.world import World

pytestmark = pytest.mark.anyio

FAILURES = (RunFailed, StepFailed)


# ---- what is told, in which order ------------------------------------------------------------------------------------


async def test_the_order(world: World) -> None:
    """[164] Hooks are told of a run in the order in which things happen."""
    told = Watcher()
    await world.settle(pair(1), hooks=[told])

    assert OF_PAIR == told.lines()


async def test_what_the_payloads_say(world: World) -> None:
    """[164] Payloads carry run, workflow and version; steps their position, name and value, and the end the output and
    how long it took since the run was enqueued."""
    told = Watcher()

    async def slow(value: list[int]) -> list[int]:
        world.clock.advance("3s")
        return value

    @workflow(version=3)
    def flow(value: list[int]) -> Flow[list[int]]:
        world.clock.advance("1s")
        yield step(slow, value)
        return [7, 8]

    enqueued_at = from_micros(world.clock.now())
    await world.settle(flow([7]), hooks=[told])
    started, completed, ended = told.only(StepStarted), told.only(StepCompleted), told.only(RunCompleted)

    assert {("r", "flow", 3)} == {(event.run_id, event.workflow, event.version) for event in told.events}
    assert [1, 1, 4, 4] == [(event.at - enqueued_at).total_seconds() for event in told.events]
    assert ("0", "slow", 1) == (started.position, started.step, started.attempt)
    assert ("0", "slow", 1) == (completed.position, completed.step, completed.attempt)
    assert ([7], 3_000_000) == (completed.value, completed.duration_us)
    assert ([7, 8], 4_000_000) == (ended.output, ended.duration_us)


async def test_a_failed_run(world: World) -> None:
    """[164] A step that fails for good and the run that fails with it are told, with their errors."""
    told = Watcher()

    @workflow
    def flow() -> Flow[None]:
        yield step(fail, "too much", 3)

    await world.settle(flow(), hooks=[told])
    failed, ended = told.only(StepFailed), told.only(RunFailed)

    assert ["RunStarted", "StepStarted fail 1", "StepFailed fail 1", "RunFailed"] == told.lines()
    assert ("ValueError", "('too much', 3)", 0) == (failed.error.type, failed.error.message, failed.duration_us)
    assert ("StepFailedError", "0", 0) == (ended.error.type, ended.error.position, ended.duration_us)


async def test_a_failure_that_is_caught(world: World) -> None:
    """[93] Of a run that completes, completion is told once and failure never, whatever its steps did."""
    told = Watcher()

    @workflow
    def flow() -> Flow[str]:
        try:
            yield step(fail)
        except StepFailedError:
            return "caught"
        yield step(give, "never")
        return "not caught"

    await world.settle(flow(), hooks=[told])

    assert "caught" == told.only(RunCompleted).output
    assert ["RunStarted", "StepStarted fail 1", "StepFailed fail 1", "RunCompleted"] == told.lines()


async def test_a_path_not_taken(world: World) -> None:
    """[91] A path not taken leaves no entry and fires no hook."""
    told = Watcher()

    @workflow
    def flow() -> Flow[None]:
        if (yield from step(give, False).options(name="asked")):
            yield step(give, 1).options(name="not taken")

    info = await world.settle(flow(), hooks=[told])

    assert ["asked"] == [entry.name for entry in info.entries]
    assert ["RunStarted", "StepStarted asked 1", "StepCompleted asked 1", "RunCompleted"] == told.lines()


async def test_attempts(world: World) -> None:
    """[36] Each attempt is told: how it failed, how long it took and when the next is due; the last says how many were
    used."""
    told = Watcher()
    begun: list[int] = []

    async def flaky() -> str:
        world.clock.advance("2s")
        begun.append(1)
        if len(begun) < 3:
            raise ConnectionError(f"attempt {len(begun)}")
        return "at last"

    @workflow
    def flow() -> Flow[str]:
        return (yield from step(flaky).options(retry=Retry(max_attempts=5, initial_delay=0)))

    await world.settle(flow(), hooks=[told])
    retries = told.all_of(StepRetrying)

    assert [
        "RunStarted",
        "StepStarted flaky 1",
        "StepRetrying flaky 1",
        "StepStarted flaky 2",
        "StepRetrying flaky 2",
        "StepStarted flaky 3",
        "StepCompleted flaky 3",
        "RunCompleted",
    ] == told.lines()
    assert [("ConnectionError", "attempt 1", 2_000_000), ("ConnectionError", "attempt 2", 2_000_000)] == [
        (event.error.type, event.error.message, event.duration_us) for event in retries
    ]
    assert [event.at for event in retries] == [event.due_at for event in retries]
    assert (3, 2_000_000) == (told.only(StepCompleted).attempt, told.only(StepCompleted).duration_us)


async def test_no_attempt_is_left(world: World) -> None:
    """[36] When no attempt is left, the failure says how many were used, and the last one is no retry."""
    told = Watcher()

    @workflow
    def flow() -> Flow[None]:
        yield step(fail).options(retry=Retry(max_attempts=2, initial_delay=0))

    await world.settle(flow(), hooks=[told])

    assert [1] == [event.attempt for event in told.all_of(StepRetrying)]
    assert 2 == told.only(StepFailed).attempt


async def test_a_long_back_off(world: World) -> None:
    """[36][165] A back-off that parks the run is told as a park; the next attempt has the next number, also on another
    engine."""
    told, told_later = Watcher(), Watcher()

    @workflow
    def flow() -> Flow[None]:
        yield step(fail).options(retry=Retry(max_attempts=2, initial_delay="1h", jitter=False))

    due_at = from_micros(world.clock.now()) + timedelta(hours=1)
    await world.settle(flow(), hooks=[told])
    world.clock.advance("1h")
    await world.engine(flow, hooks=[told_later]).drain()

    assert ["RunStarted", "StepStarted fail 1", "StepRetrying fail 1", "RunParked sleeping"] == told.lines()
    assert due_at == told.only(StepRetrying).due_at == told.only(RunParked).due_at
    assert ["RunResumed", "StepStarted fail 2", "StepFailed fail 2", "RunFailed"] == told_later.lines()
    assert 3_600_000_000 == told_later.only(RunFailed).duration_us


async def test_a_timeout(world: World) -> None:
    """[45] A timeout reaches hooks as a failure of the step, with the limit and "timed out"."""
    told = Watcher()

    async def hang() -> None:
        world.clock.advance("10s")
        await Event().wait()

    @workflow
    def flow() -> Flow[None]:
        yield step(hang).options(timeout="10s")

    await world.settle(flow(), hooks=[told])
    error = told.only(StepFailed).error

    assert ("StepTimeoutError", "timed out after 10 s", [10.0]) == (error.type, error.message, list(error.args or []))
    assert 10_000_000 == told.only(StepFailed).duration_us


async def test_parking(world: World) -> None:
    """[164] A run that parks says how and until when, and whoever takes it up says so, and how often that was done."""
    told = Watcher()

    began_at = from_micros(world.clock.now())
    await world.settle(nap(), hooks=[told])
    world.clock.advance("1h")
    await world.engine(nap, hooks=[told]).drain()

    assert ["RunParked sleeping", "RunResumed"] == [line for line in told.lines() if line.startswith(("RunP", "RunR"))]
    assert began_at + timedelta(hours=1) == told.only(RunParked).due_at
    assert 2 == told.only(RunResumed).executions


async def test_waiting(world: World) -> None:
    """[164] A run that waits for an event says until when, or that there is no limit."""
    told = Watcher()

    @workflow
    def flow() -> Flow[None]:
        yield wait_event("go", timeout="2h")
        yield wait_event("go")

    engine = world.engine(flow, hooks=[told])
    limit = from_micros(world.clock.now()) + timedelta(hours=2)
    await engine.enqueue(flow(), run_id="r")
    for _ in range(2):
        await engine.drain()
        await engine.send_event("r", "go", None)
    await engine.drain()

    assert ["waiting", "waiting"] == [event.status for event in told.all_of(RunParked)]
    assert [limit, None] == [event.due_at for event in told.all_of(RunParked)]
    assert [2, 3] == [event.executions for event in told.all_of(RunResumed)]


async def test_side_by_side(world: World) -> None:
    """[164] Of commands side by side, the events of each come in order; a step that lost a race has no end."""
    told = Watcher()
    steps = Steps("slow")

    @workflow
    def flow() -> Flow[None]:
        yield gather(*(step(give, name).options(name=name) for name in "abc"))
        yield race(step(steps, "slow").options(name="slow"), step(give, 1).options(name="quick"))

    await world.settle(flow(), hooks=[told])
    lines = told.lines()

    for name in ["a", "b", "c", "quick"]:
        assert [f"StepStarted {name} 1", f"StepCompleted {name} 1"] == [line for line in lines if f" {name} " in line]
    assert ["StepStarted slow 1"] == [line for line in lines if " slow " in line]
    assert ("RunStarted", "RunCompleted") == (lines[0], lines[-1])


async def test_parents(world: World) -> None:
    """[164] A child says whose it is; a run that was spawned, or enqueued, is nobody's."""
    told = Watcher()

    @workflow
    def child() -> Flow[str]:
        return (yield from step(give, "grown"))

    @workflow
    def parent() -> Flow[str]:
        yield spawn(child().options(run_id="spawned"))
        return (yield from child().options(run_id="child"))

    engine = world.engine(parent, child, hooks=[told])
    await engine.enqueue(parent(), run_id="r")
    await engine.drain()

    assert {"r": None, "spawned": None, "child": "r"} == {
        event.run_id: event.parent_id for event in told.all_of(RunStarted)
    }
    assert ["RunStarted", "RunParked waiting", "RunResumed", "RunCompleted"] == told.lines()


async def test_continuing_as_new(world: World) -> None:
    """[164] A run that continues as new is parked as pending and taken up again; its end counts from the beginning."""
    told = Watcher()

    @workflow
    def flow(left: int) -> Flow[str]:
        yield step(give, left)
        world.clock.advance("1s")
        if left:
            yield continue_as_new(flow(left - 1))
        return "done"

    await world.settle(flow(1), hooks=[told])

    assert [
        "RunStarted",
        "StepStarted give 1",
        "StepCompleted give 1",
        "RunParked pending",
        "RunResumed",
        "StepStarted give 1",
        "StepCompleted give 1",
        "RunCompleted",
    ] == told.lines()
    assert 2_000_000 == told.only(RunCompleted).duration_us


async def test_a_schedule_fires(world: World) -> None:
    """[164] A schedule that fires says for which occurrence, how many were skipped, and which run it has started."""
    told = Watcher()
    engine = world.engine(nap, hooks=[told])
    await engine.schedule(nap(), every="10m", key="rest")
    first = from_micros(world.clock.now()) + timedelta(minutes=10)
    world.clock.advance("35m")
    await engine.drain()
    fired = told.only(ScheduleFired)

    assert ("rest", 2, first + timedelta(minutes=20)) == (fired.key, fired.skipped, fired.occurrence_at)
    assert ("nap", 1, from_micros(world.clock.now())) == (fired.workflow, fired.version, fired.at)
    assert "ScheduleFired" == told.lines(told.only(RunStarted).run_id)[0]


async def test_two_engines(world: World) -> None:
    """[164] Hooks are told of what their own engine does, and of nothing else."""
    told, told_other = Watcher(), Watcher()
    engine, other = world.engine(nap, hooks=[told]), world.engine(nap, hooks=[told_other])
    await engine.enqueue(nap(), run_id="r")
    await engine.drain()
    world.clock.advance("1h")
    await other.drain()

    assert ["RunStarted", "StepStarted before 1", "StepCompleted before 1", "RunParked sleeping"] == told.lines()
    assert ["RunResumed", "StepStarted after 1", "StepCompleted after 1", "RunCompleted"] == told_other.lines()


# ---- only what is true, and once -------------------------------------------------------------------------------------


# One that goes on as new drops its entries together with writing the last of them.
@pytest.mark.parametrize("scenario", [scenario for scenario in SCENARIOS if scenario.name != "paged"], ids=str)
async def test_what_is_told_is_stored(world: World, scenario: Scenario) -> None:
    """[164] Whenever a hook is told of an outcome, it is in the storage already."""
    missing: list[str] = []
    ends: list[str] = []

    async def look(event: LifecycleEvent) -> None:
        journal, info = await world.storage.get_journal(event.run_id), await world.info(event.run_id)
        match event:
            case StepCompleted() | StepFailed():
                is_stored = event.position in {entry.position for entry in journal.entries}
            case StepRetrying():
                is_stored = event.position in {timer.position for timer in journal.timers}
            case RunCompleted() | RunFailed() | RunCancelled():
                is_stored = info.status.is_terminal
                ends.append(event.run_id)
            case RunParked():
                is_stored = info.status != RunStatus.RUNNING or info.executions > 1
            case _:
                is_stored = info.status == RunStatus.RUNNING
        if not is_stored:
            missing.append(brief(event))

    engine = world.engine(scenario.call.workflow, *scenario.others, hooks=[look])
    run = await engine.enqueue(scenario.call, run_id="r")
    for name, payload in scenario.events:
        await engine.send_event("r", name, payload)
    await engine.drain()
    if scenario.cancels is not None:
        await engine.cancel(f"r{scenario.cancels}")
    while not (await run.info()).status.is_terminal:
        await engine.drain()
        world.clock.advance("1h")

    assert [] == missing
    assert 1 == ends.count("r")


@pytest.mark.parametrize("after", [False, True], ids=["before the verb", "after the verb"])
async def test_an_engine_that_dies(world: World, after: bool) -> None:
    """[164][165] Wherever an engine dies, all outcomes that it has told of are stored; the next one tells of what it
    does, and of nothing that is only replayed."""
    dies_at, is_dead = 0, True
    while is_dead:
        dies_at += 1
        told, told_next = Watcher(), Watcher()
        mortal = MortalStorage(world.storage, dies_at, after=after)
        run_id = f"{dies_at}"
        try:
            engine = world.engine(pair, storage=mortal, hooks=[told])  # type: ignore[arg-type]
            await engine.enqueue(pair(1), run_id=run_id)
            await engine.drain()
        except (Crash, BaseExceptionGroup):
            pass
        is_dead = mortal.is_dead
        stored = {entry.name for entry in (await world.storage.get_journal(run_id)).entries}
        world.clock.advance("1h")
        engine = world.engine(pair, hooks=[told_next])
        await engine.enqueue(pair(1), run_id=run_id)
        await engine.drain()
        steps = {event.step for event in told_next.all_of(StepStarted)}

        assert {event.step for event in told.all_of(StepCompleted)} <= stored
        assert {"first", "second"} - stored == steps == {event.step for event in told_next.all_of(StepCompleted)}
        assert len(told_next.all_of(RunCompleted)) == len(told_next.all_of(RunStarted) + told_next.all_of(RunResumed))
    assert dies_at >= 4


async def test_a_lost_lease(world: World) -> None:
    """[164][176] An engine that loses its lease while a result is being written tells neither of the result nor of a
    failure; the one that took over does."""
    tapped = TappedStorage(world.storage)
    told, told_other = Watcher(), Watcher()
    engine = world.engine(pair, storage=tapped, hooks=[told])
    await engine.enqueue(pair(1), run_id="r")
    gate = tapped.hold("save_progress")
    async with create_task_group() as tasks:
        tasks.start_soon(engine.tick)
        await gate.arrived.wait()
        await world.lease_ends()
        await world.engine(pair, hooks=[told_other]).drain()
        gate.open()

    assert ["RunStarted", "StepStarted first 1"] == told.lines()
    assert ["RunResumed", *OF_PAIR[1:]] == told_other.lines()


async def test_a_result_waits_for_no_hook(world: World) -> None:
    """Whoever waits for a result has it as soon as it is stored, though hooks are still being told of the last step."""
    told = Watcher(hangs_at="StepCompleted second 1")
    async with world.engine(pair, hooks=[told], grace=0) as engine:
        run = await engine.enqueue(pair("done"), run_id="r")
        result = await run.result()
        lines = told.lines()

    assert "done" == result
    assert "RunCompleted" not in lines


async def test_a_run_that_is_taken_up_while_hooks_are_told(world: World) -> None:
    """[164] Hooks that are still being told how a run was parked are told first; then that it goes on."""
    may_return = Event()
    told: list[str] = []

    async def slow(event: LifecycleEvent) -> None:
        if isinstance(event, RunParked):
            await may_return.wait()

    async with world.engine(nap, hooks=[slow, lambda event: told.append(brief(event))]) as engine:
        run = await engine.enqueue(nap(), run_id="r")
        while (await run.info()).status != RunStatus.SLEEPING:
            await wait_all_tasks_blocked()
        world.clock.advance("1h")
        await wait_all_tasks_blocked()
        may_return.set()
        await run.result()

    assert ["RunParked sleeping", "RunResumed", "StepStarted after 1"] == told[3:6]


async def test_cancelling_a_run_that_is_parked_while_a_hook_hangs(world: World) -> None:
    """[136] Cancelling releases a run also where the hook does not return that was told of its park."""
    told = Watcher(hangs_at="RunParked sleeping")
    async with world.engine(nap, hooks=[told]) as engine:
        run = await engine.enqueue(nap(), run_id="r")
        await told.until("RunParked sleeping")
        found = await engine.cancel("r")
        with pytest.raises(RunCancelledError):
            await run.result()
        await told.until("RunCancelled")

    assert found
    assert ["RunParked sleeping", "RunResumed", "RunCancelled"] == told.lines()[3:]
