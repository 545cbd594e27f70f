"""`run_workflow` and `Sandbox`: workflows in plain tests, in virtual time, with stubs."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest

from reflow import (
    ConfigError,
    Event,
    Flow,
    NonDeterminismError,
    Retry,
    RunCancelledError,
    RunFailedError,
    RunStatus,
    StepFailedError,
    StepTimeoutError,
    TestRunIncompleteError,
    ValidationError,
    WaitTimeoutError,
    Winner,
    current_step,
    gather,
    now,
    race,
    sleep,
    step,
    wait_event,
    workflow,
)
from reflow.testing import After, Sandbox, crash_everywhere, run_workflow

approval = Event("approval", bool)


class Declined(Exception):
    """Raised by a stub."""


async def charge(cents: int) -> str:
    """Stubbed in most tests."""
    raise ConnectionError("no bank")


def double(number: int) -> int:
    """A real body, in a thread."""
    return number * 2


class Service:
    """An object whose method is a step."""

    async def fetch(self, key: str) -> str:
        """Stubbed."""
        raise ConnectionError(key)


@workflow
def signup(cents: int) -> Flow[str]:
    """A step, two weeks, a step."""
    receipt = yield from step(charge, cents).options(retry=Retry(max_attempts=3, initial_delay="1m", jitter=False))
    yield sleep("14d")
    number = yield from step(double, cents)
    return f"{receipt}, {number}"


@workflow
def waiting() -> Flow[list[Any]]:
    """Two events."""
    first = yield from wait_event(approval, timeout="1d")
    second = yield from wait_event("note", str)
    moment = yield from now()
    return [first, second, moment]


@workflow
def parent(number: int) -> Flow[int]:
    """Starts children side by side with a step that takes its time."""
    one, two, _ = yield from gather(nested(number), nested(number + 1), step(charge, 5))
    return one + two


@workflow
def nested(number: int) -> Flow[int]:
    """A child that sleeps."""
    yield sleep("1h")
    return (yield from step(double, number))


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """The event loop that the kit starts."""
    return str(request.param)


def test_a_workflow_in_a_plain_test(backend: str) -> None:
    """[190][191][193] The run gives its result, its journal and its virtual duration; two weeks take no time."""
    began = time.monotonic()
    run = run_workflow(signup(5), stubs={charge: "receipt"}, backend=backend)

    assert ("receipt, 10", RunStatus.COMPLETED, None) == (run.result, run.status, run.error)
    assert ["charge", "sleep", "double"] == [entry.name for entry in run.journal]
    assert timedelta(days=14) == run.duration
    assert time.monotonic() - began < 10


def test_a_failed_run(backend: str) -> None:
    """[190][191] A run that fails has status and error and no result; its retries took virtual time."""
    run = run_workflow(signup(5), stubs={"charge": Declined("no funds")}, backend=backend)

    assert run.error is not None
    assert (RunStatus.FAILED, True, 3) == (run.status, run.error.is_caused_by(Declined), run.journal[0].attempts)
    assert timedelta(minutes=3) == run.duration
    with pytest.raises(RunFailedError, match="no funds"):
        _ = run.result


def flaky(numbers: Iterator[int], cents: int) -> str:
    """Fails at first."""
    if next(numbers) < 2:
        raise Declined
    return f"{cents} at attempt {current_step().attempt}"


async def fetched(key: str) -> str:
    """An async stub."""
    await anyio.lowlevel.checkpoint()
    return key.upper()


@pytest.mark.parametrize(
    ("stub", "expected"),
    [
        (Declined, "Declined"),
        (Declined("x"), "Declined"),
        (partial(flaky, count()), "5 at attempt 3"),
        (After("1h", "slowly"), "slowly"),
        (After("1h", After("1h", lambda cents: str(cents + 1))), "6"),
        (fetched, "AttributeError"),
    ],
)
def test_what_a_stub_may_be(stub: Any, expected: str) -> None:
    """[193] A stub is a value, a function of any kind, an exception, or one of these after a while."""

    @workflow
    def once() -> Flow[str]:
        retry = Retry(max_attempts=3, jitter=False)
        try:
            return (yield from step(charge, 5).options(retry=retry))
        except StepFailedError as error:
            return error.error_type

    assert expected == run_workflow(once(), stubs={charge: stub}).result


def test_how_a_step_is_found() -> None:
    """[193] A stub belongs to a function, a method, what a partial is of, or a name that was given to a step."""
    service = Service()

    @workflow
    def steps() -> Flow[list[Any]]:
        return [
            (yield step(service.fetch, "a")),
            (yield step(partial(charge, 5))),
            (yield step(charge, 6).options(name="second")),
        ]

    by_object = {service.fetch: fetched, charge: "first", "second": "named"}
    by_class = {Service.fetch: fetched, charge: "first", "second": "named"}

    assert [["A", "first", "named"]] * 2 == [
        run_workflow(steps(), stubs=stubs).result for stubs in (by_object, by_class)
    ]


async def chargeback(cents: int) -> str:
    """Called almost as `charge` is."""
    return f"back {cents}"


@workflow
def settling(cents: int) -> Flow[int]:
    """Charges in one case only."""
    if cents > 100:
        yield step(chargeback, cents)
    return (yield from step(double, cents))


def again(function: Any) -> Any:
    """A function of the same name in the same place."""

    @wraps(function)
    def other(*args: Any) -> Any:
        return function(*args)

    return other


@pytest.mark.parametrize(
    ("stubs", "message"),
    [
        ({"duoble": 1}, "stubs has 'duoble', which no step used, and step 'double' ran for real"),
        ({"doubles": 1}, "stubs has 'doubles', which no step used, and step 'double' ran for real"),
        ({again(double): 1}, "which no step used, and step 'double' ran for real"),
    ],
)
def test_a_stub_that_was_meant_for_a_step(stubs: Any, message: str, backend: str) -> None:
    """[193] A stub that no step used is refused, where a step of almost its name, or of a function that stands in the
    same place, ran for real."""
    with pytest.raises(ConfigError, match=message):
        run_workflow(settling(5), stubs=stubs, backend=backend)
    with pytest.raises(ConfigError, match=message):
        crash_everywhere(settling(5), stubs=stubs, backend=backend)


def test_a_stub_that_was_meant_for_a_method() -> None:
    """[193] The method of another object was meant for the one that ran."""

    @workflow
    def fetching() -> Flow[str]:
        try:
            return (yield from step(Service().fetch, "a"))
        except StepFailedError:
            return "for real"

    with pytest.raises(ConfigError, match="and step 'fetch' ran for real"):
        run_workflow(fetching(), stubs={Service().fetch: "stubbed"})


@pytest.mark.parametrize(
    "stubs",
    [
        {chargeback: "b"},
        {"chargeback": "b"},
        {"something else": 1},
        {"duoble": 1, "double": 10},
        {"duoble": 1, double: double},
    ],
)
def test_a_stub_that_is_not_reached(stubs: Any) -> None:
    """[193] A stub for a step that this run does not come to is all right, and so is a step whose own body is its
    stub."""
    assert 10 == run_workflow(settling(5), stubs=stubs).result


def test_a_misspelt_stub_leaves_a_run_waiting() -> None:
    """A misspelt stub is told rather than that the run still waits because of it."""

    @workflow
    def asking() -> Flow[None]:
        if (yield from step(double, 1)):
            yield wait_event("never")

    with pytest.raises(ConfigError, match="duoble"):
        run_workflow(asking(), stubs={"duoble": 0})


def test_no_body_runs(backend: str) -> None:
    """[193] With `real=False` no body runs: a step without a stub is named, whatever the workflow makes of that."""
    ran: list[int] = []

    @workflow
    def careless() -> Flow[str]:
        with suppress(StepFailedError):
            yield step(ran.append, 1)
        return "done"

    for check in (run_workflow, crash_everywhere):
        with pytest.raises(ConfigError, match="step 'append' has no stub, and real=False lets no body run"):
            check(careless(), real=False, backend=backend)
    assert [] == ran
    assert "done" == run_workflow(careless(), stubs={"append": None}, real=False, backend=backend).result


def test_a_stub_gives_what_the_step_could_give() -> None:
    """[190] What a stub gives goes through the annotated type: a wrong one fails as it would in production."""
    run = run_workflow(signup(5), stubs={charge: ["no", "text"]})

    assert run.error is not None
    assert "the result of step 'charge' at position 0" in run.error.message


def test_a_timeout_expires(backend: str) -> None:
    """[191] A step that takes longer than its timeout ends by it, in virtual time."""

    @workflow
    def hurried() -> Flow[str]:
        try:
            yield step(charge, 5).options(timeout="10s")
        except StepTimeoutError:
            return "too late"
        return "in time"

    late = run_workflow(hurried(), stubs={charge: After("11s", "r")}, backend=backend)
    early = run_workflow(hurried(), stubs={charge: After("9s", "r")}, backend=backend)

    assert [("too late", 10), ("in time", 9)] == [(run.result, run.duration.seconds) for run in (late, early)]


def test_a_race_is_decided_by_virtual_time(backend: str) -> None:
    """[191] The first to settle is the one that takes less virtual time, however long that is."""

    @workflow
    def raced(limit: str) -> Flow[int]:
        winner: Winner[Any] = yield from race(step(charge, 5), sleep(limit))
        return winner.index

    runs = [
        run_workflow(raced(limit), stubs={charge: After("100d", "r")}, backend=backend) for limit in ("99d", "101d")
    ]

    assert [(1, 99), (0, 100)] == [(run.result, run.duration.days) for run in runs]


def test_events_are_sent_in_their_time(backend: str) -> None:
    """[193] Events are there from the beginning or after a time, and are validated."""
    start = datetime(2026, 3, 1, tzinfo=UTC)
    run = run_workflow(
        waiting(), events=[("note", "hello", "3h"), (approval, True, "2h")], start=start, backend=backend
    )

    assert [True, "hello", start + timedelta(hours=3)] == run.result
    with pytest.raises(ValidationError):
        run_workflow(waiting(), events=[(approval, "yes")])
    with pytest.raises(ConfigError, match="write \\(event, payload\\)"):
        run_workflow(waiting(), events=["approval"])  # type: ignore[list-item]


def test_an_event_that_does_not_come() -> None:
    """[191] A wait with a timeout is over at once."""
    run = run_workflow(waiting(), events=[(approval, True, "25h")])

    assert run.error is not None
    assert (True, timedelta(days=1)) == (run.error.is_caused_by(WaitTimeoutError), run.duration)


def test_children_run(backend: str) -> None:
    """Children are found where their parent is, and run while a step of the parent takes its time."""
    run = run_workflow(parent(1), stubs={charge: After("10m", "r")}, backend=backend)

    assert (6, timedelta(hours=1)) == (run.result, run.duration)


def test_a_run_that_still_waits(backend: str) -> None:
    """[192] A run that waits when nothing more can happen is an error with run id, status and reason, and no pass."""
    with pytest.raises(TestRunIncompleteError) as caught:
        run_workflow(waiting(), events=[(approval, True)], run_id="r", backend=backend)

    assert ("r", "waiting") == (caught.value.run_id, caught.value.status)
    assert "waits without limit for event 'note'" in caught.value.waits_for
    assert f"{Path(__file__).name}:" in caught.value.waits_for


def test_a_run_that_sleeps_beyond_the_limit() -> None:
    """[192] A run that sleeps longer than the limit is not waited for."""
    with pytest.raises(TestRunIncompleteError, match="still sleeping"):
        run_workflow(signup(5), stubs={charge: "r"}, limit="13d")


def test_a_child_that_nobody_runs() -> None:
    """[192] Where the workflow of a child is not known, the error says so."""
    foreign = workflow(name="foreign")(nested.function)
    calls = {"child": foreign(1)}

    @workflow
    def lost() -> Flow[int]:
        return (yield calls["child"])

    with pytest.raises(TestRunIncompleteError, match="waits for an engine that has version 1 of 'foreign'"):
        run_workflow(lost())

    assert 2 == run_workflow(lost(), workflows=[foreign]).result


def test_code_that_would_not_do_the_same_again() -> None:
    """A body that reads randomness fails its test, although its run was never interrupted."""

    @workflow
    def random_argument() -> Flow[int]:
        return (yield from step(double, random.randrange(1_000_000)))

    @workflow
    def random_command() -> Flow[int]:
        names.append(f"step {len(names)}")
        return (yield from step(double, 1).options(name=names[-1]))

    names: list[str] = []

    with pytest.raises(NonDeterminismError, match="step 'double' with other arguments"):
        run_workflow(random_argument())
    with pytest.raises(NonDeterminismError, match="recorded step 'step 0', now step 'step 1'") as caught:
        run_workflow(random_command())

    assert "does not do the same in the same run when it is replayed" in str(caught.value)
    assert (False, "step 'step 1'") == ("version=" in str(caught.value), caught.value.yielded)


def test_other_arguments_after_a_sleep() -> None:
    """Other arguments at the same position fail the run as soon as it goes on after a sleep."""

    @workflow
    def sleeper() -> Flow[int]:
        number = yield from step(double, random.randrange(1_000_000))
        yield sleep("1d")
        return number

    with pytest.raises(NonDeterminismError, match="with other arguments"):
        run_workflow(sleeper())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stubs": {signup: 1}}, "write the function of a step, or its name"),
        ({"stubs": {5: 1}}, "write the function of a step, or its name"),
        ({"stubs": {charge: After("soon")}}, "the duration of After"),
        ({"backend": "curio"}, "write 'asyncio' or 'trio'"),
        ({"limit": "long"}, "limit"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    """What cannot be meant is a ConfigError that says what to write."""
    with pytest.raises(ConfigError, match=message):
        run_workflow(signup(5), **arguments)


def test_something_that_is_no_call() -> None:
    """A workflow that was not called is refused."""
    with pytest.raises(ConfigError, match=r"run_workflow\(signup\(user\)\)"):
        run_workflow(signup)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_inside_an_event_loop(anyio_backend: str) -> None:
    """In an async test `run_workflow` says what to write instead."""
    with pytest.raises(ConfigError, match="Sandbox"):
        run_workflow(signup(5))


# ---- Sandbox --------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_schedules_fire(anyio_backend: str) -> None:
    """[191] A week of a schedule makes seven runs, each at its time."""
    start = datetime(2026, 3, 1, tzinfo=UTC)
    async with Sandbox([nested], start=start) as sandbox:
        await sandbox.schedule(nested(1), cron="30 2 * * *")
        await sandbox.clock.sleep("7d")
        runs = (await sandbox.list_runs()).runs

    assert [start + timedelta(days=day, hours=2, minutes=30) for day in range(7)] == sorted(r.created_at for r in runs)


@pytest.mark.anyio
async def test_a_misspelt_stub_of_a_sandbox(anyio_backend: str) -> None:
    """A sandbox tells of a misspelt stub when it is left, after all runs."""
    with pytest.raises(ConfigError, match="stubs has 'duoble'"):
        async with Sandbox([settling], stubs={"duoble": 1}) as sandbox:
            await sandbox.execute(settling(5))


@pytest.mark.anyio
async def test_a_cancelled_run(anyio_backend: str) -> None:
    """A run that is cancelled in its sleep has no result, and status cancelled."""
    async with Sandbox([signup], stubs={charge: "r"}) as sandbox:
        run = await sandbox.enqueue(signup(5))
        await sandbox.clock.sleep("1d")
        await sandbox.cancel(run.run_id)
        finished = await sandbox.finished(run)

    assert (RunStatus.CANCELLED, timedelta(days=1)) == (finished.status, finished.duration)
    with pytest.raises(RunCancelledError):
        _ = finished.result


@pytest.mark.anyio
async def test_a_child_that_lost_is_cancelled(anyio_backend: str) -> None:
    """A child whose step is under way is cancelled when the race of its parent is decided, there and then."""

    @workflow
    def racing() -> Flow[int]:
        winner: Winner[Any] = yield from race(signup(5).options(run_id="child"), sleep("1h"))
        return winner.index

    async with Sandbox([racing, signup], stubs={charge: After("20d")}) as sandbox:
        began_at = sandbox.clock.time
        await sandbox.execute(racing())
        await sandbox.clock.sleep("1m")
        child = await sandbox.get_run("child")

    assert child is not None
    assert (RunStatus.CANCELLED, True) == (child.status, child.updated_at - began_at < timedelta(hours=1, seconds=1))


def test_a_real_body_takes_no_virtual_time(backend: str) -> None:
    """[191] While a real body is at work the clock stands still, so that its timeout does not expire."""

    @workflow
    def laborious() -> Flow[int]:
        return (yield from step(sum, range(3_000_000)).options(timeout="10ms"))

    run = run_workflow(laborious(), backend=backend)

    assert (4499998500000, timedelta(0)) == (run.result, run.duration)
