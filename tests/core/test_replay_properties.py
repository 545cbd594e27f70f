"""The law of the core, over random programs.

For every program, every order of completion and every prefix of the journal: replaying the prefix and going on gives
what the uninterrupted run gave.
"""

import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, assume, find, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as changed

from reflow.errors import NonDeterminismError
from tests.support.programs import (
    All,
    Ask,
    Do,
    First,
    Leave,
    Patch,
    Running,
    Simple,
    everywhere,
    orders,
    programs,
)

law = settings(
    max_examples=int(os.environ.get("REFLOW_EXAMPLES", "400")),
    derandomize="REFLOW_EXAMPLES" not in os.environ,
    deadline=None,
    print_blob=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def lived(program, order=(), run=None):
    """A run from its beginning (or from where `run` is) to its end; and for each prefix of its journal, what could be
    seen of it there, and the timers that were stored.

    A mark is recorded with the entry that led to it: a prefix in between is put where the run went on.
    """
    with run or Running(program) as live:
        picks, views = iter(order), [(live.view, live.timers)]
        if run is None:
            views = [(live.view, ())] * len(live.journal) + views
        while not live.has_ended:
            before = len(live.journal)
            live.settle_next(next(picks, 0))
            views += [(live.view, ())] * (len(live.journal) - before - 1) + [(live.view, live.timers)]
    return live, views


def settle(run, entry):
    """What `entry` records happens again. Marks come by themselves."""
    if entry.kind != "patched":
        run.settle(entry.position)


@law
@given(programs(), orders())
def test_every_prefix_puts_the_program_where_it_was(program, order):
    """[33] After replaying any prefix, exactly what was open live is open, in the same order, and the same was seen."""
    live, views = lived(program, order)
    for length, (view, timers) in enumerate(views):
        with Running(program, live.journal[:length], timers) as again:
            assert view == again.view


@law
@given(programs(), orders(), st.data())
def test_going_on_gives_what_the_uninterrupted_run_gave(program, order, data):
    """[28][32] After a crash at any entry, going on in the same order gives the same outcome and the same journal."""
    live, _ = lived(program, order)
    length = data.draw(st.integers(0, len(live.journal)))
    with Running(program, live.journal[:length]) as again:
        for entry in live.journal[length:]:
            settle(again, entry)

    assert (live.view, live.journal) == (again.view, again.journal)


@law
@given(programs(), orders(), st.data())
def test_crashing_again_and_again_changes_nothing(program, order, data):
    """[32] However often a run is dropped and replayed on its way, it ends the same."""
    live, _ = lived(program, order)
    crashes = data.draw(st.sets(st.integers(0, len(live.journal))))
    run = Running(program)
    for index, entry in enumerate(live.journal):
        if index in crashes:
            run.replay.close()
            run = Running(program, run.journal)
        settle(run, entry)

    assert (live.view, live.journal) == (run.view, run.journal)


@law
@given(programs(), orders(), orders(), st.data())
def test_going_on_in_another_order_ends_as_well(program, order, other, data):
    """After any prefix, every other order of completion leads to an end too, and its journal replays to it."""
    live, _ = lived(program, order)
    length = data.draw(st.integers(0, len(live.journal)))
    with Running(program, live.journal[:length]) as again:
        again.settle_all(other)

    assert again.view == Running(program, again.journal).view


@law
@given(programs(), orders(), orders(), st.data())
def test_a_changed_program_goes_on_with_old_journals(program, order, other, data):
    """A journal of the code as it was before its patches is replayed by the code with them from any prefix on; and what
    that makes of it is replayed from any prefix again."""
    program = everywhere(program, lambda part: Simple("uuid") if part == Simple("patched") else part)
    before = everywhere(program, lambda part: replace(part, change=None) if isinstance(part, Patch) else part)
    old, views = lived(before, order)
    length = data.draw(st.integers(0, len(old.journal)))
    run = Running(program, old.journal[:length], views[length][1])
    first = len(run.journal)
    live, views = lived(program, other, run)
    for length, (view, timers) in enumerate(views, first):
        with Running(program, live.journal[:length], timers) as again:
            for timer in timers:
                again.replay.check(timer)
            assert view == again.view


@law
@given(programs(), orders(), st.data())
def test_a_run_can_be_dropped_anywhere(program, order, data):
    """close() at any point raises nothing, ends every frame and leaves nothing open."""
    live, _ = lived(program, order)
    length = data.draw(st.integers(0, len(live.journal)))
    with Running(program, live.journal[:length]) as run:
        pass

    assert (set(), {}) == (run.trace.alive, run.open)


entries = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a", "b", "zz", "sleep"]),
        "kind": st.sampled_from(["step", "sleep", "now", "gather"]),
        "position": st.from_regex(r"[0-3](\.[0-3]){0,3}", fullmatch=True),
    },
)


@law
@given(programs(), orders(), st.data())
def test_a_changed_entry_is_found_or_followed(program, order, data):
    """An entry that does not meet an open command of its kind and name is found at once; one that does is taken."""
    program = without_limits(program)
    live, _ = lived(program, order)
    assume(live.journal)
    index = data.draw(st.integers(0, len(live.journal) - 1))
    with Running(program, live.journal[:index]) as run:
        follow(run, [changed(live.journal[index], **data.draw(entries))])


@law
@given(programs(), orders(), st.data())
def test_a_disordered_journal_is_found_or_followed(program, order, data):
    """Of a journal with entries moved, lost or doubled, each entry meets its command or is found; nothing hangs."""
    program = without_limits(program)
    live, _ = lived(program, order)
    assume(live.journal)
    disordered = data.draw(st.lists(st.sampled_from(live.journal), max_size=len(live.journal) + 2))
    with Running(program) as run:
        follow(run, disordered)


@law
@given(programs(), programs(), orders())
def test_the_journal_of_another_program_is_found_or_followed(program, other, order):
    """Code that changed in any way meets the journal of the old one with an error, or runs on to an end."""
    live, _ = lived(program, order)
    with Running(without_limits(other)) as run:
        follow(run, live.journal)


@law
@given(programs(), orders(calm=True), st.booleans())
def test_other_limits_change_nothing(program, order, are_taken_away):
    """Where nothing fails and nothing is cancelled, other limits in the code of today lead to the same result."""
    one, other = harmless(program), without_limits(harmless(program))
    before, today = (one, other) if are_taken_away else (other, one)
    live, _ = lived(before, order)
    with Running(today, live.journal) as again:
        again.settle_all()

    assert (live.result, live.journal) == (again.result, again.journal)


def follow(run, journal):
    """Feed a journal to a run that may not fit: what does not is found at once, and what does leads to an end."""
    for entry in journal:
        node = run.replay.open.get(entry.position)
        if node is None and entry.kind in ("cancel", "patched"):
            run.feed(entry)
            continue
        if node is None or (node.command.kind, node.command.name) != (entry.kind, entry.name):
            break
        run.feed(entry)
    else:
        run.settle_all()
        assert run.has_ended
        return
    with pytest.raises(NonDeterminismError) as caught:
        run.replay.feed(entry)
    assert (entry.position, str(entry)) == (caught.value.position, caught.value.recorded)


# ---- that the programs say something ---------------------------------------------------------------------------------


def without_limits(program):
    """The program with every limit taken away."""
    return everywhere(program, lambda part: replace(part, limit=None) if isinstance(part, All) else part)


def harmless(program):
    """The program in which nothing fails or is cancelled: no race, no failing step, nothing raised."""

    def change(part):
        match part:
            case First(members):
                return All(members)
            case Do() | Ask():
                return replace(part, ends="well")
            case Leave():
                return Leave("return")
            case _:
                return part

    return everywhere(program, change)


def side_by_side(program):
    """How many commands are open together at most."""
    return max(len(open_) for (open_, _, _), _ in lived(program)[1])


def lingers(program):
    """Whether losers clean up at some time when the body has ended."""
    with Running(program) as run:
        while not run.has_ended:
            if "body" not in run.trace.alive:
                return True
            run.settle_next(0)
    return False


def depth(program):
    """How deep positions go."""
    return max((entry.position.count(".") for entry in lived(program)[0].journal), default=0)


def depends_on_order(program):
    """Whether another member that settles first leads to another outcome."""
    return lived(program)[0].result != lived(program, [1] * 9)[0].result


REACHED = {
    "what lingers": lingers,
    "six side by side": lambda program: side_by_side(program) >= 6,
    "a limit that holds back": lambda program: side_by_side(program) < side_by_side(without_limits(program)),
    "a cancellation seen": lambda program: "WorkflowCancelled" in repr(lived(program)[0].trace.seen),
    "a failure seen": lambda program: "StepFailedError" in repr(lived(program)[0].trace.seen),
    "an exception rebuilt": lambda program: "('Declined'" in repr(lived(program)[0].trace.seen),
    "fifteen entries": lambda program: len(lived(program)[0].journal) >= 15,
    "five levels": lambda program: depth(program) >= 5,
    "an outcome that depends on the order": depends_on_order,
}


@pytest.mark.parametrize("reached", REACHED.values(), ids=REACHED)
def test_the_programs_reach(reached):
    """The random programs are not all trivial: among a thousand of them there is one with each of these."""
    searching = settings(law, max_examples=1_000, phases=[Phase.generate])

    assert find(programs(), reached, settings=searching) is not None
