"""patched: one decision for each run and change, that moves no position and agrees with every replay."""

import pytest

from reflow._core.groups import gather
from reflow._core.journal import Journal, Timer, patch_entry
from reflow._core.replay import Replay
from reflow._core.values import patched
from reflow._core.waits import sleep
from reflow.errors import ConfigError, MisuseError, WorkflowCancelled
from tests.support.driven import CODEC, Driven, do, entry_of


def old():
    """The code as it was."""
    yield do("a")
    yield do("b")
    return "old"


def new():
    """The code as it is: another step between the two, for runs that have not passed the place."""
    yield do("a")
    if (yield patched("ask")):
        yield do("ask")
    yield do("b")
    return "new"


def marks(driven):
    """The changes that the journal says the run takes part in, in order."""
    return [entry.name for entry in driven.journal if entry.kind == "patched"]


def timer(position, kind="sleep"):
    """What is stored of an open command."""
    return Timer(position, kind, kind, 0, 0, 0)


def test_a_new_run_takes_the_new_way():
    """A run that comes to the place with the new code goes the new way, and has a mark right behind what led there."""
    live = Driven(new()).complete("0")
    open_ = live.open
    live.complete("1").complete("2")

    assert ({"1": "ask"}, ["0", "~ask", "1", "2"]) == (open_, [entry.position for entry in live.journal])
    assert [True, False] == [live.has_ended, live.journal[1].failed]


def test_a_run_that_was_past_it_keeps_the_old_way():
    """A run with an outcome from behind the place goes the old way: no position moves, and nothing is recorded."""
    stored = Driven(old()).complete("0").complete("1").journal
    run = Driven(new(), stored)

    assert ("new", []) == (run.value, marks(run))


def test_a_run_that_was_just_before_it_takes_the_new_way():
    """A run whose last outcome is the one before the place has nothing behind it yet."""
    run = Driven(new(), Driven(old()).complete("0").journal)

    assert ({"1": "ask"}, ["ask"]) == (run.open, marks(run))


def test_a_timer_behind_the_place_shows_that_a_run_was_past_it():
    """A run that sleeps or retries behind the place, without an outcome from there, goes the old way."""

    def body():
        yield do("a")
        if (yield patched("ask")):
            yield do("ask")
        yield sleep(60)

    stored = [entry_of("0", "a")]
    past, before = Driven(body(), stored, timers=[timer("1")]), Driven(body(), stored)

    assert [({"1": "sleep"}, []), ({"1": "ask"}, ["ask"])] == [(run.open, marks(run)) for run in (past, before)]


def test_a_timer_beside_the_place_shows_nothing():
    """A timer of a command that is open already says nothing of what comes later in another branch."""

    def branch():
        yield do("a")
        if (yield patched("ask")):
            yield do("ask")

    def body():
        yield gather(sleep(60), branch())

    run = Driven(body(), [entry_of("0.1.0", "a")], timers=[timer("0.0")])

    assert ({"0.0": "sleep", "0.1.1": "ask"}, ["ask"]) == (run.open, marks(run))


def test_the_answer_stays():
    """Each change is decided once: in a loop that began with the old code, every round goes the old way."""

    def body():
        ways = []
        for _ in range(3):
            yield do("a")
            ways.append((yield patched("ask")))
        return ways

    stored = [entry_of("0", "a"), entry_of("1", "a")]
    fresh = Driven(body()).complete("0").complete("1").complete("2")

    assert [[False] * 3, [True] * 3] == [Driven(body(), stored).complete("2").value, fresh.value]
    assert ["ask"] == marks(fresh)


def test_several_changes_in_branches_are_decided_one_by_one():
    """Several questions that one outcome leads to are all answered yes, whichever marks were stored before a crash."""

    def branch(change):
        if (yield patched(change)):
            yield do("new")
        yield do("old")

    def body():
        yield do("a")
        yield gather(branch("one"), branch("two"), patched("three"))

    live = Driven(body()).complete("0")
    again = [Driven(body(), live.journal[:length]) for length in range(1, 5)]

    assert ["one", "two", "three"] == marks(live)
    assert [{"1.0.0": "new", "1.1.0": "new"}] * 5 == [run.open for run in (live, *again)]
    assert [{"one", "two", "three"}] * 4 == [set(marks(run)) for run in again]


def test_a_question_in_a_cancelled_branch_is_answered_before():
    """A sibling that fails does not come between question and answer: it finds the branch at the next command."""

    def branch():
        yield patched("ask")
        try:
            yield do("work")
        except WorkflowCancelled:
            yield do("clean")
            raise

    def body():
        yield gather(do("a"), branch())

    live = Driven(body()).fail("0.0", ValueError("no"))
    again = Driven(body(), live.journal)

    assert [{"0.1.1": "clean"}] * 2 == [live.open, again.open]
    for run in (live, again):
        run.complete("0.1.1")


def test_the_question_may_be_taken_out():
    """When the old way is gone, code without the question replays the journals of runs with the mark."""

    def after():
        yield do("a")
        yield do("ask")
        yield do("b")

    live = Driven(new()).complete("0").complete("1")

    assert {"2": "b"} == Driven(after(), live.journal).open


def test_a_question_before_the_first_command():
    """A new run is asked before its first command; a run that has left anything behind was past it."""

    def body():
        if (yield patched("ask")):
            yield do("ask")
        yield sleep(60)

    runs = [Driven(body()), Driven(body(), timers=[timer("0")]), Driven(body(), [patch_entry("ask", 0)])]

    assert [{"0": "ask"}, {"0": "sleep"}, {"0": "ask"}] == [run.open for run in runs]
    assert [["ask"], [], ["ask"]] == [marks(run) for run in runs]


def test_stored_timers_say_nothing_of_what_comes_later():
    """Once the body is where it was, everything is new, whatever was stored of it."""

    def body():
        yield sleep(60)
        return (yield patched("ask"))

    run = Driven(body(), timers=[timer("0")]).complete("0")

    assert (True, ["ask"]) == (run.value, marks(run))


def test_marks_are_for_the_caller_to_record():
    """The replay collects the changes that a run has come to take part in, until the caller empties the list."""
    replay = Replay("run-1", new(), CODEC, Journal([entry_of("0", "a")], []))
    replay.start()
    replay.catch_up()

    assert ["ask"] == replay.marks
    replay.close()


@pytest.mark.parametrize("change", ["", " ", None, 5, "a\0"])
def test_what_is_no_change_is_refused(change):
    """A change is a text that is not empty."""
    with pytest.raises(ConfigError, match=r"the change is .*; write a text that is not empty"):
        patched(change)


def test_a_question_on_a_line_of_its_own_is_reported():
    """A question that is made and dropped is reported like any command."""

    def body():
        patched("ask")
        yield do("a")

    with pytest.raises(MisuseError, match="'ask' was made and never yielded"):
        Driven(body())
