"""continue_as_new: the body ends, its clean-up runs, and the outcome says how the run goes on."""

import pytest

from reflow._core.command import Flow
from reflow._core.definition import workflow
from reflow._core.groups import gather, race
from reflow._core.runs import continue_as_new
from reflow.errors import ConfigError, MisuseError, WorkflowCancelled
from tests.support.driven import Driven, do, line_of


@workflow
def page(number: int) -> Flow[int]:
    """One page after the other."""
    yield do("fetch")
    yield continue_as_new(page(number + 1))
    return 0


def outcome(driven):
    """How a run ended: value, error, whether it is cancelled, and what it goes on as."""
    ended = driven.replay.outcome
    return ended.value, ended.error, ended.is_cancelled, ended.continued


def test_it_ends_the_body():
    """The body ends at the yield, and the outcome has the call; the same on replay."""
    live = Driven(page.function(1)).complete("0")

    assert [(None, None, False, page(2))] * 2 == [
        outcome(live),
        outcome(Driven(page.function(1), live.journal)),
    ]


def test_helpers_of_the_body_can_yield_it():
    """A helper under `yield from` belongs to the body."""

    def helper():
        yield from continue_as_new(page(5))

    def body():
        yield from helper()

    assert page(5) == Driven(body()).replay.outcome.continued


def test_clean_up_runs_first():
    """finally blocks run, their steps durably, before the run goes on."""

    def body():
        try:
            yield continue_as_new(page(2))
        finally:
            yield do("clean")

    driven = Driven(body())
    before = driven.open

    assert ({"1": "clean"}, (None, None, False, page(2))) == (before, outcome(driven.complete("1")))


def test_an_error_of_clean_up_wins():
    """A run whose clean-up fails is not continued: it failed."""

    def body():
        try:
            yield continue_as_new(page(2))
        finally:
            yield do("clean")

    driven = Driven(body()).fail("1", ValueError("no"))

    assert ("clean", None) == (driven.error.step, driven.replay.outcome.continued)


def test_an_except_exception_does_not_swallow_it():
    """It is no Exception, so a broad `except Exception` lets it pass."""

    def body():
        try:
            yield continue_as_new(page(2))
        except Exception:
            return "swallowed"

    assert page(2) == Driven(body()).replay.outcome.continued


def test_a_body_that_goes_on_is_told():
    """A body that catches it all the same and returns is misused."""

    def body():
        try:
            yield continue_as_new(page(2))
        except BaseException:
            yield do("a")
        return 1  # here

    with pytest.raises(MisuseError) as caught:
        Driven(body()).complete("1")

    assert (line_of(body), True) == (caught.value.location, "goes on after continue_as_new" in caught.value.problem)


def branch():
    """A branch that would go on as something new."""
    yield continue_as_new(page(2))  # here


def test_a_branch_cannot():
    """In a branch it is refused, with the line there."""

    def body():
        yield gather(do("a"), branch())

    with pytest.raises(MisuseError) as caught:
        Driven(body())

    assert line_of(branch) == caught.value.location


@pytest.mark.parametrize("group", [gather, race])
def test_a_group_cannot(group):
    """As a member of a group it is refused, with the line of the group."""

    def body():
        yield group(continue_as_new(page(2)))  # here

    with pytest.raises(MisuseError) as caught:
        Driven(body())

    assert line_of(body) == caught.value.location


def test_losers_clean_up_before_the_run_goes_on():
    """The run is not continued before what lingers has settled."""

    def loser():
        try:
            yield do("slow")
        finally:
            yield do("clean")

    def body():
        yield race(do("a"), loser())
        yield continue_as_new(page(2))

    driven = Driven(body()).complete("0.0")
    before = driven.has_ended

    assert (False, page(2)) == (before, driven.complete("0.1.1").replay.outcome.continued)


def test_a_cancelled_run_is_not_continued():
    """A run that was cancelled ends cancelled, even if its clean-up would go on as something new."""

    def body():
        try:
            yield do("a")
        except WorkflowCancelled:
            yield continue_as_new(page(2))

    assert (None, None, True, None) == outcome(Driven(body()).cancel())


def test_a_run_that_is_cancelled_while_it_goes_on_ends_cancelled():
    """A cancel that comes while clean-up before the continuation is under way wins, even where it is swallowed."""

    def body(swallowing):
        try:
            yield continue_as_new(page(2))
        finally:
            try:
                yield do("clean")
            except WorkflowCancelled:
                if not swallowing:
                    raise

    assert [(None, None, True, None)] * 2 == [
        outcome(Driven(body(swallowing)).cancel()) for swallowing in (True, False)
    ]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: continue_as_new(page), "continue_as_new got <workflow 'page' version 1>; call a workflow"),
        (lambda: continue_as_new(page(1).options(run_id="own")), "continue_as_new keeps the id of the run"),
    ],
)
def test_wrong_continuations_are_refused_where_they_are_written(make, problem):
    """What is no call, and a call with an id of its own, is a ConfigError."""
    with pytest.raises(ConfigError) as caught:
        make()

    assert str(caught.value).startswith(problem)
