"""patched: old runs go on the old way, new ones the new way, whatever restarts in between."""

from __future__ import annotations

from typing import Any

import pytest

from reflow import Flow, RunStatus, gather, patched, sleep, step, workflow
from reflow.testing.crash import Crash, MortalStorage
from tests.support.bodies import give
from tests.support.world import World

pytestmark = pytest.mark.anyio


@workflow(name="flow")
def old() -> Flow[list[Any]]:
    """Before the change."""
    first = yield step(give, "first")
    yield sleep("1h")
    last = yield step(give, "last")
    yield sleep("1h")
    return [first, last]


@workflow(name="flow")
def new() -> Flow[list[Any]]:
    """Another step first, and a step less at the end."""
    if (yield patched("ask twice")):
        asked = yield step(give, "asked")
        first = yield step(give, "first")
    else:
        asked, first = None, (yield step(give, "first"))
    yield sleep("1h")
    if (yield patched("no last")):
        return [asked, first]
    last = yield step(give, "last")
    yield sleep("1h")
    return [asked, first, last]


@workflow(name="flow")
def newest() -> Flow[list[Any]]:
    """When no old run is left, the questions are taken out."""
    asked = yield step(give, "asked")
    first = yield step(give, "first")
    yield sleep("1h")
    return [asked, first]


async def test_a_new_run(world: World) -> None:
    """A run that begins with the new code takes the new way, over restarts too."""
    await world.settle(new())
    info = await world.continued(new, after="1h")

    assert ["asked", "first"] == info.output


async def test_a_run_that_was_past_both_places(world: World) -> None:
    """A run that was past a place when the code changed keeps the old way there, over any number of restarts."""
    await world.settle(old())
    await world.continued(old, after="1h")
    await world.continued(new)
    info = await world.continued(new, after="1h")

    assert [None, "first", "last"] == info.output


async def test_a_run_that_was_between_the_places(world: World) -> None:
    """A run that was past one place and not past the other takes the old way at the one and the new way at the
    other."""
    await world.settle(old())
    info = await world.continued(new, after="1h")

    assert [None, "first"] == info.output


async def test_the_answer_is_recorded(world: World) -> None:
    """The new way is marked in the journal where it was taken; the old way leaves nothing."""
    await world.settle(new(), run_id="new")
    await world.settle(old(), run_id="old")
    await world.continued(new, after="1h", run_id="old")
    entries = {run_id: [e.position for e in (await world.info(run_id)).entries] for run_id in ("new", "old")}

    assert {"new": ["~ask twice", "0", "1", "2", "~no last"], "old": ["0", "1", "~no last"]} == entries


async def test_the_question_is_taken_out(world: World) -> None:
    """Runs that took the new way go on when the questions are taken out together with the old way."""
    await world.settle(new())
    info = await world.continued(newest, after="1h")

    assert (RunStatus.COMPLETED, ["asked", "first"]) == (info.status, info.output)


async def test_one_answer_for_a_loop_and_for_branches(world: World) -> None:
    """Each run has one answer for a change, wherever and however often it is asked, over restarts too."""
    asked: list[bool] = []

    def branch(number: int) -> Flow[bool]:
        yield sleep(number * 60)
        answer: bool = yield patched("everywhere")
        asked.append(answer)
        return answer

    @workflow
    def flow() -> Flow[list[bool]]:
        first = yield from patched("everywhere")
        answers = yield from gather(*(branch(number) for number in range(3)))
        return [first, *answers]

    await world.settle(flow())
    for _ in range(3):
        info = await world.continued(flow, after="1m")

    assert [True] * 4 == info.output
    assert {True} == set(asked)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_over_any_crash(world: World, after: bool) -> None:
    """Wherever the process dies, also with the code changed at that moment, the run goes one way from end to end."""
    point, ways = 1, set()
    while True:
        is_dead, way = await survives(world, f"run-{point}-{after}", point, after)
        ways.add(way)
        if not is_dead:
            break
        point += 1

    assert {"None first", "asked first"} <= ways


async def survives(world: World, run_id: str, point: int, after: bool) -> tuple[bool, str]:
    """Crash the old code at the verb of this number, then go on with the new; whether the crash came, and which way the
    run went."""
    mortal = MortalStorage(world.storage, point, after=after)
    for code, storage in ((old, mortal), (new, world.storage)):
        engine = world.engine(code, storage=storage)  # type: ignore[arg-type]
        try:
            await engine.enqueue(code(), run_id=run_id)
            for _ in range(2 if code is old else 3):
                await engine.drain()
                world.clock.advance("1h")
        except (Crash, BaseExceptionGroup):
            assert storage is mortal
            assert mortal.is_dead
            world.clock.advance("1h")
    output = (await world.info(run_id)).output
    assert output in (["asked", "first"], [None, "first"], [None, "first", "last"], ["first", "last"])
    return mortal.is_dead, " ".join(map(str, output))
