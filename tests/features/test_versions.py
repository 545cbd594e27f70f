"""Versions: a run stays with the one that it began with, and waits for an engine that has it."""

from __future__ import annotations

from typing import Any

import pytest

from reflow import Flow, Workflow, WorkflowNotFoundError, continue_as_new, sleep, step, wait_event, workflow
from tests.support.bodies import give
from tests.support.world import World

pytestmark = pytest.mark.anyio


@workflow(name="flow")
def first() -> Flow[str]:
    """The first version."""
    yield sleep("1h")
    yield wait_event("a")
    return "first"


@workflow(name="flow", version=2)
def second() -> Flow[str]:
    """The second: other commands in the same places."""
    yield step(give, 1)
    yield sleep("1h")
    yield wait_event("a")
    return "second"


async def test_a_run_stays_with_its_version(world: World) -> None:
    """[101] Through restarts and waits a run stays with the version that it began with, beside runs of a newer one."""
    await world.settle(first(), run_id="old")
    engine = world.engine(first, second)
    await engine.enqueue(second(), run_id="new")
    await engine.drain()
    for _ in range(2):
        world.clock.advance("1h")
        await world.engine(first, second).drain()
    for run_id in ("old", "new"):
        await world.send(run_id, "a")
    await world.engine(second, first).drain()
    old, new = await world.info("old"), await world.info("new")

    assert [(1, "first"), (2, "second")] == [(old.version, old.output), (new.version, new.output)]


@pytest.mark.parametrize("until", ["it is claimed", "it wakes", "its event comes"])
async def test_a_version_that_no_engine_has(world: World, until: str) -> None:
    """[102] A run whose version no engine has is left as it is, and goes on once an engine with that version starts."""
    engine = world.engine(first)
    await engine.enqueue(first(), run_id="r")
    if until != "it is claimed":
        await engine.drain()
        world.clock.advance("1h")
    if until == "its event comes":
        await engine.drain()
        await world.send("r", "a")
    before = await world.info()

    async with world.engine(second) as newer:
        await newer.drain()
    left = await world.info()
    await world.send("r", "a")
    for _ in range(2):
        await world.engine(first, second).drain()
        world.clock.advance("1h")

    assert (before, "first") == (left, (await world.info()).output)


async def test_an_engine_starts_no_run_of_a_version_it_lacks(world: World) -> None:
    """[102] A call of a version that the engine was not given is refused, and says which it has."""
    with pytest.raises(WorkflowNotFoundError, match=r"flow \(version 2\)"):
        await world.engine(second).enqueue(first())


async def test_continuing_moves_to_another_version(world: World) -> None:
    """[101] A run may move to another version where it continues as new."""

    def loop(number: int, following: list[Workflow[..., Any]]) -> Workflow[[int], int]:
        @workflow(name="loop", version=number)
        def body(count: int) -> Flow[int]:
            yield sleep("1h")
            if count < 3:
                yield continue_as_new(following[0](count + 1))
            return number

        return body

    newest: list[Workflow[..., Any]] = []
    old, new = loop(1, newest), loop(2, newest)
    newest.append(old)
    engine = world.engine(old, new)
    await engine.enqueue(old(0), run_id="r")
    versions = []
    for _ in range(4):
        await world.engine(old, new).drain()
        versions.append((await world.info()).version)
        # Deployed while the run sleeps.
        newest[:] = [new]
        world.clock.advance("1h")
    await world.engine(old, new).drain()

    assert ([1, 2, 2, 2], 2) == (versions, (await world.info()).output)
