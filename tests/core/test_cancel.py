"""Cancelling a run: an entry in the journal delivers it, clean-up is durable, and the outcome is cancelled."""

import pytest

from reflow._core.groups import gather, race
from reflow._core.journal import cancel_entry
from reflow._core.replay import Replay
from reflow._core.waits import sleep
from reflow.errors import WorkflowCancelled
from tests.support.driven import CODEC, Driven, do


def careful():
    """A body that cleans up with a step."""
    try:
        yield do("work")
        return "done"
    finally:
        yield do("clean")


def is_cancelled(driven):
    """Whether the run ended as cancelled."""
    return driven.replay.outcome is not None and driven.replay.outcome.is_cancelled


def test_it_reaches_the_current_yield():
    """The open command is cancelled, the body is told at its yield, and clean-up steps are performed."""
    driven = Driven(careful()).cancel()
    seen = (driven.replay.cancelled, driven.open, driven.has_ended)

    assert ((["0"], {"1": "clean"}, False), True) == (seen, is_cancelled(driven.complete("1")))


def test_it_is_an_entry_like_any():
    """Replaying the journal with the cancel in it puts the run where it was, at every prefix."""
    live = Driven(careful()).cancel().complete("1")
    opened = []
    for length in range(3):
        with Driven(careful(), live.journal[:length]) as again:
            opened.append(again.open)

    assert [{"0": "work"}, {"1": "clean"}, {}] == opened


@pytest.mark.parametrize("group", [gather, race])
def test_it_reaches_all_members(group):
    """Every member of a group is cancelled and cleans up before the body is told."""
    told = []

    def body():
        try:
            yield group(careful(), group(careful(), do("a")), sleep(60))
        except WorkflowCancelled:
            told.append("told")
            raise

    driven = Driven(body()).cancel()
    open_, early = driven.open, list(told)
    driven.complete("0.0.1").complete("0.1.0.1")

    assert ({"0.0.1": "clean", "0.1.0.1": "clean"}, [], ["told"], True) == (open_, early, told, is_cancelled(driven))


def test_a_body_that_returns_is_cancelled_all_the_same():
    """A body that catches the cancellation and returns ends as cancelled; what it returns is dropped."""

    def body():
        try:
            yield do("a")
        except WorkflowCancelled:
            return "tidy"

    outcome = Driven(body()).cancel().replay.outcome

    assert (None, None, True) == (outcome.value, outcome.error, outcome.is_cancelled)


def test_an_error_of_clean_up_fails_the_run():
    """If clean-up raises another exception, the run failed with that."""

    def body():
        try:
            yield do("a")
        finally:
            raise ValueError("clean-up")

    outcome = Driven(body()).cancel().replay.outcome

    assert ("clean-up", False) == (str(outcome.error), outcome.is_cancelled)


def test_a_failing_clean_up_step_fails_the_run():
    """If a clean-up step fails for good, the run failed with that."""
    driven = Driven(careful()).cancel().fail("1", ValueError("no"))

    assert ("clean", False) == (driven.error.step, is_cancelled(driven))


def test_a_second_one_changes_nothing():
    """Cancelling again, while clean-up is under way or when all has ended, changes nothing."""
    driven = Driven(careful()).cancel().cancel()
    open_ = driven.open
    driven.complete("1").cancel()

    assert ({"1": "clean"}, True, ["", "", "1", ""]) == (
        open_,
        is_cancelled(driven),
        [entry.position for entry in driven.journal],
    )


def test_it_comes_too_late_for_a_body_that_has_ended():
    """A run whose body has returned, while a loser still cleans up, completes."""

    def body():
        yield race(do("a"), careful())
        return "done"

    driven = Driven(body()).complete("0.0").cancel().complete("0.1.1")

    assert ("done", False) == (driven.value, is_cancelled(driven))


def test_a_body_that_was_never_started_does_nothing():
    """Cancelled before it is started, a body does not run at all."""
    began = []

    def body():
        began.append("body")
        yield do("a")

    replay = Replay("run-1", body(), CODEC)
    replay.feed(cancel_entry(0))
    replay.start()

    assert ([], {}, True) == (began, replay.open, replay.outcome.is_cancelled)


def test_what_settles_a_group_meanwhile_does_not_hide_it():
    """A body that waits for the clean-up of a failed gather is told of the cancellation, not of the failure."""

    def body():
        try:
            yield gather(do("a"), careful())
        except BaseException as error:
            return type(error)

    driven = Driven(body()).fail("0.0", ValueError("no")).cancel().complete("0.1.1")

    assert is_cancelled(driven)


def test_a_cancellation_of_ones_own_is_an_error():
    """A body that raises WorkflowCancelled without having been cancelled has failed."""

    def body():
        yield do("a")
        raise WorkflowCancelled

    outcome = Driven(body()).complete("0").replay.outcome

    assert (WorkflowCancelled, False) == (type(outcome.error), outcome.is_cancelled)
