"""Recorded time, and identity and randomness that follow from the place."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from uuid import UUID

import pytest

from reflow import Flow, new_random, new_uuid, now, sleep, step, workflow
from reflow.testing.clock import START
from tests.support.world import World

pytestmark = pytest.mark.anyio


async def add(a: int, b: int) -> int:
    """A step."""
    return a + b


@workflow
def timed() -> Flow[list[datetime]]:
    """Reads the clock before and after a sleep, and goes on with a step each time."""
    before = yield from now()
    yield step(add, 1, 2)
    yield sleep("1h")
    after = yield from now()
    yield step(add, 1, 2)
    return [before, after]


@workflow
def identified() -> Flow[list[str]]:
    """Makes identifiers and draws numbers before and after a sleep."""
    first = yield from new_uuid()
    numbers = yield from new_random()
    drawn = numbers.random()
    yield sleep("1h")
    second = yield from new_uuid()
    return [str(first), str(second), str(drawn)]


async def test_now_is_followed_at_once(world: World) -> None:
    """`now()` is answered within the same execution, and the command after it too."""
    info = await world.settle(timed())

    assert [("now", 1), ("add", 1), ("sleep", 0)] == [(entry.name, entry.attempts) for entry in info.entries]
    assert 1 == info.executions


async def test_now_is_recorded(world: World) -> None:
    """[100] `now()` gives the time of the first arrival, also on replay hours later."""
    await world.settle(timed())

    info = await world.continued(timed, after="2h")

    start = datetime.fromtimestamp(START / 1e6, UTC)
    assert [start, start.replace(hour=start.hour + 2)] == info.output


async def test_identity_follows_from_the_place(world: World) -> None:
    """[100] `new_uuid()` and `new_random()` give the same on replay, and different values per call and per run."""
    await world.settle(identified(), run_id="a")
    await world.settle(identified(), run_id="b")

    a = (await world.continued(identified, after="2h", run_id="a")).output
    b = (await world.info("b")).output

    assert 6 == len({*a, *b})
    assert [4, 4] == [UUID(value).version for value in a[:2]]


async def test_random_is_seeded_by_the_place(world: World) -> None:
    """`new_random()` gives a random.Random of its own."""
    drawn: list[object] = []

    @workflow
    def drawing() -> Flow[None]:
        for _ in range(2):
            drawn.append((yield from new_random()))

    await world.settle(drawing())

    assert [Random, Random] == [type(source) for source in drawn]
    assert drawn[0].random() != drawn[1].random()  # type: ignore[attr-defined]
