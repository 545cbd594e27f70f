"""`crash_everywhere`: it tries every point, and finds workflows that do not survive all of them."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from reflow import (
    Flow,
    MemoryStorage,
    TestRunIncompleteError,
    continue_as_new,
    current_step,
    gather,
    is_replaying,
    sleep,
    step,
    wait_event,
    workflow,
)
from reflow.testing import Crash, MortalStorage, crash_everywhere
from tests.support.workflows import SCENARIOS, Scenario, effects


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """The event loop that the kit starts."""
    return str(request.param)


async def add(a: int, b: int) -> int:
    """A body."""
    return a + b


@workflow
def chain(length: int) -> Flow[int]:
    """Steps in a row."""
    total = 0
    for number in range(length):
        total = yield from step(add, total, number)
    return total


def test_ten_steps_in_less_than_a_second() -> None:
    """[193] A workflow of ten steps is stopped before and after every verb: a tick for creation and claim, and one
    for each step, twice."""
    began = time.process_time()
    points = crash_everywhere(chain(10))

    assert points >= 2 * 12
    assert time.process_time() - began < 1


@pytest.mark.parametrize("scenario", [each for each in SCENARIOS if each.cancels is None], ids=str)
def test_what_survives(scenario: Scenario, backend: str) -> None:
    """[28][193] Workflows of all shapes survive a crash at every point, in virtual time."""
    points = crash_everywhere(
        scenario.call, events=scenario.events, workflows=scenario.others, before_each=effects.clear, backend=backend
    )

    assert points >= 8


@workflow
def doubled(number: int) -> Flow[int]:
    """A child."""
    yield sleep("1h")
    return (yield from step(add, number, number))


@workflow
def family(left: int) -> Flow[list[Any]]:
    """Events, children, and a second life."""
    note = yield from wait_event("note", str, timeout="1d")
    numbers = yield from gather(doubled(1), doubled(2), step(add, left, 1))
    if left:
        yield continue_as_new(family(left - 1))
    return [note, *numbers]


def test_events_children_and_generations(backend: str) -> None:
    """[193] Events are sent once whoever dies, children run once, and a run that continues as new survives too."""
    events = [("note", "first"), ("note", "second", "2h"), ("note", "third", "3d")]

    assert crash_everywhere(family(1), events=events, backend=backend) > 30


# ---- what does not survive ------------------------------------------------------------------------------------------


def test_a_result_that_depends_on_the_crash() -> None:
    """[193] A run that ends in another way after a crash is found: the point is named, and the story told."""
    bodies: list[int] = []

    async def count() -> int:
        bodies.append(1)
        return len(bodies)

    @workflow
    def counting() -> Flow[int]:
        yield step(count)
        yield sleep("1h")
        return (yield from step(count))

    with pytest.raises(AssertionError) as caught:
        crash_everywhere(counting(), before_each=bodies.clear)

    first, without, *story = str(caught.value).split("\n")
    point = re.fullmatch(r"after a crash (before verb \d+, \w+), the run is completed with 3", first)
    assert point is not None
    assert "Without a crash the run is completed with 2" == without
    assert ["    step 'count' at 0, attempt 1", f"  CRASH {point[1]}"] == [
        line for line in story if line.startswith(("    step 'count' at 0", "  CRASH"))
    ][:2]


def test_before_each_puts_things_back() -> None:
    """What bodies change is put back before each run; else they are found guilty of it."""
    keys: list[str] = []

    async def once() -> int:
        key = current_step().idempotency_key
        if key not in keys:
            keys.append(key)
        return len(keys)

    @workflow
    def idempotent() -> Flow[int]:
        return (yield from step(once))

    assert crash_everywhere(idempotent(), before_each=keys.clear) >= 6


def test_a_body_that_is_replayed_into_another_way() -> None:
    """[193] A workflow that decides by `is_replaying` does not survive."""

    @workflow
    def deciding() -> Flow[int]:
        first = yield from step(add, 1, 1)
        if is_replaying():
            return 0
        return (yield from step(add, first, 1))

    with pytest.raises(AssertionError, match=r"the run is (failed with NonDeterminismError|completed with 0)"):
        crash_everywhere(deciding())


@workflow
def failing(number: int) -> Flow[None]:
    """Fails after a step."""
    yield step(add, number, 1)
    raise ValueError("boom")


def test_a_run_that_fails_without_a_crash(backend: str) -> None:
    """[193] A run that fails without any crash is told with its error and where that was raised, and no survivor."""
    with pytest.raises(AssertionError) as caught:
        crash_everywhere(failing(1), backend=backend)

    first, *lines = str(caught.value).split("\n")
    assert "without any crash the run is failed with ValueError: boom; write fails=True if it should be" == first
    assert any(__file__ in line for line in lines)


def test_a_run_that_should_fail(backend: str) -> None:
    """[193] With `fails=True` a run is held to failing in the same way wherever it crashes, and one that completes is
    no survivor."""
    assert crash_everywhere(failing(1), fails=True, backend=backend) >= 6
    with pytest.raises(AssertionError, match="the run is completed with 1, and not failed as fails=True says"):
        crash_everywhere(chain(2), fails=True, backend=backend)


def test_a_run_that_does_not_end_at_all() -> None:
    """[192] A run that waits for ever without any crash is incomplete, and no survivor."""

    @workflow
    def stuck() -> Flow[None]:
        yield wait_event("never")

    with pytest.raises(TestRunIncompleteError, match="still waiting"):
        crash_everywhere(stuck())


@pytest.mark.anyio
@pytest.mark.parametrize("after", [False, True])
async def test_a_mortal_storage(after: bool, anyio_backend: str) -> None:
    """It carries out verbs until it dies, before or after one, and none from then on."""
    memory = MemoryStorage()
    mortal: Any = MortalStorage(memory, 2, after=after)
    assert await mortal.get_run("r") is None
    for _ in range(2):
        with pytest.raises(Crash):
            await mortal.count_runs()

    assert (True, ["get_run", "count_runs"]) == (mortal.is_dead, mortal.verbs)
