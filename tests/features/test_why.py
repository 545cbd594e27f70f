"""why and where: what a run waits for, and at which line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint

from reflow import (
    Client,
    Engine,
    Failure,
    Flow,
    MemoryStorage,
    NonDeterminismError,
    Place,
    Retry,
    RunStatus,
    WorkflowNotFoundError,
    gather,
    get_logger,
    now,
    sleep,
    step,
    wait_event,
    workflow,
)
from reflow._core.journal import ENTRIES_AT_ONCE, NEVER, Timer
from reflow.testing import VirtualClock
from tests.support.bodies import Steps, give
from tests.support.driven import line_of
from tests.support.parked import child_of, claim, fail, leave
from tests.support.world import World

pytestmark = pytest.mark.anyio

# The clock of the world begins at 2025-06-15 15:06:40 UTC.
NOW = "2025-06-15 15:06:40 UTC"
HOUR = 3_600_000_000


async def busy() -> None:
    """Fails."""
    raise ConnectionError("busy")


@workflow
def quick(value: int) -> Flow[int]:
    """One step."""
    return (yield from step(give, value))


@workflow
def sleeper() -> Flow[None]:
    """Sleeps."""
    yield sleep("1h")  # here


@workflow
def retried() -> Flow[None]:
    """Fails, and is tried again after a while."""
    policy = Retry(max_attempts=5, initial_delay="1h", backoff="constant", jitter=False)
    yield step(busy).options(retry=policy)  # here


@workflow
def approved() -> Flow[Any]:
    """Waits for an event."""
    return (yield from wait_event("approval"))  # here


@workflow
def parent(value: int) -> Flow[int]:
    """Waits for a child."""
    return (yield from quick(value))  # here


async def why(world: World, run_id: str = "r", *workflows: Any, **options: Any) -> str:
    """What an engine with these workflows says, without the path of this file."""
    sentence = await world.engine(*workflows, **options).why(run_id)
    return sentence.replace(line_of(sleeper.function).rpartition(":")[0], "FILE")


def at(flow: Any) -> str:
    """The place marked in a workflow."""
    return f"(FILE:{line_of(flow.function).rpartition(':')[2]} in {flow.__name__})"


# ---- ended -----------------------------------------------------------------------------------------------------------


async def test_completed(world: World) -> None:
    """[145] Of a completed run it says when that was."""
    await world.settle(quick(1))

    assert f"run 'r' of 'quick' completed at {NOW}" == await why(world)


async def test_failed(world: World) -> None:
    """[145] Of a failed run it says when, where and with what."""
    await world.engine(quick).enqueue(quick(1), run_id="r")
    await fail(world, "r", Failure("ValueError", "no", position="3"))

    assert f"run 'r' of 'quick' failed at {NOW} at position 3 with ValueError: no" == await why(world)


async def test_cancelled(world: World) -> None:
    """[145] Of a cancelled run it says when its clean-up was done."""
    engine = world.engine(quick)
    await engine.enqueue(quick(1), run_id="r")
    await engine.cancel("r")

    assert f"run 'r' of 'quick' was cancelled, which was done at {NOW}" == await why(world)


# ---- due -------------------------------------------------------------------------------------------------------------


async def test_not_due_yet(world: World) -> None:
    """[145] A run that was enqueued with a delay starts when it is over."""
    await world.engine(quick).enqueue(quick(1), run_id="r", delay="1h")

    assert "run 'r' of 'quick' starts at 2025-06-15 16:06:40 UTC" == await why(world, "r", quick)


async def test_no_engine_with_the_version(world: World) -> None:
    """[102][145] A run of a version that this engine does not have waits for another engine, and is not lost."""
    await Client(world.storage, clock=world.clock).enqueue("quick", {"value": 1}, run_id="r", version=2)
    expected = f"run 'r' of 'quick' is due since {NOW} and waits for an engine that has version 2 of 'quick': this one"

    assert f"{expected} has only version 1" == await why(world, "r", quick)
    assert f"{expected} has no version of it" == await why(world)


async def test_no_engine_at_all(world: World) -> None:
    """[145] A client names the engine that would be needed; an engine that was not entered says that it rests."""
    await world.engine(quick).enqueue(quick(1), run_id="r")
    due = f"run 'r' of 'quick' is due since {NOW} and waits for an engine"
    client = Client(world.storage, clock=world.clock)

    assert f"{due} that has version 1 of 'quick' and a free slot" == await client.why("r")
    assert f"{due}: this one is not running" == await why(world, "r", quick)


@pytest.mark.parametrize("name", ["qiuck", "quikc"])
async def test_a_misspelt_workflow(world: World, name: str) -> None:
    """[145] A run of a workflow that nobody has ever begun names the one that may be meant: of those that this engine
    has, and of those that have run in this storage."""
    client = Client(world.storage, clock=world.clock)
    await client.enqueue(name, {"value": 1}, run_id="r")
    wanted = f"run 'r' of {name!r} is due since {NOW} and waits for an engine that has version 1 of {name!r}"

    assert f"{wanted}: this one has no version of it; was 'quick' meant?" == await why(world, "r", sleeper, quick)
    assert f"{wanted}: this one has no version of it" == await why(world, "r", sleeper)
    await world.settle(quick(1), run_id="done")
    assert f"{wanted} and a free slot; was 'quick' meant?" == await client.why("r")


async def test_a_workflow_that_is_called_almost_so(world: World) -> None:
    """[145] Where runs of a workflow were begun before, its name is right, and no other is named."""
    client = Client(world.storage, clock=world.clock)
    await world.settle(quick(1), run_id="done")
    await client.enqueue("quicks", {"value": 1}, run_id="begun")
    await client.cancel("begun")
    await client.enqueue("quicks", {"value": 1}, run_id="r")

    assert (await client.why("r")).endswith("that has version 1 of 'quicks' and a free slot")


async def test_no_free_slot(world: World) -> None:
    """[145] A due run waits for a free slot where all are taken."""
    steps = Steps("held")

    @workflow
    def flow() -> Flow[None]:
        yield step(steps, "held")

    async with world.engine(flow, concurrency=1) as engine:
        await engine.enqueue(flow(), run_id="first")
        await steps.until("held begins")
        await engine.enqueue(flow(), run_id="r")
        sentence = await engine.why("r")
        steps.held["held"].set()

    assert f"run 'r' of 'flow' is due since {NOW} and waits for a free slot: all 1 of this engine are taken" == sentence


# ---- held ------------------------------------------------------------------------------------------------------------


async def test_running(world: World) -> None:
    """[145] A run that an engine holds is said to be advanced, and how long its lease lasts."""
    await world.engine(quick).enqueue(quick(1), run_id="r")
    await claim(world, "r")

    assert "run 'r' of 'quick' is being advanced, under a lease held until 2025-06-15 15:07:10 UTC" == await why(
        world, "r", quick
    )


async def test_a_step_under_way(world: World) -> None:
    """[145] Of a step that is under way it says which one it is, and the line."""
    steps = Steps("second")

    @workflow
    def flow() -> Flow[None]:
        yield step(steps, "first").options(name="first")
        yield step(steps, "second").options(name="second")  # here

    async with world.engine(flow) as engine:
        await engine.enqueue(flow(), run_id="r")
        await steps.until("second begins")
        sentence = await engine.why("r")
        steps.held["second"].set()

    place = re.escape(line_of(flow.function))
    assert re.fullmatch(rf"run 'r' of 'flow' performs step 'second' \({place} in .*flow\), under a lease .*", sentence)


async def test_left_by_its_engine(world: World) -> None:
    """[145] A run whose lease is over waits to be taken over."""
    await world.engine(quick).enqueue(quick(1), run_id="r")
    await claim(world, "r")
    world.clock.advance("1h")

    assert (
        "run 'r' of 'quick' was left under a lease that was over at 2025-06-15 15:07:10 UTC, and waits for an engine: "
        "this one is not running"
    ) == await why(world, "r", quick)


# ---- waiting ---------------------------------------------------------------------------------------------------------


async def test_sleeping(world: World) -> None:
    """[145] A sleeping run says until when, and at which line where the code is known."""
    await world.settle(sleeper())
    until = "run 'r' of 'sleeper' sleeps until 2025-06-15 16:06:40 UTC"

    assert until == await why(world)
    assert f"{until} {at(sleeper)}" == await why(world, "r", sleeper)


async def test_backing_off(world: World) -> None:
    """[145] A run in back-off says which attempt comes when, and after which error."""
    await world.settle(retried())
    until = "run 'r' of 'retried' waits until 2025-06-15 16:06:40 UTC for attempt 2"

    assert f"{until} of step 'busy', after ConnectionError: busy" == await why(world)
    assert f"{until} of 5 of step 'busy', after ConnectionError: busy {at(retried)}" == await why(world, "r", retried)


@pytest.mark.parametrize(
    ("due_at", "limit"), [(NEVER, "without limit"), (HOUR, "until 2025-06-15 16:06:40 UTC")], ids=["no limit", "limit"]
)
async def test_waiting_for_an_event(world: World, due_at: int, limit: str) -> None:
    """[145] A run that waits for an event names it, and the limit."""
    await world.engine(approved).enqueue(approved(), run_id="r")
    now = world.clock.now()
    due_at = due_at if due_at == NEVER else now + due_at
    timers = [Timer("0", "wait_event", "approval", due_at, 0, now)]
    await leave(world, "r", RunStatus.WAITING, timers=timers, due_at=None if due_at == NEVER else due_at)
    sentence = f"run 'r' of 'approved' waits {limit} for event 'approval'"

    assert sentence == await why(world)
    assert f"{sentence} {at(approved)}" == await why(world, "r", approved)


async def test_sent_something_else(world: World) -> None:
    """[145] A run that waits for an event says which others it was sent: one of the two names may be misspelt."""
    await world.settle(approved())
    sentence = f"run 'r' of 'approved' waits without limit for event 'approval' {at(approved)}"
    before = await why(world, "r", approved)
    await world.send("r", "aproval", True)
    one = await why(world, "r", approved)
    for name in ("Approval", "aproval", "approve", "ok"):
        await world.send("r", name)
    many = await why(world, "r", approved)

    assert [
        sentence,
        f"{sentence}; it was sent 'aproval', which nothing awaits now",
        f"{sentence}; it was sent 'aproval', 'Approval', 'approve' and 1 more, which nothing awaits now",
    ] == [before, one, many]


async def test_sent_before_it_waits(world: World) -> None:
    """Events that a run was sent are not held against it while it waits for something that is no event."""
    await world.settle(sleeper())
    before = await why(world)
    await world.send("r", "approval")

    assert before == await why(world)


async def test_waiting_for_a_child(world: World) -> None:
    """[145] A run that waits for a child names it and its state."""
    await world.engine(parent).enqueue(parent(1), run_id="r")
    timers = [Timer("0", "child", "quick", NEVER, 0, world.clock.now())]
    await leave(world, "r", RunStatus.WAITING, timers=timers, children=[child_of(world, "r", "0", "quick")])
    sentence = "run 'r' of 'parent' waits for the child run 'r:0', which is pending"

    assert sentence == await why(world)
    assert f"{sentence} {at(parent)}" == await why(world, "r", parent)


async def test_waiting_for_a_child_that_is_nowhere(world: World) -> None:
    """[145] A child whose id only the code knows is called after its workflow without it."""
    await world.engine(parent).enqueue(parent(1), run_id="r")
    timers = [Timer("0", "child", "quick", NEVER, 0, world.clock.now())]
    await leave(world, "r", RunStatus.WAITING, timers=timers)

    assert "run 'r' of 'parent' waits for the child run of 'quick'" == await why(world)


async def test_waiting_for_much(world: World) -> None:
    """[145] Of many things that a run waits for at once, the nearest are named, and the others counted."""

    @workflow
    def flow() -> Flow[None]:
        yield gather(*(sleep(f"{hours}h") for hours in (4, 3, 5, 2, 1)))

    await world.settle(flow())

    assert (
        "run 'r' of 'flow' sleeps until 2025-06-15 16:06:40 UTC, and sleeps until 2025-06-15 17:06:40 UTC, and "
        "sleeps until 2025-06-15 18:06:40 UTC, and waits for 2 more"
    ) == await why(world)


async def test_a_cancellation(world: World) -> None:
    """[145] A requested cancellation is told."""
    await world.settle(sleeper())
    await world.engine().cancel("r")
    sentence = await world.engine(sleeper).why("r")

    assert sentence.startswith(f"run 'r' of 'sleeper' is due since {NOW}")
    assert sentence.endswith("; its cancellation is requested")


async def test_code_that_no_longer_fits(world: World) -> None:
    """[145] Where the code no longer fits the journal, what is stored is told all the same."""
    await world.settle(sleeper())

    @workflow(name="sleeper")
    def changed() -> Flow[None]:
        yield step(give, 1)

    assert "run 'r' of 'sleeper' sleeps until 2025-06-15 16:06:40 UTC" == await why(world, "r", changed)
    with pytest.raises(NonDeterminismError):
        await world.engine(changed).where("r")


# ---- where -----------------------------------------------------------------------------------------------------------


def helper(seconds: int) -> Generator[Any, Any, None]:
    """A helper generator."""
    total = seconds * 2
    yield sleep(total)  # here


@workflow
def nested() -> Flow[None]:
    """Waits in a helper."""
    name = "ada"
    yield from helper(len(name))  # here


@workflow
def branched() -> Flow[None]:
    """Waits in two branches."""
    yield step(give, 1)
    yield gather(helper(60), step(busy).options(retry=Retry(max_attempts=2, initial_delay="1h", jitter=False)))


async def test_the_stack(world: World) -> None:
    """[145] `where` gives the lines of the workflow body and of the helpers at which it stands."""
    await world.settle(nested())
    [standing] = await world.engine(nested).where("r")

    assert ("0", "sleep", "sleep") == (standing.position, standing.kind, standing.name)
    assert [f"{line_of(nested.function)} in nested", f"{line_of(helper)} in helper"] == [
        str(place) for place in standing.places
    ]
    assert [None, None] == [place.variables for place in standing.places]


async def test_local_variables(world: World) -> None:
    """[145] The local variables at each place come on request, as text."""
    await world.settle(nested())
    [standing] = await world.engine(nested).where("r", variables=True)

    assert [{"name": "'ada'"}, {"seconds": "3", "total": "6"}] == [place.variables for place in standing.places]


async def test_several_places(world: World) -> None:
    """[145] Each of several open commands has its own."""
    await world.settle(branched())
    standings = await world.engine(branched).where("r")

    assert [("1.0.0", "sleep", "helper", None), ("1.1", "step 'busy'", "branched", 2)] == [
        (standing.position, str(standing), standing.places[-1].function, standing.max_attempts)
        for standing in standings
    ]
    assert all(isinstance(place, Place) for standing in standings for place in standing.places)


async def test_nowhere(world: World) -> None:
    """[145] A run that has not begun, and one that has ended, stands nowhere."""
    engine = world.engine(quick)
    await engine.enqueue(quick(1), run_id="r")
    before = await engine.where("r")
    await engine.drain()

    assert ((), ()) == (before, await engine.where("r"))


async def test_without_the_code(world: World) -> None:
    """Only who has the code of the workflow can say where it stands; an engine says what it has, a client whom to
    ask."""
    await world.settle(sleeper())
    for client, message in (
        (world.engine(quick), "this engine does not know the workflow 'sleeper'.* It knows: quick"),
        (Client(world.storage, clock=world.clock), "a client has no code of 'sleeper'; ask an engine"),
    ):
        with pytest.raises(WorkflowNotFoundError, match=message):
            await client.where("r")


async def test_looking_has_no_effect(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """[20] Looking performs nothing, logs nothing, and leaves the run as it is."""
    logger = get_logger("tests.why")
    steps = Steps()

    @workflow
    def flow() -> Flow[str]:
        logger.warning("begins")
        try:
            first = yield from step(steps, "first")
            logger.warning("goes on")
            yield sleep("1h")
            return first
        finally:
            logger.warning("ends")

    await world.settle(flow())
    before, logged = await world.info(), len(caplog.records)
    engine = world.engine(flow)
    await engine.why("r")
    await engine.where("r", variables=True)

    assert before == await world.info()
    assert (["first"], logged) == (steps.begun, len(caplog.records))


@workflow
def moments(number: int) -> Flow[None]:
    """Has so many entries, and sleeps."""
    for _ in range(number):
        yield now()
    yield sleep("1h")


@pytest.mark.parametrize("look", ["get_run", "why", "where"])
async def test_a_long_journal_lets_others_run(anyio_backend_name: str, look: str) -> None:
    """Who looks at a run with a long journal leaves turns to everybody else meanwhile."""
    engine = Engine(MemoryStorage(), [moments], clock=VirtualClock())
    await engine.enqueue(moments(1), run_id="short")
    await engine.enqueue(moments(6 * ENTRIES_AT_ONCE), run_id="long")
    await engine.drain()
    turns: Counter[str] = Counter()

    async def others() -> None:
        while True:
            turns[looked_at] += 1
            await checkpoint()

    async with create_task_group() as tasks:
        tasks.start_soon(others)
        for looked_at in ("short", "long"):
            await getattr(engine, look)(looked_at)
        tasks.cancel_scope.cancel()

    assert turns["long"] >= turns["short"] + 2
