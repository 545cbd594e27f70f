"""Changed code: what no longer matches the journal is said, and harms nothing."""

from __future__ import annotations

from typing import Any

import pytest

from reflow import (
    Flow,
    NonDeterminismError,
    Retry,
    RunInfo,
    RunStatus,
    Workflow,
    current_step,
    gather,
    new_random,
    new_uuid,
    now,
    sleep,
    spawn,
    step,
    wait_event,
    workflow,
)
from reflow.storage.records import RunFilter
from tests.support.bodies import Steps, give
from tests.support.driven import line_of
from tests.support.world import World

pytestmark = pytest.mark.anyio

steps = Steps()


@pytest.fixture(autouse=True)
def _fresh_steps() -> None:
    steps.log.clear()


async def fail() -> None:
    """Raises, where it may be tried again."""
    raise ConnectionError


def a(name: str = "a") -> Any:
    """A step that notes its body."""
    return step(steps, name).options(name=name)


@workflow(name="flow")
def recorded() -> Flow[str]:
    """Two steps, and a sleep between them and the third."""
    yield a("a")
    yield a("b")
    yield sleep("1h")
    yield a("c")
    return "done"


async def changed(world: World, before: Workflow[[], Any], after: Workflow[[], Any]) -> RunInfo:
    """The run after it was begun by the code before and woken by the code after."""
    await world.settle(before())
    steps.log.clear()
    return await world.continued(after, after="1h")


def error_of(info: RunInfo) -> tuple[str, str | None]:
    """Status and code of the error of a run."""
    return info.status, info.error and info.error.code


@workflow(name="flow")
def renamed() -> Flow[str]:
    """The second step has another name."""
    yield a("a")
    yield a("B")  # here
    yield sleep("1h")
    yield a("c")
    return "done"


@workflow(name="flow")
def swapped_kind() -> Flow[str]:
    """A sleep in place of the second step."""
    yield a("a")
    yield sleep("1s")  # here
    yield sleep("1h")
    return "done"


@workflow(name="flow")
def inserted() -> Flow[str]:
    """A step more at the beginning."""
    yield a("new")  # here
    yield a("a")
    yield a("b")
    yield sleep("1h")
    return "done"


@workflow(name="flow")
def removed() -> Flow[str]:
    """A step less."""
    yield a("b")  # here
    yield sleep("1h")
    return "done"


@workflow(name="flow")
def shorter() -> Flow[str]:
    """It ends where entries are left."""
    yield a("a")
    return "done"  # here


@workflow(name="flow")
def regrouped() -> Flow[str]:
    """A gather in place of the steps."""
    yield gather(a("a"), a("b"))  # here
    yield sleep("1h")
    return "done"


@workflow(name="flow")
def in_a_helper() -> Flow[str]:
    """The change is in a helper."""

    def helper() -> Flow[None]:
        yield a("a")
        yield a("B")  # here

    yield from helper()
    return "done"


@pytest.mark.parametrize(
    ("code", "position", "was", "now_is"),
    [
        (renamed, "1", "step 'b'", "step 'B'"),
        (swapped_kind, "1", "step 'b'", "sleep"),
        (inserted, "0", "step 'a'", "step 'new'"),
        (removed, "0", "step 'a'", "step 'b'"),
        (shorter, "1", "step 'b'", "the workflow 'shorter' has ended"),
        (regrouped, "0", "step 'a'", "step 'a' at position 0.0"),
        (in_a_helper, "1", "step 'b'", "step 'B'"),
    ],
    ids=["renamed", "swapped", "inserted", "removed", "left over", "regrouped", "in a helper"],
)
async def test_changed_code(world: World, code: Any, position: str, was: str, now_is: str) -> None:
    """[95][96][97][99] Code that no longer matches the journal parks the run as `failed` with `NonDeterminismError`,
    which names position, recorded, yielded, and file:line; no body runs, and what was recorded is kept."""
    info = await changed(world, recorded, code)

    assert ("failed", "nondeterminism") == error_of(info)
    assert info.error is not None
    assert f"at position {position}: recorded {was}, now {now_is} ({line_of(code.function)})" in info.error.message
    assert [] == steps.begun
    assert [("0", "a"), ("1", "b"), ("2", None)] == [(entry.position, entry.value) for entry in info.entries]


async def test_the_body_cannot_swallow_it(world: World) -> None:
    """The error is raised outside the generator: neither `except Exception` nor a bare `except` sees it."""

    @workflow(name="flow")
    def greedy() -> Flow[str]:
        try:
            yield a("other")
        except BaseException:
            yield a("swallowed")
        return "done"

    info = await changed(world, recorded, greedy)

    assert ("failed", "nondeterminism") == error_of(info)
    assert [] == steps.begun


async def test_a_changed_sleep(world: World) -> None:
    """[96] What a run is waiting for when the code changes is checked as well, before anything is performed."""

    @workflow(name="flow")
    def awake() -> Flow[str]:
        yield a("a")
        yield a("b")
        yield a("c")
        return "done"

    info = await changed(world, recorded, awake)

    assert ("failed", "nondeterminism") == error_of(info)
    assert [] == steps.begun


async def test_a_changed_step_in_back_off(world: World) -> None:
    """[96] A step whose next attempt is due under another name is found out too."""

    @workflow(name="flow")
    def before() -> Flow[None]:
        yield step(fail).options(name="old", retry=Retry(initial_delay="1h", jitter=False))

    @workflow(name="flow")
    def after() -> Flow[None]:
        yield a("new")

    info = await changed(world, before, after)

    assert ("failed", "nondeterminism") == error_of(info)
    assert [] == steps.begun


@workflow(name="other")
def other() -> Flow[int]:
    """A child that takes an hour."""
    yield sleep("1h")
    return 1


@workflow(name="another")
def another() -> Flow[int]:
    """One of another name."""
    yield sleep("1h")
    return 2


@pytest.mark.parametrize("is_settled", [False, True], ids=["waiting", "settled"])
@pytest.mark.parametrize(
    ("was", "now_is"),
    [
        (lambda: wait_event("old"), lambda: wait_event("new")),
        (lambda: other(), lambda: another()),
        (lambda: spawn(other()), lambda: spawn(another())),
        (lambda: other(), lambda: spawn(other())),
        (lambda: wait_event("old"), lambda: sleep("2h")),
    ],
    ids=["event", "child", "spawn", "child to spawn", "wait to sleep"],
)
async def test_another_event_or_run(world: World, was: Any, now_is: Any, is_settled: bool) -> None:
    """[96] An event, a child or a spawned run of another name or kind is found out, while it is waited for and
    afterwards; no run is started."""

    @workflow(name="flow")
    def before() -> Flow[None]:
        yield was()
        yield sleep("1d")

    @workflow(name="flow")
    def after() -> Flow[None]:
        yield now_is()  # here
        yield sleep("1d")

    engine = world.engine(before, other, another)
    await engine.enqueue(before(), run_id="r")
    if is_settled:
        await world.send("r", "old", 1)
        await engine.drain()
        world.clock.advance("1h")
    await engine.drain()
    count = len((await world.storage.list_runs(RunFilter(), limit=10)).rows)
    await world.send("r", "old", 1)
    info = await world.continued(after, after="1d")
    if info.status is RunStatus.WAITING:
        # A child that has not ended wakes nobody.
        await world.engine(after, other, another).drain()
        info = await world.info()

    assert ("failed", "nondeterminism") == error_of(info)
    assert info.error is not None
    assert line_of(after.function) in info.error.message
    assert count == len((await world.storage.list_runs(RunFilter(), limit=10)).rows)


async def test_changed_arguments(world: World) -> None:
    """[98] Changed arguments at an unchanged position: the recorded outcome stands."""

    @workflow(name="flow")
    def before() -> Flow[int]:
        value: int = yield step(give, 1)
        yield sleep("1h")
        return value

    @workflow(name="flow")
    def after() -> Flow[int]:
        value: int = yield step(give, 2)
        yield sleep("2h")
        return value

    info = await changed(world, before, after)

    assert (RunStatus.COMPLETED, 1) == (info.status, info.output)


async def test_code_after_what_was_recorded(world: World) -> None:
    """Code may change freely where the run has not been yet."""

    @workflow(name="flow")
    def longer() -> Flow[str]:
        yield a("a")
        yield a("b")
        yield sleep("1h")
        yield a("new")
        yield gather(a("x"), a("y"))
        return "done differently"

    info = await changed(world, recorded, longer)

    assert (RunStatus.COMPLETED, "done differently") == (info.status, info.output)
    assert ["new", "x", "y"] == [steps.begun[0], *sorted(steps.begun[1:])]


async def test_code_that_depends_on_the_world(world: World) -> None:
    """[95] Code that takes another path on replay is found out, and does not run the other path's step."""
    executions: list[None] = []

    @workflow
    def flow() -> Flow[None]:
        executions.append(None)
        if len(executions) == 1:
            yield a("first time")
        else:
            yield a("second time")
        yield sleep("1h")

    info = await changed(world, flow, flow)

    assert ("failed", "nondeterminism") == error_of(info)
    assert [] == steps.begun


@pytest.mark.parametrize("limit", [1, 2, None])
async def test_a_changed_limit(world: World, limit: int | None) -> None:
    """A changed `limit=` of a gather breaks no run."""

    @workflow(name="flow")
    def before() -> Flow[list[int]]:
        values: tuple[int, ...] = yield gather(*(_nap(number) for number in range(4)), limit=3)
        return list(values)

    @workflow(name="flow")
    def after() -> Flow[list[int]]:
        values: tuple[int, ...] = yield gather(*(_nap(number) for number in range(4)), limit=limit)
        return list(values)

    await world.settle(before())
    await world.continued(after, after="1h")
    info = await world.continued(after, after="1h")
    while info.status == RunStatus.SLEEPING:
        info = await world.continued(after, after="1h")

    assert (RunStatus.COMPLETED, [0, 1, 2, 3]) == (info.status, info.output)


def _nap(number: int) -> Flow[int]:
    yield step(give, number)
    yield sleep("1h")
    return (yield from step(give, number))


async def test_recorded_values(world: World) -> None:
    """[100] `now()`, `new_uuid()` and `new_random()` give the same values on replay and different ones per call and
    per run."""
    seen: list[list[Any]] = []

    @workflow
    def flow() -> Flow[None]:
        values: list[Any] = []
        for _ in range(2):
            values.append((yield from now()))
            values.append((yield from new_uuid()))
            values.append((yield from new_random()).random())
            yield step(_tick, world)
        seen.append(values)
        yield sleep("1h")

    await world.settle(flow(), run_id="first")
    await world.continued(flow, after="1h", run_id="first")
    await world.settle(flow(), run_id="second")

    live, replayed, other = seen
    assert live == replayed
    assert 6 == len({str(value) for value in live})
    assert set() == {str(value) for value in live} & {str(value) for value in other}


async def _tick(world: World) -> None:
    assert current_step().step
    world.clock.advance("1s")


async def test_a_workflow_of_another_name_or_version_is_left_alone(world: World) -> None:
    """[101][113] A run stays with the name and version it began with: an engine with others does not claim it."""

    @workflow(name="flow", version=2)
    def newer() -> Flow[str]:
        yield a("newer")
        return "newer"

    await world.settle(recorded())
    steps.log.clear()
    engine = world.engine(newer)
    world.clock.advance("1h")
    claimed = await engine.tick()
    both = world.engine(newer, recorded)
    await both.drain()

    assert 0 == claimed
    assert "done" == (await world.info()).output
    assert ["c"] == steps.begun


def test_the_error_itself() -> None:
    """The error has position, recorded, yielded and location as fields."""
    error = NonDeterminismError("1", "step 'a'", "sleep", "app.py:7")

    assert ("1", "step 'a'", "sleep", "app.py:7") == (error.position, error.recorded, error.yielded, error.location)


# ---- other arguments -------------------------------------------------------------------------------------------------


@workflow(name="flow")
def charges_five() -> Flow[list[int]]:
    """A step, a child and a spawned run; then a sleep."""
    return (yield from _charges(5))


@workflow(name="flow")
def charges_six() -> Flow[list[int]]:
    """The same with other arguments."""
    return (yield from _charges(6))


@workflow
def billed(amount: int) -> Flow[int]:
    """Gives what it is given."""
    return (yield from step(give, amount))


def _charges(amount: int) -> Flow[list[int]]:
    first = yield from step(give, amount)  # first
    second = yield from billed(amount)
    yield spawn(billed(amount))
    yield sleep("1h")
    return [first, second]


async def charged_anew(world: World, after: Workflow[[], Any], *, strict: bool) -> RunInfo:
    """The run after it was begun with five and woken by the code after."""
    engine = world.engine(charges_five, billed)
    await engine.enqueue(charges_five(), run_id="r")
    await engine.drain()
    world.clock.advance("1h")
    await world.engine(after, billed, strict=strict).drain()
    return await world.info()


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged."""
    return [record.getMessage() for record in caplog.records if record.name == "reflow"]


async def test_other_arguments(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """[98] Changed arguments at an unchanged position: the recorded outcome stands, and one warning names run, step,
    position and line."""
    info = await charged_anew(world, charges_six, strict=False)
    [line] = warned(caplog)

    assert (RunStatus.COMPLETED, [5, 5]) == (info.status, info.output)
    assert line.startswith("run r: step 'give' at position 0 has other arguments than when")
    assert f"({line_of(_charges, '# first')})" in line


async def test_other_arguments_are_an_error_where_that_is_asked_for(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """[98] In strict mode the run is parked as failed with `NonDeterminismError`, which names position and arguments;
    with the old code it goes on."""
    info = await charged_anew(world, charges_six, strict=True)
    assert info.error is not None
    engine = world.engine(charges_five, billed, strict=True)
    await engine.resume("r")
    for _ in range(2):
        # The sleep begins anew.
        await engine.drain()
        world.clock.advance("1h")
    resumed = await world.info()

    assert (RunStatus.FAILED, NonDeterminismError.code) == error_of(info)
    assert "at position 0: recorded step 'give', now step 'give' with other arguments" in info.error.message
    assert line_of(_charges, "# first") in info.error.message
    assert (RunStatus.COMPLETED, [5, 5], []) == (resumed.status, resumed.output, warned(caplog))


@pytest.mark.parametrize("strict", [False, True])
async def test_the_same_arguments(world: World, strict: bool, caplog: pytest.LogCaptureFixture) -> None:
    """[98] Where nothing has changed, nothing is said."""
    info = await charged_anew(world, charges_five, strict=strict)

    assert (RunStatus.COMPLETED, [5, 5], []) == (info.status, info.output, warned(caplog))


@workflow(name="flow")
def a_child_of_six() -> Flow[list[int]]:
    """Only the child has another argument."""
    first = yield from step(give, 5)
    second = yield from billed(6)
    yield spawn(billed(7))
    yield sleep("1h")
    return [first, second]


async def test_other_arguments_of_a_child(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """[98] The arguments of children and spawned runs are looked at as well; of several differences in one run, the
    first is named."""
    await charged_anew(world, a_child_of_six, strict=False)

    assert ["run r: child 'billed' at position 1 has"] == [line.partition(" other")[0] for line in warned(caplog)]
