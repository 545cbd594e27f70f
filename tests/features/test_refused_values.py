"""Values that the storage cannot keep: a step fails, or the run does, and nothing is tried for ever."""

from __future__ import annotations

from typing import Any

import pytest

from reflow import (
    Flow,
    Retry,
    RunFailedError,
    RunInfo,
    RunStatus,
    StepFailedError,
    StorageAdapter,
    StorageValueError,
    gather,
    now,
    step,
    workflow,
)
from reflow.storage.records import Progress
from tests.support.lifecycle import Watcher
from tests.support.world import World

pytestmark = pytest.mark.anyio

LONG = "long" * 1_000
MOST_BYTES = 3_500


class Narrow:
    """A storage that keeps no value of more than so many bytes; with `most` 0 nothing at all."""

    def __init__(self, storage: StorageAdapter, most: int = MOST_BYTES) -> None:
        self._storage = storage
        self._most = most
        self.refusals = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def save_progress(self, progress: Progress) -> bool:
        """Write, unless a value is too long."""
        ending = progress.ending
        values = [entry.payload for entry in progress.entries]
        values += [timer.failure or b"" for timer in progress.timers]
        values += [child.input for child in progress.children]
        if ending is not None:
            values += [ending.output or b"", ending.error or b""]
            values += [ending.continued.input] if ending.continued else []
        if any(len(value) > self._most for value in values):
            self.refusals += 1
            raise StorageValueError("save_progress", "too long")
        return await self._storage.save_progress(progress)


class Bodies:
    """Steps that count how often each begins."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    async def give(self, name: str, value: str) -> str:
        """A result."""
        self.begun.append(name)
        return value

    async def fail(self, name: str, message: str) -> str:
        """A failure."""
        self.begun.append(name)
        raise ValueError(message)

    async def late(self, name: str, value: str) -> str:
        """A result of the second attempt."""
        self.begun.append(name)
        if self.begun.count(name) == 1:
            raise ValueError("not yet")
        return value


@workflow
def child(text: str) -> Flow[str]:
    """A child, whose input is its output."""
    yield now()
    return text


async def settled(world: World, flow: Any, *others: Any, most: int = MOST_BYTES) -> RunInfo:
    """The run of `flow`, once nothing is due any more."""
    engine = world.engine(flow, *others, storage=Narrow(world.storage, most))
    await engine.enqueue(flow(), run_id="r")
    await engine.drain()
    return await world.info()


async def output(world: World) -> Any:
    """What the run has given."""
    return await (await world.client().handle("r")).result()


async def test_a_result_that_is_refused(world: World) -> None:
    """A step whose result the storage cannot keep has failed, once and for all, and the workflow may catch that."""
    bodies = Bodies()

    @workflow
    def flow() -> Flow[list[str]]:
        seen = [(yield from step(bodies.give, "first", "a"))]
        try:
            yield step(bodies.give, "second", LONG)
        except StepFailedError as error:
            seen.append(error.error_type)
        return [*seen, (yield from step(bodies.give, "third", "c"))]

    info = await settled(world, flow)

    assert ["a", "SerializationError", "c"] == await output(world)
    assert ["first", "second", "third"] == bodies.begun
    assert [None, "SerializationError", None] == [entry.error and entry.error.type for entry in info.entries]


async def test_others_beside_it_are_kept(world: World) -> None:
    """Of steps side by side, only those fail whose results cannot be kept; none runs again."""
    bodies = Bodies()
    values = {"a": "1", "b": LONG, "c": "3", "d": LONG, "e": "5"}

    @workflow
    def flow() -> Flow[list[str]]:
        steps = [step(bodies.give, name, value) for name, value in values.items()]
        results = yield from gather(*steps, return_exceptions=True)
        return [result if isinstance(result, str) else type(result).__name__ for result in results]

    await settled(world, flow)

    assert ["1", "StepFailedError", "3", "StepFailedError", "5"] == await output(world)
    assert [*values] == sorted(bodies.begun)


async def test_an_error_that_is_refused(world: World) -> None:
    """A step that fails with an error that is too long to be kept fails with one that is not."""
    bodies = Bodies()

    @workflow
    def flow() -> Flow[str]:
        try:
            return (yield from step(bodies.fail, "a", LONG))
        except StepFailedError as error:
            return error.error_type

    await settled(world, flow)

    assert ("SerializationError", ["a"]) == (await output(world), bodies.begun)


async def test_a_later_attempt_that_is_refused(world: World) -> None:
    """An attempt whose result cannot be kept is the last one, whatever the policy says: there is nothing to be had."""
    bodies = Bodies()

    @workflow
    def flow() -> Flow[str]:
        retry = Retry(max_attempts=5, initial_delay="1h", jitter=False)
        try:
            return (yield from step(bodies.late, "a", LONG).options(retry=retry))
        except StepFailedError as error:
            return f"{error.error_type} {error.attempts}"

    await settled(world, flow)
    world.clock.advance("1h")
    await world.engine(flow, storage=Narrow(world.storage)).drain()

    assert ("SerializationError 2", ["a", "a"]) == (await output(world), bodies.begun)


@pytest.mark.parametrize("where", ["output", "child"])
async def test_what_no_step_has_given(world: World, where: str) -> None:
    """A run whose return value, or the input of whose child, cannot be kept fails with the error of the storage; the
    result of its step is kept, and a resumed run does not repeat it."""
    bodies = Bodies()

    @workflow
    def flow() -> Flow[str]:
        short = yield from step(bodies.give, "a", "b")
        return LONG if where == "output" else (yield from child(LONG + short))

    await settled(world, flow, child)

    with pytest.raises(RunFailedError, match="too long") as caught:
        await output(world)
    assert "storage_value" == caught.value.failure.code
    await world.resume()
    engine = world.engine(flow, child)
    await engine.drain()
    assert ["a"] == bodies.begun
    assert RunStatus.COMPLETED == (await world.info()).status


async def test_what_is_told(world: World) -> None:
    """Who looks on is told what is recorded: that the run was started once, and that the step has failed."""
    bodies, told = Bodies(), Watcher()

    @workflow
    def flow() -> Flow[None]:
        yield gather(step(bodies.give, "a", LONG), step(bodies.give, "b", "short"), return_exceptions=True)

    engine = world.engine(flow, storage=Narrow(world.storage), hooks=[told])
    await engine.enqueue(flow(), run_id="r")
    await engine.drain()

    lines = [line for line in told.lines() if not line.startswith("StepStarted")]
    assert ["RunStarted", "StepCompleted give 1", "StepFailed give 1", "RunCompleted"] == [
        lines[0],
        *sorted(lines[1:3]),
        *lines[3:],
    ]


async def test_a_cancellation_beside_it(world: World) -> None:
    """A cancellation that is asked for while a result is refused is delivered all the same, once."""
    bodies = Bodies()

    @workflow
    def flow() -> Flow[None]:
        try:
            yield step(asked)
        finally:
            yield step(bodies.give, "clean-up", LONG)

    async def asked() -> str:
        bodies.begun.append("asked")
        await world.cancel()
        return LONG

    info = await settled(world, flow)

    assert ["asked", "clean-up"] == bodies.begun
    assert RunStatus.FAILED == info.status


async def test_a_storage_that_keeps_nothing(world: World) -> None:
    """Where not even the failure can be stored, the run is left to the next one who claims it, and not tried on."""
    bodies = Bodies()

    @workflow
    def flow() -> Flow[str]:
        return (yield from step(bodies.give, "a", "b"))

    storage = Narrow(world.storage, 0)
    engine = world.engine(flow, storage=storage)
    await engine.enqueue(flow(), run_id="r")
    await engine.drain()

    assert (["a"], RunStatus.RUNNING) == (bodies.begun, (await world.info()).status)
    assert storage.refusals < 10
