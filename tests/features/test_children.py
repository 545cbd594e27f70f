"""Child runs: a call that is yielded is a run of its own, of which there is one, and whose end the parent is told."""

from __future__ import annotations

from typing import Any

import pytest
from anyio import create_task_group, fail_after

from reflow import (
    Call,
    Duration,
    Engine,
    Flow,
    RunCancelledError,
    RunConflictError,
    RunFailedError,
    RunInfo,
    RunStatus,
    Winner,
    Workflow,
    gather,
    race,
    sleep,
    step,
    wait_event,
    workflow,
)
from reflow.storage.records import RunFilter, RunRow
from tests.support.bodies import Steps
from tests.support.crash import Crash, MortalStorage
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio

begun: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_begun() -> None:
    begun.clear()


async def note(value: Any) -> Any:
    """Notes that it ran."""
    begun.append(value)
    return value


async def fail(text: str) -> None:
    """Always fails."""
    raise ConnectionError(text)


@workflow
def child(value: Any) -> Flow[Any]:
    """A step and a sleep."""
    yield step(note, value)
    yield sleep("1h")
    return value


@workflow
def quick(value: Any) -> Flow[Any]:
    """One step."""
    return (yield step(note, value))


@workflow
def listening() -> Flow[Any]:
    """A wait without limit."""
    return (yield wait_event("a"))


@workflow
def failing() -> Flow[None]:
    """Fails."""
    yield step(fail, "no line")


@workflow
def parent(value: Any) -> Flow[Any]:
    """A child between two steps."""
    yield step(note, "before")
    given = yield from child(value)
    yield step(note, "after")
    return ["from the child", given]


def engine_of(world: World, *more: Workflow[..., Any], **options: Any) -> Engine:
    """An engine that knows the workflows above, and more."""
    return world.engine(*dict.fromkeys((*more, parent, child, quick, failing, listening)), **options)


async def begin(world: World, call: Call[Any], *more: Workflow[..., Any]) -> RunInfo:
    """A run of `call`, after an engine has worked until nothing was due."""
    engine = engine_of(world, call.workflow, *more)
    run = await engine.enqueue(call, run_id="r")
    await engine.drain()
    return await run.info()


async def go_on(world: World, *more: Workflow[..., Any], after: Duration = 0) -> RunInfo:
    """The run, after the clock was turned and a new engine has done what is due."""
    world.clock.advance(after)
    await engine_of(world, *more).drain()
    return await world.info()


async def children(world: World, run_id: str = "r") -> list[RunRow]:
    """The children of a run, oldest first."""
    page = await world.storage.list_runs(RunFilter(parent=run_id), limit=100)
    return page.rows[::-1]


# ---- the child and its parent ----------------------------------------------------------------------------------------


async def test_a_child(world: World) -> None:
    """[147] Yielding a call starts a run linked to its parent, whose result is the value of the yield; the parent
    waits meanwhile, with no lease, and is due at no time."""
    waiting = await begin(world, parent([1, "a"]))
    row = await world.storage.get_run("r")
    [child_row] = await children(world)
    info = await go_on(world, after="1h")

    assert row is not None
    assert (RunStatus.WAITING, None, None) == (waiting.status, waiting.due_at, row.lease_id)
    assert ("r", "1", "child", RunStatus.SLEEPING) == (
        child_row.parent,
        child_row.parent_position,
        child_row.workflow,
        child_row.status,
    )
    assert (RunStatus.COMPLETED, ["from the child", [1, "a"]]) == (info.status, info.output)
    assert ["before", [1, "a"], "after"] == begun
    assert ("child", "child", "completed", [1, "a"]) == (
        info.entries[1].kind,
        info.entries[1].name,
        info.entries[1].status,
        info.entries[1].value,
    )


async def test_the_parent_has_no_slot(world: World) -> None:
    """[147] A parent has no slot while it waits: with a concurrency of 1 ten parents and their children end."""
    engine = engine_of(world, concurrency=1)
    for number in range(10):
        await engine.enqueue(parent(number), run_id=f"r{number}")
    await engine.drain()
    world.clock.advance("1h")
    await engine.drain()

    assert {RunStatus.COMPLETED} == {(await world.info(f"r{number}")).status for number in range(10)}


async def test_it_is_typed(world: World) -> None:
    """[147] The result of a child comes as the type that its workflow declares."""

    @workflow
    def pair() -> Flow[tuple[int, str]]:
        yield step(note, 1)
        return (1, "a")

    @workflow
    def flow() -> Flow[str]:
        given = yield from pair()
        return f"{given!r}"

    info = await begin(world, flow(), pair)

    assert "(1, 'a')" == info.output


async def test_its_end_wakes_the_parent(world: World) -> None:
    """[127][148] The end of a child wakes its parent at once: the clock stands still."""

    @workflow
    def flow() -> Flow[list[Any]]:
        first = yield quick(1)
        second = yield quick(2)
        return [first, second]

    async with world.engine(flow, quick) as engine:
        run = await engine.enqueue(flow())
        with fail_after(5):
            result = await run.result()

    assert [1, 2] == result


async def test_other_engines_run_the_child(world: World) -> None:
    """[147] Parent and child may be worked on by engines that know nothing of each other."""
    parents, others = world.engine(parent), world.engine(child)
    await parents.enqueue(parent(1), run_id="r")
    for after in (0, "1h"):
        await parents.drain()
        world.clock.advance(after)
        await others.drain()
    waiting = await world.info()
    await parents.drain()

    assert (RunStatus.WAITING, ["from the child", 1]) == (waiting.status, (await world.info()).output)


async def test_a_child_whose_workflow_nobody_knows(world: World) -> None:
    """[147] Where no engine knows the child's workflow it stays pending, and its parent waits; both go on when one
    comes."""
    alone = world.engine(parent)
    await alone.enqueue(parent(1), run_id="r")
    await alone.drain()
    [pending] = await children(world)
    waiting = await world.info()
    await go_on(world)
    info = await go_on(world, after="1h")

    assert (RunStatus.PENDING, RunStatus.WAITING) == (pending.status, waiting.status)
    assert ["from the child", 1] == info.output


async def test_a_child_that_waits_for_events(world: World) -> None:
    """[147] Events for a child are sent to its own id, and those of its parent are none of its business."""

    @workflow
    def flow() -> Flow[list[Any]]:
        return list((yield gather(listening(), wait_event("a"))))

    await begin(world, flow())
    await world.send("r", "a", "for the parent")
    [waiting] = await children(world)
    await world.send("r:0.0", "a", "for the child")
    info = await go_on(world, flow)

    assert (RunStatus.WAITING, ["for the child", "for the parent"]) == (waiting.status, info.output)


async def test_grandchildren(world: World) -> None:
    """[147][148] Children have children, and priority is inherited."""

    @workflow
    def middle(depth: int) -> Flow[int]:
        if depth == 0:
            return 0
        return 1 + (yield from middle(depth - 1))

    info = await begin(world, middle(5))
    ids = [row.run_id for row in (await world.storage.list_runs(RunFilter(), limit=100)).rows]

    assert (5, ["r" + ":0" * depth for depth in (5, 4, 3, 2, 1, 0)]) == (info.output, ids)


# ---- one child -------------------------------------------------------------------------------------------------------


async def test_child_and_parent_are_written_together(world: World) -> None:
    """[148] The child is created in the write that says that the parent waits for it, with what came before."""
    tapped = TappedStorage(world.storage)
    engine = world.engine(parent, storage=tapped)  # type: ignore[arg-type]
    await engine.enqueue(parent(1), run_id="r")
    await engine.drain()
    write = tapped.named("save_progress")[-1]

    assert (["0"], ["1"], ["r:1"]) == (
        [entry.position for entry in write.entries],
        [timer.position for timer in write.timers],
        [new.run_id for new in write.children],
    )
    assert RunStatus.WAITING == write.ending.status


async def test_the_ids_of_children(world: World) -> None:
    """[148] The id of a child follows from its parent's id and the position, unless the call has one of its own."""

    def branch() -> Flow[Any]:
        yield step(note, 0)
        return (yield quick(1))

    @workflow
    def flow() -> Flow[None]:
        yield quick(2)
        yield gather(branch(), quick(3).options(run_id="mine"))

    await begin(world, flow())
    [first, *others] = await children(world)

    assert ("r:0", {"r:1.0.1", "mine"}) == (first.run_id, {row.run_id for row in others})


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_one_child_over_any_crash(world: World, after: bool) -> None:
    """[148] Wherever the process dies, parent or child, there is one child; it runs once, and the parent has its
    result."""
    point = 1
    while await survives(world, f"run-{point}-{after}", point, after):
        point += 1

    assert point > 8


async def survives(world: World, run_id: str, point: int, after: bool) -> bool:
    """Crash at the verb of this number, then go on to the end; whether the crash came."""
    begun.clear()
    mortal = MortalStorage(world.storage, point, after=after)
    for storage in (mortal, world.storage):
        engine = engine_of(world, storage=storage)
        try:
            await engine.enqueue(parent(7), run_id=run_id)
            for _ in range(3):
                await engine.drain()
                world.clock.advance("1h")
        except (Crash, BaseExceptionGroup):
            assert storage is mortal
            assert mortal.is_dead
            world.clock.advance("1h")
    family = await children(world, run_id)

    assert (["from the child", 7], [f"{run_id}:1"]) == (
        (await world.info(run_id)).output,
        [row.run_id for row in family],
    )
    # A body runs again only where its result was not stored, which is at most one of them.
    assert len(begun) in (3, 4)
    return mortal.is_dead


async def test_a_parent_that_is_taken_over(world: World) -> None:
    """[148] A parent whose lease is lost while it starts the child leaves none behind, and the next engine starts
    it."""
    tapped = TappedStorage(world.storage)
    writing = tapped.hold("save_progress")
    engine = world.engine(parent, storage=tapped)  # type: ignore[arg-type]
    await engine.enqueue(parent(1), run_id="r")
    async with create_task_group() as tasks:
        tasks.start_soon(engine.tick)
        await writing.arrived.wait()
        await world.take_away()
        writing.open()
    after_loss = await children(world)
    await go_on(world, after="1h")
    info = await go_on(world, after="1h")

    assert ([], 1, ["from the child", 1]) == (after_loss, len(await children(world)), info.output)


async def test_a_parent_that_is_resumed(world: World) -> None:
    """[141][148] A parent that is resumed finds the child that it had started, which goes on with it; there is no
    other."""
    await begin(world, parent(1))
    await world.cancel()
    await go_on(world)
    ended = [row.status for row in await children(world)]
    await world.resume("r")
    await go_on(world)
    info = await go_on(world, after="1h")

    assert ([RunStatus.CANCELLED], ["r:1"]) == (ended, [row.run_id for row in await children(world)])
    assert ["from the child", 1] == info.output


# ---- children that do not complete -----------------------------------------------------------------------------------


async def test_a_failed_child(world: World) -> None:
    """[149] A failed child raises RunFailedError at the parent's yield, typed, with what it failed with; caught, the
    parent goes on, and the child's own run keeps its error."""

    @workflow
    def flow() -> Flow[list[Any]]:
        try:
            yield failing()
        except RunFailedError as error:
            return [error.run_id, error.workflow, error.failure.message, error.is_caused_by(ConnectionError)]
        return []

    info = await begin(world, flow())
    replayed = await world.info("r:0")

    assert ["r:0", "failing", "step 'fail' failed after 1 attempt: ConnectionError: no line", True] == info.output
    assert (RunStatus.FAILED, "step_failed") == (replayed.status, replayed.error and replayed.error.code)


async def test_a_failed_child_that_nobody_catches(world: World) -> None:
    """[149] Uncaught, the parent fails with it, and both runs keep their errors."""

    @workflow
    def flow() -> Flow[None]:
        yield step(note, 1)
        yield failing()

    info = await begin(world, flow())
    own = await world.info("r:1")

    assert info.error is not None
    assert own.error is not None
    assert ("run_failed", "1", "step_failed") == (info.error.code, info.error.raised_at, own.error.code)
    assert "no line" in info.error.message


async def test_a_cancelled_child(world: World) -> None:
    """[149] A child that is cancelled by itself raises RunCancelledError at the parent's yield, also after a
    restart."""

    @workflow
    def flow() -> Flow[Any]:
        try:
            return (yield child(1))
        except RunCancelledError as error:
            yield sleep("1h")
            return [error.run_id, error.workflow]

    await begin(world, flow())
    await world.cancel("r:0")
    await go_on(world, flow)
    info = await go_on(world, flow, after="1h")

    assert ["r:0", "child"] == info.output


@pytest.mark.parametrize("taken_by", ["another workflow", "the same workflow"])
async def test_an_id_that_is_taken(world: World, taken_by: str) -> None:
    """[149] A child whose id belongs to a run of somebody else raises RunConflictError at the yield; that run is left
    as it is."""

    @workflow
    def flow() -> Flow[str]:
        try:
            yield quick(1).options(run_id="taken")
        except RunConflictError as error:
            return f"{error.code}: {error.run_id}"
        return ""

    engine = engine_of(world)
    await engine.enqueue(child(1) if taken_by == "another workflow" else quick(1), run_id="taken")
    await engine.drain()
    before = await world.info("taken")
    info = await begin(world, flow())

    assert ("run_conflict: taken", before) == (info.output, await world.info("taken"))


async def test_an_input_that_is_none(world: World) -> None:
    """[149] A call whose input is no data, or does not fit, is raised at the yield, and no run is made."""

    @workflow
    def takes(number: int) -> Flow[int]:
        yield step(note, number)
        return number

    @workflow
    def flow() -> Flow[list[str]]:
        problems: list[str] = []
        for value in ("text", float("nan"), note):
            try:
                yield takes(value)  # type: ignore[arg-type]
            except Exception as error:
                problems.append(type(error).__name__)
        return problems

    info = await begin(world, flow(), takes)

    assert (["ValidationError", "SerializationError", "SerializationError"], []) == (info.output, await children(world))


# ---- side by side ----------------------------------------------------------------------------------------------------


async def test_a_gather_of_children(world: World) -> None:
    """[147] Children side by side end in whatever order, and their results come in the order of the arguments."""

    @workflow
    def nap(hours: int) -> Flow[int]:
        yield sleep(hours * 3600)
        return hours

    @workflow
    def flow() -> Flow[list[int]]:
        return list((yield gather(*(nap(hours) for hours in (3, 1, 2)), step(note, 0))))

    await begin(world, flow(), nap)
    for _ in range(3):
        info = await go_on(world, flow, nap, after="1h")

    assert [3, 1, 2, 0] == info.output
    assert ["0.3", "0.1", "0.2", "0.0"] == [entry.position for entry in info.entries]


async def test_a_gather_with_a_limit(world: World) -> None:
    """[51] With a limit so many children are under way, and the next one starts when one has ended."""

    @workflow
    def flow() -> Flow[list[int]]:
        return list((yield gather(*(child(number) for number in range(5)), limit=2)))

    await begin(world, flow())
    there = [len(await children(world))]
    for _ in range(3):
        info = await go_on(world, flow, after="1h")
        there.append(len(await children(world)))

    assert ([2, 4, 5, 5], [0, 1, 2, 3, 4]) == (there, info.output)


async def test_a_child_beside_a_running_step(world: World) -> None:
    """[148] The end of a child is heard beside a step that runs, and what follows it begins at once."""
    steps = Steps("slow")

    def branch() -> Flow[str]:
        yield quick(1)
        return (yield from step(steps, "quick"))

    @workflow
    def flow() -> Flow[list[str]]:
        return list((yield gather(step(steps, "slow"), branch())))

    async with world.engine(flow, quick) as engine:
        run = await engine.enqueue(flow())
        with fail_after(5):
            await steps.until("quick ends")
        steps.held["slow"].set()
        result = await run.result()

    assert (["slow", "quick"], ["slow begins", "quick begins", "quick ends", "slow ends"]) == (result, steps.log)


async def test_the_loser_of_a_race(world: World) -> None:
    """[67][134] A child that lost a race is cancelled, cleans up, and its end is not heard."""

    @workflow
    def careful() -> Flow[None]:
        try:
            yield sleep("1h")
        finally:
            yield step(note, "cleaned up")

    @workflow
    def flow() -> Flow[list[Any]]:
        winner: Winner[Any] = yield from race(careful(), sleep("1m"))
        again = yield from careful()
        return [winner.index, again]

    await begin(world, flow(), careful)
    await go_on(world, flow, careful, after="1m")
    first, second = await children(world)
    info = await go_on(world, flow, careful, after="1h")

    assert (RunStatus.CANCELLED, RunStatus.SLEEPING) == (first.status, second.status)
    assert ([1, None], ["cleaned up"] * 2) == (info.output, begun)


async def test_a_sibling_fails(world: World) -> None:
    """[134] A child is cancelled with the gather that it is part of."""

    @workflow
    def flow() -> Flow[None]:
        yield gather(child(1), failing())

    info = await begin(world, flow())

    assert {"r:0.0": RunStatus.CANCELLED, "r:0.1": RunStatus.FAILED} == {
        row.run_id: row.status for row in await children(world)
    }
    assert (RunStatus.FAILED, "0.1") == (info.status, info.error and info.error.raised_at)


async def test_a_cancelled_parent(world: World) -> None:
    """[134] Children are cancelled with their parent, and those that they started with them."""

    @workflow
    def flow() -> Flow[Any]:
        return (yield parent(1))

    await begin(world, flow())
    await world.cancel()
    await go_on(world, flow)

    assert {"r", "r:0", "r:0:1"} == {
        row.run_id for row in (await world.storage.list_runs(RunFilter((RunStatus.CANCELLED,)), limit=10)).rows
    }
