"""race: the first to settle wins, the others are cancelled."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from anyio import CancelScope, Event, from_thread, sleep_forever

from reflow import (
    Flow,
    Retry,
    RunStatus,
    StepFailedError,
    Winner,
    WorkflowCancelled,
    current_step,
    gather,
    race,
    sleep,
    step,
    workflow,
)
from tests.support.bodies import Steps, give
from tests.support.world import World

pytestmark = pytest.mark.anyio


async def fail(message: str) -> None:
    """Raises."""
    raise ValueError(message)


@pytest.mark.parametrize("size", [1, 2, 30])
async def test_the_winner(world: World, size: int) -> None:
    """[65][66] `race` takes any number of members from one up and gives `Winner(index, value)`."""
    steps = Steps(*(str(number) for number in range(size - 1)))

    @workflow
    def flow() -> Flow[Winner[str]]:
        return (yield from race(*(step(steps, str(number)) for number in range(size))))

    info = await world.settle(flow())

    assert Winner(size - 1, str(size - 1)) == info.output
    assert [f"0.{size - 1}"] == [entry.position for entry in info.entries]


async def test_the_first_to_settle_failed(world: World) -> None:
    """[66] If the first to settle failed, that failure is raised at the yield."""
    steps = Steps("a")

    @workflow
    def flow() -> Flow[str]:
        try:
            yield race(step(steps, "a"), step(fail, "first"))
        except StepFailedError as error:
            return error.error_message
        return ""

    info = await world.settle(flow())

    assert "first" == info.output


async def test_the_loser_is_cancelled(world: World) -> None:
    """[67] The losers of a race are cancelled: an async body is interrupted, a timer is gone, neither leaves an
    entry."""
    steps = Steps("a", "b")

    async def open_b() -> None:
        await steps.until("a begins", "b begins")
        steps.held["b"].set()

    @workflow
    def flow() -> Flow[str]:
        winner: Winner[Any]
        winner, _ = yield gather(race(step(steps, "a"), step(steps, "b"), sleep("1h")), step(open_b))
        return winner.value

    info = await world.settle(flow())

    assert (RunStatus.COMPLETED, "b") == (info.status, info.output)
    assert "a is cancelled" in steps.log
    assert {"0.0.1", "0.1"} == {entry.position for entry in info.entries}


async def test_the_run_goes_on_at_once(world: World) -> None:
    """[67][68] The run goes on although a loser still cleans up, and does not end before it has."""
    log: list[str] = []
    began, may_end = Event(), Event()

    async def loser() -> None:
        began.set()
        try:
            await sleep_forever()
        finally:
            with CancelScope(shield=True):
                await may_end.wait()
            log.append("the loser has ended")

    async def winner() -> None:
        await began.wait()

    async def after() -> None:
        log.append("the run goes on")
        may_end.set()

    @workflow
    def flow() -> Flow[None]:
        yield race(step(loser), step(winner))
        yield step(after)

    await world.settle(flow())

    assert ["the run goes on", "the loser has ended"] == log


async def test_what_a_loser_makes_of_it(world: World) -> None:
    """[67] The late result of a loser is dropped, and so is an error that it raises on being cancelled."""
    began = [Event(), Event()]

    async def stubborn(number: int) -> str:
        began[number].set()
        try:
            await sleep_forever()
        except BaseException:
            if number:
                raise ValueError("late") from None
            return "late"

    async def winner() -> str:
        for event in began:
            await event.wait()
        return "won"

    @workflow
    def flow() -> Flow[str]:
        winning = yield from race(step(stubborn, 0), step(stubborn, 1), step(winner))
        yield step(give, None)
        return str(winning.value)

    info = await world.settle(flow())

    assert "won" == info.output
    assert ["0.2", "1"] == [entry.position for entry in info.entries]


async def test_a_thread_outlives_the_race(world: World) -> None:
    """[67][68] A loser in a thread runs on; nobody waits for it, its result is dropped, and it harms no later run."""
    began, ended = Event(), Event()
    go = threading.Event()

    def loser() -> str:
        from_thread.run_sync(began.set)
        go.wait()
        from_thread.run_sync(ended.set)
        return "late"

    async def winner() -> str:
        await began.wait()
        return "won"

    @workflow
    def flow() -> Flow[str]:
        winning = yield from race(step(loser), step(winner))
        return winning.value

    info = await world.settle(flow())
    go.set()
    await ended.wait()

    assert (RunStatus.COMPLETED, "won") == (info.status, info.output)
    assert info == await world.info()


async def test_clean_up_of_a_loser(world: World) -> None:
    """[68] `WorkflowCancelled` is raised in a losing branch, whose `finally` may yield clean-up steps; the run is not
    terminal before they have settled."""
    log: list[str] = []
    steps = Steps("clean up")

    def loser() -> Flow[str]:
        try:
            yield sleep("1d")
        except WorkflowCancelled:
            log.append("cancelled")
            raise
        finally:
            yield step(steps, "clean up")
            yield step(steps, "and again")
        return "never"

    @workflow
    def flow() -> Flow[str]:
        winner: Winner[Any] = yield from race(loser(), step(give, "won"))
        log.append("went on")
        return winner.value

    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow(), run_id="r")
        await steps.until("clean up begins")
        during = await run.info()
        steps.held["clean up"].set()
        result = await run.result()

    info = await world.info()
    assert (RunStatus.RUNNING, "won") == (during.status, result)
    assert {"cancelled", "went on"} == set(log)
    assert ["0.1", "0.0.1", "0.0.2"] == [entry.position for entry in info.entries]


async def test_nested(world: World) -> None:
    """[65] A gather inside a race, a race inside a gather, and branches in both work at any depth."""

    def deep(depth: int) -> Flow[int]:
        if depth == 0:
            return (yield from step(give, 0))
        winner: Winner[Any] = yield from race(sleep("1d"), gather(deep(depth - 1), race(step(give, 1), sleep("1d"))))
        (below, beside) = winner.value
        return below + beside.value

    @workflow
    def flow() -> Flow[int]:
        return (yield from deep(5))

    info = await world.settle(flow())

    assert 5 == info.output


async def test_a_race_against_time(world: World) -> None:
    """[65] A race against a sleep is a time limit for whatever is in it, and the loser's timer is not waited for."""

    @workflow
    def flow(patience: str) -> Flow[str]:
        winner: Winner[Any] = yield from race(sleep("1h"), sleep(patience))
        return "too slow" if winner.index == 0 else "in time"

    await world.settle(flow("2h"), run_id="slow")
    await world.settle(flow("30m"), run_id="quick")
    quick = await world.continued(flow, after="30m", run_id="quick")
    slow = await world.continued(flow, after="30m", run_id="slow")

    assert ["in time", "too slow"] == [quick.output, slow.output]
    assert [("0.1", "sleep")] == [(entry.position, entry.kind) for entry in quick.entries]


async def test_a_loser_in_its_second_attempt(world: World) -> None:
    """[67] A step that loses while its second attempt runs leaves nothing behind: the run sleeps and wakes after it."""
    second = Event()

    async def flaky() -> None:
        if current_step().attempt == 1:
            raise ConnectionError
        second.set()
        await sleep_forever()

    async def winner() -> str:
        await second.wait()
        return "won"

    @workflow
    def flow() -> Flow[str]:
        winning: Winner[Any] = yield from race(step(flaky).options(retry=Retry(initial_delay=0)), step(winner))
        yield sleep("1h")
        return str(winning.value)

    asleep = await world.settle(flow())
    info = await world.continued(flow, after="1h")

    assert [("0.1", "completed"), ("1", "sleeping")] == [(entry.position, entry.status) for entry in asleep.entries]
    assert (RunStatus.COMPLETED, "won") == (info.status, info.output)


async def test_a_restart_after_the_race(world: World) -> None:
    """[32][57] After a restart the race has the same winner, and no member of it begins again."""
    steps = Steps("a")

    @workflow
    def flow() -> Flow[str]:
        winner = yield from race(step(steps, "a"), step(steps, "b"))
        yield sleep("1h")
        return winner.value

    await world.settle(flow())
    begun = list(steps.begun)
    steps.held["a"].set()
    info = await world.continued(flow, after="1h")

    assert begun == steps.begun
    assert "b" == info.output
