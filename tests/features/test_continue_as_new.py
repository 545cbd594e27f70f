"""continue_as_new: the run goes on under its id, with an empty journal."""

from __future__ import annotations

from typing import Any

import pytest
from anyio import create_task_group, fail_after

from reflow import (
    Flow,
    RunInfo,
    RunStatus,
    StepFailedError,
    Winner,
    Workflow,
    continue_as_new,
    current_step,
    new_uuid,
    race,
    sleep,
    step,
    wait_event,
    workflow,
)
from reflow.storage.records import RunFilter
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


async def key() -> str:
    """The idempotency key of the step."""
    return current_step().idempotency_key


@workflow
def count(number: int, total: int) -> Flow[int]:
    """One number for each generation."""
    yield step(note, number)
    if number == 0:
        return total
    yield continue_as_new(count(number - 1, total + number))
    raise AssertionError("never")


async def work(world: World, *workflows: Workflow[..., Any]) -> RunInfo:
    """The run, after a new engine has done what is due."""
    await world.engine(*workflows).drain()
    return await world.info()


async def test_it_goes_on_as_the_call(world: World) -> None:
    """The run goes on as the call, under the same id, and its result is that of the last generation."""
    async with world.engine(count) as engine:
        run = await engine.enqueue(count(100, 0), run_id="r")
        with fail_after(10):
            result = await run.result()
        info = await run.info()

    assert (5050, list(range(100, -1, -1)), "r") == (result, begun, info.run_id)
    assert {"number": 0, "total": 5050} == info.input


async def test_the_journal_is_empty(world: World) -> None:
    """Each generation begins with an empty journal, as a run that was never executed, and counts one more."""
    engine = world.engine(count)
    await engine.enqueue(count(3, 0), run_id="r")
    states = []
    for _ in range(3):
        await engine.tick()
        row = await world.storage.get_run("r")
        assert row is not None
        states.append((row.status, row.generation, row.executions, len((await world.info()).entries)))
    await engine.tick()

    assert [(RunStatus.PENDING, generation, 0, 0) for generation in (1, 2, 3)] == states
    assert ["0"] == [entry.position for entry in (await world.info()).entries]


async def test_keys_and_derived_values_are_new(world: World) -> None:
    """Idempotency keys and derived values of the same place differ from generation to generation, and are the same
    over restarts of one."""

    @workflow
    def flow(seen: list[str]) -> Flow[list[str]]:
        made = yield from new_uuid()
        seen = [*seen, (yield from step(key)), str(made)]
        yield sleep("1h")
        again = str(made)
        if len(seen) < 6:
            yield continue_as_new(flow([*seen[:-1], again]))
        return seen

    engine = world.engine(flow)
    await engine.enqueue(flow([]), run_id="r")
    for _ in range(4):
        info = await work(world, flow)
        world.clock.advance("1h")

    assert info.output is not None
    assert ["r:1", "r+1:1", "r+2:1"] == info.output[0::2]
    assert 3 == len(set(info.output[1::2]))


async def test_events_are_kept(world: World) -> None:
    """Events that were sent and not taken are there for the next generation; those that were taken are not."""

    @workflow
    def flow(heard: list[int]) -> Flow[list[int]]:
        heard = [*heard, (yield wait_event("a"))]
        if len(heard) < 3:
            yield continue_as_new(flow(heard))
        return heard

    engine = world.engine(flow)
    await engine.enqueue(flow([]), run_id="r")
    for payload in (1, 2):
        await world.send("r", "a", payload)
    waiting = await work(world, flow)
    await world.send("r", "a", 3)
    info = await work(world, flow)

    assert (RunStatus.WAITING, [1, 2, 3]) == (waiting.status, info.output)


@workflow
def slow(value: int) -> Flow[int]:
    """A child that takes an hour, and half of one to clean up."""
    try:
        yield sleep("1h")
    finally:
        yield sleep("30m")
    return value


async def test_children_are_not_confused(world: World) -> None:
    """A child of the same place in the next generation is another run, and the end of the one before, which comes late,
    is not taken for its own."""

    @workflow
    def flow(round: int) -> Flow[list[Any]]:
        winner: Winner[Any] = yield from race(slow(round), sleep("10m" if round == 0 else "2h"))
        if round == 0:
            yield continue_as_new(flow(1))
        return [winner.index, winner.value]

    engine = world.engine(flow, slow)
    await engine.enqueue(flow(0), run_id="r")
    for _ in range(12):
        info = await work(world, flow, slow)
        world.clock.advance("10m")
    rows = (await world.storage.list_runs(RunFilter(parent="r"), limit=10)).rows

    assert {"r:0.0": RunStatus.CANCELLED, "r+1:0.0": RunStatus.COMPLETED} == {row.run_id: row.status for row in rows}
    assert [0, 1] == info.output


async def test_a_child_continues(world: World) -> None:
    """A child that continues as new is the same child: its parent is told of its last generation only."""

    @workflow
    def flow() -> Flow[list[int]]:
        first = yield count(3, 0)
        second = yield count(1, 0)
        return [first, second]

    engine = world.engine(flow, count)
    await engine.enqueue(flow(), run_id="r")
    info = await work(world, flow, count)

    assert ([6, 1], ["0", "1"]) == (info.output, [entry.position for entry in info.entries])


async def test_clean_up_comes_first(world: World) -> None:
    """`finally` blocks of the body run before the next generation begins, and their steps are performed once."""

    @workflow
    def flow(number: int) -> Flow[str]:
        try:
            yield step(note, f"work {number}")
            if number < 2:
                yield continue_as_new(flow(number + 1))
        finally:
            yield sleep("1m")
            yield step(note, f"clean up {number}")
        return "done"

    engine = world.engine(flow)
    await engine.enqueue(flow(1), run_id="r")
    for _ in range(3):
        info = await work(world, flow)
        world.clock.advance("1m")

    assert ("done", ["work 1", "clean up 1", "work 2", "clean up 2"]) == (info.output, begun)


async def test_clean_up_that_fails(world: World) -> None:
    """An error of the clean-up fails the run: it does not go on."""

    async def broken() -> None:
        raise ConnectionError("no line")

    @workflow
    def flow() -> Flow[None]:
        try:
            yield continue_as_new(flow())
        finally:
            yield step(broken)

    info = await world.settle(flow())

    assert (RunStatus.FAILED, StepFailedError.code) == (info.status, info.error and info.error.code)


async def test_enqueued_again(world: World) -> None:
    """[109] Enqueued again under its id, a run that has continued as new is found as what it has become, although its
    input is another one by now."""
    engine = world.engine(count)
    await engine.enqueue(count(3, 0), run_id="r")
    await engine.tick()
    under_way = await engine.enqueue(count(3, 0), run_id="r")
    await engine.drain()
    ended = await engine.enqueue(count(3, 0), run_id="r")

    assert (6, 6, [3, 2, 1, 0]) == (await under_way.result(), await ended.result(), begun)


async def test_another_workflow(world: World) -> None:
    """[101] It may go on as another workflow, or as another version of its own."""

    @workflow(name="flow", version=2)
    def second(text: str) -> Flow[str]:
        yield step(note, text)
        return f"{text}, second"

    @workflow(name="flow")
    def first() -> Flow[str]:
        yield continue_as_new(second("from the first"))
        return ""

    engine = world.engine(first, second, count)
    await engine.enqueue(first(), run_id="r")
    await engine.drain()
    info = await world.info()

    assert (2, "from the first, second") == (info.version, info.output)


async def test_a_workflow_that_nobody_has(world: World) -> None:
    """[102] Where no engine has what it goes on as, the run stays pending until one comes."""

    @workflow
    def flow() -> Flow[int]:
        yield continue_as_new(count(1, 0))
        return 0

    pending = await world.settle(flow())
    info = await work(world, count)

    assert (RunStatus.PENDING, "count", 1) == (pending.status, pending.workflow, info.output)


async def test_an_input_that_is_none(world: World) -> None:
    """A call whose input does not fit fails the run, and its journal stays."""

    @workflow
    def flow() -> Flow[None]:
        yield step(note, 1)
        yield continue_as_new(count("many", 0))  # type: ignore[arg-type]

    info = await world.settle(flow())

    assert (RunStatus.FAILED, "validation", 1) == (info.status, info.error and info.error.code, len(info.entries))


async def test_a_cancellation_goes_on_with_it(world: World) -> None:
    """A cancellation that is requested while the run goes on is delivered to the next generation."""
    tapped = TappedStorage(world.storage)
    writing = tapped.hold("save_progress")
    engine = world.engine(count, storage=tapped)  # type: ignore[arg-type]
    await engine.enqueue(count(5, 0), run_id="r")
    async with create_task_group() as tasks:
        tasks.start_soon(engine.drain)
        await writing.arrived.wait()
        await world.cancel()
        writing.open()
    info = await work(world, count)

    assert (RunStatus.CANCELLED, [5]) == (info.status, begun)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_it_survives_any_crash(world: World, after: bool) -> None:
    """Wherever the process dies, no generation is skipped and none is done twice."""
    point = 1
    while await survives(world, f"run-{point}-{after}", point, after):
        point += 1

    assert point > 8


async def survives(world: World, run_id: str, point: int, after: bool) -> bool:
    """Crash at the verb of this number, then go on to the end; whether the crash came."""
    begun.clear()
    mortal = MortalStorage(world.storage, point, after=after)
    for storage in (mortal, world.storage):
        engine = world.engine(count, storage=storage)  # type: ignore[arg-type]
        try:
            await engine.enqueue(count(3, 0), run_id=run_id)
            await engine.drain()
        except (Crash, BaseExceptionGroup):
            assert storage is mortal
            assert mortal.is_dead
            world.clock.advance("1h")

    assert (6, [3, 2, 1, 0]) == ((await world.info(run_id)).output, sorted(set(begun), reverse=True))
    # A body runs again only where its result was not stored, which is at most one of them.
    assert begun == sorted(begun, reverse=True)
    assert len(begun) in (4, 5)
    return mortal.is_dead
