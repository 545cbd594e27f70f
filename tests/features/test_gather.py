"""gather: members side by side, each recorded as it ends."""

from __future__ import annotations

import pytest
from anyio import CancelScope, Event, sleep_forever
from anyio.lowlevel import checkpoint

from reflow import (
    ConfigError,
    Flow,
    RunStatus,
    StepFailedError,
    gather,
    race,
    sleep,
    step,
    workflow,
)
from tests.support.bodies import Meeting, Steps
from tests.support.world import World

pytestmark = pytest.mark.anyio


async def give(value: int) -> int:
    """Returns what it is given."""
    return value


async def test_members_run_side_by_side(world: World) -> None:
    """[48][60] All members are started before any ends; none waits for a sibling's result."""
    meet = Meeting(50)

    @workflow
    def flow() -> Flow[list[int]]:
        values = yield from gather(*(step(meet, number) for number in range(50)))
        return list(values)

    info = await world.settle(flow())

    assert list(range(50)) == info.output


async def test_the_result_is_in_argument_order(world: World) -> None:
    """[49] The result is a tuple in argument order, whatever the order of completion; the journal has that of
    completion."""
    turns = {"c": Event(), "b": Event(), "a": Event()}

    async def in_turn(name: str, before: str | None) -> str:
        if before:
            await turns[before].wait()
        turns[name].set()
        return name

    @workflow
    def flow() -> Flow[list[str]]:
        members = [("a", "b"), ("b", "c"), ("c", None)]
        values = yield from gather(*(step(in_turn, name, before) for name, before in members))
        assert isinstance(values, tuple)
        return list(values)

    info = await world.settle(flow())

    assert ["a", "b", "c"] == info.output
    assert ["0.2", "0.1", "0.0"] == [entry.position for entry in info.entries]


async def test_gather_of_nothing_and_of_one(world: World) -> None:
    """[50] `gather()` of nothing gives `()` at once, `gather(x)` a tuple of one; `race()` of nothing is a
    `ConfigError`."""

    @workflow
    def flow() -> Flow[list[int]]:
        none = yield from gather()
        one = yield from gather(step(give, 1))
        return [len(none), *one]

    info = await world.settle(flow())

    assert [0, 1] == info.output
    with pytest.raises(ConfigError, match="race"):
        race()


async def test_each_result_is_stored_as_it_arrives(world: World) -> None:
    """[53][55] A result is stored while others still run: after a restart only members without an entry run."""
    steps = Steps("c")

    @workflow
    def flow() -> Flow[list[str]]:
        values = yield from gather(step(steps, "a"), step(steps, "b"), step(steps, "c"))
        return list(values)

    async with world.engine(flow, grace=0) as engine:
        await engine.enqueue(flow(), run_id="r")
        await steps.until("a ends", "b ends", "c begins")
    interrupted = await world.info()
    steps.held["c"].set()
    info = await world.continued(flow)

    assert {"0.0": "a", "0.1": "b"} == {entry.position: entry.value for entry in interrupted.entries}
    assert ["a", "b", "c", "c"] == sorted(steps.begun)
    assert ["a", "b", "c"] == info.output


async def test_fail_fast(world: World) -> None:
    """[56] The first failing member cancels its siblings, and the gather raises once all have settled: their bodies
    have ended, their clean-up included, before the next step begins."""
    log: list[str] = []
    began = Event()

    async def slow() -> None:
        began.set()
        try:
            await sleep_forever()
        finally:
            with CancelScope(shield=True):
                for _ in range(5):
                    await checkpoint()
            log.append("cleaned up")

    async def fail() -> None:
        await began.wait()
        raise ValueError("no")

    async def compensate() -> None:
        log.append("compensated")

    @workflow
    def flow() -> Flow[None]:
        try:
            yield gather(step(slow), step(fail), sleep("1h"))
        except StepFailedError:
            yield step(compensate)

    info = await world.settle(flow())

    assert ["cleaned up", "compensated"] == log
    assert [("0.1", "failed"), ("1", "completed")] == [(entry.position, entry.status) for entry in info.entries]


async def test_the_failure_reported_is_that_of_the_cause(world: World) -> None:
    """[57] The failure reported is that of the member that caused it, not of one that failed on being cancelled; it
    stays the same on replay."""
    began = Event()

    async def bitter() -> None:
        began.set()
        try:
            await sleep_forever()
        except BaseException:
            raise ValueError("the effect") from None

    async def fail() -> None:
        await began.wait()
        raise ValueError("the cause")

    @workflow
    def flow() -> Flow[list[str]]:
        causes: list[str] = []
        try:
            yield gather(step(bitter), step(fail))
        except StepFailedError as error:
            causes.append(error.error_message)
        yield sleep("1h")
        return causes

    await world.settle(flow())
    info = await world.continued(flow, after="1h")

    assert ["the cause"] == info.output
    assert [("0.1", "failed"), ("1", "completed")] == [(entry.position, entry.status) for entry in info.entries]


async def test_several_fail_together(world: World) -> None:
    """[58] Several members failing at once fail the gather once, with the first of them, and without noise."""
    meet = Meeting(3)

    async def fail(number: int) -> None:
        await meet(number)
        raise ValueError(f"number {number}")

    @workflow
    def flow() -> Flow[None]:
        yield gather(*(step(fail, number) for number in range(3)))

    info = await world.settle(flow())

    first = info.entries[0]
    assert info.error is not None
    assert first.error is not None
    assert (RunStatus.FAILED, first.position) == (info.status, info.error.position)
    assert first.error.message in info.error.message


async def test_return_exceptions(world: World) -> None:
    """[59] With `return_exceptions=True` all members settle, and failures are returned in their places."""
    steps = Steps()
    steps.broken = {"b"}

    @workflow
    def flow() -> Flow[list[str]]:
        first, second, third = yield gather(*(step(steps, name) for name in "abc"), return_exceptions=True)
        assert isinstance(second, StepFailedError)
        return [first, second.error_message, third]

    info = await world.settle(flow())

    assert ["a", "b", "c"] == info.output
    assert ["a", "b", "c"] == sorted(steps.begun)


async def test_a_failed_gather_keeps_what_was_finished(world: World) -> None:
    """[54] A gather that fails keeps the results of members that had finished."""
    steps = Steps("b")
    steps.broken = {"b"}

    async def release() -> None:
        steps.held["b"].set()

    def branch() -> Flow[None]:
        yield step(steps, "a")
        yield step(release)

    @workflow
    def flow() -> Flow[None]:
        yield gather(branch(), step(steps, "b"))

    info = await world.settle(flow())

    assert [("0.0.0", "completed"), ("0.1", "failed")] == [
        (entry.position, entry.status) for entry in info.entries if entry.name == "Steps"
    ]
    assert RunStatus.FAILED == info.status


@pytest.mark.parametrize("size", [1, 40])
async def test_many_members_that_all_fail(world: World, size: int) -> None:
    """[56] However many members fail or are cancelled, the gather settles and the run ends."""

    async def fail(number: int) -> None:
        raise ValueError(number)

    @workflow
    def flow() -> Flow[str]:
        try:
            yield gather(*(step(fail, number) for number in range(size)), limit=7)
        except StepFailedError:
            return "caught"
        return ""

    info = await world.settle(flow())

    assert "caught" == info.output
