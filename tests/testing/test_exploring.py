"""`explore` tries every way in which a workflow can go, and finds the ways in which it should not."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from textwrap import dedent
from typing import Any

import pytest

from reflow import (
    ConfigError,
    Event,
    Flow,
    Retry,
    RunFailedError,
    RunStatus,
    SerializationError,
    StepFailedError,
    ValidationError,
    WaitTimeoutError,
    WorkflowCancelled,
    continue_as_new,
    gather,
    now,
    patched,
    race,
    sleep,
    spawn,
    step,
    wait_event,
    workflow,
)
from reflow.testing import BadStoryError, Explored, Story, explore
from tests.support.workflows import SCENARIOS, Declined, Scenario, add, decline, double, flaky


def charge(cents: int) -> str:
    """Is never called."""
    raise AssertionError("explored, not run")


def ship(goods: str) -> None:
    """Is never called."""
    raise AssertionError("explored, not run")


def refund(receipt: str) -> None:
    """Is never called."""
    raise AssertionError("explored, not run")


def fetch(name: str) -> int:
    """Is never called."""
    raise AssertionError("explored, not run")


approval = Event("approval", int)


def anything(story: Story) -> bool:
    """Holds of every story."""
    return True


def ends_of(call: Any, **options: Any) -> set[tuple[RunStatus, Any]]:
    """How a run may end: the status, and the result or the class of the error."""
    ends: set[tuple[RunStatus, Any]] = set()

    def note(story: Story) -> None:
        if story.has_ended or story.status is RunStatus.WAITING:
            ends.add((story.status, type(story.error) if story.error else story.result))

    found = explore(call, **({"invariant": note, "cancel": False, "crashes": 0, "outcomes": {}} | options))
    assert found.is_complete
    return ends


def results_of(call: Any, **options: Any) -> set[Any]:
    """What a run may return."""
    return {result for status, result in ends_of(call, **options) if status is RunStatus.COMPLETED}


def first_bad(call: Any, invariant: Callable[[Story], bool | None], **options: Any) -> BadStoryError:
    """The story that is found."""
    with pytest.raises(BadStoryError) as caught:
        explore(call, invariant=invariant, **options)
    return caught.value


# ---- what is found ---------------------------------------------------------------------------------------------------


@workflow
def order(goods: str) -> Flow[str]:
    """Forgets the money where nobody ships."""
    receipt = yield from step(charge, 500).options(raises=Declined)
    try:
        yield from step(ship, goods)
    except StepFailedError:
        return "not shipped"
    yield from sleep("14d")
    return receipt


OUTCOMES = {charge: ["receipt", Declined("no funds")], ship: [None, ConnectionError("no carrier")], refund: [None]}


def paid_for_what_was_shipped(story: Story) -> bool:
    """What was charged is shipped or refunded."""
    paid = {body.position for body in story.of(charge) if body.error is None}
    return not story.has_ended or len(paid) - story.count(refund) == min(story.count(ship), 1)


def test_a_bad_story_is_told():
    """The story that is found is a shortest one, and reads as a trace."""
    error = first_bad(order("book"), paid_for_what_was_shipped, outcomes=OUTCOMES, cancel=False, crashes=0)

    expected = """\
        paid_for_what_was_shipped does not hold
        order(goods='book')
          1. charge(500) gives 'receipt'
          2. ship('book') raises ConnectionError('no carrier')
             The run completes with 'not shipped'.
        (the shortest of its kind, found after 5 states)"""
    assert dedent(expected) == str(error)


def test_a_bad_story_is_a_value():
    """What was found can be looked at: status, result, and the bodies that ran with what came of them."""
    story = first_bad(order("book"), paid_for_what_was_shipped, outcomes=OUTCOMES, cancel=False, crashes=0).story

    bodies = [(body.name, body.args, body.value, repr(body.error), body.attempt, body.is_lost) for body in story.bodies]
    assert (RunStatus.COMPLETED, "not shipped") == (story.status, story.result)
    assert [
        ("charge", (500,), "receipt", "None", 1, False),
        ("ship", ("book",), None, "ConnectionError('no carrier')", 1, False),
    ] == bodies


def test_what_an_invariant_says_is_told():
    """The message of an invariant's AssertionError stands in the error."""

    def silent(story: Story) -> None:
        if story.bodies:
            raise AssertionError("something ran")

    error = first_bad(order("book"), silent, outcomes=OUTCOMES)

    assert "silent does not hold: something ran" == error.reason


def test_the_same_story_each_time():
    """Nothing is random: the same story is found after the same number of states."""
    first, second = (str(first_bad(order("x"), paid_for_what_was_shipped, outcomes=OUTCOMES)) for _ in range(2))

    assert first == second


@workflow
def careful_order(goods: str) -> Flow[str]:
    """Gives the money back, whatever comes, and whenever."""
    receipt = yield from step(charge, 500).options(raises=Declined)
    try:
        yield from step(ship, goods)
    except BaseException:
        try:
            yield from step(refund, receipt)
        except WorkflowCancelled:
            yield from step(refund, receipt)
        raise
    return receipt


def test_a_right_workflow_is_explored_to_the_end():
    """A workflow in which the invariant holds in all states is explored completely."""

    def paid_or_shipped(story: Story) -> bool:
        recorded = [body.function for body in story.bodies if body.error is None and not body.is_lost]
        paid = recorded.count(charge) - recorded.count(refund)
        return not story.has_ended or paid == recorded.count(ship)

    found = explore(careful_order("book"), outcomes=OUTCOMES, invariant=paid_or_shipped)

    assert Explored(101, True, {RunStatus.FAILED: 23, RunStatus.CANCELLED: 27, RunStatus.COMPLETED: 5}) == found


def test_it_stops_after_so_many_states():
    """After `most` states it stops, and says that there are more."""
    found = explore(careful_order("book"), outcomes=OUTCOMES, invariant=anything, most=7)

    assert (7, False) == (found.states, found.is_complete)


# ---- orders ----------------------------------------------------------------------------------------------------------


@workflow
def gathered() -> Flow[list[str]]:
    """Notes the order in which its members go on."""
    seen: list[str] = []

    def member(name: str) -> Flow[None]:
        yield from step(fetch, name)
        seen.append(name)

    yield from gather(*(member(name) for name in "abc"))
    return seen


def test_every_order_of_completion():
    """Commands side by side end in every order."""
    orders: set[str] = set()

    def note(story: Story) -> None:
        if story.has_ended:
            orders.add("".join(story.result))

    explore(gathered(), outcomes={fetch: [1]}, invariant=note, cancel=False, crashes=0)

    assert {"abc", "acb", "bac", "bca", "cab", "cba"} == orders


@workflow
def timed(first: str, second: str) -> Flow[int]:
    """Two sleeps; the winner."""
    winner = yield from race(sleep(first), sleep(second))
    return winner.index


def test_the_shorter_sleep_is_over_first():
    """Of two sleeps that began together the shorter one is over first; of two equal ones either."""
    found = [results_of(timed(*pair)) for pair in (("1s", "2s"), ("2s", "1s"), ("1s", "1s"))]

    assert [{0}, {1}, {0, 1}] == found


@workflow
def late() -> Flow[int]:
    """A sleep behind a step, against a longer one."""

    def behind() -> Flow[None]:
        yield from step(fetch, "a")
        yield sleep("5s")

    winner = yield from race(behind(), sleep("10s"))
    return winner.index


def test_a_step_takes_as_long_as_it_likes():
    """A step ends at once or late, so what comes after it may be before or after a timer."""
    assert {0, 1} == results_of(late(), outcomes={fetch: [1]})


@workflow
def raced() -> Flow[int]:
    """The loser of a race may have had its effect."""
    winner = yield from race(step(charge, 1), step(fetch, "a"))
    return winner.index


def test_a_loser_may_have_run():
    """There is a story in which a body ran and lost the race, and nobody heard of it."""

    def never_charged_for_nothing(story: Story) -> bool:
        return not (story.has_ended and story.result == 1 and story.count(charge))

    error = first_bad(
        raced(), never_charged_for_nothing, outcomes={charge: ["receipt"], fetch: [1]}, cancel=False, crashes=0
    )

    assert ("charge(1) gives 'receipt', and before that is recorded:", "fetch('a') gives 1") == error.story.moves


# ---- crashes and cancellation ----------------------------------------------------------------------------------------


def test_a_crash_repeats_a_body():
    """A process may die after the effect and before the commit: the body runs again, as often as `crashes` says."""

    def at_most(times: int) -> Callable[[Story], bool]:
        return lambda story: story.count(charge) <= times

    outcomes = {charge: ["receipt"], ship: [None]}
    error = first_bad(order("book"), at_most(1), outcomes=outcomes)

    assert ("charge(500) gives 'receipt', and the process dies before that is recorded",) == error.story.moves[:1]
    assert [True, False] == [body.is_lost for body in error.story.of(charge)]
    assert explore(order("book"), outcomes=outcomes, invariant=at_most(1), crashes=0).is_complete
    assert explore(order("book"), outcomes=outcomes, invariant=at_most(2)).is_complete


@workflow
def cleaning() -> Flow[None]:
    """Undoes what it did, but begins to look after it only later."""
    receipt = yield from step(charge, 1)
    yield from sleep("1s")
    try:
        yield from step(ship, "book")
    except BaseException:
        yield from step(refund, receipt)
        raise


def test_a_cancellation_comes_at_any_moment():
    """The run is cancelled at each yield; what that leaves behind is found, the shortest way first."""

    def refunded(story: Story) -> bool:
        return story.status is not RunStatus.CANCELLED or story.count(charge) == story.count(refund)

    outcomes = {charge: ["receipt"], ship: [None], refund: [None]}
    error = first_bad(cleaning(), refunded, outcomes=outcomes, crashes=0)

    assert "the run is cancelled" == error.story.moves[-1]
    assert {(RunStatus.COMPLETED, None)} == ends_of(cleaning(), outcomes=outcomes)


# ---- every kind of command -------------------------------------------------------------------------------------------


@workflow
def approved() -> Flow[int]:
    """Waits for an answer, for a while."""
    try:
        return (yield from wait_event(approval, timeout="1h"))
    except WaitTimeoutError:
        return -1
    except ValidationError:
        return -2


def test_events_arrive_or_do_not():
    """A wait is given each payload that is foreseen, of whatever type, or is over in time."""
    assert {5, 7, -1, -2} == results_of(approved(), events={approval: [5, 7, "no number"]})
    assert {5, -1} == results_of(approved(), events={"approval": [5]})


@workflow
def patient() -> Flow[Any]:
    """Waits without a limit."""
    return (yield from wait_event("go"))


def test_a_run_that_waits_for_ever_is_an_end():
    """A run that nothing lets go on is told as waiting."""
    found = explore(patient(), outcomes={}, invariant=anything, cancel=False)

    assert Explored(1, True, {RunStatus.WAITING: 1}) == found


@workflow
def parent() -> Flow[str]:
    """A child, a run of its own, the time, and a change of the code."""
    began = yield from now()
    assert isinstance(began, datetime)
    spawned = yield from spawn(patient())
    if not (yield from patched("louder")):
        return "never"
    try:
        return f"{spawned} {(yield from patient())}"
    except RunFailedError as error:
        return str(error.failure.message)


def test_children_and_other_runs():
    """A child ends with each of its outcomes; a spawned run is one that was started, and its id is the derived one."""
    seen: set[tuple[str, Any]] = set()

    def note(story: Story) -> None:
        seen.update((body.position, body.value) for body in story.of(patient))

    assert {"run:1 4", "broken"} == results_of(parent(), outcomes={patient: [4, ValueError("broken")]})
    explore(parent(), outcomes={patient: [4]}, invariant=note)
    assert {("1", "run:1"), ("2", 4)} == seen


@workflow
def counting(number: int) -> Flow[int]:
    """Goes on as new."""
    yield from step(fetch, "a")
    if number < 2:
        yield from continue_as_new(counting(number + 1))
    return number


def test_it_goes_on_as_new():
    """A run that continues as new is explored further, with an empty journal."""

    def once_each(story: Story) -> bool:
        return len(story.bodies) == len({(body.generation, body.position) for body in story.bodies})

    found = explore(counting(0), outcomes={fetch: [1]}, invariant=once_each, cancel=False, crashes=0)

    assert {2} == results_of(counting(0), outcomes={fetch: [1]})
    assert Explored(4, True, {RunStatus.COMPLETED: 1}) == found


@workflow
def persistent() -> Flow[str]:
    """Tries three times."""
    return (yield from step(charge, 1).options(retry=Retry(max_attempts=3, initial_delay="1s"), raises=Declined))


def test_retries_are_attempts():
    """What is tried again has as many attempts as its policy allows, each with every outcome."""
    counts: set[tuple[RunStatus, int]] = set()

    def note(story: Story) -> None:
        if story.has_ended:
            counts.add((story.status, len(story.bodies)))

    explore(persistent(), outcomes={charge: ["r", Declined]}, invariant=note, cancel=False, crashes=0)

    completed, failed = RunStatus.COMPLETED, RunStatus.FAILED
    assert {(completed, 1), (completed, 2), (completed, 3), (failed, 3)} == counts


# ---- what is wrong with the body -------------------------------------------------------------------------------------


@workflow
def drawn() -> Flow[int]:
    """Draws where it must not."""
    return (yield from step(fetch, str(random.random())))


def test_a_body_that_depends_on_chance_is_found():
    """A body that yields something else when it is replayed is a bad story, whatever the invariant says."""
    error = first_bad(drawn(), anything, outcomes={fetch: [1]})

    assert "depends on what is not in its journal" in error.reason


@workflow
def forgetful() -> Flow[int]:
    """Yields what is no command."""
    yield from step(fetch, "a")
    yield [step(fetch, "b")]  # type: ignore[misc]
    return 1


def test_a_body_that_misuses_commands_is_found():
    """A body that yields what it cannot is a bad story, with the sentence that says what to write."""
    error = first_bad(forgetful(), anything, outcomes={fetch: [1]})

    assert "write `yield gather(*commands)`" in error.reason
    assert ("fetch('a') gives 1",) == error.story.moves


@workflow
def wasteful() -> Flow[int]:
    """Does what it must not at once."""
    yield None  # type: ignore[misc]
    return 1


def test_a_body_that_begins_with_misuse_is_found():
    """The first yield is looked at as well."""
    error = first_bad(wasteful(), anything, outcomes={})

    assert "yielded" in error.reason
    assert ((), 1) == (error.story.moves, error.states)


def test_what_may_come_has_to_be_said():
    """A step of which nothing is foreseen is a ConfigError; a value that is not of its type, a SerializationError."""
    with pytest.raises(ConfigError, match="charge"):
        explore(order("book"), outcomes={}, invariant=anything)
    with pytest.raises(SerializationError, match="outcome 5 of step 'charge'"):
        explore(order("book"), outcomes={charge: [5]}, invariant=anything)


# ---- the corpus ------------------------------------------------------------------------------------------------------


# Of those that need nobody else. In `raced`, a sleep of a year may win, and then the body fails.
ALONE = [each for each in SCENARIOS if not (each.others or each.events or each.cancels or each.name == "raced")]


@pytest.mark.parametrize("scenario", ALONE, ids=str)
def test_the_corpus_ends_in_one_way(scenario: Scenario):
    """Whatever the order and wherever it crashes, a run that is not cancelled ends with the one result that its bodies
    lead to, and no finished body runs again."""
    outcomes = {add: [1], double: [2], flaky: [3], decline: [Declined("no funds", 3)]}
    results: set[str] = set()

    def holds(story: Story) -> None:
        if story.has_ended:
            results.add(repr(story.result))
        recorded = [body.position for body in story.bodies if not body.is_lost]
        assert len(recorded) == len(set(recorded))

    found = explore(scenario.call, outcomes=outcomes, invariant=holds, cancel=False)

    assert 1 == len(results)
    assert found.is_complete
