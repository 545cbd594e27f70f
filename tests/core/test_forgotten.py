"""A command that was made and never yielded is found; one that may still be yielded, or could not be, is not."""

import pytest

from reflow._core.groups import gather, race
from reflow._core.steps import step
from reflow._core.waits import sleep
from reflow.errors import MisuseError
from tests.support.driven import Driven, do, line_of, work


def run(body, *positions):
    """`body()` run to its end, completing the commands at `positions` in turn."""
    driven = Driven(body())
    for position in positions:
        driven.complete(position)
    return driven.value


def refused(body, *positions):
    """The problem and location that end `body()`."""
    with pytest.raises(MisuseError) as caught:
        run(body, *positions)
    return caught.value.problem, caught.value.location


def test_a_step_on_a_line_of_its_own():
    """[9] A command that was dropped is reported at the very next yield, before anything else is performed."""

    def body():
        do("charge")
        yield do("mail")  # here

    problem = "'charge' was made and never yielded before this line; write `yield` in front of it"

    assert (problem, line_of(body)) == refused(body)


def test_the_last_step_on_a_line_of_its_own():
    """[9] A command that was dropped after the last yield is reported at the return."""

    def body():
        yield do("mail")
        do("charge")
        return 1  # here

    assert ("'charge' was made and never yielded; write `yield` in front of it", line_of(body)) == refused(body, "0")


def test_a_command_that_is_kept_may_stay_unyielded():
    """A command in a variable, or in a list, need never be yielded: a saga may collect what would undo it."""

    def body():
        undo = []
        for name in ("a", "b"):
            yield do(name)
            undo.append(do(f"undo {name}"))
        last = do("last")
        return len(undo) + (last is None)

    assert 2 == run(body, "0", "1")


def test_a_collection_that_is_emptied_forgets_nothing():
    """Dropping what was kept is no mistake either."""

    def body():
        undo = [do("undo")]
        yield do("a")
        undo.append(do("undo"))
        undo.clear()
        yield do("b")

    assert run(body, "0", "1") is None


def test_any_command_can_be_forgotten():
    """[9] Sleeps and groups are found like steps."""
    found = []
    for make in (lambda: sleep(1), lambda: gather(), lambda: race(sleep(1))):

        def body(make=make):
            make()
            yield do("a")

        found.append(refused(body)[0].split()[0])

    assert ["'sleep'", "'gather'", "'race'"] == found


def test_a_command_forgotten_in_a_branch():
    """[9] A command dropped at the end of a branch is reported at the branch's return."""

    def branch():
        yield do("a")
        do("charge")
        return 1  # here

    def body():
        yield gather(branch(), do("b"))

    assert ("'charge' was made and never yielded; write `yield` in front of it", line_of(branch)) == refused(
        body, "0.0.0"
    )


def test_a_command_forgotten_in_a_helper():
    """The location is that of the yield in the helper."""

    def helper():
        do("charge")
        yield do("a")  # here

    def body():
        yield from helper()

    assert line_of(helper) == refused(body)[1]


def test_commands_made_first_and_yielded_later():
    """A command may be made long before it is yielded, singly or in a group."""

    def body():
        a, b, c = do("a"), do("b"), do("c")
        yield b
        yield gather(a, c)

    assert run(body, "0", "1.0", "1.1") is None


def test_a_command_yielded_twice():
    """A command may be yielded more than once."""

    def body():
        a = do("a")
        yield a
        yield a

    assert run(body, "0", "1") is None


def test_a_command_made_outside_may_stay_unyielded():
    """Commands made outside the body are nobody's business."""
    outside = do("a")

    def body():
        yield do("b")
        return outside is None

    assert run(body, "0") is False


def test_an_original_that_was_changed_is_not_forgotten():
    """options() stands for the command it was called on, right away, later, and as a pattern for several."""

    def body():
        pattern = step(work, 1).options(timeout=1)
        yield do("a")
        yield pattern.options(name="b")
        yield gather(pattern.options(name="c"), pattern.options(name="d").options(name="e"))

    assert run(body, "0", "1", "2.0", "2.1") is None


def test_an_exception_excuses_what_it_jumped_over():
    """A failure raised at a yield excuses commands that were to be yielded after it."""

    def body():
        later = do("later")
        try:
            yield do("a")
            yield later
        except Exception:
            yield do("b")
        return 1

    driven = Driven(body()).fail("0", ValueError("x")).complete("1")

    assert 1 == driven.value


def test_an_exception_caught_in_the_body_excuses_what_it_jumped_over():
    """A command that was dropped because the line that was to yield it raised is excused."""

    def body():
        try:
            yield gather(do("a"), do(1 / 0))
        except ZeroDivisionError:
            yield do("b")
        return 1

    assert 1 == run(body, "0")


def test_the_same_exception_may_jump_twice():
    """An exception that is raised again later excuses what it jumped over that time as well."""

    def body():
        error = KeyError("k")
        for _ in range(2):
            try:
                yield gather(do("a"), raising(error))
            except KeyError:
                yield do("b")
        return 1

    def raising(error):
        raise error

    assert 1 == run(body, "0", "1")


def test_a_command_forgotten_while_an_exception_is_handled():
    """A command dropped in an `except` block is reported as anywhere else."""

    def body():
        try:
            yield do("charge")
        except Exception:
            do("refund")
            yield do("mail")  # here

    driven = Driven(body())
    with pytest.raises(MisuseError) as caught:
        driven.fail("0", ValueError("x"))

    assert (True, line_of(body)) == (caught.value.problem.startswith("'refund' was made"), caught.value.location)


def test_an_exception_that_ends_the_body_excuses_all():
    """A body that raises is reported as that, not as one that forgot a command."""

    def body():
        do("charge")
        raise KeyError("k")
        yield

    assert KeyError is type(Driven(body()).error)


def test_an_exception_that_ends_a_branch_excuses_all():
    """A branch that raises is reported as that, not its parent as one that forgot what the branch did."""

    def branch(command):
        do("charge")
        raise KeyError("k")
        yield command

    def body():
        (result,) = yield gather(branch(do("a")), return_exceptions=True)
        yield do("b")
        return type(result)

    assert KeyError is run(body, "1")


def test_a_command_given_to_a_branch_that_is_cancelled():
    """A command that the loser of a race was to yield is excused."""

    def delayed(command):
        yield do("wait")
        return (yield command)

    def body():
        return (yield race(do("a"), delayed(do("late"))))

    assert 0 == run(body, "0.0").index


def test_a_command_given_to_a_branch_that_never_starts():
    """A command given to a branch that a limit held back until the gather failed is excused."""

    def delayed(command):
        return (yield command)

    def body():
        try:
            yield gather(do("a"), delayed(do("late")), limit=1)
        except Exception:
            yield do("b")
        return 1

    driven = Driven(body()).fail("0.0", ValueError("x")).complete("1")

    assert 1 == driven.value


def test_a_command_that_a_loser_holds_while_it_cleans_up():
    """A body may return while the loser of a race still holds a command for its clean-up."""

    def loser():
        try:
            yield do("b")
        finally:
            one, other = do("one"), do("other")
            yield one
            yield other

    def body():
        return (yield race(do("a"), loser()))

    assert 0 == run(body, "0.0", "0.1.1", "0.1.2").index


def test_two_runs_are_watched_apart():
    """What one run makes is not what another forgot."""

    def body():
        yield do("a")
        yield do("b")

    one, other = Driven(body()), Driven(body())
    for driven in (one, other, other, one):
        driven.complete(next(iter(driven.open)))

    assert [None, None] == [one.value, other.value]


def test_noting_commands_costs_the_same_for_each():
    """Many commands may be made, changed, and then yielded one by one: each costs the same, and not the sum of all."""
    count = 10_000  # one minute, if it were the sum

    def body():
        commands = [step(work, number).options(name="a") for number in range(count)]
        yield from commands

    assert run(body, *map(str, range(count))) is None
