"""Misuse: each mistake is answered at once, in a sentence that says what to write, and nothing hangs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from reflow import (
    ConfigError,
    DuplicateWorkflowError,
    Engine,
    Flow,
    MemoryStorage,
    Retry,
    RunStatus,
    gather,
    race,
    sleep,
    step,
    workflow,
)
from tests.support.driven import line_of
from tests.support.world import World

pytestmark = pytest.mark.anyio


async def give(value: Any = None) -> Any:
    """Returns what it is given."""
    return value


def helper() -> Flow[int]:
    """A helper generator."""
    return (yield from step(give, 1))


# ---- in a workflow body ----------------------------------------------------------------------------------------------


@workflow
def yields_a_generator() -> Flow[None]:
    """Forgets `from`."""
    yield helper()  # type: ignore[misc]  # here


@workflow
def yields_a_coroutine() -> Flow[None]:
    """Calls the step's function itself."""
    yield give(1)  # type: ignore[misc]  # here


@workflow
def yields_a_list() -> Flow[None]:
    """Forgets gather."""
    yield [step(give), step(give)]  # type: ignore[misc]  # here


@workflow
def yields_a_function() -> Flow[None]:
    """Forgets step."""
    yield give  # type: ignore[misc]  # here


@workflow
def yields_nothing() -> Flow[None]:
    """A bare yield."""
    yield  # type: ignore[misc]  # here


@workflow
def yields_a_number() -> Flow[None]:
    """No command."""
    yield 5  # type: ignore[misc]  # here


@workflow
def yields_a_workflow() -> Flow[None]:
    """Forgets to call it."""
    yield yields_a_number  # type: ignore[misc]  # here


@workflow
def returns_a_generator() -> Flow[Any]:
    """Forgets `yield from`."""
    yield step(give)
    return helper()  # here


@workflow
def returns_a_coroutine() -> Flow[Any]:
    """Calls the step's function itself."""
    yield step(give)
    return give(1)  # here


@workflow
def returns_a_command() -> Flow[Any]:
    """Forgets `yield`."""
    yield step(give)
    return step(give)  # here


@workflow
def forgets_a_command() -> Flow[None]:
    """Makes a command and does nothing with it."""
    step(give, 1)
    yield step(give, 2)  # here


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (yields_a_generator, "`yield from helper(...)`"),
        (yields_a_coroutine, "`yield step(give, ...)`"),
        (yields_a_list, "`yield gather(*commands)`"),
        (yields_a_function, "`yield step(give, ...)`"),
        (yields_nothing, "`yield step("),
        (yields_a_number, "`yield step("),
        (yields_a_workflow, "the workflow 'yields_a_number' itself was yielded"),
        (returns_a_generator, "`return (yield from helper(...))`"),
        (returns_a_coroutine, "`return (yield step(give, ...))`"),
        (returns_a_command, "`return (yield "),
        (forgets_a_command, "'give' was made and never yielded"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_mistakes_in_a_body(world: World, code: Any, advice: str) -> None:
    """[9] What is yielded or returned by mistake, or made and never yielded, fails the run with a `MisuseError` that
    says what to write, and where."""
    info = await world.settle(code())

    assert info.error is not None
    assert (RunStatus.FAILED, "MisuseError") == (info.status, info.error.type)
    assert advice in info.error.message
    assert info.error.message.endswith(f"({line_of(code.function)})")


async def test_a_body_cannot_swallow_it(world: World) -> None:
    """[9] A `MisuseError` is raised outside the generator, where the body cannot swallow it; no later step runs."""
    bodies: list[None] = []

    async def note() -> None:
        bodies.append(None)

    @workflow
    def flow() -> Flow[None]:
        try:
            yield 5  # type: ignore[misc]
        except BaseException:
            yield step(note)

    info = await world.settle(flow())

    assert (RunStatus.FAILED, []) == (info.status, bodies)


async def test_a_branch_used_twice(world: World) -> None:
    """One generator given to a gather twice fails the run with a sentence."""

    @workflow
    def flow() -> Flow[None]:
        branch = helper()
        yield gather(branch, branch)

    info = await world.settle(flow())

    assert info.error is not None
    assert ("MisuseError", True) == (info.error.type, "call helper(...) again for a new one" in info.error.message)


async def test_a_plain_function_that_returns_a_coroutine(world: World) -> None:
    """A `def` whose result is a coroutine that nobody awaits fails its step with a sentence."""

    def forgot_await() -> Any:
        return give(1)

    @workflow
    def flow() -> Flow[None]:
        yield step(forgot_await)

    info = await world.settle(flow())

    assert info.error is not None
    assert "step 'forgot_await' returned a coroutine; make it an `async def`" in info.error.message


async def test_wrong_arguments_of_a_step(world: World) -> None:
    """Wrong arguments of a step fail the run where the step is made, saying which and where: no body starts, and
    nothing is tried again."""
    bodies: list[int] = []

    async def charge(account: int, cents: int) -> None:
        bodies.append(cents)

    @workflow
    def flow() -> Flow[None]:
        yield gather(step(charge, 1, 2), step(charge, 1).options(retry=Retry(max_attempts=5)))  # type: ignore  # here

    info = await world.settle(flow())

    assert info.error is not None
    assert (RunStatus.FAILED, "ConfigError", (), []) == (info.status, info.error.type, info.entries, bodies)
    assert (
        f"step 'charge': missing a required argument: 'cents'; it takes (account, cents) ({line_of(flow.function)})"
        == info.error.message
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: race(), "race() of nothing would never end"),
        (lambda: gather([step(give)]), "argument 0 of gather is a list; unpack it: gather(*commands)"),
        (lambda: gather(step(give), give), "argument 1 of gather is 'give'; write step(give, ...)"),
        (lambda: race(helper), "argument 0 of race is the function 'helper'; call it: helper(...)"),
        (lambda: gather(step(give), limit=0), "limit is 0; write a whole number from 1 up"),
        (lambda: step(give(1)), "step got"),
        (lambda: step(give, 1, 2), "step 'give': too many positional arguments; it takes (value=None)"),
        (
            lambda: step(give, 1, retry=Retry(3)),
            "it takes (value=None); options of the step go to step(...).options(retry",
        ),
        (lambda: step(give, valu=1), "step 'give': got an unexpected keyword argument 'valu'"),
        (lambda: step(helper), "'helper' is a generator function"),
        (lambda: step(yields_nothing), "'yields_nothing' is a workflow, not a step"),
        (lambda: step(give).options(name=""), "name is ''"),
        (lambda: step(give).options(retry=3), "retry is 3; write Retry(max_attempts=...)"),
        (lambda: step(give).options(timeout=0), "timeout is 0; it must be longer than nothing"),
        (lambda: step(give).options(timeout="-1s"), "timeout is '-1s'"),
        (lambda: step(give).options(raises=BaseException), "write an exception class"),
        (lambda: step(give).options(raises="ValueError"), "raises is 'ValueError'"),
        (lambda: sleep("1"), "the duration of sleep is '1'"),
        (lambda: sleep(-1), "the duration of sleep is -1"),
        (lambda: sleep(float("nan")), "the duration of sleep is nan"),
        (lambda: sleep("1h 3parsecs"), "the duration of sleep is '1h 3parsecs'"),
        (lambda: Retry(max_attempts=0), "max_attempts is 0"),
        (lambda: Retry(backoff="random"), "backoff is 'random'"),
        (lambda: Retry(initial_delay="soon"), "initial_delay is 'soon'"),
        (lambda: Retry(give_up_on="ValueError"), "give_up_on is 'ValueError'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_mistakes_in_a_command(world: World, make: Any, message: str) -> None:
    """[10][11][50] A command that could never work is a `ConfigError` where it is made: outside a run to the caller, in
    a body as the failure of the run."""

    @workflow
    def flow() -> Flow[None]:
        yield make()

    info = await world.settle(flow())

    with pytest.raises(ConfigError) as raised:
        make()
    assert info.error is not None
    assert message in str(raised.value)
    assert (RunStatus.FAILED, "ConfigError") == (info.status, info.error.type)


# ---- of an engine ----------------------------------------------------------------------------------------------------


@workflow
def fine() -> Flow[None]:
    """Nothing wrong with it."""
    yield step(give)


@workflow(name="fine")
def also_fine() -> Flow[None]:
    """Another one of that name."""
    yield step(give)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency is 0; write a whole number from 1 up"),
        ({"concurrency": 2.5}, "concurrency is 2.5"),
        ({"concurrency": True}, "concurrency is True"),
        ({"concurrency": None}, "concurrency is None"),
        ({"threads": -1}, "threads is -1; write a whole number from 1 up"),
        ({"threads": "many"}, "threads is 'many'"),
        ({"lease": 0}, "lease is 0"),
        ({"lease": "50ms"}, "lease is '50ms'; it has to last through a heartbeat"),
        ({"lease": timedelta(seconds=-1)}, "lease is"),
        ({"lease": None}, "lease is None"),
        ({"lease": "ages"}, "lease is 'ages'"),
        ({"grace": -1}, "grace is -1"),
        ({"grace": float("inf")}, "grace is inf"),
    ],
    ids=str,
)
def test_settings(options: dict[str, Any], message: str) -> None:
    """[122] A wrong `concurrency`, `threads`, `lease` or `grace` is a `ConfigError` when the engine is made."""
    with pytest.raises(ConfigError) as raised:
        Engine(MemoryStorage(), [fine], **options)

    assert message in str(raised.value)


@pytest.mark.parametrize("seconds", [0.4, 4])
async def test_a_body_that_computes_for_long(world: World, caplog: pytest.LogCaptureFixture, seconds: float) -> None:
    """A body that takes more than half a second from an outcome to its next yield is told in the log: nothing else runs
    meanwhile, and its lease is not kept."""

    @workflow
    def parsing() -> Flow[None]:
        yield from step(give, 1)
        # Stands for work that takes so long: nobody else can turn the clock meanwhile.
        world.clock.advance(seconds)
        yield from step(give, 2)

    info = await world.settle(parsing())

    expected = "run r: the body of workflow 'parsing' took 4.0 s from the outcome of step 'give' at position 0"
    assert RunStatus.COMPLETED == info.status
    assert [expected] * (seconds == 4) == [record.getMessage()[: len(expected)] for record in caplog.records]


@pytest.mark.parametrize(
    ("workflows", "message"),
    [
        ([give], "give is not a workflow; decorate it with @workflow"),
        ([fine()], "is not a workflow; decorate it with @workflow, and do not call it here"),
        ([None], "None is not a workflow"),
        (["fine"], "'fine' is not a workflow"),
        (fine, "write a list of them: Engine(storage, [signup])"),
        (None, "workflows is None; write a list of them"),
    ],
    ids=["function", "call", "none", "text", "no list", "nothing"],
)
def test_not_a_workflow(workflows: Any, message: str) -> None:
    """What is not a workflow is a `ConfigError` when the engine is made."""
    with pytest.raises(ConfigError) as raised:
        Engine(MemoryStorage(), workflows)

    assert message in str(raised.value)


def test_two_of_one_name() -> None:
    """[4] Two workflows of one name and version in one engine: `DuplicateWorkflowError` when the engine is made."""
    with pytest.raises(DuplicateWorkflowError, match="two workflows are called 'fine' in version 1") as raised:
        Engine(MemoryStorage(), [fine, also_fine])

    assert ("fine", 1) == (raised.value.workflow, raised.value.version)


def test_a_path_is_no_storage() -> None:
    """A path in place of a storage is a `ConfigError` that says what to write."""
    with pytest.raises(ConfigError, match=r"storage is 'app.db'; write SQLiteStorage\('app.db'\)"):
        Engine("app.db", [fine])  # type: ignore[arg-type]


def test_an_annotation_that_cannot_be_resolved() -> None:
    """An annotation of a workflow that names nothing is a `ConfigError` when the engine is made, not when a run
    starts."""

    @workflow
    def flow(user: Nowhere) -> Flow[None]:  # type: ignore[name-defined]  # noqa: F821
        yield step(give, user)

    with pytest.raises(ConfigError, match="cannot be resolved: name 'Nowhere' is not defined"):
        Engine(MemoryStorage(), [flow])
