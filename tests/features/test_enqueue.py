"""enqueue: a run is stored, or an error says why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from anyio import create_task_group

from reflow import (
    ConfigError,
    Flow,
    Retry,
    RunConflictError,
    RunFailedError,
    RunNotFoundError,
    RunStatus,
    SerializationError,
    ValidationError,
    WorkflowNotFoundError,
    step,
    workflow,
)
from reflow._engine.clock import SystemClock
from tests.support.bodies import give
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio


@dataclass
class User:
    """An input."""

    email: str
    roles: list[str]


async def refuse() -> None:
    """Fails."""
    raise PermissionError("not you")


@workflow
def greet(user: User, times: int = 1) -> Flow[str]:
    """An input of a dataclass and a default."""
    return (yield from step(give, f"hello {user.email}" * times))


@workflow
def count(number: int) -> Flow[int]:
    """One step."""
    return (yield from step(give, number))


@workflow
def anything(value: Any) -> Flow[Any]:
    """An input without a type."""
    return (yield from step(give, value))


@workflow
def failing() -> Flow[None]:
    """Fails."""
    yield step(give, 1)
    raise LookupError("no")


ADA = User("ada@b.c", ["admin"])


async def test_a_call_is_a_value(world: World) -> None:
    """[2] `greet(user)` makes a call: nothing runs and nothing is stored until it is enqueued."""
    tapped = TappedStorage(world.storage)
    engine = world.engine(greet, storage=tapped)
    call = greet(ADA)
    await engine.drain()

    assert ["claim_runs"] == tapped.log
    assert "greet(user=User(email='ada@b.c', roles=['admin']), times=1)" == repr(call)


async def test_what_is_stored(world: World) -> None:
    """[103] `enqueue` returns a `Run` with a unique id; it is pending and due, with its input, defaults included."""
    engine = world.engine(greet)
    first, second = await engine.enqueue(greet(ADA)), await engine.enqueue(greet(ADA))
    info = await first.info()

    assert first.run_id != second.run_id
    assert ("greet", 1, RunStatus.PENDING, 0) == (info.workflow, info.version, info.status, info.executions)
    assert {"user": {"email": "ada@b.c", "roles": ["admin"]}, "times": 1} == info.input
    assert info.created_at == info.due_at == info.updated_at
    assert f"<run '{first.run_id}' of 'greet'>" == repr(first)


async def test_a_completed_run(world: World) -> None:
    """[110] A run's `result()` and `info()` say how it ended."""
    engine = world.engine(greet)
    run = await engine.enqueue(greet(ADA, times=2), run_id="r")
    await engine.drain()
    info = await run.info()

    assert "hello ada@b.chello ada@b.c" == await run.result() == info.output
    assert (RunStatus.COMPLETED, None, None) == (info.status, info.due_at, info.error)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (greet(User("a", [7])), ValidationError, r"Expected `str`, got `int` \(at \$.user.roles\[0\]\)"),
        (greet({"email": "a"}), ValidationError, r"missing required field `roles` \(at \$.user\)"),
        (greet(ADA, times="two"), ValidationError, r"Expected `int`, got `str` \(at \$.times\)"),
        (greet(None), ValidationError, r"Expected `object`, got `(null|None)` \(at \$.user\)"),
        (anything(object()), SerializationError, r"a value of type object is not data .*\(at \$.value\)"),
        (anything([1, {"a": float("nan")}]), SerializationError, r"nan is not data.*\(at \$.value\[1\].a\)"),
        (anything("\ud800"), SerializationError, r"\(at \$.value\)"),
        (failing(), WorkflowNotFoundError, "does not know the workflow 'failing'.*It knows: greet, anything"),
    ],
    ids=["wrong element", "missing field", "wrong type", "none", "no data", "nan", "surrogate", "unknown workflow"],
)
async def test_refused(world: World, call: Any, error: type[Exception], message: str) -> None:
    """[13][18][104] An input that does not fit or is no data, and an unknown workflow, are refused to the caller,
    naming the path; nothing is stored."""
    engine = world.engine(greet, anything)
    with pytest.raises(error, match=message):
        await engine.enqueue(call, run_id="r")

    assert await engine.get_run("r") is None
    assert 0 == await engine.tick()


async def test_arguments(world: World) -> None:
    """Missing, unknown or too many arguments are a `TypeError` at the call, as for any function."""
    for wrong in (lambda: greet(), lambda: greet(ADA, 1, 2), lambda: greet(ADA, colour="red")):
        with pytest.raises(TypeError, match=r"greet\(\): "):
            wrong()


@pytest.mark.parametrize("wrong", [greet, lambda: None, b"greet", None, greet.function(ADA, 1)], ids=str)
async def test_not_a_call(world: World, wrong: Any) -> None:
    """Anything but a call is a `ConfigError` that says what to write."""
    with pytest.raises(ConfigError, match=r"call a workflow to make a call: enqueue\(signup\(user\)\)"):
        await world.engine(greet).enqueue(wrong)


@pytest.mark.parametrize("verb", ["enqueue", "schedule"])
@pytest.mark.parametrize(
    ("wrong", "given"),
    [(greet.function(ADA, 1), "a generator of 'greet'"), (greet.function, "'greet'")],
    ids=["generator", "function"],
)
async def test_an_undecorated_generator(world: World, verb: str, wrong: Any, given: str) -> None:
    """Who forgets `@workflow` is told to write it."""
    with pytest.raises(ConfigError, match=f"{verb} got {given}; decorate that with @workflow, and call"):
        await getattr(world.engine(greet), verb)(wrong)


@pytest.mark.parametrize("run_id", ["", 7, b"r", "\ud800", "a\ud800b"], ids=repr)
async def test_a_wrong_run_id(world: World, run_id: Any) -> None:
    """A run id that is empty, no text, or no text that can be stored is a `ConfigError`; nothing is stored."""
    engine = world.engine(count)
    with pytest.raises(ConfigError, match="run_id is"):
        await engine.enqueue(count(1), run_id=run_id)

    assert 0 == await engine.tick()


@pytest.mark.parametrize("run_id", ["import:/tmp/ü€.csv", "a\0b", " ", "'; drop table reflow_run; --", "x" * 5_000])
async def test_any_text_is_a_run_id(world: World, run_id: str) -> None:
    """Any text may be a run id, and comes back as it is."""
    engine = world.engine(count)
    run = await engine.enqueue(count(7), run_id=run_id)
    await engine.drain()

    assert (run_id, run_id, 7) == (run.run_id, (await run.info()).run_id, await run.result())


async def test_one_run_id_twice(world: World) -> None:
    """[109] Enqueuing twice with one `run_id` makes one run, and both callers get its result."""
    bodies: list[None] = []

    async def body() -> int:
        bodies.append(None)
        return len(bodies)

    @workflow
    def flow() -> Flow[int]:
        return (yield from step(body))

    # Who waits for the other engine's run looks again after a while, in real time.
    clock = SystemClock()
    async with world.engine(flow, clock=clock) as one, world.engine(flow, clock=clock) as other:
        first, second = await one.enqueue(flow(), run_id="r"), await other.enqueue(flow(), run_id="r")
        results = [await first.result(), await second.result(), await one.execute(flow(), run_id="r")]

    assert [1, 1, 1] == results


async def test_one_run_id_at_once(world: World) -> None:
    """[109] Of several callers with one new id at once, one makes the run and all get it."""
    engine = world.engine(count)
    async with create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(_enqueue, engine)
    claimed = await engine.tick()

    assert 1 == claimed


async def _enqueue(engine: Any) -> None:
    await engine.enqueue(count(1), run_id="r")


async def test_a_failed_run_stands(world: World) -> None:
    """[109] A run id lives as long as its run, whatever its status: a failed run is returned, not repeated."""
    engine = world.engine(failing)
    await engine.enqueue(failing(), run_id="r")
    await engine.drain()
    again = await engine.enqueue(failing(), run_id="r")
    await engine.drain()

    with pytest.raises(RunFailedError, match="LookupError: no"):
        await again.result()
    assert 1 == (await again.info()).executions


async def test_a_conflict(world: World) -> None:
    """[109] A run id that is taken by another input or another workflow: `RunConflictError`, and the run is as it
    was."""
    engine = world.engine(count, anything)
    await engine.enqueue(count(1), run_id="r")
    before = await engine.get_run("r")

    with pytest.raises(RunConflictError, match="run 'r' exists already with another input"):
        await engine.enqueue(count(2), run_id="r")
    with pytest.raises(RunConflictError, match="run 'r' exists already with the workflow 'count'") as raised:
        await engine.enqueue(anything(1), run_id="r")
    assert ("r", "the workflow 'count'") == (raised.value.run_id, raised.value.difference)
    assert before == await engine.get_run("r")


async def test_equal_inputs(world: World) -> None:
    """[109] Inputs are equal as values: the order of keys makes no difference."""
    engine = world.engine(anything)
    await engine.enqueue(anything({"a": 1, "b": [1, 2]}), run_id="r")
    await engine.enqueue(anything({"b": [1, 2], "a": 1}), run_id="r")

    assert 1 == await engine.tick()


async def test_unknown_runs(world: World) -> None:
    """[142] `get_run` of an unknown id is None, a handle of one `RunNotFoundError`."""
    engine = world.engine(count)

    assert await engine.get_run("nobody") is None
    with pytest.raises(RunNotFoundError, match="there is no run 'nobody' in this storage"):
        await engine.handle("nobody")


async def test_get_run(world: World) -> None:
    """[142] `get_run` gives the run and its entries in recorded order; a pending run has none."""
    engine = world.engine(count)
    run = await engine.enqueue(count(7), run_id="r")
    pending = await engine.get_run("r")
    await engine.drain()
    done = await engine.get_run("r")

    assert pending is not None
    assert done is not None
    assert () == pending.entries
    [entry] = done.entries
    assert ("0", "step", "give", "completed", 1, 7) == (
        entry.position,
        entry.kind,
        entry.name,
        entry.status,
        entry.attempts,
        entry.value,
    )
    assert done == await run.info()


async def test_a_failed_step(world: World) -> None:
    """[142] `get_run` shows of a failed step the type, message and traceback of its error, and how many attempts it
    had."""

    @workflow
    def flow() -> Flow[None]:
        yield step(refuse).options(retry=Retry(max_attempts=2, initial_delay=0))

    [entry] = (await world.settle(flow())).entries

    assert entry.error is not None
    assert ("failed", 2, "PermissionError", "not you") == (
        entry.status,
        entry.attempts,
        entry.error.type,
        entry.error.message,
    )
    assert 'raise PermissionError("not you")' in entry.error.traceback
