"""A client: all verbs without a worker, and without the code of the workflows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from anyio import create_task_group, wait_all_tasks_blocked

from reflow import (
    Client,
    ConfigError,
    Event,
    Flow,
    JsonCodec,
    RunCancelledError,
    RunConflictError,
    RunNotFoundError,
    RunStatus,
    SerializationError,
    SQLiteStorage,
    StorageError,
    ValidationError,
    WorkflowNotFoundError,
    sleep,
    step,
    workflow,
)
from reflow._engine.clock import SystemClock
from tests.support.bodies import give
from tests.support.world import World

pytestmark = pytest.mark.anyio


@dataclass
class User:
    """An input."""

    email: str


@workflow
def greet(user: User, times: int = 1) -> Flow[str]:
    """An input of a dataclass and a default."""
    return (yield from step(give, f"hello {user.email}" * times))


@workflow(name="greet", version=2)
def greet_two(user: User) -> Flow[str]:
    """A newer version."""
    return (yield from step(give, f"good day {user.email}"))


@workflow
def sleeper() -> Flow[str]:
    """Sleeps."""
    yield sleep("1h")
    return "awake"


ADA = {"user": {"email": "ada@b.c"}}


def client_of(world: World, **options: Any) -> Client:
    """A client on the storage of the world."""
    return Client(world.storage, **({"clock": world.clock} | options))


async def test_a_workflow_by_its_name(world: World) -> None:
    """A client starts a run by the name of the workflow, with its arguments as data; an engine that knows it runs
    it."""
    client, engine = client_of(world), world.engine(greet)
    run = await client.enqueue("greet", ADA, run_id="r", tags=["a"])
    await engine.drain()
    info = await run.info()

    assert ("greet", 1, ADA, ("a",)) == (info.workflow, info.version, info.input, info.tags)
    assert "hello ada@b.c" == await run.result()


async def test_a_call_on_a_client(world: World) -> None:
    """Where the code is at hand, a client takes calls, checks them, and gives typed results."""
    client, engine = client_of(world), world.engine(greet)
    run = await client.enqueue(greet(User("ada@b.c"), 2))
    await engine.drain()

    assert "hello ada@b.chello ada@b.c" == await run.result()
    with pytest.raises(ValidationError, match=r"Expected `int`, got `str` \(at \$.times\)"):
        await client.enqueue(greet(User("a"), "two"))  # type: ignore[arg-type]


async def test_by_name_and_by_call_are_the_same(world: World) -> None:
    """A run that is named by text is the same as the one of the call, with defaults applied."""
    engine = world.engine(greet)
    await engine.enqueue(greet(User("ada@b.c")), run_id="r")
    again = await engine.enqueue("greet", ADA, run_id="r")
    with pytest.raises(RunConflictError, match="another input"):
        await engine.enqueue("greet", {**ADA, "times": 2}, run_id="r")

    assert "r" == again.run_id


@pytest.mark.parametrize(("version", "expected"), [(None, 2), (1, 1), (2, 2)])
async def test_the_version_on_an_engine(world: World, version: int | None, expected: int) -> None:
    """[101] By its name alone an engine takes the latest version of a workflow that it knows."""
    run = await world.engine(greet_two, greet).enqueue("greet", ADA, version=version)

    assert expected == (await run.info()).version


@pytest.mark.parametrize(("version", "expected"), [(None, 1), (7, 7)])
async def test_the_version_on_a_client(world: World, version: int | None, expected: int) -> None:
    """A client takes the version that it is told, and 1 where it is told none."""
    run = await client_of(world).enqueue("greet", ADA, version=version)

    assert expected == (await run.info()).version


async def test_a_name_that_an_engine_does_not_know(world: World) -> None:
    """[104] An engine refuses the name or version of a workflow that it does not know; a client takes it on trust."""
    engine, client = world.engine(greet), client_of(world)
    for name, version in (("nobody", None), ("greet", 2)):
        with pytest.raises(WorkflowNotFoundError, match=f"does not know the workflow '{name}'.* It knows: greet"):
            await engine.enqueue(name, ADA, version=version)
    run = await client.enqueue("nobody", run_id="r")
    await engine.drain()

    assert RunStatus.PENDING is (await run.info()).status


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"user": {"email": 7}}, ValidationError, r"Expected `str`, got `int` \(at \$.user.email\)"),
        ({}, ValidationError, "missing required field `user`"),
        ({**ADA, "tims": 2}, ValidationError, r"input of workflow 'greet': there is no parameter 'tims'"),
        ({"user": object()}, SerializationError, "a value of type object is not data"),
        ([1], ConfigError, r"arguments is \[1\]; write them by name"),
        ({7: 1}, ConfigError, "arguments has the key 7; write the name of a parameter"),
    ],
    ids=repr,
)
async def test_wrong_arguments(world: World, arguments: Any, error: type[Exception], message: str) -> None:
    """[13] An engine checks arguments that are given as data like those of a call; nothing is stored."""
    engine = world.engine(greet)
    with pytest.raises(error, match=message):
        await engine.enqueue("greet", arguments)

    assert () == (await engine.list_runs()).runs


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("greet", {"user": object()}), {}, SerializationError, "input of workflow 'greet': a value of type object"),
        (("", {}), {}, ConfigError, "the name of a workflow is ''"),
        (("greet", "ada"), {}, ConfigError, "arguments is 'ada'; write them by name"),
        (("greet", {}), {"version": 0}, ConfigError, "version is 0; write a whole number from 1 up"),
        (("greet", {}), {"version": "2"}, ConfigError, "version is '2'; write a whole number from 1 up"),
        ((greet(User("a")), {}), {}, ConfigError, "enqueue got a call, which has its arguments"),
        ((greet(User("a")),), {"version": 1}, ConfigError, "enqueue got a call, which has its arguments"),
    ],
    ids=str,
)
async def test_what_a_client_refuses(
    world: World, arguments: Any, options: Any, error: type[Exception], message: str
) -> None:
    """What cannot be meant is refused by a client too; nothing is stored."""
    client = client_of(world)
    with pytest.raises(error, match=message):
        await client.enqueue(*arguments, **options)

    assert () == (await client.list_runs()).runs


async def test_an_argument_that_the_workflow_does_not_take(world: World) -> None:
    """What a client, which does not know the code, sends along and no parameter takes is not dropped without a word:
    the run fails before it begins, naming it; it goes on once the code takes it."""
    await client_of(world).enqueue("greet", {**ADA, "tims": 2}, run_id="r")
    info = await world.continued(greet)

    assert info.error is not None
    assert (RunStatus.FAILED, "SerializationError", ()) == (info.status, info.error.type, info.entries)
    assert "stored input of workflow 'greet': Object contains unknown field `tims` (at $)" == info.error.message

    @workflow(name="greet")
    def mended(user: User, tims: int) -> Flow[str]:
        return (yield from step(give, f"{user.email} {tims}"))

    assert await world.resume("r")
    assert "ada@b.c 2" == (await world.continued(mended)).output


async def test_a_parameter_taken_away(world: World) -> None:
    """A run that has begun goes on when the code has lost a parameter since, also from a wait before its first
    step."""

    @workflow(name="flow")
    def before(pause: str, colour: str) -> Flow[str]:
        yield sleep(pause)
        return colour

    @workflow(name="flow")
    def after(pause: str) -> Flow[str]:
        yield sleep(pause)
        return "no colour"

    engine = world.engine(before)
    await engine.enqueue(before("1h", "red"), run_id="r")
    await engine.drain()

    assert "no colour" == (await world.continued(after, after="1h")).output


@pytest.mark.parametrize(
    ("verb", "arguments", "options", "message"),
    [
        (
            "enqueue",
            ("greet",),
            {"user": "a"},
            r"enqueue\(\) got .* 'user'; its options are delay, .*'signup', \{'user': ",
        ),
        ("execute", (greet(User("a")),), {"times": 2}, r"execute\(\) got .* 'times'; .*, signup\(times="),
        ("enqueue_many", ("greet", [ADA]), {"run_id": "r"}, r"enqueue_many\(\) got .* 'run_id'"),
    ],
)
async def test_an_argument_in_place_of_an_option(
    world: World, verb: str, arguments: Any, options: Any, message: str
) -> None:
    """What is no option of a verb, such as an argument of the workflow, is a `TypeError` that says where it goes."""
    client = client_of(world)
    with pytest.raises(TypeError, match=message):
        await getattr(client, verb)(*arguments, **options)

    assert () == (await client.list_runs()).runs


async def test_many_by_name(world: World) -> None:
    """`enqueue_many` takes the name of a workflow, and the arguments of each run."""
    client = client_of(world)
    runs = await client.enqueue_many("greet", [ADA, {**ADA, "times": 2}], idempotency_keys=["a", "b"])
    await world.engine(greet).drain()

    assert ["hello ada@b.c", "hello ada@b.c" * 2] == [await run.result() for run in runs]


async def test_execute_waits_for_an_engine(world: World) -> None:
    """[110] `execute` of a client waits for an engine elsewhere."""
    client = client_of(world, clock=SystemClock())
    results: list[str] = []

    async def wait() -> None:
        results.append(await client.execute("greet", ADA))

    async with create_task_group() as tasks:
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        await world.engine(greet, clock=SystemClock()).drain()

    assert ["hello ada@b.c"] == results


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_entering_opens_the_storage(tmp_path: Any) -> None:
    """Entering a client opens the storage, leaving closes it."""
    client = Client(SQLiteStorage(tmp_path / "app.db"))
    with pytest.raises(StorageError, match="is not open; enter the engine or the client"):
        await client.enqueue("greet", ADA)
    async with client as entered:
        await client.enqueue("greet", ADA, run_id="r")
    with pytest.raises(StorageError, match="is not open"):
        await client.get_run("r")

    assert client is entered


async def test_a_path_is_no_storage() -> None:
    """A path in place of a storage is a `ConfigError` that says what to write."""
    with pytest.raises(ConfigError, match=r"storage is 'app.db'; write SQLiteStorage\('app.db'\)"):
        Client("app.db")  # type: ignore[arg-type]


async def test_a_codec_on_a_client(world: World) -> None:
    """[22] A client writes and reads by its codec, which is that of the engines."""
    client, engine = client_of(world, codec=JsonCodec()), world.engine(greet, codec=JsonCodec())
    run = await client.enqueue("greet", ADA, run_id="r")
    await engine.drain()
    row = await world.storage.get_run("r")

    assert row is not None
    assert b'{"user":{"email":"ada@b.c"}}' == row.input
    assert "hello ada@b.c" == await run.result()


# ---- events ----------------------------------------------------------------------------------------------------------


async def test_sending_an_event(world: World) -> None:
    """An event goes into the mailbox of a run that has not ended; False where it has, and for an unknown one."""
    client, engine = client_of(world), world.engine(sleeper)
    await client.enqueue("sleeper", run_id="r")
    sent = [
        await client.send_event("r", "approval", {"by": "ada"}),
        await client.send_event("r", Event("number", int), 7),
        await client.send_event("r", "nothing"),
        await client.send_event("nobody", "approval"),
    ]
    messages = await world.storage.get_messages("r", after=0)
    await engine.drain()
    world.clock.advance("1h")
    await engine.drain()

    assert [True, True, True, False] == sent
    assert [("approval", {"by": "ada"}), ("number", 7), ("nothing", None)] == [
        (message.name, world.codec.decode(message.payload, Any)) for message in messages
    ]
    assert not await client.send_event("r", "approval")


async def test_an_event_with_an_id(world: World) -> None:
    """An event that is sent twice with one `event_id` is there once."""
    client = client_of(world)
    await client.enqueue("sleeper", run_id="r")
    sent = [await client.send_event("r", "approval", n, event_id="e") for n in (1, 2)]
    messages = await world.storage.get_messages("r", after=0)

    assert [True, True] == sent
    assert [1] == [world.codec.decode(message.payload, int) for message in messages]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("r", Event("a", int), "seven"), {}, ValidationError, "payload of event 'a': Expected `int`, got `str`"),
        (("r", Event("a", User), {"email": 7}), {}, ValidationError, r"Expected `str`, got `int` \(at \$.email\)"),
        (("r", "a", object()), {}, SerializationError, "payload of event 'a': a value of type object is not data"),
        (("r", ""), {}, ConfigError, "the name of an event is ''"),
        (("r", 7), {}, ConfigError, "the name of an event is 7"),
        (("", "a"), {}, ConfigError, "run_id is ''"),
        (("r", "a"), {"event_id": ""}, ConfigError, "event_id is ''"),
    ],
    ids=str,
)
async def test_a_wrong_event(world: World, arguments: Any, options: Any, error: type[Exception], message: str) -> None:
    """What is no event, or does not fit the declared one, is refused to the sender and never reaches the run."""
    client = client_of(world)
    await client.enqueue("sleeper", run_id="r")
    with pytest.raises(error, match=message):
        await client.send_event(*arguments, **options)

    assert [] == await world.storage.get_messages("r", after=0)


# ---- cancel ----------------------------------------------------------------------------------------------------------


async def test_cancelling_what_was_never_started(world: World) -> None:
    """[128][129][133] A run that was never started ends at once, and is never claimed; a second `cancel` is False."""
    client, engine = client_of(world), world.engine(sleeper)
    run = await client.enqueue("sleeper", run_id="r")
    cancelled = [await client.cancel("r"), await client.cancel("r")]

    assert [True, False] == cancelled
    assert 0 == await engine.tick()
    with pytest.raises(RunCancelledError):
        await run.result()


async def test_cancelling_what_sleeps(world: World) -> None:
    """[128] `cancel` of a run that has begun is True, and asks for its cancellation."""
    client = client_of(world)
    await client.enqueue("sleeper", run_id="r")
    await world.engine(sleeper).drain()
    cancelled = await client.cancel("r")
    info = await world.info("r")

    assert cancelled
    assert info.is_cancel_requested


async def test_cancelling_what_has_ended(world: World) -> None:
    """[128] `cancel` of a completed or unknown run is False, and without effect."""
    await world.settle(greet(User("a")))
    before = await world.info()
    cancelled = [await client_of(world).cancel(run_id) for run_id in ("r", "nobody")]

    assert [False, False] == cancelled
    assert before == await world.info()


async def test_who_waits_hears_of_the_cancellation(world: World) -> None:
    """[127] Who waits for a run that is cancelled before its start is told at once: the clock stands still."""
    errors: list[RunCancelledError] = []

    async def wait(run: Any) -> None:
        with pytest.raises(RunCancelledError) as raised:
            await run.result()
        errors.append(raised.value)

    async with world.engine(greet) as engine:
        run = await engine.enqueue(greet(User("a")), delay="1h")
        async with create_task_group() as tasks:
            tasks.start_soon(wait, run)
            await wait_all_tasks_blocked()
            await engine.cancel(run.run_id)

    assert [run.run_id] == [error.run_id for error in errors]


@pytest.mark.parametrize("verb", ["cancel", "resume", "get_run", "get_cut_entries", "handle", "why", "where"])
@pytest.mark.parametrize("run_id", ["", None, 7, "\ud800"], ids=repr)
async def test_a_wrong_run_id(world: World, verb: str, run_id: Any) -> None:
    """A run id that is empty or no text is a `ConfigError`, for every verb."""
    with pytest.raises(ConfigError, match="run_id is"):
        await getattr(client_of(world), verb)(run_id)


@pytest.mark.parametrize("verb", ["cancel", "resume", "get_run", "get_cut_entries", "handle", "why", "where"])
async def test_a_run_in_place_of_its_id(world: World, verb: str) -> None:
    """Whoever gives a verb a run, or what is known of one, is told to write its id."""
    client = client_of(world)
    run = await client.enqueue("sleeper", run_id="r")
    for wrong, name in ((run, "Run"), (await run.info(), "RunInfo")):
        with pytest.raises(ConfigError, match=f"run_id is a {name}; write the id that it has, `.run_id`"):
            await getattr(client, verb)(wrong)


@pytest.mark.parametrize("verb", ["handle", "why", "where"])
async def test_no_such_run(world: World, verb: str) -> None:
    """An unknown run is a `RunNotFoundError`."""
    with pytest.raises(RunNotFoundError, match="there is no run 'nobody'"):
        await getattr(client_of(world), verb)("nobody")
