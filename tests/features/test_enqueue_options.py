"""enqueue: keys, delay, priority, tags, and many at once."""

from __future__ import annotations

import time
from typing import Any

import pytest
from anyio import create_task_group

from reflow import (
    ConfigError,
    Engine,
    Flow,
    IdempotencyConflictError,
    Run,
    RunConflictError,
    RunFailedError,
    SQLiteStorage,
    step,
    workflow,
)
from tests.support.world import World

pytestmark = pytest.mark.anyio

began: list[Any] = []


async def note(value: Any) -> Any:
    """Notes what it is given."""
    began.append(value)
    return value


@workflow
def noted(value: Any) -> Flow[Any]:
    """One step."""
    return (yield from step(note, value))


@workflow
def other(value: Any) -> Flow[Any]:
    """Another workflow with the same input."""
    return (yield from step(note, value))


@workflow
def failing() -> Flow[None]:
    """Fails."""
    yield step(note, 1)
    raise LookupError("no")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    began.clear()


# ---- idempotency keys ------------------------------------------------------------------------------------------------


async def test_one_key_twice(world: World) -> None:
    """[105] The same key, workflow and input, in whatever order of keys, give the same run and no second row."""
    engine = world.engine(noted)
    first = await engine.enqueue(noted({"a": 1, "b": [2]}), idempotency_key="k")
    second = await engine.enqueue(noted({"b": [2], "a": 1}), idempotency_key="k")
    await engine.drain()

    assert first.run_id == second.run_id
    assert [{"a": 1, "b": [2]}] == began
    assert await first.result() == await second.result()
    assert 1 == len((await engine.list_runs()).runs)


async def test_keys_are_scoped(world: World) -> None:
    """[105] A key belongs to one workflow: another workflow may have the same, with another input."""
    engine = world.engine(noted, other)
    first = await engine.enqueue(noted(1), idempotency_key="k")
    second = await engine.enqueue(other(2), idempotency_key="k")

    assert first.run_id != second.run_id


async def test_a_key_with_another_input(world: World) -> None:
    """[106] The same key with another input is an `IdempotencyConflictError` that has workflow and key; nothing is
    stored."""
    engine = world.engine(noted)
    await engine.enqueue(noted(1), idempotency_key="k")
    with pytest.raises(IdempotencyConflictError, match="the idempotency key 'k' belongs to a run of 'noted'") as raised:
        await engine.enqueue(noted(2), idempotency_key="k")

    assert ("noted", "k") == (raised.value.workflow, raised.value.key)
    assert 1 == len((await engine.list_runs()).runs)


@pytest.mark.parametrize("key", ["", 7, "\ud800"], ids=repr)
async def test_a_wrong_key(world: World, key: Any) -> None:
    """[106] A key that is empty or no text is a `ConfigError`; nothing is stored."""
    engine = world.engine(noted)
    with pytest.raises(ConfigError, match="idempotency_key is"):
        await engine.enqueue(noted(1), idempotency_key=key)

    assert () == (await engine.list_runs()).runs


async def test_one_key_at_once(world: World) -> None:
    """[107] Several engines that race on one key make one run, and all get it."""
    engines = [world.engine(noted) for _ in range(3)]
    runs: list[Run[Any]] = []

    async def enqueue(engine: Engine) -> None:
        runs.append(await engine.enqueue(noted(1), idempotency_key="k"))

    async with create_task_group() as tasks:
        for engine in engines * 3:
            tasks.start_soon(enqueue, engine)

    assert 1 == len({run.run_id for run in runs})
    assert 1 == await engines[0].tick()


async def test_a_key_lives_as_long_as_its_run(world: World) -> None:
    """[108] A failed run is returned for its key and not repeated, until it is pruned."""
    engine = world.engine(failing)
    first = await engine.enqueue(failing(), idempotency_key="k")
    await engine.drain()
    again = await engine.enqueue(failing(), idempotency_key="k")
    with pytest.raises(RunFailedError, match="LookupError: no"):
        await again.result()
    world.clock.advance("1h")
    await engine.prune(older_than="1m")
    new = await engine.enqueue(failing(), idempotency_key="k")

    assert first.run_id == again.run_id != new.run_id
    assert [1] == began


async def test_a_key_and_an_id(world: World) -> None:
    """[109] An id that is there under another key, or under none, is a `RunConflictError`; a known key wins over a new
    id."""
    engine = world.engine(noted)
    await engine.enqueue(noted(1), run_id="r")
    keyed = await engine.enqueue(noted(1), run_id="keyed", idempotency_key="k")
    same = await engine.enqueue(noted(1), run_id="new", idempotency_key="k")
    with pytest.raises(RunConflictError, match="run 'r' exists already with the idempotency key None"):
        await engine.enqueue(noted(1), run_id="r", idempotency_key="another")

    assert "keyed" == keyed.run_id == same.run_id


# ---- delay, priority, tags -------------------------------------------------------------------------------------------


async def test_delay(world: World) -> None:
    """[111] A run with a delay is not due before."""
    engine = world.engine(noted)
    run = await engine.enqueue(noted(7), delay="10m")
    early = await engine.tick()
    world.clock.advance("10m")
    await engine.drain()

    assert 0 == early
    assert 7 == await run.result()


async def test_priority(world: World) -> None:
    """[111] Of due runs, those of a higher priority come first, whenever they were enqueued."""
    engine = world.engine(noted, concurrency=1)
    for priority in (0, -5, 1_000, 3):
        await engine.enqueue(noted(priority), priority=priority)
    await engine.drain()

    assert [1_000, 3, 0, -5] == began


async def test_what_is_kept(world: World) -> None:
    """[111] Key, priority and tags are stored with the run; a tag given twice is there once."""
    engine = world.engine(noted)
    run = await engine.enqueue(noted(1), idempotency_key="k", priority=-3, tags=["b", "a", "b"], delay=60)
    info = await run.info()

    assert ("k", -3, ("b", "a")) == (info.idempotency_key, info.priority, info.tags)
    assert info.due_at is not None
    assert 60 == (info.due_at - info.created_at).total_seconds()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delay": "soon"}, "delay is 'soon'; write seconds"),
        ({"delay": -1}, "delay is -1; write seconds"),
        ({"priority": 1_001}, "priority is 1001; write a whole number from -1000 to 1000"),
        ({"priority": 1.0}, "priority is 1.0; write a whole number"),
        ({"priority": True}, "priority is True; write a whole number"),
        ({"tags": "import"}, r"tags is 'import'; write a list of texts: tags=\['import'"),
        ({"tags": 7}, "tags is 7; write a list of texts"),
        ({"tags": ["a", ""]}, "a tag is ''; write a text"),
        ({"tags": [7]}, "a tag is 7; write a text"),
    ],
    ids=repr,
)
async def test_wrong_options(world: World, options: Any, message: str) -> None:
    """A delay, priority or tag that is none is a `ConfigError` that quotes it; nothing is stored."""
    engine = world.engine(noted)
    for enqueue in (engine.enqueue(noted(1), **options), engine.enqueue_many([noted(1)], **options)):
        with pytest.raises(ConfigError, match=message):
            await enqueue

    assert () == (await engine.list_runs()).runs


async def test_an_unknown_option(world: World) -> None:
    """An option that there is not is a `TypeError`, as for any function."""
    engine = world.engine(noted)
    with pytest.raises(TypeError, match="unexpected keyword argument 'delai'"):
        await engine.enqueue(noted(1), delai=1)  # type: ignore[call-overload]


async def test_a_call_with_an_id_of_its_own(world: World) -> None:
    """`call.options(run_id=...)` sets the id of an enqueued run too; `run_id=` wins over it."""
    engine = world.engine(noted)
    call = noted(1).options(run_id="own")

    assert "own" == (await engine.enqueue(call)).run_id
    assert "r" == (await engine.enqueue(call, run_id="r")).run_id


async def test_execute_takes_the_same_options(world: World) -> None:
    """`execute` has the options of `enqueue`."""
    async with world.engine(noted) as engine:
        first = await engine.execute(noted(7), idempotency_key="k", tags=["a"], priority=2)
        again = await engine.execute(noted(7), idempotency_key="k")
        [run] = (await engine.list_runs(tags=["a"])).runs

    assert ([7], 7, 7, 2) == (began, first, again, run.priority)


# ---- many ------------------------------------------------------------------------------------------------------------


async def test_many(world: World) -> None:
    """`enqueue_many` gives a handle for each call, in their order, and the options hold for all."""
    engine = world.engine(noted)
    runs = await engine.enqueue_many([noted(number) for number in range(5)], tags=iter(["a"]), priority=1)
    await engine.drain()

    assert list(range(5)) == [await run.result() for run in runs] == sorted(began)
    assert 5 == len((await engine.list_runs(tags=["a"])).runs)


async def test_many_with_keys(world: World) -> None:
    """Each of many may have an id and a key of its own; what is there is not made again."""
    engine = world.engine(noted)
    keys = ["k0", "k1"]
    first = await engine.enqueue_many([noted(0), noted(1)], run_ids=["r0", "r1"], idempotency_keys=keys)
    again = await engine.enqueue_many([noted(0), noted(1), noted(1)], idempotency_keys=[*keys, "k1"])

    assert ["r0", "r1"] == [run.run_id for run in first]
    assert ["r0", "r1", "r1"] == [run.run_id for run in again]


async def test_none_at_all(world: World) -> None:
    """No calls make no runs."""
    assert [] == await world.engine(noted).enqueue_many([])


@pytest.mark.parametrize(
    ("calls", "options", "message"),
    [
        (noted(1), {}, "enqueue_many got noted.*write a list of calls"),
        (noted, {}, "enqueue_many got <workflow 'noted'.*write a list of calls"),
        (7, {}, "enqueue_many got 7; write a list of calls"),
        ([noted(1), "noted"], {"version": 2}, "enqueue_many got calls, which have their arguments and versions"),
        ([noted(1), None], {}, "enqueue_many got None; call a workflow"),
        ([noted(1)], {"run_ids": ["a", "b"]}, r"run_ids is \['a', 'b'\]; write a list with one text for each of the 1"),
        ([noted(1)], {"idempotency_keys": "k"}, "idempotency_keys is 'k'; write a list with one text for each"),
        ("noted", {}, "arguments is None; write a list of them"),
    ],
    ids=str,
)
async def test_not_many_calls(world: World, calls: Any, options: Any, message: str) -> None:
    """What is no list of calls, or has not one id or key for each, is a `ConfigError`; nothing is stored."""
    engine = world.engine(noted)
    with pytest.raises(ConfigError, match=message):
        await engine.enqueue_many(calls, **options)

    assert () == (await engine.list_runs()).runs


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_ten_thousand(tmp_path: Any, anyio_backend: str) -> None:
    """10,000 runs are stored in one call in less than a second of processor time."""
    async with Engine(SQLiteStorage(tmp_path / "many.db"), [other]) as engine:
        calls = [noted(number) for number in range(10_000)]
        client = World(engine._storage).engine(noted)
        before = time.process_time()
        runs = await client.enqueue_many(calls, idempotency_keys=[str(number) for number in range(10_000)])
        took_s = time.process_time() - before

    assert 10_000 == len({run.run_id for run in runs})
    assert took_s < 1
