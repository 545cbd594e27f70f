"""Failures: what a step raises, what the workflow sees of it, and what the run keeps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from reflow import (
    Failure,
    Flow,
    Retry,
    RunFailedError,
    RunStatus,
    StepFailedError,
    gather,
    sleep,
    step,
    workflow,
)
from reflow.testing.crash import MortalStorage
from tests.support.bodies import a_cancellation, give
from tests.support.world import World

pytestmark = pytest.mark.anyio


class Declined(Exception):
    """Takes what it is given."""


class Rejected(Declined):
    """A subclass."""


class Picky(Exception):
    """Cannot be built from its args."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def decline(cents: int = 7) -> None:
    """Fails, with a cause."""
    try:
        {}["limit"]
    except KeyError as error:
        raise Declined("no funds", cents) from error


def failure_of(info: Any) -> Failure:
    """The error of a run."""
    assert info.error is not None
    return info.error  # type: ignore[no-any-return]


async def test_what_the_workflow_sees(world: World) -> None:
    """[177] `StepFailedError` has step, position, attempts, error type name, message and traceback text, live and after
    recovery alike."""
    seen: list[StepFailedError] = []

    @workflow
    def flow() -> Flow[None]:
        yield step(give, 1)
        try:
            yield step(decline)
        except StepFailedError as error:
            seen.append(error)
        yield sleep("1h")

    await world.settle(flow())
    await world.continued(flow, after="1h")

    live, replayed = seen
    expected = ("decline", "1", 1, "Declined", "('no funds', 7)")
    assert [expected] * 2 == [
        (error.step, error.position, error.attempts, error.error_type, error.error_message) for error in seen
    ]
    assert "raise Declined" in live.traceback
    assert live.to_dict() == replayed.to_dict()
    assert (True, True, False) == tuple(replayed.is_caused_by(cls) for cls in (Declined, KeyError, ValueError))


@pytest.mark.parametrize("raises", [Declined, (ValueError, Declined), (Exception,)], ids=str)
async def test_listed_classes(world: World, raises: Any) -> None:
    """[178] Classes in `raises=` are raised as themselves, with arguments and message, live and over recovery."""
    seen: list[Exception] = []
    [listed] = [cls for cls in (raises if isinstance(raises, tuple) else (raises,)) if issubclass(Declined, cls)]

    @workflow
    def flow() -> Flow[None]:
        try:
            yield step(decline).options(raises=raises)
        except listed as error:
            seen.append(error)
        yield sleep("1h")

    await world.settle(flow())
    await world.continued(flow, after="1h")

    assert [(listed, ("no funds", 7))] * 2 == [(type(error), error.args) for error in seen]


async def test_a_class_that_cannot_be_rebuilt(world: World) -> None:
    """[178] A listed class that cannot be rebuilt from plain data becomes `StepFailedError` with the message, live as
    on replay."""
    seen: list[str] = []

    async def reject() -> None:
        raise Picky(reason="no funds")

    @workflow
    def flow() -> Flow[None]:
        try:
            yield step(reject).options(raises=Picky)
        except (Picky, StepFailedError) as error:
            seen.append(str(error))
        yield sleep("1h")

    await world.settle(flow())
    await world.continued(flow, after="1h")

    assert ["step 'reject' failed after 1 attempt: Picky: no funds"] * 2 == seen


async def test_an_uncaught_failure_of_a_step(world: World) -> None:
    """[179] A run that a step fails stores type, message, traceback and position; `result()` raises `RunFailedError`
    with them."""

    @workflow
    def flow() -> Flow[None]:
        yield step(give, 1)
        yield step(decline)

    engine = world.engine(flow)
    run = await engine.enqueue(flow(), run_id="r")
    await engine.drain()
    failure = failure_of(await run.info())

    assert ("StepFailedError", "1") == (failure.type, failure.position)
    assert "step 'decline' failed after 1 attempt: Declined: ('no funds', 7)" == failure.message
    with pytest.raises(RunFailedError, match="no funds") as raised:
        await run.result()
    assert ("r", "flow", failure) == (raised.value.run_id, raised.value.workflow, raised.value.failure)
    assert raised.value.is_caused_by(Declined)


async def test_an_error_of_the_workflow_itself(world: World) -> None:
    """[92] An exception in the workflow's own code fails the run there; the run keeps type, message, traceback and
    position."""

    @workflow
    def flow() -> Flow[None]:
        yield step(give, 1)
        value = yield from step(give, 2)
        raise LookupError(f"nothing about {value}")
        yield step(give, 3)

    info = await world.settle(flow())

    failure = failure_of(info)
    assert (RunStatus.FAILED, "LookupError", "nothing about 2", "1") == (
        info.status,
        failure.type,
        failure.message,
        failure.position,
    )
    assert 'raise LookupError(f"nothing about {value}")' in failure.traceback
    assert ["0", "1"] == [entry.position for entry in info.entries]


async def test_an_error_before_the_first_yield(world: World) -> None:
    """[92] A workflow that raises before it yields anything fails at no position."""

    @workflow
    def flow() -> Flow[None]:
        raise LookupError("at once")
        yield

    info = await world.settle(flow())

    assert ("LookupError", None, ()) == (failure_of(info).type, failure_of(info).position, info.entries)


class Odd(BaseException):
    """No Exception."""


@pytest.mark.parametrize("error", [SystemExit(3), Odd("odd"), BaseExceptionGroup("odd", [SystemExit(3)])], ids=repr)
@pytest.mark.parametrize("where", ["async body", "thread", "timed body", "side by side", "workflow", "branch"])
async def test_what_is_no_exception(world: World, error: BaseException, where: str) -> None:
    """`sys.exit()` and the like, in a step or in the workflow's own code, fail that run; the engine goes on."""

    async def on_the_loop() -> None:
        raise error

    def in_a_thread() -> None:
        raise error

    def branch() -> Flow[None]:
        yield step(give, 1)
        raise error

    @workflow
    def flow() -> Flow[None]:
        match where:
            case "async body":
                yield step(on_the_loop)
            case "thread":
                yield step(in_a_thread)
            case "timed body":
                yield step(on_the_loop).options(timeout="1h")
            case "side by side":
                yield gather(step(on_the_loop), sleep("1h"))
            case "workflow":
                yield step(give, 1)
                raise error
            case _:
                yield gather(branch(), sleep("1h"))

    @workflow
    def other() -> Flow[str]:
        return (yield from step(give, "fine"))

    async with world.engine(flow, other) as engine:
        run = await engine.enqueue(flow())
        with pytest.raises(RunFailedError) as failed:
            await run.result()
        fine = await engine.execute(other())

    assert failed.value.is_caused_by(type(error))
    assert "fine" == fine


async def test_a_cancellation_of_the_body_s_own_making(world: World) -> None:
    """A body that raises the event loop's cancellation by itself fails its step, and is retried like any other."""
    attempts: list[None] = []

    async def body() -> None:
        attempts.append(None)
        raise await a_cancellation()

    @workflow
    def flow() -> Flow[None]:
        yield step(body).options(retry=Retry(max_attempts=2, initial_delay=0))

    info = await world.settle(flow())

    assert 2 == len(attempts)
    assert RunStatus.FAILED == info.status
    assert "cancelled from within" in failure_of(info).message


async def test_a_cancellation_in_the_workflow_s_own_code(world: World) -> None:
    """The event loop's cancellation raised by a workflow's own code fails the run; it does not come back for ever."""
    cancellation = await a_cancellation()

    @workflow
    def flow() -> Flow[None]:
        yield step(give, 1)
        raise cancellation

    info = await world.settle(flow())

    assert (RunStatus.FAILED, 1) == (info.status, info.executions)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_body_that_awaits_something_cancelled(world: World) -> None:
    """A body that awaits a cancelled asyncio task fails its step instead of hanging the run."""

    async def body() -> None:
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task

    @workflow
    def flow() -> Flow[str]:
        try:
            yield step(body)
        except StepFailedError:
            return "caught"
        return ""

    info = await world.settle(flow())

    assert "caught" == info.output


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("by", ["a scope", "asyncio"])
async def test_a_failure_after_a_body_has_cancelled_itself(world: World, by: str) -> None:
    """What a body cancels by itself and does not let out, as some libraries do for their timeouts, makes no later
    failure of it a shutdown: neither in this step nor in the next."""
    attempts: list[None] = []

    async def body() -> None:
        attempts.append(None)
        with CancelScope() as scope:
            try:
                if by == "a scope":
                    scope.cancel()
                else:
                    current = asyncio.current_task()
                    assert current
                    current.cancel()
                await checkpoint()
            except asyncio.CancelledError:
                pass
        raise TimeoutError("in the body")

    @workflow
    def flow() -> Flow[str]:
        for _ in range(2):
            try:
                yield step(body)
            except StepFailedError:
                continue
        yield step(give, 1)
        return "done"

    info = await world.settle(flow())

    assert ("done", 2, 1) == (info.output, len(attempts), info.executions)


async def test_compensation(world: World) -> None:
    """[180] Compensation is steps in an `except` block: durable, and continued after a kill in the middle of it."""
    bodies: list[str] = []

    async def undo(name: str) -> str:
        bodies.append(name)
        return name

    @workflow
    def flow() -> Flow[list[str]]:
        try:
            yield step(decline)
        except StepFailedError:
            first = yield from step(undo, "first")
            second = yield from step(undo, "second")
            return [first, second]
        return []

    # Verbs: create, claim, save the failure, save the first compensation, and then the end.
    mortal = MortalStorage(world.storage, dies_at=4, after=True)
    engine = world.engine(flow, storage=mortal)  # type: ignore[arg-type]
    await engine.enqueue(flow(), run_id="r")
    with pytest.raises(BaseExceptionGroup):
        await engine.drain()
    before = list(bodies)
    info = await world.continued(flow, after="1m")

    assert ["first"] == before
    assert ["first", "second"] == bodies
    assert ["first", "second"] == info.output


async def test_an_error_that_cannot_be_described(world: World) -> None:
    """A failure whose message or text is beyond description is recorded all the same."""

    class Unreadable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    async def body() -> None:
        raise Unreadable("\ud800")

    @workflow
    def flow() -> Flow[None]:
        yield step(body)

    info = await world.settle(flow())

    [entry] = info.entries
    assert entry.error is not None
    assert (RunStatus.FAILED, "Unreadable") == (info.status, entry.error.type)


async def test_one_failing_run_among_others(world: World) -> None:
    """One run that fails does nothing to those beside it."""

    @workflow
    def flow(number: int) -> Flow[int]:
        if number == 3:
            yield step(decline)
        return (yield from step(give, number))

    engine = world.engine(flow)
    runs = [await engine.enqueue(flow(number)) for number in range(6)]
    await engine.drain()

    infos = [await run.info() for run in runs]
    assert [0, 1, 2, None, 4, 5] == [info.output for info in infos]
    assert [3] == [number for number, info in enumerate(infos) if info.status == RunStatus.FAILED]
