"""What surrounds a workflow body: contexts, cancel scopes, and blocks that run when a generator is dropped."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import pytest
from anyio import CancelScope, create_task_group, current_effective_deadline, fail_after, move_on_after
from anyio.lowlevel import checkpoint

from reflow import (
    Call,
    Flow,
    MisuseError,
    Retry,
    RunInfo,
    RunStatus,
    StepFailedError,
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

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


# ---- context variables -----------------------------------------------------------------------------------------------


async def test_each_run_has_its_own_context(world: World) -> None:
    """Each run has its own `contextvars.Context`: what a body sets it finds again after a yield, and nobody else
    does."""

    @workflow
    def flow(name: str) -> Flow[list[str]]:
        seen = [tenant.get()]
        tenant.set(name)
        yield step(give, 1)
        seen.append(tenant.get())
        yield gather(step(give, 2), step(give, 3))
        seen.append(tenant.get())
        return seen

    engine = world.engine(flow)
    runs = [await engine.enqueue(flow(name)) for name in ("a", "b")]
    await engine.drain()

    assert [["nobody", "a", "a"], ["nobody", "b", "b"]] == [await run.result() for run in runs]
    assert "nobody" == tenant.get()


async def test_each_branch_has_its_own_context(world: World) -> None:
    """A branch begins with the context of the body at that point, and what it sets is its own."""

    def branch(name: str) -> Flow[list[str]]:
        before = tenant.get()
        tenant.set(name)
        yield step(give, name)
        return [before, tenant.get()]

    @workflow
    def flow() -> Flow[list[Any]]:
        tenant.set("body")
        inside = yield from gather(branch("a"), branch("b"))
        return [*inside, tenant.get()]

    info = await world.settle(flow())

    assert [["body", "a"], ["body", "b"], "body"] == info.output


@pytest.mark.parametrize("shape", ["one after the other", "timed", "retried", "side by side"])
async def test_each_step_body_has_its_own_context(world: World, shape: str) -> None:
    """An async step body begins with what was set when its run was taken up, not with what another body has set: live
    as after a takeover, where that other one does not run."""
    seen: list[str] = []

    async def body(number: int) -> None:
        seen.append(tenant.get())
        tenant.set(f"body {number}")
        await checkpoint()
        assert f"body {number}" == tenant.get()
        if current_step().attempt == 1:
            raise ConnectionError

    @workflow
    def flow() -> Flow[str]:
        for number in range(2):
            command = step(body, number).options(
                retry=Retry(max_attempts=2, initial_delay=0) if shape == "retried" else None,
                timeout="1h" if shape == "timed" else None,
            )
            with suppress(StepFailedError, ExceptionGroup):
                yield gather(command, step(give, 1)) if shape == "side by side" else command
        return tenant.get()

    info = await world.settle(flow())

    assert "nobody" == info.output
    assert {"nobody"} == set(seen)
    assert (4 if shape == "retried" else 2) == len(seen)


# ---- cancel scopes ---------------------------------------------------------------------------------------------------


def _fail_after() -> Any:
    return fail_after(1_000)


def _move_on_after() -> Any:
    return move_on_after(1_000)


@contextmanager
def _helper() -> Iterator[None]:
    with CancelScope(), CancelScope():
        yield


SCOPES = [_fail_after, _move_on_after, CancelScope, _helper]


@workflow
def direct(index: int) -> Flow[None]:
    """Holds a scope across a step."""
    with SCOPES[index]():
        yield step(give, 1)
        yield step(give, 2)


@workflow
def later(index: int) -> Flow[None]:
    """Holds a scope across the second of its steps."""
    yield step(give, 1)
    with SCOPES[index]():
        yield step(give, 2)


@workflow
def in_a_branch(index: int) -> Flow[None]:
    """Holds a scope in a branch."""

    def branch() -> Flow[None]:
        yield step(give, 1)
        with SCOPES[index]():
            yield step(give, 2)

    yield gather(branch(), sleep("1h"), branch())


@workflow
def stubborn(index: int) -> Flow[None]:
    """Holds a scope, and swallows what is thrown at it."""
    while True:
        try:
            with SCOPES[index]():
                yield step(give, 1)
        except Exception:
            pass


@workflow
def fine() -> Flow[str]:
    """Uses scopes between its yields only."""
    with _fail_after():
        value = "fine"
    yield step(give, value)
    with _move_on_after():
        return value


@pytest.mark.parametrize("index", range(len(SCOPES)), ids=[scope.__name__ for scope in SCOPES])
@pytest.mark.parametrize("held", [direct, later, in_a_branch, stubborn], ids=lambda held: held.name)
async def test_a_scope_held_across_a_yield(world: World, held: Callable[[int], Call[Any]], index: int) -> None:
    """A cancel scope held across a yield is refused with an error that says what to write, on both event loops; the
    event loop stays healthy, and so do the runs beside it."""
    engine = world.engine(held, fine)  # type: ignore[arg-type]
    async with engine:
        run = await engine.enqueue(held(index), run_id="r")
        beside = await engine.enqueue(fine())
        with pytest.raises(Exception, match=r"holds a cancel scope .* across a yield; use `.options\(timeout") as error:
            await run.result()
        assert "fine" == await beside.result()
        assert "fine" == await engine.execute(fine())

    assert error.value.is_caused_by(MisuseError)  # type: ignore[attr-defined]
    assert await _is_healthy()


async def _is_healthy() -> bool:
    """Whether scopes, deadlines, task groups and cancellation work as ever."""
    done: list[str] = []

    async def child(name: str) -> None:
        await checkpoint()
        done.append(name)

    with CancelScope() as cancelled:
        cancelled.cancel()
        await checkpoint()
        done.append("not cancelled")
    with fail_after(1_000) as outer:
        async with create_task_group() as tasks:
            tasks.start_soon(child, "a")
            tasks.start_soon(child, "b")
        inside = current_effective_deadline() == outer.deadline
    return inside and cancelled.cancelled_caught and ["a", "b"] == sorted(done)


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_trio_scope_held_across_a_yield(world: World) -> None:
    """A trio scope held across a yield is refused just so."""
    import trio

    @workflow
    def flow() -> Flow[None]:
        with trio.move_on_after(1_000), trio.CancelScope():
            yield step(give, 1)

    info = await world.settle(flow())

    assert info.error is not None
    assert (RunStatus.FAILED, "MisuseError", ()) == (info.status, info.error.type, info.entries)
    assert await _is_healthy()


# ---- blocks that run when a generator is dropped ---------------------------------------------------------------------


async def test_blocks_on_eviction(world: World) -> None:
    """When a parked run's generator is dropped, its `finally` and `with` blocks run; what they yield is swallowed. They
    run for real once, when the run really ends."""
    log: list[str] = []
    steps = Steps()

    @contextmanager
    def noted() -> Iterator[None]:
        try:
            yield
        finally:
            log.append("with")

    @workflow
    def flow() -> Flow[str]:
        try:
            with noted():
                yield step(steps, "work")
                yield sleep("1h")
                yield sleep("1h")
            return "done"
        finally:
            log.append("finally")
            yield step(steps, "clean up")
            log.append("after the clean-up")

    await world.settle(flow())
    parked = list(log)
    await world.continued(flow, after="1h")
    woken = list(log)
    info = await world.continued(flow, after="1h")

    assert ["with", "finally"] == parked
    assert ["with", "finally"] * 2 == woken
    assert ["with", "finally"] * 3 + ["after the clean-up"] == log
    assert ["work", "clean up"] == steps.begun
    assert ("done", 1) == (info.output, sum(entry.value == "clean up" for entry in info.entries))


async def test_blocks_of_branches_on_eviction(world: World) -> None:
    """The blocks of branches run on eviction too, innermost generators first, and leave no entry."""
    log: list[str] = []

    def branch(name: str) -> Flow[None]:
        try:
            yield sleep("1h")
        finally:
            log.append(name)
            yield step(give, name)

    @workflow
    def flow() -> Flow[None]:
        try:
            yield race(branch("a"), gather(branch("b"), sleep("2h")))
        finally:
            log.append("body")

    info = await world.settle(flow())

    assert ["a", "b", "body"] == [*sorted(log[:2]), *log[2:]]
    assert RunStatus.SLEEPING == info.status
    assert {"sleeping"} == {entry.status for entry in info.entries}


async def test_blocks_of_helpers_on_eviction(world: World) -> None:
    """A helper's blocks run on eviction like those of the body, to their end; the body around it sees a
    `GeneratorExit` and no error."""
    log: list[str] = []

    def cleaned_up() -> Flow[None]:
        yield from step(give, 1)
        yield from step(give, 2)
        log.append("cleaned up")

    def helper() -> Flow[None]:
        try:
            yield from sleep("1h")
        finally:
            log.append("helper")
            yield from cleaned_up()
            yield step(give, 3)
            log.append("helper's end")

    @workflow
    def flow() -> Flow[None]:
        try:
            yield from helper()
        except Exception as error:
            log.append(f"caught {error!r}")
        finally:
            log.append("body")

    await world.settle(flow())
    parked = list(log)
    await world.continued(flow, after="1h")

    assert ["helper", "body"] == parked
    assert ["helper", "cleaned up", "helper's end", "body"] == log[2:]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), StopIteration()], ids=repr)
async def test_a_block_that_raises_on_eviction(world: World, error: BaseException) -> None:
    """An error raised by a block on eviction is dropped: the run sleeps on, and wakes."""
    evictions: list[None] = []

    @workflow
    def flow() -> Flow[str]:
        try:
            yield sleep("1h")
        except GeneratorExit:
            evictions.append(None)
            raise error from None
        return "awake"

    asleep = await world.settle(flow())
    info = await world.continued(flow, after="1h")

    assert (1, RunStatus.SLEEPING) == (len(evictions), asleep.status)
    assert "awake" == info.output


# What Python says of such a generator when it collects it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_body_that_never_lets_go(world: World) -> None:
    """A generator that goes on yielding when it is dropped is given up after a while."""
    yields: list[None] = []

    @workflow
    def flow() -> Flow[None]:
        while True:
            try:
                yields.append(None)
                yield sleep("1h")
            except GeneratorExit:
                pass

    info = await world.settle(flow())
    gc.collect()

    assert RunStatus.SLEEPING == info.status
    assert 1_000 <= len(yields) <= 1_010


async def test_generator_exit_reaches_no_step(world: World) -> None:
    """A step body is not part of the generator that is dropped: a parked run has none running."""
    steps = Steps("held")

    @workflow
    def flow() -> Flow[str]:
        try:
            yield race(step(steps, "held"), sleep("1h"))
        except StepFailedError:
            return "failed"
        return "over"

    async with world.engine(flow, lease="1d") as engine:
        run = await engine.enqueue(flow())
        await steps.until("held begins")
        world.clock.advance("1h")
        result = await run.result()

    assert "over" == result
    assert ["held begins", "held is cancelled"] == steps.log


async def test_current_step_in_parallel_bodies(world: World) -> None:
    """Bodies side by side each see their own step, after waiting for one another too."""
    seen: list[tuple[str, str]] = []

    async def look(name: str) -> None:
        before = current_step().position
        await checkpoint()
        seen.append((before, current_step().position))

    @workflow
    def flow() -> Flow[None]:
        yield gather(step(look, "a"), step(look, "b"))

    info: RunInfo = await world.settle(flow())

    assert RunStatus.COMPLETED == info.status
    assert [("0.0", "0.0"), ("0.1", "0.1")] == sorted(seen)
