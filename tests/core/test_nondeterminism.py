"""Code that no longer matches the journal: found at the first entry that does not fit, and never swallowed."""

import pytest

from reflow._core.groups import gather, race
from reflow._core.values import new_uuid, now
from reflow._core.waits import sleep
from reflow.errors import NonDeterminismError, StepFailedError
from tests.support.driven import Driven, do, entry_of, line_of


def recorded():
    """The code under which the journals here were recorded: positions 0, 1.0, 1.1.0, 1.1.1, 1.2, 2, 3."""

    def part():
        yield do("b1")
        yield do("b2")

    yield do("a")
    yield gather(do("b"), part(), do("c"))
    yield sleep(1)
    yield do("d")


def journal_of(body, *positions):
    """The journal of `body()` whose commands complete in that order."""
    driven = Driven(body())
    for position in positions:
        driven.complete(position)
    return driven.journal


JOURNAL = journal_of(recorded, "0", "1.2", "1.1.0", "1.0", "1.1.1", "2", "3")


def diverging(body, journal=JOURNAL):
    """Where and how `body()` diverges from the journal."""
    with pytest.raises(NonDeterminismError) as caught:
        Driven(body(), journal)
    error = caught.value
    return error.position, error.recorded, error.yielded, error.location


def part(*names):
    """The branch of the recorded code, or another."""
    for name in names:
        yield do(name)


def test_the_same_code_matches():
    """The journal fits the code it was recorded under."""
    assert Driven(recorded(), JOURNAL).value is None


def test_a_renamed_step():
    """[95] A step of another name at a recorded position is found, with both names and the line of the yield."""

    def body():
        yield do("renamed")  # here

    assert ("0", "step 'a'", "step 'renamed'", line_of(body)) == diverging(body)


@pytest.mark.parametrize(("make", "yielded"), [(lambda: sleep(1), "sleep"), (lambda: now(), "now")])
def test_a_swapped_kind(make, yielded):
    """[96] A command of another kind at a recorded position is found."""

    def body():
        yield make()  # here

    assert ("0", "step 'a'", yielded, line_of(body)) == diverging(body)


def test_a_kind_with_the_same_name():
    """[96] A step that happens to be called like another kind of command is not taken for it."""

    def body():
        yield do("sleep")  # here

    assert ("0", "sleep", "step 'sleep'", line_of(body)) == diverging(body, [entry_of("0", "sleep", kind="sleep")])


def test_an_inserted_command():
    """[96] A command inserted before a recorded one is found at its position."""

    def body():
        yield do("a")
        yield do("new")  # here
        yield gather(do("b"), part("b1", "b2"), do("c"))

    assert ("1.2", "step 'c'", "step 'new' at position 1", line_of(body)) == diverging(body)


def test_an_inserted_command_without_an_entry():
    """[96] A command that leaves no entry shifts the positions after it, and is found as well."""

    def body():
        yield new_uuid()
        yield do("a")  # here

    assert ("0", "step 'a'", "step 'a' at position 1", line_of(body)) == diverging(body)


def test_a_removed_command():
    """[96] A command taken out is found at the entry that it left."""

    def body():
        yield gather(do("b"), part("b1", "b2"), do("c"))  # here

    assert ("0", "step 'a'", "step 'b' at position 0.0", line_of(body)) == diverging(body)


def test_entries_left_over_at_the_return():
    """[97] Code that returns while entries are left over is found, with the line of the return."""

    def body():
        yield do("a")
        if True:
            return 1  # here
        yield do("b")

    assert ("1.2", "step 'c'", "the workflow 'body' has ended", line_of(body)) == diverging(body)


def test_entries_left_over_at_a_raise():
    """[97] Code that raises while entries are left over is found too, and what it raised is told and is the cause."""

    def body():
        yield do("a")
        raise KeyError("k")  # here

    with pytest.raises(NonDeterminismError) as caught:
        Driven(body(), JOURNAL)
    error = caught.value

    assert ("1.2", "step 'c'", "the workflow 'body' has raised KeyError: 'k'", line_of(body)) == (
        error.position,
        error.recorded,
        error.yielded,
        error.location,
    )
    assert "KeyError('k')" == repr(error.__cause__)


def test_entries_left_over_beside_clean_up():
    """[97] Entries left over while losers still clean up are found as well."""

    def loser():
        try:
            yield do("b")
        finally:
            yield do("clean")  # here

    def body():
        yield race(do("a"), loser())

    journal = [entry_of("0.0", "a"), entry_of("1", "d")]

    assert ("1", "step 'd'", "step 'clean' at position 0.1.1", line_of(loser)) == diverging(body, journal)


def test_a_narrower_gather():
    """[96] A gather that lost members is found at the entry of a member that is no more."""

    def body():
        yield do("a")
        yield gather(do("b"), part("b1", "b2"))  # here

    assert ("1.2", "step 'c'", "step 'b' at position 1.0", line_of(body)) == diverging(body)


def test_a_narrower_gather_whose_last_entries_are_of_lost_members():
    """A gather that would be done before its recorded members are is found at the first of those left over."""

    def body():
        yield gather(do("a"))
        yield do("d")  # here

    journal = [entry_of("0.0", "a"), entry_of("0.1", "b")]

    assert ("0.1", "step 'b'", "step 'd' at position 1", line_of(body)) == diverging(body, journal)


def test_a_wider_gather_that_was_already_done():
    """[96] A member added to a gather that the journal has gone beyond is found at the next entry."""

    def body():
        yield do("a")
        yield gather(do("b"), part("b1", "b2"), do("c"), do("new"))  # here
        yield sleep(1)

    assert ("2", "sleep", "step 'new' at position 1.3", line_of(body)) == diverging(body)


def test_a_gather_that_became_a_step():
    """[96] A group that became a single command is found, and the other way round."""

    def body():
        yield do("a")
        yield do("b")  # here

    assert ("1.2", "step 'c'", "step 'b' at position 1", line_of(body)) == diverging(body)


def test_a_step_that_became_a_gather():
    """[96] A single command that became a group is found."""

    def body():
        yield gather(do("a"))  # here

    assert ("0", "step 'a'", "step 'a' at position 0.0", line_of(body)) == diverging(body)


def test_members_in_another_order():
    """[96] Swapped members are found by their names."""

    def body():
        yield do("a")
        yield gather(do("c"), part("b1", "b2"), do("b"))  # here

    assert ("1.2", "step 'c'", "step 'b'", line_of(body)) == diverging(body)


def test_a_change_inside_a_branch():
    """[96] A change inside a branch is found with the line in the branch."""

    def changed():
        yield do("b1")
        yield do("other")  # here

    def body():
        yield do("a")
        yield gather(do("b"), changed(), do("c"))

    assert ("1.1.1", "step 'b2'", "step 'other'", line_of(changed)) == diverging(body)


def test_a_shorter_branch():
    """[96] A branch that lost its last command is found at the entry that it left."""

    def body():
        yield do("a")
        yield gather(do("b"), part("b1"), do("c"))
        yield sleep(1)  # here

    assert ("1.1.1", "step 'b2'", "sleep at position 2", line_of(body)) == diverging(body)


def test_a_gather_that_became_a_race():
    """[97] A race ends with the first member, so the entries of the others are left over."""

    def body():
        yield do("a")
        yield race(do("b"), part("b1", "b2"), do("c"))
        yield sleep(1)  # here

    assert ("1.1.0", "step 'b1'", "sleep at position 2", line_of(body)) == diverging(body)


def test_a_race_that_became_a_gather():
    """[96] A gather goes on only when all have settled, so the entry after the race comes too soon."""

    def body():
        yield gather(do("a"), do("b"))  # here
        yield do("c")

    journal = [entry_of("0.0", "a"), entry_of("1", "c")]

    assert ("1", "step 'c'", "step 'b' at position 0.1", line_of(body)) == diverging(body, journal)


def test_the_line_is_that_of_the_helper():
    """The line is that of the yield in the helper, and of the `yield from` of a command itself."""

    def helper():
        yield from do("a")
        yield from do("changed")  # here

    def body():
        yield from helper()

    journal = [entry_of("0", "a"), entry_of("1", "b")]

    assert ("1", "step 'b'", "step 'changed'", line_of(helper)) == diverging(body, journal)


def test_an_entry_fed_twice():
    """An outcome that was applied already is not applied again."""

    def body():
        yield do("a")
        yield do("b")  # here

    journal = [entry_of("0", "a"), entry_of("0", "a")]

    assert ("0", "step 'a'", "step 'b' at position 1", line_of(body)) == diverging(body, journal)


def test_an_entry_of_a_cancelled_member():
    """An outcome of a member that was cancelled has nowhere to go."""

    def body():
        yield race(do("a"), do("b"))
        yield do("c")  # here

    journal = [entry_of("0.0", "a"), entry_of("0.1", "b")]

    assert ("0.1", "step 'b'", "step 'c' at position 1", line_of(body)) == diverging(body, journal)


def test_a_position_that_is_none():
    """A position that no program could have is found like any other."""

    def body():
        yield gather(do("a"), do("b"), limit=1)  # here

    assert ("0.²", "step 'b'", "step 'a' at position 0.0", line_of(body)) == diverging(body, [entry_of("0.²", "b")])


@pytest.mark.parametrize("cls", [Exception, BaseException])
def test_a_body_cannot_swallow_it(cls):
    """NonDeterminismError is raised outside the generator, so that no `except` in the body catches it."""

    def body():
        while True:
            try:
                yield do("b")
                return
            except cls as error:
                if type(error) is GeneratorExit:
                    raise

    assert ("0", "step 'a'", "step 'b'") == diverging(body)[:3]


def test_changed_arguments_are_not_a_divergence():
    """[98] Other arguments at an unchanged position: the recorded outcome stands."""

    def body():
        return (yield do("a", timeout="5s"))

    assert 1 == Driven(body(), [entry_of("0", "a", 1)]).value


def test_code_added_at_the_end_is_no_divergence():
    """Commands that come after everything recorded are performed."""

    def body():
        yield from recorded()
        yield do("new")

    assert {"4": "new"} == Driven(body(), JOURNAL).open


def test_an_error_handler_added_since_is_no_divergence():
    """Code that now catches a recorded failure goes on from there."""

    def body():
        try:
            yield do("a")
        except StepFailedError:
            yield do("new")

    live = Driven(part("a")).fail("0", ValueError("x"))

    assert {"1": "new"} == Driven(body(), live.journal).open
