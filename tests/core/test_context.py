"""What a body can know of its run: whether it is only brought back to where it was."""

from reflow._core.context import current_run, is_replaying
from reflow._core.groups import race
from reflow._core.journal import Timer
from reflow._core.waits import sleep
from tests.support.driven import Driven, do, entry_of


def noting(seen):
    """A body that notes at each place whether it was there before."""
    try:
        seen.append(is_replaying())
        yield do("a")
        seen.append(is_replaying())
        yield do("b")
        seen.append(is_replaying())
    except GeneratorExit:
        seen.append(is_replaying())
        raise


def noted(*journal, timers=()):
    """What a body noted that was replayed from `journal` and then run to its end."""
    seen = []
    driven = Driven(noting(seen), journal, timers=timers)
    for position in list("01")[len(journal) :]:
        driven.complete(position)
    return seen


def test_a_new_run_replays_nothing():
    """A run without anything stored is new at every place."""
    assert [False, False, False] == noted()


def test_what_runs_up_to_the_last_stored_outcome_was_there_before():
    """A body has been wherever its stored outcomes lead it, up to the command after the last one."""
    entries = entry_of("0", "a"), entry_of("1", "b")

    assert [[True, True, False], [True, True, True]] == [noted(*entries[:1]), noted(*entries)]


def test_a_timer_shows_that_the_body_was_there():
    """A body that sleeps at its first command has been there, though it has no outcome yet."""
    assert [True, False, False] == noted(timers=[Timer("0", "step", "a", 0, 1, 0)])


def test_branches_know_it_too():
    """Branches see what the body sees."""
    seen = []

    def body():
        yield race(noting(seen), sleep(60))

    Driven(body(), [entry_of("0.0.0", "a")]).complete("0.0.1")

    assert [True, True, False] == seen


def test_a_dropped_body_says_nothing_new():
    """While the clean-up blocks of a dropped body run, it counts as replaying: they run for real later."""
    seen = []
    with Driven(noting(seen)):
        pass

    assert [False, True] == seen


def test_outside_a_body_nothing_is_replayed():
    """Outside a body there is no run, and nothing replays."""
    assert (None, False) == (current_run(), is_replaying())


def test_a_body_knows_its_run():
    """A body knows its run id and its workflow."""
    seen = []

    def body():
        run = current_run()
        seen.append((run.run_id, run.workflow))
        yield do("a")

    for options in ({}, {"workflow": "sign-up"}):
        with Driven(body(), **options):
            pass

    assert [("run-1", "body"), ("run-1", "sign-up")] == seen
