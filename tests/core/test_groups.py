"""gather, race and branches: what is open when, what comes back, who is cancelled, what lingers."""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from uuid import UUID

import pytest

from reflow._core.command import Flow
from reflow._core.derived import uuid_at
from reflow._core.groups import Winner, gather, race
from reflow._core.journal import Timer
from reflow._core.values import new_uuid, now
from reflow._core.waits import sleep
from reflow.errors import StepFailedError, WorkflowCancelled
from tests.support.driven import Driven, do

BOOM = ValueError("boom")


def returning(make):
    """A body that yields what `make` makes and returns what that gives."""

    def body():
        return (yield make())

    return body


def catching(make):
    """A body that yields what `make` makes, and on a failure tells which step failed and yields one more."""

    def body():
        try:
            return (yield make())
        except StepFailedError as error:
            yield do("caught")
            return error.step

    return body


def branch(*names) -> Flow[str]:
    """A branch of steps, one after the other, that gives their values joined."""
    values = []
    for name in names:
        values.append((yield do(name)))
    return "+".join(values)


def cleaning(name, *clean_up) -> Flow[str]:
    """A branch of one step that cleans up with others."""
    try:
        return (yield do(name))
    finally:
        for each in clean_up:
            yield do(each)


# ---- gather ----------------------------------------------------------------------------------------------------------


def test_gather_opens_all_members():
    """[48][60] With no limit all members are open before any of them has an outcome."""
    driven = Driven(returning(lambda: gather(do("a"), sleep(1), now(), branch("b", "c"), gather(do("d"))))())

    assert {"0.0": "a", "0.1": "sleep", "0.2": "now", "0.3.0": "b", "0.4.0": "d"} == driven.open


@pytest.mark.parametrize("order", ["012", "021", "102", "120", "201", "210"])
def test_gather_gives_values_in_argument_order(order):
    """[49] The result is a tuple in argument order, whatever the order of completion, live and on replay alike."""
    body = returning(lambda: gather(do("a"), do("b"), do("c")))
    live = Driven(body())
    for member in order:
        live.complete(f"0.{member}", member)

    assert [("0", "1", "2")] * 2 == [live.value, Driven(body(), live.journal).value]


def test_gather_of_nothing():
    """[50] gather() gives () at once; gather(x) a tuple of one."""

    def body():
        return (yield gather()), (yield gather(do("a"))), (yield gather(gather(), gather(gather())))

    assert ((), ("x",), ((), ((),))) == Driven(body()).complete("1.0", "x").value


def test_members_that_need_no_entry():
    """Members that replay answers itself settle at once, and the gather with them."""
    body = returning(lambda: gather(new_uuid(), gather(), gather(new_uuid())))

    assert (uuid_at("run-1", "0.0"), (), (uuid_at("run-1", "0.2.0"),)) == Driven(body()).value


def test_a_gather_is_done_when_its_last_member_is():
    """[48] Nothing goes on before every member has settled."""
    driven = Driven(returning(lambda: gather(do("a"), do("b")))())
    driven.complete("0.1", 1)

    assert (False, {"0.0": "a"}) == (driven.has_ended, driven.open)


def test_members_are_computed_at_run_time():
    """[51] The number of members can come from a recorded value."""

    def body():
        count = yield do("count")
        return (yield gather(*(do(f"item {number}") for number in range(count))))

    driven = Driven(body()).complete("0", 3)

    assert {"1.0": "item 0", "1.1": "item 1", "1.2": "item 2"} == driven.open


def test_limit_bounds_how_many_are_under_way():
    """[51] At most `limit` members are under way; the next one starts when one settles, in argument order."""
    driven = Driven(returning(lambda: gather(*(do(name) for name in "abcde"), limit=2))())
    seen = [list(driven.open)]
    for position in ("0.1", "0.0", "0.3", "0.2", "0.4"):
        driven.complete(position, position)
        seen.append(list(driven.open))

    assert [["0.0", "0.1"], ["0.0", "0.2"], ["0.2", "0.3"], ["0.2", "0.4"], ["0.4"], []] == seen
    assert ("0.0", "0.1", "0.2", "0.3", "0.4") == driven.value


def test_a_limit_counts_whole_branches():
    """[51] A branch is one member from its first command to its return."""
    driven = Driven(returning(lambda: gather(branch("a", "b"), branch("c", "d"), limit=1))())
    seen = [list(driven.open.values())]
    for position in ("0.0.0", "0.0.1", "0.1.0"):
        driven.complete(position, "")
        seen.append(list(driven.open.values()))

    assert [["a"], ["b"], ["c"], ["d"]] == seen


def test_members_that_settle_at_once_pass_through_a_limit():
    """Members that need no entry take no lasting place under a limit."""
    body = returning(lambda: gather(*(new_uuid() for _ in range(1_000)), do("a"), gather(), limit=1))
    driven = Driven(body())

    assert {"0.1000": "a"} == driven.open
    assert 1_002 == len(driven.complete("0.1000").value)


@pytest.mark.parametrize("limit", [1, 2, 3, None])
@pytest.mark.parametrize("order", ["012", "201", "210"])
def test_a_limit_that_changed_since(limit, order):
    """Another limit in the code of today breaks no run: what the journal says was started, was."""
    live = Driven(returning(lambda: gather(branch("a"), gather(do("b")), do("c")))())
    for member in order:
        live.complete({"0": "0.0.0", "1": "0.1.0", "2": "0.2"}[member], member)
    today = returning(lambda: gather(branch("a"), gather(do("b")), do("c"), limit=limit))

    assert [live.value] * 4 == [
        finished(Driven(today(), live.journal[:length]), live.journal[length:]).value for length in range(4)
    ]


def finished(driven, entries):
    """`driven` with the remaining entries, each as soon as it can be fed."""
    waiting = list(entries)
    while waiting:
        entry = next(entry for entry in waiting if entry.position in driven.open)
        waiting.remove(entry)
        driven.feed(entry)
    return driven


def test_a_smaller_limit_holds_for_what_is_left():
    """Members started under a larger limit count: no new one starts before fewer than today's limit are under way."""
    live = Driven(returning(lambda: gather(*(do(name) for name in "abcd")))()).complete("0.2", "c")
    driven = Driven(returning(lambda: gather(*(do(name) for name in "abcd"), limit=1))(), live.journal)
    seen = [list(driven.open.values())]
    for position in ("0.0", "0.1"):
        driven.complete(position, "")
        seen.append(list(driven.open.values()))

    assert [["a"], ["b"], ["d"]] == seen


def test_a_timer_of_a_member_that_a_smaller_limit_holds_back():
    """A stored timer says that its member was started, so it is."""
    driven = Driven(returning(lambda: gather(do("a"), branch("b"), limit=1))())
    driven.replay.check(Timer("0.1.0", "step", "b", due_at=5, attempts=1, started_at=0))

    assert {"0.0": "a", "0.1.0": "b"} == driven.open


def test_a_failure_cancels_the_siblings():
    """[56] The first failing member cancels the others, and the gather raises."""
    driven = Driven(catching(lambda: gather(do("a"), do("b"), branch("c")))())
    driven.replay.opened.clear()
    driven.fail("0.1", BOOM)

    assert ({"1": "caught"}, ["0.0", "0.2.0"]) == (driven.open, driven.replay.cancelled)
    assert "b" == driven.complete("1").value


def test_a_failure_is_raised_once_all_have_settled():
    """[56] The gather raises after the clean-up of the cancelled members, and not before."""
    driven = Driven(catching(lambda: gather(do("a"), cleaning("b", "clean 1", "clean 2")))()).fail("0.0", BOOM)
    seen = [driven.open]
    for position in ("0.1.1", "0.1.2"):
        driven.complete(position)
        seen.append(driven.open)

    assert [{"0.1.1": "clean 1"}, {"0.1.2": "clean 2"}, {"1": "caught"}] == seen


def test_the_failure_reported_is_the_one_that_caused_it():
    """[57] A failure in the clean-up of a cancelled member does not hide the one that cancelled it."""
    driven = Driven(catching(lambda: gather(cleaning("a", "clean"), do("b")))())
    driven.fail("0.1", BOOM).fail("0.0.1", KeyError("later")).complete("1")

    assert "b" == driven.value


@pytest.mark.parametrize("order", ["01", "10"])
def test_of_several_failures_the_first_recorded_is_reported(order):
    """[57] Which failure is reported is decided by recorded order, so it is the same on replay."""
    body = catching(lambda: gather(do("a"), do("b")))
    live = Driven(body()).fail(f"0.{order[0]}", BOOM).complete("1")
    again = Driven(body(), live.journal)

    assert ["ab"[int(order[0])]] * 2 == [live.value, again.value]


def test_a_failure_stops_members_that_have_not_started():
    """Members that a limit held back are not started after a failure."""
    driven = Driven(catching(lambda: gather(*(do(name) for name in "abcd"), limit=2))()).fail("0.0", BOOM)

    assert ({"1": "caught"}, ["0.1"]) == (driven.open, driven.replay.cancelled)


def test_a_failure_stops_a_member_that_is_about_to_start():
    """A member whose turn under a limit came in the moment in which a sibling failed is not opened."""

    def raising():
        raise KeyError("k")
        yield

    driven = Driven(returning(lambda: gather(new_uuid(), raising(), do("a"), limit=2))())

    assert (KeyError, []) == (type(driven.error), driven.replay.opened)


def test_a_failure_in_a_branch_can_be_caught_in_the_branch():
    """A branch that catches its own failure is a member that succeeds."""

    def careful():
        try:
            yield do("a")
        except StepFailedError:
            return (yield do("instead"))

    driven = Driven(returning(lambda: gather(careful(), do("b")))()).fail("0.0.0", BOOM)

    assert (1, 2) == driven.complete("0.0.1", 1).complete("0.1", 2).value


def test_a_branch_that_raises_at_once():
    """A branch that raises before its first command fails the gather; siblings are cancelled or not even opened."""

    def raising():
        raise KeyError("k")
        yield

    driven = Driven(returning(lambda: gather(do("a"), raising(), do("b"), branch("c")))())

    assert (KeyError, {}) == (type(driven.error), driven.open)


def test_return_exceptions_gives_failures_in_their_places():
    """[59] With return_exceptions=True all members settle and failures are returned in their places."""
    driven = Driven(returning(lambda: gather(do("a"), branch("b"), do("c"), return_exceptions=True))())
    a, b, c = driven.fail("0.0", BOOM).fail("0.1.0", KeyError("k")).complete("0.2", 5).value

    assert [("a", "boom"), ("b", "'k'"), 5] == [(a.step, a.error_message), (b.step, b.error_message), c]


@pytest.mark.parametrize("error", [WorkflowCancelled, SystemExit])
def test_return_exceptions_returns_exceptions_only(error):
    """A branch that raises what is no Exception ends the gather with it, return_exceptions=True or not."""

    def raising():
        raise error
        yield

    driven = Driven(returning(lambda: gather(raising(), do("a"), return_exceptions=True))())

    assert (error, ["0.1"]) == (type(driven.error), driven.replay.cancelled)


def test_return_exceptions_gives_listed_classes_as_themselves():
    """[59][178] A class listed in raises= stands in its place as itself, live and on replay alike."""
    body = returning(lambda: gather(do("a", raises=ValueError), return_exceptions=True))
    live = Driven(body()).fail("0.0", BOOM)

    assert [(ValueError, ("boom",))] * 2 == [
        (type(error), error.args) for (error,) in (live.value, Driven(body(), live.journal).value)
    ]


def test_an_inner_gather_that_fails_is_a_failing_member():
    """A gather inside a gather fails as one member, once its own members have settled."""
    driven = Driven(
        returning(lambda: gather(gather(do("a"), cleaning("b", "clean")), do("c"), return_exceptions=True))()
    )
    driven.fail("0.0.0", BOOM)
    seen = driven.open
    inner, c = driven.complete("0.0.1.1").complete("0.1", 5).value

    assert ({"0.1": "c", "0.0.1.1": "clean"}, "a", 5) == (seen, inner.step, c)


def test_cancelling_goes_down_to_the_leaves():
    """A failure cancels what is open in branches and groups inside its siblings, at any depth."""
    driven = Driven(
        catching(lambda: gather(do("a"), gather(do("b"), race(do("c"), wrapping(gather(do("d"))), branch("e")))))()
    )
    driven.fail("0.0", BOOM)

    assert ({"1": "caught"}, {"0.1.0", "0.1.1.0", "0.1.1.1.0.0", "0.1.1.2.0"}) == (
        driven.open,
        set(driven.replay.cancelled),
    )


def wrapping(command):
    """A branch of one command."""
    return (yield command)


# ---- branches --------------------------------------------------------------------------------------------------------


def test_a_branch_has_positions_of_its_own():
    """Commands of a branch count below its member, those of groups in it below that."""

    def outer():
        yield do("a")
        return (yield gather(branch("b", "c"), do("d")))

    driven = Driven(returning(lambda: gather(do("x"), outer()))()).complete("0.1.0").complete("0.1.1.0.0", "")

    assert ["0.0", "0.1.1.1", "0.1.1.0.1"] == list(driven.open)


def test_a_return_in_a_branch_ends_that_branch_only():
    """[64] `return` in a branch gives its value to the group."""

    def early():
        if (yield do("a")):
            return "early"
        yield do("b")

    driven = Driven(returning(lambda: gather(early(), do("c")))()).complete("0.0.0", True)

    assert ("early", 1) == driven.complete("0.1", 1).value


def test_a_branch_without_commands():
    """A branch that returns at once is a member that settled."""

    def empty(value):
        return value
        yield

    assert ((1, 2), Winner(0, 3)) == Driven(
        returning(lambda: gather(gather(empty(1), empty(2)), race(empty(3))))()
    ).value


def test_branches_keep_their_results_apart():
    """[63] Results stay with their branch, however the branches are interleaved."""
    body = returning(lambda: gather(branch("a1", "a2"), branch("b1", "b2")))
    values = []
    for order in (["0.0.0", "0.0.1", "0.1.0", "0.1.1"], ["0.1.0", "0.0.0", "0.1.1", "0.0.1"]):
        driven = Driven(body())
        for position in order:
            driven.complete(position, driven.open[position])
        values += [driven.value, Driven(body(), driven.journal).value]

    assert [("a1+a2", "b1+b2")] * 4 == values


def test_a_branch_has_a_context_of_its_own():
    """A context variable set in a branch is seen by that branch alone; it begins with what the body had set."""
    variable: ContextVar[str] = ContextVar("variable")

    def setting(value):
        before = variable.get()
        variable.set(value)
        yield do("a")
        return before, variable.get()

    def body():
        variable.set("body")
        result = yield gather(setting("one"), setting("two"))
        return result, variable.get()

    driven = Driven(body()).complete("0.1.0").complete("0.0.0")

    assert ((("body", "one"), ("body", "two")), "body") == driven.value


# ---- race ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("winner", [0, 1, 2])
def test_the_first_to_settle_wins(winner):
    """[66] race gives index and value of the member that settled first; the others are cancelled."""
    body = returning(lambda: race(do("a"), do("b"), do("c")))
    live = Driven(body()).complete(f"0.{winner}", "x")
    losers = [f"0.{member}" for member in range(3) if member != winner]

    assert (Winner(winner, "x"), losers) == (live.value, live.replay.cancelled)
    assert Winner(winner, "x") == Driven(body(), live.journal).value


def test_a_race_of_one():
    """[65] A race of one is won by it."""
    assert Winner(0, 1) == Driven(returning(lambda: race(do("a")))()).complete("0.0", 1).value


def test_the_first_to_settle_may_fail():
    """[66] If the first to settle failed, its failure is raised at the yield, and the others are cancelled."""
    driven = Driven(catching(lambda: race(do("a"), do("b")))()).fail("0.1", BOOM)

    assert ({"1": "caught"}, ["0.0"]) == (driven.open, driven.replay.cancelled)
    assert "b" == driven.complete("1").value


def test_a_member_that_needs_no_entry_wins_at_once():
    """A member that replay answers itself wins; of several the first one, and the others are cancelled."""
    driven = Driven(returning(lambda: race(do("a"), new_uuid(), gather()))())

    assert (Winner(1, uuid_at("run-1", "0.1")), {}, ["0.0"]) == (driven.value, driven.open, driven.replay.cancelled)


def test_the_body_goes_on_while_losers_clean_up():
    """[67] The loser of a race is cancelled and cleans up beside the body, which goes on at once."""

    def body():
        winner = yield race(do("a"), cleaning("b", "clean"))
        rest = yield do("rest")
        return winner.value, rest

    driven = Driven(body()).complete("0.0", 1)

    assert {"1": "rest", "0.1.1": "clean"} == driven.open
    assert (1, 2) == driven.complete("0.1.1").complete("1", 2).value


@pytest.mark.parametrize("body_raises", [False, True])
def test_a_run_does_not_end_before_its_losers_have(body_raises):
    """[68] A run that returns or raises leaves no orphan: it has ended once the clean-up of losers has settled."""

    def body():
        yield race(do("a"), cleaning("b", "clean 1", "clean 2"), race(cleaning("c", "clean 3"), do("d")))
        if body_raises:
            raise KeyError("k")
        return 1

    driven = Driven(body()).complete("0.0")
    seen = []
    for position in ("0.2.0.1", "0.1.1", "0.1.2"):
        seen.append((driven.has_ended, driven.open.get(position)))
        driven.complete(position)

    assert [(False, "clean 3"), (False, "clean 1"), (False, "clean 2")] == seen
    assert (KeyError if body_raises else type(None)) is type(driven.error)


def test_a_failure_in_a_losers_clean_up_is_dropped():
    """What goes wrong in the clean-up of a loser changes nothing."""
    driven = Driven(returning(lambda: race(do("a"), cleaning("b", "clean")))()).complete("0.0", 1)

    assert Winner(0, 1) == driven.fail("0.1.1", BOOM).value


def test_a_loser_may_gather_and_race_in_its_clean_up():
    """Clean-up may be any commands, groups of branches included, and is not cancelled."""

    def loser():
        try:
            yield do("b")
        finally:
            yield gather(cleaning("c", "d"), race(do("e"), do("f")))
            yield do("g")

    driven = Driven(returning(lambda: race(do("a"), loser()))()).complete("0.0", 1)
    seen = [set(driven.open.values())]
    for position in ("0.1.1.0.0", "0.1.1.1.0", "0.1.1.0.1"):
        driven.complete(position)
        seen.append(set(driven.open.values()))

    assert [{"c", "e", "f"}, {"d", "e", "f"}, {"d"}, {"g"}] == seen
    assert Winner(0, 1) == driven.complete("0.1.2").value


def test_a_loser_is_told_with_a_base_exception():
    """WorkflowCancelled is thrown at the loser's current yield, where `except Exception` does not catch it."""
    seen = []

    def loser():
        try:
            try:
                yield do("b")
            except Exception:
                seen.append("swallowed")
        except WorkflowCancelled as cancelled:
            seen.append(type(cancelled))
            raise

    Driven(returning(lambda: race(do("a"), loser()))()).complete("0.0")

    assert [WorkflowCancelled] == seen


def test_a_loser_that_does_not_let_go_is_still_a_loser():
    """A branch that catches its cancellation and goes on lingers; what it returns is dropped."""

    def stubborn():
        with suppress(WorkflowCancelled):
            yield do("b")
        yield do("c")
        return "mine"

    driven = Driven(returning(lambda: race(do("a"), stubborn()))()).complete("0.0", 1)

    assert ({"0.1.1": "c"}, Winner(0, 1)) == (driven.open, driven.complete("0.1.1").value)


def test_a_race_inside_a_gather_and_a_gather_inside_a_race():
    """[65] Groups work inside each other at any depth."""
    body = returning(lambda: gather(race(gather(do("a"), do("b")), do("c")), race(do("d"))))
    driven = Driven(body())
    for position, value in (("0.0.0.1", 2), ("0.1.0", 4), ("0.0.0.0", 1)):
        driven.complete(position, value)

    assert (Winner(0, (1, 2)), Winner(0, 4)) == driven.value


def test_a_race_inside_a_gather_settles_before_its_losers():
    """A race that is a member settles with its winner; the gather does not wait for the losers' clean-up."""

    def body():
        yield gather(race(do("a"), cleaning("b", "clean")), do("c"))
        yield do("d")

    driven = Driven(body()).complete("0.0.0").complete("0.1")

    assert {"0.0.1.1": "clean", "1": "d"} == driven.open


# ---- cancelling ------------------------------------------------------------------------------------------------------


def test_a_branch_is_cancelled_once():
    """A branch in its clean-up is not cancelled again by what happens around it."""

    def inner():
        yield race(do("a"), cleaning("b", "clean"))
        yield do("after")

    driven = Driven(catching(lambda: gather(inner(), do("c")))()).complete("0.0.0.0").fail("0.1", BOOM)

    assert {"0.0.0.1.1": "clean", "1": "caught"} == driven.open


def test_cancelling_during_clean_up_waits_for_it():
    """A gather whose member is already cleaning up after a failure settles when that is done, and not before."""

    def body():
        return (yield race(do("x"), gather(do("a"), cleaning("b", "clean"))))

    driven = Driven(body()).fail("0.1.0", BOOM)
    cleaning_up = driven.open
    driven.complete("0.0", 1)

    assert ({"0.0": "x", "0.1.1.1": "clean"}, {"0.1.1.1": "clean"}, False) == (
        cleaning_up,
        driven.open,
        driven.has_ended,
    )
    assert Winner(0, 1) == driven.complete("0.1.1.1").value


def test_a_branch_that_waits_for_a_gather_is_told_when_it_has_settled():
    """Cancelling a branch cancels the group it waits for, and is raised in the branch when that has cleaned up."""
    seen = []

    def outer():
        try:
            yield gather(cleaning("b", "clean"), do("c"))
        except WorkflowCancelled:
            seen.append("told")
            raise

    driven = Driven(returning(lambda: race(do("a"), outer()))()).complete("0.0", 1)
    before = list(seen)
    driven.complete("0.1.0.0.1")

    assert ([], ["told"], True) == (before, seen, driven.has_ended)


def test_a_cancelled_branch_gets_no_result():
    """A branch that is cancelled while its next value is on the way is told of the cancellation instead."""
    seen = []

    def raising():
        raise KeyError("k")
        yield

    def quick():
        try:
            seen.append(type((yield new_uuid())))
            seen.append(type((yield new_uuid())))
        except WorkflowCancelled:
            seen.append("cancelled")
            raise

    driven = Driven(returning(lambda: gather(raising(), quick()))())

    assert (KeyError, [UUID, "cancelled"]) == (type(driven.error), seen)


def test_a_branch_that_catches_its_cancellation_does_not_rescue_the_gather():
    """A cancelled member that returns a value does not undo the failure of its sibling."""

    def stubborn():
        try:
            yield do("a")
        except WorkflowCancelled:
            return "fine"

    driven = Driven(catching(lambda: gather(stubborn(), do("b")))()).fail("0.1", BOOM).complete("1")

    assert "b" == driven.value


def test_return_exceptions_does_not_return_a_cancellation():
    """A gather with return_exceptions=True that is cancelled itself is cancelled, and gives nothing."""
    seen = []

    def outer():
        seen.append((yield gather(do("b"), do("c"), return_exceptions=True)))

    driven = Driven(returning(lambda: race(do("a"), outer()))()).complete("0.0", 1)

    assert (Winner(0, 1), []) == (driven.value, seen)


def test_a_cancelled_member_has_no_entry():
    """[67] A late result of a cancelled member has nowhere to go: its command is not open any more."""
    driven = Driven(returning(lambda: race(do("a"), do("b")))()).complete("0.0")

    assert ({}, ["0.0"]) == (driven.open, [entry.position for entry in driven.journal])
