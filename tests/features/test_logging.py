"""get_logger: what a body logs appears once for each place that it passes, however often it is replayed."""

from __future__ import annotations

import logging

import pytest

from reflow import (
    Flow,
    continue_as_new,
    gather,
    get_logger,
    is_replaying,
    sleep,
    step,
    wait_event,
    workflow,
)
from reflow.testing.crash import Crash, MortalStorage
from tests.support.bodies import give
from tests.support.world import World

pytestmark = pytest.mark.anyio

log = get_logger("tests.features.logging")


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tests.features.logging")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged by bodies, with the run that it says it is of."""
    records = [record for record in caplog.records if record.name == "tests.features.logging"]
    return [f"{vars(record)['run_id']}: {record.getMessage()}" for record in records]


@workflow
def child() -> Flow[None]:
    """Logs around a sleep."""
    log.info("child begins")
    yield sleep("1h")
    log.info("child ends")


@workflow
def parent() -> Flow[None]:
    """Logs around whatever can park a run."""
    log.info("begins")
    yield wait_event("a")
    log.info("has the event")
    yield child()
    log.info("has the child")
    yield sleep("1h")
    log.info("ends")


async def test_over_waits_and_children(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A run that waits for an event, a child and a time logs each line once, and so does the child."""
    for _ in range(4):
        engine = world.engine(parent, child)
        await engine.enqueue(parent(), run_id="r")
        await engine.drain()
        await world.send("r", "a")
        await engine.drain()
        world.clock.advance("1h")

    assert [
        "r: begins",
        "r: has the event",
        "r:1: child begins",
        "r:1: child ends",
        "r: has the child",
        "r: ends",
    ] == lines(caplog)


async def test_in_branches(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Branches that are brought back to where they were are silent, also where they stood at different places."""

    def branch(number: int) -> Flow[None]:
        for _ in range(number):
            yield sleep("1m")
            log.info("branch %d", number)

    @workflow
    def flow() -> Flow[None]:
        yield gather(branch(1), branch(3))
        log.info("ends")

    await world.settle(flow())
    for _ in range(3):
        await world.continued(flow, after="1m")

    assert ["r: branch 3", "r: branch 3", "r: branch 3", "r: ends"] == [
        line for line in lines(caplog) if "branch 1" not in line
    ]
    assert ["r: branch 1"] == [line for line in lines(caplog) if "branch 1" in line]


async def test_while_it_is_dropped(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """What `finally` blocks log when the run is dropped, and not ended, is not heard; when it ends, it is."""

    @workflow
    def flow() -> Flow[None]:
        try:
            yield wait_event("a")
        finally:
            log.info("clean-up")

    await world.settle(flow())
    parked = lines(caplog)
    await world.send("r", "a")
    await world.continued(flow)

    assert ([], ["r: clean-up"]) == (parked, lines(caplog))


async def test_each_generation_logs(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A run that continues as new is not replaying: each generation logs what it does."""

    @workflow
    def flow(number: int) -> Flow[None]:
        log.info("%d, replaying: %s", number, is_replaying())
        yield step(give, number)
        if number:
            yield continue_as_new(flow(number - 1))

    await world.settle(flow(2))

    assert ["r: 2, replaying: False", "r: 1, replaying: False", "r: 0, replaying: False"] == lines(caplog)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_after_a_crash(world: World, caplog: pytest.LogCaptureFixture, after: bool) -> None:
    """After a crash only what was logged since the last stored outcome appears again: no line is missing, and each
    appears twice at most."""

    @workflow
    def flow() -> Flow[None]:
        for number in range(4):
            yield step(give, number)
            log.info("%d", number)

    point, is_dead = 1, True
    while is_dead:
        caplog.clear()
        mortal = MortalStorage(world.storage, point, after=after)
        for storage in (mortal, world.storage):
            engine = world.engine(flow, storage=storage)  # type: ignore[arg-type]
            try:
                await engine.enqueue(flow(), run_id=f"{point}")
                await engine.drain()
            except (Crash, BaseExceptionGroup):
                assert mortal.is_dead
            world.clock.advance("1h")
        heard = [line.split(": ")[1] for line in lines(caplog)]

        assert list("0123") == sorted(set(heard))
        assert len(heard) in (4, 5)
        point, is_dead = point + 1, mortal.is_dead

    assert point > 6
