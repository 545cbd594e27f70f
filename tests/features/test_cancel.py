"""Cancelling a run: from every state, with clean-up that is durable, and without a trace of failure."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest
from anyio import Event, from_thread, sleep_forever, wait_all_tasks_blocked

from reflow import (
    Flow,
    Retry,
    RunCancelledError,
    RunInfo,
    RunStatus,
    StepFailedError,
    WorkflowCancelled,
    current_step,
    gather,
    race,
    sleep,
    spawn,
    step,
    wait_event,
    workflow,
)
from reflow.storage.records import RunFilter
from tests.support.bodies import Steps, give
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio


async def fail(message: str) -> None:
    """Raises."""
    raise ValueError(message)


def done(info: RunInfo) -> list[str]:
    """The names of the entries, in the order in which they were recorded."""
    return [entry.name for entry in info.entries]


def tidy(steps: Steps, *names: str) -> Flow[None]:
    """A helper that performs one clean-up step after the other."""
    for name in names:
        yield step(steps, name).options(name=name)


# ---- from every state ------------------------------------------------------------------------------------------------


@workflow
def resting(how: str) -> Flow[str]:
    """Rests as it is told, and then goes on."""
    match how:
        case "asleep":
            yield sleep("14d")
        case "waiting":
            yield wait_event("never")
        case "waiting with a limit":
            yield wait_event("never", timeout="14d")
        case "side by side":
            yield gather(sleep("14d"), wait_event("never"), sleep("15d"))
        case "broken":
            raise ValueError("broken")
        case _:
            pass
    return "done"


RESTS = ["asleep", "waiting", "waiting with a limit", "side by side"]


@pytest.mark.parametrize("how", RESTS)
async def test_a_run_that_rests(world: World, how: str) -> None:
    """[75][86][128][133] `cancel` is True for a sleeping or waiting run, and it takes effect at once: nobody waits for
    its time."""
    await world.settle(resting(how))
    answer = await world.cancel("r")
    info = await world.continued(resting)

    assert (True, RunStatus.CANCELLED, ["cancel"]) == (answer, info.status, done(info))


async def test_a_pending_run(world: World) -> None:
    """[128][129] `cancel` of a pending run is True; it is cancelled at once, without any engine, and never claimed."""
    engine = world.engine(resting)
    await engine.enqueue(resting("asleep"), run_id="r")
    answer = await world.cancel("r")
    info = await world.info()

    assert (True, RunStatus.CANCELLED, 0) == (answer, info.status, await engine.tick())


@pytest.mark.parametrize(("how", "status"), [("done", RunStatus.COMPLETED), ("broken", RunStatus.FAILED)])
async def test_a_run_that_has_ended(world: World, how: str, status: RunStatus) -> None:
    """[128] `cancel` of a completed or failed run is False and changes nothing."""
    before = await world.settle(resting(how))
    answer = await world.cancel("r")
    after = await world.continued(resting)

    assert (False, status, before) == (answer, after.status, after)


async def test_a_cancelled_run(world: World) -> None:
    """[128] `cancel` of a cancelled run is False and changes nothing, and nothing can be sent to it."""
    await world.settle(resting("waiting"))
    await world.cancel("r")
    before = await world.continued(resting)
    answers = [await world.cancel("r"), await world.send("r", "never")]
    after = await world.continued(resting)

    assert ([False, False], before) == (answers, after)


async def test_an_unknown_run(world: World) -> None:
    """[128] `cancel` of an unknown run is False."""
    assert not await world.cancel("unknown")


# ---- running ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["one step", "timed", "retried", "side by side", "raced"])
async def test_a_running_step(world: World, shape: str) -> None:
    """[38][130][133] Cancelling a running run interrupts the current step, which leaves no entry and is not tried
    again; no later step of the normal path starts."""
    steps = Steps("held")

    @workflow
    def flow() -> Flow[None]:
        held = step(steps, "held")
        match shape:
            case "timed":
                yield held.options(timeout="1h")
            case "retried":
                yield held.options(retry=Retry(max_attempts=5, initial_delay=0))
            case "side by side":
                yield gather(held, sleep("1h"), step(steps, "other"))
            case "raced":
                yield race(held, sleep("1h"))
            case _:
                yield held
        yield step(steps, "later")

    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow(), run_id="r")
        await steps.until("held begins", *(["other ends"] if shape == "side by side" else []))
        answer = await world.cancel("r")
        with pytest.raises(RunCancelledError):
            await run.result()

    info = await world.info()
    assert (True, RunStatus.CANCELLED) == (answer, info.status)
    assert ["held begins", "held is cancelled"] == [line for line in steps.log if "other" not in line]
    assert "later" not in done(info)
    assert "0" not in [entry.position for entry in info.entries]


async def test_a_step_in_a_thread(world: World) -> None:
    """[130] A body in a thread cannot be interrupted: the run is cancelled without waiting for it, and its late result
    is dropped."""
    begun, ended = Event(), Event()
    go = threading.Event()

    def body() -> str:
        from_thread.run_sync(begun.set)
        go.wait()
        from_thread.run_sync(ended.set)
        return "late"

    @workflow
    def flow() -> Flow[None]:
        yield step(body)
        yield step(give, "later")

    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow(), run_id="r")
        await begun.wait()
        await world.cancel("r")
        with pytest.raises(RunCancelledError):
            await run.result()
        before = await run.info()
        go.set()
        await ended.wait()
        await wait_all_tasks_blocked()

    assert (["cancel"], before) == (done(before), await world.info())


@pytest.mark.parametrize("delay", ["50ms", "1h"])
async def test_in_back_off(world: World, delay: str) -> None:
    """[42][133] Cancelling during a back-off, a short or a long one, ends it at once: no further attempt, no entry for
    the step."""
    attempts: list[int] = []
    tapped = TappedStorage(world.storage)

    async def flaky() -> None:
        attempts.append(current_step().attempt)
        raise ConnectionError

    @workflow
    def flow() -> Flow[None]:
        yield step(flaky).options(retry=Retry(max_attempts=5, initial_delay=delay, jitter=False))

    async with world.engine(flow, storage=tapped) as engine:  # type: ignore[arg-type]
        saved = tapped.done("save_progress")
        run = await engine.enqueue(flow(), run_id="r")
        await saved.wait()
        await wait_all_tasks_blocked()
        await world.cancel("r")
        with pytest.raises(RunCancelledError):
            await run.result()
        world.clock.advance("2h")
        await engine.drain()

    assert ([1], ["cancel"]) == (attempts, done(await world.info()))


@pytest.mark.parametrize("limit", [None, 2])
async def test_in_mid_gather(world: World, limit: int | None) -> None:
    """[61][133] Cancelling in mid-gather cancels every member under way, starts none that `limit` held back, keeps what
    is recorded, and the run ends as cancelled."""
    steps = Steps("1", "2", "3")

    def branch(name: str) -> Flow[None]:
        yield step(steps, name).options(name=name)
        yield step(steps, f"{name} later")

    @workflow
    def flow() -> Flow[None]:
        yield gather(*(branch(str(number)) for number in range(4)), limit=limit)

    begun = ["1", "2", "3"] if limit is None else ["1", "2"]
    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow(), run_id="r")
        await steps.until("0 later ends", *(f"{name} begins" for name in begun))
        await wait_all_tasks_blocked()
        await world.cancel("r")
        with pytest.raises(RunCancelledError):
            await run.result()

    assert {f"{name} is cancelled" for name in begun} == {line for line in steps.log if "is cancelled" in line}
    assert {"0", "0 later", *begun} == set(steps.begun)
    assert ["0", "Steps", "cancel"] == done(await world.info())


async def test_before_a_gather(world: World) -> None:
    """[61] Cancelled before a gather begins, the run enters no member of it."""
    steps = Steps("held")

    @workflow
    def flow() -> Flow[None]:
        yield step(steps, "held")
        yield gather(step(steps, "a"), step(steps, "b"))

    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow(), run_id="r")
        await steps.until("held begins")
        await world.cancel("r")
        with pytest.raises(RunCancelledError):
            await run.result()

    assert ["held"] == steps.begun


async def test_between_claim_and_start(world: World) -> None:
    """[129] A run that is cancelled after its claim and before its start executes nothing, no clean-up either."""
    steps = Steps()
    tapped = TappedStorage(world.storage)

    @workflow
    def flow() -> Flow[None]:
        try:
            yield step(steps, "a")
        finally:
            yield step(steps, "clean up")

    gate = tapped.hold_answer("claim_runs")
    engine = world.engine(flow, storage=tapped)  # type: ignore[arg-type]
    run = await engine.enqueue(flow(), run_id="r")
    async with engine:
        await gate.arrived.wait()
        await world.cancel("r")
        gate.open()
        with pytest.raises(RunCancelledError):
            await run.result()

    assert [] == steps.log


# ---- clean-up --------------------------------------------------------------------------------------------------------


async def test_clean_up(world: World) -> None:
    """[131] `WorkflowCancelled` is raised at the current yield; `except` and `finally` may yield clean-up steps, sleeps
    and groups, which are recorded like any."""
    steps = Steps()
    seen: list[str] = []

    @workflow
    def flow() -> Flow[None]:
        yield step(steps, "before").options(name="before")
        try:
            yield sleep("14d")
        except WorkflowCancelled:
            seen.append("cancelled")
            yield from tidy(steps, "first")
            yield sleep("1h")
            raise
        finally:
            yield gather(tidy(steps, "second"), sleep("1h"))

    await world.settle(flow())
    await world.cancel("r")
    during = await world.continued(flow)
    await world.continued(flow, after="1h")
    after = await world.continued(flow, after="1h")

    assert (RunStatus.SLEEPING, ["before", "cancel", "first", "sleep"]) == (during.status, done(during)[:4])
    assert (RunStatus.CANCELLED, ["before", "first", "second"]) == (after.status, steps.begun)
    assert ["before", "cancel", "first", "sleep", "second", "sleep"] == done(after)
    # It is raised again whenever an engine replays the run.
    assert ["cancelled"] * 3 == seen


async def test_except_exception_does_not_catch_it(world: World) -> None:
    """[131] `except Exception` in a workflow body does not swallow a cancellation."""

    @workflow
    def flow() -> Flow[str]:
        try:
            yield sleep("14d")
        except Exception:
            yield step(give, "swallowed")
        return "done"

    await world.settle(flow())
    await world.cancel("r")
    info = await world.continued(flow)

    assert (RunStatus.CANCELLED, ["cancel"]) == (info.status, done(info))


@pytest.mark.parametrize("again", ["leaving", "takeover"])
async def test_clean_up_goes_on_elsewhere(world: World, again: str) -> None:
    """[131] Clean-up is durable: where the engine leaves, or its lease is lost, in the middle of it, the next one goes
    on there; finished clean-up steps do not run again, and nobody is cancelled a second time."""
    steps = Steps("work", "second")

    @workflow
    def flow() -> Flow[None]:
        try:
            yield step(steps, "work")
        finally:
            yield from tidy(steps, "first", "second", "third")

    async with world.engine(flow, grace=0) as engine:
        await engine.enqueue(flow(), run_id="r")
        await steps.until("work begins")
        await world.cancel("r")
        await steps.until("second begins")
        if again == "takeover":
            now = world.clock.now() + 3_600_000_000
            await world.storage.claim_runs([("flow", 1)], limit=1, lease_id="x", now=now, lease_until=now)
    steps.held["second"].set()
    info = await world.continued(flow, after="2h")

    assert ["work", "first", "second", "second", "third"] == steps.begun
    assert (RunStatus.CANCELLED, ["cancel", "first", "second", "third"]) == (info.status, done(info))


async def test_a_second_cancel(world: World) -> None:
    """[133] A second cancel, while clean-up is under way, is True and changes nothing: clean-up is not interrupted."""
    steps = Steps("work", "clean up")

    @workflow
    def flow() -> Flow[None]:
        try:
            yield step(steps, "work")
        finally:
            yield from tidy(steps, "clean up")

    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow(), run_id="r")
        await steps.until("work begins")
        await world.cancel("r")
        await steps.until("clean up begins")
        answer = await world.cancel("r")
        await wait_all_tasks_blocked()
        world.clock.advance("1s")
        await wait_all_tasks_blocked()
        steps.held["clean up"].set()
        with pytest.raises(RunCancelledError):
            await run.result()

    assert answer
    assert ["work begins", "work is cancelled", "clean up begins", "clean up ends"] == steps.log
    assert ["cancel", "clean up"] == done(await world.info())


async def test_a_second_cancel_while_clean_up_sleeps(world: World) -> None:
    """[133] A second cancel does not wake clean-up that sleeps."""
    steps = Steps()

    @workflow
    def flow() -> Flow[None]:
        try:
            yield sleep("14d")
        finally:
            yield sleep("1h")
            yield from tidy(steps, "clean up")

    await world.settle(flow())
    await world.cancel("r")
    await world.continued(flow)
    answer = await world.cancel("r")
    early = await world.continued(flow)
    late = await world.continued(flow, after="1h")

    assert (True, RunStatus.SLEEPING, RunStatus.CANCELLED) == (answer, early.status, late.status)
    assert ["cancel", "sleep", "clean up"] == done(late)


@pytest.mark.parametrize("how", ["a step", "the body"])
async def test_clean_up_that_fails(world: World, how: str) -> None:
    """[131] A run whose clean-up fails has failed, with the error of the clean-up."""

    @workflow
    def flow() -> Flow[None]:
        try:
            yield sleep("14d")
        finally:
            if how == "the body":
                raise ValueError("no clean-up")
            yield step(fail, "no clean-up")

    await world.settle(flow())
    await world.cancel("r")
    info = await world.continued(flow)

    assert info.error is not None
    assert (RunStatus.FAILED, True) == (info.status, "no clean-up" in info.error.message)


async def test_clean_up_that_catches_a_failure(world: World) -> None:
    """[131] A clean-up step that fails and is caught changes nothing: the run is cancelled."""

    @workflow
    def flow() -> Flow[None]:
        try:
            yield sleep("14d")
        finally:
            with suppress(StepFailedError):
                yield step(fail, "no clean-up")

    await world.settle(flow())
    await world.cancel("r")
    info = await world.continued(flow)

    assert (RunStatus.CANCELLED, None, ["cancel", "fail"]) == (info.status, info.error, done(info))


async def test_a_body_that_swallows_it(world: World) -> None:
    """[131] A body that swallows the cancellation goes on as it likes, and ends as cancelled, without an output."""
    steps = Steps()

    @workflow
    def flow() -> Flow[str]:
        with suppress(WorkflowCancelled):
            yield sleep("14d")
        yield from tidy(steps, "after all")
        return "done"

    await world.settle(flow())
    await world.cancel("r")
    info = await world.continued(flow)

    assert (RunStatus.CANCELLED, None, ["cancel", "after all"]) == (info.status, info.output, done(info))


@pytest.mark.parametrize("ending", ["returns", "goes on"])
async def test_a_step_that_swallows_it(world: World, ending: str) -> None:
    """[130] The body of a step that answers its cancellation with a value has ended with that; no later step starts,
    and a workflow that returns it completes, and one that goes on is cancelled."""
    begun = Event()
    steps = Steps()

    async def stubborn() -> str:
        begun.set()
        try:
            await sleep_forever()
        except BaseException:
            return "ended"
        return "never"

    @workflow
    def flow() -> Flow[str]:
        value = yield from step(stubborn)
        if ending == "goes on":
            yield step(steps, "later")
        return value

    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow(), run_id="r")
        await begun.wait()
        await world.cancel("r")
        if ending == "returns":
            assert "ended" == await run.result()
        else:
            with pytest.raises(RunCancelledError):
                await run.result()

    assert [] == steps.begun
    assert (["stubborn"] if ending == "returns" else ["stubborn", "cancel"]) == done(await world.info())


@pytest.mark.parametrize("wait", [None, "1h"])
async def test_clean_up_of_a_loser(world: World, wait: str | None) -> None:
    """[131][133] The clean-up of a race's loser that is under way when the run is cancelled is interrupted, and goes on
    in the same attempt."""
    attempts: list[int] = []
    begun, again = Event(), Event()
    patient = Retry(max_attempts=5, initial_delay=0)

    async def clean_up() -> None:
        attempts.append(current_step().attempt)
        if current_step().attempt == 1:
            raise ConnectionError
        if len(attempts) == 2:
            begun.set()
            await sleep_forever()
        again.set()

    def loser() -> Flow[None]:
        try:
            yield sleep("14d")
        finally:
            yield step(clean_up).options(retry=patient)

    @workflow
    def flow() -> Flow[None]:
        yield race(loser(), step(give, "won"))
        if wait is not None:
            yield sleep(wait)

    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow(), run_id="r")
        await begun.wait()
        await world.cancel("r")
        await again.wait()
        # A body that has returned is not cancelled any more.
        if wait is None:
            await run.result()
        else:
            with pytest.raises(RunCancelledError):
                await run.result()

    info = await world.info()
    assert [1, 2, 2] == attempts
    assert {"give": 1, "cancel": 0, "clean_up": 2} == {entry.name: entry.attempts for entry in info.entries}


# ---- other runs ------------------------------------------------------------------------------------------------------


@workflow
def napping(name: str) -> Flow[str]:
    """A run that takes its time."""
    try:
        yield sleep("1h")
    finally:
        yield step(give, name).options(name="clean up")
    return name


@workflow
def nesting(name: str) -> Flow[str]:
    """A child with a child."""
    return (yield from napping(name))


async def statuses(world: World) -> dict[str, str]:
    """The status of every run."""
    page = await world.storage.list_runs(RunFilter(), limit=100)
    return {row.run_id: row.status.value for row in page.rows}


async def test_children_and_spawned_runs(world: World) -> None:
    """[134] Children are cancelled with their parent, in the same write, and theirs with them, each with its clean-up;
    spawned runs go on."""

    @workflow
    def flow() -> Flow[None]:
        yield spawn(napping("spawned"))
        yield gather(napping("child"), nesting("grandchild"), give_up())

    def give_up() -> Flow[None]:
        yield sleep("14d")

    tapped = TappedStorage(world.storage)
    engine = world.engine(flow, napping, nesting, storage=tapped)  # type: ignore[arg-type]
    await engine.enqueue(flow(), run_id="r")
    await engine.drain()
    await world.cancel("r")
    await engine.drain()
    early = await statuses(world)
    [write] = [write for write in tapped.named("save_progress") if write.cancelled and write.lease.run_id == "r"]
    world.clock.advance("1h")
    await engine.drain()

    assert (["r:1.0", "r:1.1"], RunStatus.CANCELLED) == (write.cancelled, write.ending and write.ending.status)
    ends = dict.fromkeys(("r", "r:1.0", "r:1.1", "r:1.1:0"), "cancelled")
    assert ends | {"r:0": "sleeping"} == early
    assert ends | {"r:0": "completed"} == await statuses(world)
    assert ["cancel", "clean up"] == done(await world.info("r:1.1:0"))


async def test_a_child_of_its_own(world: World) -> None:
    """[134] A child that is cancelled alone raises `RunCancelledError` at its parent's yield; the parent goes on."""

    @workflow
    def flow() -> Flow[str]:
        try:
            yield napping("child")
        except RunCancelledError as error:
            return error.run_id
        return ""

    engine = world.engine(flow, napping)
    run = await engine.enqueue(flow(), run_id="r")
    await engine.drain()
    await world.cancel("r:0")
    await engine.drain()

    assert "r:0" == await run.result()


async def test_a_child_is_running(world: World) -> None:
    """[133][134] Cancelling the parent interrupts the step of a child that is running, at once."""
    steps = Steps("held")

    @workflow
    def child() -> Flow[None]:
        yield step(steps, "held")

    @workflow
    def flow() -> Flow[None]:
        yield child()

    async with world.engine(flow, child) as engine:
        await engine.enqueue(flow(), run_id="r")
        await steps.until("held begins")
        await world.cancel("r")
        await steps.until("held is cancelled")
        await engine.drain()

    assert {"r": "cancelled", "r:0": "cancelled"} == await statuses(world)


async def test_clean_up_with_a_child(world: World) -> None:
    """[131][134] A child that is started by clean-up is not cancelled, and is waited for."""

    @workflow
    def flow() -> Flow[None]:
        try:
            yield sleep("14d")
        finally:
            yield napping("child")

    engine = world.engine(flow, napping)
    await engine.enqueue(flow(), run_id="r")
    await engine.drain()
    await world.cancel("r")
    await engine.drain()
    during = await statuses(world)
    world.clock.advance("1h")
    await engine.drain()

    assert {"r": "waiting", "r:1": "sleeping"} == during
    assert {"r": "cancelled", "r:1": "completed"} == await statuses(world)


# ---- no failure ------------------------------------------------------------------------------------------------------


async def test_it_is_not_a_failure(world: World) -> None:
    """[135] Cancellation is not failure: the run keeps no error and no output, and `result()` raises
    `RunCancelledError`, also for a handle from elsewhere."""
    await world.settle(resting("waiting"))
    await world.cancel("r")
    info = await world.continued(resting)
    run = await world.engine(resting).handle("r")

    with pytest.raises(RunCancelledError, match="'r' of 'resting' was cancelled"):
        await run.result()
    assert (RunStatus.CANCELLED, None, None, None) == (info.status, info.error, info.output, info.due_at)
