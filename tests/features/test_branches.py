"""Branches: several commands in sequence beside others, and what members of a gather may be."""

from __future__ import annotations

import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint

from reflow import (
    Flow,
    Retry,
    RunStatus,
    StepFailedError,
    current_step,
    gather,
    race,
    sleep,
    step,
    workflow,
)
from tests.support.bodies import Steps
from tests.support.world import World

pytestmark = pytest.mark.anyio


async def give(value: int) -> int:
    """Returns what it is given."""
    return value


async def test_a_limit(world: World) -> None:
    """[51] `limit=` bounds how many members run at once, also where they are branches of several steps."""
    running: set[int] = set()
    most = 0

    async def count(number: int) -> int:
        nonlocal most
        running.add(number)
        most = max(most, len(running))
        await checkpoint()
        return number

    async def leave(number: int) -> int:
        running.remove(number)
        return number

    def branch(number: int) -> Flow[int]:
        yield step(count, number)
        return (yield from step(leave, number))

    @workflow
    def flow(size: int) -> Flow[list[int]]:
        values = yield from gather(*(branch(number) for number in range(size)), limit=3)
        return list(values)

    info = await world.settle(flow(10))

    assert (3, list(range(10))) == (most, info.output)


async def test_all_kinds_mix(world: World) -> None:
    """[51][63] Steps, sleeps, branches, gathers and races mix freely as members."""

    def branch(value: int) -> Flow[int]:
        first = yield from step(give, value)
        yield sleep("1m")
        second = yield from step(give, first + 1)
        return second

    @workflow
    def flow() -> Flow[list[int]]:
        a, nap, b, (c, d), winner = yield gather(
            step(give, 1), sleep("2m"), branch(2), gather(step(give, 4), branch(5)), race(sleep("1h"), step(give, 7))
        )
        assert nap is None
        return [a, b, c, d, winner.index, winner.value]

    await world.settle(flow())
    await world.continued(flow, after="1m")
    info = await world.continued(flow, after="1m")

    assert [1, 3, 4, 6, 1, 7] == info.output


async def test_return_in_a_branch(world: World) -> None:
    """[64] `return` in a branch ends that branch only and gives its value; a branch without a yield does so at once."""

    def branch(value: int) -> Flow[int]:
        if value == 0:
            return -1
        yield step(give, value)
        if value == 1:
            return -2
        return (yield from step(give, value * 10))

    @workflow
    def flow() -> Flow[list[int]]:
        values = yield from gather(branch(0), branch(1), branch(2))
        return list(values)

    info = await world.settle(flow())

    assert [-1, -2, 20] == info.output
    assert {"0.1.0", "0.2.0", "0.2.1"} == {entry.position for entry in info.entries}


async def test_each_member_has_its_own_retry(world: World) -> None:
    """[52] Each member has its own retry; the attempts of one are none of the other's."""

    async def flaky(until: int) -> int:
        if current_step().attempt < until:
            raise ConnectionError
        return current_step().attempt

    @workflow
    def flow() -> Flow[list[int]]:
        policy = Retry(max_attempts=3, backoff="constant", initial_delay="1m", jitter=False)
        values = yield from gather(*(step(flaky, until).options(retry=policy) for until in (1, 2, 3)))
        return list(values)

    await world.settle(flow())
    await world.continued(flow, after="1m")
    info = await world.continued(flow, after="1m")

    assert [1, 2, 3] == info.output
    assert [1, 2, 3] == [entry.attempts for entry in info.entries]


async def test_a_cancelled_sibling_starts_no_further_attempt(world: World) -> None:
    """[52] A sibling that is cancelled in its back-off is not tried again, and leaves nothing behind."""
    attempts: list[int] = []

    async def flaky() -> None:
        attempts.append(current_step().attempt)
        raise ConnectionError

    async def fail() -> None:
        raise ValueError

    @workflow
    def flow() -> Flow[str]:
        policy = Retry(max_attempts=5, initial_delay="1m", jitter=False)
        try:
            yield gather(step(flaky).options(retry=policy), gather(sleep("30s"), _then(fail)))
        except StepFailedError:
            yield sleep("1h")
        return "over"

    await world.settle(flow())
    early = await world.continued(flow, after="30s")
    info = await world.continued(flow, after="1h")

    assert [("1", "sleep")] == [(entry.position, entry.kind) for entry in early.entries if entry.status == "sleeping"]
    assert [1] == attempts
    assert (RunStatus.COMPLETED, "over") == (info.status, info.output)


def _then(fn: object) -> Flow[None]:
    yield sleep("30s")
    yield step(fn)  # type: ignore[call-overload]


async def test_branches_keep_their_results_apart(world: World) -> None:
    """[63] A branch's results stay its own when the interleaving differs after a restart."""
    steps = Steps("a0", "b1")

    def branch(name: str) -> Flow[str]:
        first = yield from step(steps, f"{name}0")
        second = yield from step(steps, f"{name}1")
        return first + second

    @workflow
    def flow() -> Flow[list[str]]:
        values = yield from gather(branch("a"), branch("b"))
        return list(values)

    async with create_task_group() as tasks:
        async with world.engine(flow, grace=0) as engine:
            await engine.enqueue(flow(), run_id="r")
            await steps.until("b1 begins")
        steps.held["a0"].set()
        tasks.start_soon(world.continued, flow)
        await steps.until("a1 ends")
        steps.held["b1"].set()

    info = await world.info()
    assert ["a0a1", "b0b1"] == info.output
    assert ["0.1.0", "0.0.0", "0.0.1", "0.1.1"] == [entry.position for entry in info.entries]


async def test_retries_and_sleeps_beside_a_body(world: World) -> None:
    """A gather in which one member runs while others wait for their time stays resident until the body ends, and is
    parked until the earliest of those times then."""
    steps = Steps("slow")

    async def flaky() -> int:
        if current_step().attempt == 1:
            raise ConnectionError
        return current_step().attempt

    @workflow
    def flow() -> Flow[list[object]]:
        policy = Retry(initial_delay="10m", jitter=False)
        values = yield from gather(step(steps, "slow"), sleep("20m"), step(flaky).options(retry=policy))
        return list(values)

    engine = world.engine(flow, lease="1d")
    await engine.enqueue(flow(), run_id="r")
    async with create_task_group() as tasks:
        tasks.start_soon(engine.drain)
        await world.clock.has_timer(within="10m")
        world.clock.advance("10m")
        await world.clock.has_timer(within="10m")
        steps.held["slow"].set()

    parked = await world.info()
    info = await world.continued(flow, after="10m")

    assert (RunStatus.SLEEPING, 1) == (parked.status, parked.executions)
    assert ["slow", None, 2] == info.output
