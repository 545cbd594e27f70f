"""Steps: bodies that run at least once, and results that are recorded exactly once."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest

from reflow import (
    ConfigError,
    Flow,
    RunStatus,
    StepInfo,
    current_step,
    sleep,
    step,
    workflow,
)
from reflow.testing.crash import Crash, MortalStorage
from tests.support.bodies import Steps, give
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio


async def add(a: int, b: int) -> int:
    """An async body."""
    return a + b


@workflow
def giving(values: list[Any]) -> Flow[list[Any]]:
    """A step for each value."""
    results: list[Any] = []
    for value in values:
        results.append((yield step(give, value)))
    return results


@workflow
def summing(length: int) -> Flow[int]:
    """Steps in a row, a sleep, and one step more."""
    total = 0
    for number in range(length):
        total = yield from step(add, total, number)
    yield sleep("1h")
    total = yield from step(add, total, 100)
    return total


async def test_a_result_is_stored_before_the_next_body_starts(world: World) -> None:
    """[23] A result is persisted before the body of the next step starts."""
    seen: list[list[tuple[str, Any]]] = []

    async def look() -> None:
        info = await world.info()
        seen.append([(entry.position, entry.value) for entry in info.entries])

    @workflow
    def flow() -> Flow[None]:
        yield step(add, 1, 2)
        yield step(look)
        yield step(look)

    await world.settle(flow())

    assert [[("0", 3)], [("0", 3), ("1", None)]] == seen


async def test_falsy_results(world: World) -> None:
    """[24] A body that returns nothing gives None; falsy results come back as they were."""
    values = [None, 0, 0.0, "", b"", False, [], {}]

    info = await world.settle(giving(values))

    assert values == info.output
    assert [type(value) for value in values] == [type(value) for value in info.output]


async def test_where_bodies_run(world: World) -> None:
    """[25] An async body runs on the event loop, a plain one in a worker thread; both are recorded alike."""
    here = threading.get_ident()

    async def on_the_loop() -> bool:
        return threading.get_ident() == here

    def in_a_thread() -> bool:
        return threading.get_ident() == here

    @workflow
    def flow() -> Flow[list[bool]]:
        first = yield from step(on_the_loop)
        second = yield from step(in_a_thread)
        return [first, second]

    info = await world.settle(flow())

    assert [True, False] == info.output
    assert [("on_the_loop", True), ("in_a_thread", False)] == [(entry.name, entry.value) for entry in info.entries]


async def test_other_callables(world: World) -> None:
    """A method, a partial and an object that can be called are steps too, under the names they go by."""

    class Shop:
        def price(self, cents: int) -> int:
            return cents * 2

        def __call__(self, cents: int) -> int:
            return cents * 3

    @workflow
    def flow() -> Flow[list[int]]:
        shop = Shop()
        prices = [(yield step(shop.price, 1)), (yield step(partial(add, b=1), 1)), (yield step(shop, 1))]
        return prices

    info = await world.settle(flow())

    assert [2, 2, 3] == info.output
    assert ["price", "add", "Shop"] == [entry.name for entry in info.entries]


async def test_commands_run_in_program_order(world: World) -> None:
    """[6] No body starts before the previous yield has its outcome."""
    log: list[str] = []

    async def work(name: str) -> None:
        log.append(f"{name} begins")
        await world.info()
        log.append(f"{name} ends")

    @workflow
    def flow() -> Flow[None]:
        for name in "abc":
            yield step(work, name)

    await world.settle(flow())

    assert [f"{name} {what}" for name in "abc" for what in ("begins", "ends")] == log


async def test_a_name_may_repeat(world: World) -> None:
    """[5] A step name may repeat, in loops too; the position tells the entries apart."""
    info = await world.settle(giving(["a", "b", "a"]))

    assert [("0", "give", "a"), ("1", "give", "b"), ("2", "give", "a")] == [
        (entry.position, entry.name, entry.value) for entry in info.entries
    ]


async def test_options_name_the_entry(world: World) -> None:
    """[3] `.options(name=)` gives a changed copy, and the journal keeps that name; the original stays as it was."""
    original = step(add, 1, 2)
    renamed = original.options(name="plus")

    @workflow
    def flow() -> Flow[None]:
        yield renamed
        yield original

    info = await world.settle(flow())

    assert ["plus", "add"] == [entry.name for entry in info.entries]


async def test_a_workflow_that_yields_nothing_completes(world: World) -> None:
    """[7] A workflow that returns before its first yield completes on its first execution."""

    @workflow
    def flow(early: bool) -> Flow[str]:
        if early:
            return "early"
        yield step(add, 1, 2)
        return "late"

    info = await world.settle(flow(True))

    assert (RunStatus.COMPLETED, "early", 1, ()) == (info.status, info.output, info.executions, info.entries)


@pytest.mark.parametrize(("found", "output", "begun"), [(True, "early", ["look"]), (False, None, ["look", "go on"])])
async def test_return_completes_the_run(world: World, found: bool, output: str | None, begun: list[str]) -> None:
    """[93] `return` anywhere completes the run with its value, or None; later steps never run."""
    steps = Steps()

    @workflow
    def flow() -> Flow[str | None]:
        while (yield step(steps, "look")):
            if found:
                return "early"
            yield step(steps, "go on")
            break

    info = await world.settle(flow())

    assert (RunStatus.COMPLETED, output, None) == (info.status, info.output, info.error)
    assert begun == steps.begun


async def test_a_path_not_taken_leaves_no_entry(world: World) -> None:
    """[90][91] `if`, `while` and `match` over recorded values decide by them; a path not taken leaves no entry."""

    @workflow
    def flow() -> Flow[int]:
        value = 0
        while value < 3:
            value = yield from step(add, value, 1)
        match value:
            case 3:
                yield step(give, "three")
            case _:
                yield step(give, "other")
        return value

    info = await world.settle(flow())

    assert [1, 2, 3, "three"] == [entry.value for entry in info.entries]


async def test_helpers_with_yield_from(world: World) -> None:
    """A helper generator, delegated to with `yield from`, has its steps in the run's own sequence."""

    def twice(value: int) -> Flow[int]:
        once = yield from step(add, value, value)
        again = yield from step(add, once, once)
        return again

    @workflow
    def flow() -> Flow[int]:
        first = yield from twice(1)
        second = yield from twice(first)
        return second

    info = await world.settle(flow())

    assert 16 == info.output
    assert ["0", "1", "2", "3"] == [entry.position for entry in info.entries]


async def test_a_body_knows_its_step(world: World) -> None:
    """[27] `current_step()` gives run id, workflow, step name, position, attempt and the idempotency key."""
    seen: list[StepInfo] = []

    async def on_the_loop() -> None:
        seen.append(current_step())

    def in_a_thread() -> None:
        seen.append(current_step())

    @workflow
    def flow() -> Flow[None]:
        yield step(on_the_loop)
        yield step(in_a_thread).options(name="other")

    await world.settle(flow(), run_id="run-7")

    expected = [
        StepInfo("run-7", "flow", "on_the_loop", "0", attempt=1),
        StepInfo("run-7", "flow", "other", "1", attempt=1),
    ]
    assert expected == seen
    assert ["run-7:0", "run-7:1"] == [info.idempotency_key for info in seen]


async def test_a_workflow_body_is_no_step(world: World) -> None:
    """`current_step()` outside a step body, in the workflow's own code as elsewhere, is a ConfigError."""

    @workflow
    def flow() -> Flow[None]:
        yield step(add, 1, 2)
        current_step()

    info = await world.settle(flow())

    assert RunStatus.FAILED == info.status
    assert info.error is not None
    assert ("ConfigError", "current_step() was called outside a step body") == (info.error.type, info.error.message)
    with pytest.raises(ConfigError, match="outside a step body"):
        current_step()


async def test_the_generator_stays_alive_between_steps(world: World) -> None:
    """[34] A chain of K steps costs O(K): one execution of the body, one claim, no read of the journal, K writes."""
    starts: list[None] = []

    @workflow
    def flow(length: int) -> Flow[int]:
        starts.append(None)
        total = 0
        for number in range(length):
            total = yield from step(add, total, number)
        return total

    tapped = TappedStorage(world.storage)
    engine = world.engine(flow, storage=tapped)
    await engine.enqueue(flow(200))
    await engine.drain()

    counts = {verb: tapped.log.count(verb) for verb in ("save_progress", "get_journal")}
    assert {"save_progress": 200, "get_journal": 0} == counts
    assert 1 == len(starts)


async def test_recovery_runs_no_finished_body_again(world: World) -> None:
    """[28][33] Over a restart finished bodies never run again, and local variables hold the recorded results."""
    bodies: list[int] = []

    async def count(value: int) -> int:
        bodies.append(value)
        return value * 10

    @workflow
    def flow() -> Flow[list[int]]:
        first = yield from step(count, 1)
        second = yield from step(count, 2)
        yield sleep("1h")
        third = yield from step(count, 3)
        return [first, second, third]

    await world.settle(flow())
    before = list(bodies)
    info = await world.continued(flow, after="1h")

    assert [1, 2] == before
    assert [1, 2, 3] == bodies
    assert [10, 20, 30] == info.output


@pytest.mark.parametrize(("after", "times"), [(False, 2), (True, 1)], ids=["before the commit", "after the commit"])
async def test_a_kill_around_the_commit_of_a_result(world: World, after: bool, times: int) -> None:
    """[26][29][30] Killed before its result is stored the body runs again, killed after that it does not; one result is
    recorded either way."""
    bodies: list[None] = []

    async def count() -> str:
        bodies.append(None)
        return "done"

    @workflow
    def flow() -> Flow[str]:
        result = yield from step(count)
        yield sleep("1h")
        return result

    mortal = MortalStorage(world.storage, dies_at=3, after=after)
    engine = world.engine(flow, storage=mortal)  # type: ignore[arg-type]
    await engine.enqueue(flow(), run_id="r")
    with pytest.raises(BaseExceptionGroup) as death:
        await engine.drain()
    assert death.group_contains(Crash)

    await world.continued(flow, after="1m")
    info = await world.continued(flow, after="1h")

    assert times == len(bodies)
    assert [("0", "step", "done"), ("1", "sleep", None)] == [
        (entry.position, entry.kind, entry.value) for entry in info.entries
    ]
    assert "done" == info.output


async def test_a_kill_between_the_last_entry_and_the_end(world: World) -> None:
    """[94] A run whose journal is complete but which is not marked yet is completed by recovery, and no body runs."""
    bodies: list[None] = []

    async def count() -> str:
        bodies.append(None)
        return "done"

    @workflow
    def flow() -> Flow[str]:
        result = yield from step(count)
        yield step(count)
        return result

    @workflow(name="flow")
    def shorter() -> Flow[str]:
        result = yield from step(count)
        return result

    mortal = MortalStorage(world.storage, dies_at=3, after=True)
    engine = world.engine(flow, storage=mortal)  # type: ignore[arg-type]
    await engine.enqueue(flow(), run_id="r")
    with pytest.raises(BaseExceptionGroup):
        await engine.drain()
    begun = len(bodies)
    # With the shorter code the one stored entry is all there is.
    info = await world.continued(shorter, after="1m")

    assert (1, 1) == (begun, len(bodies))
    assert (RunStatus.COMPLETED, "done") == (info.status, info.output)
