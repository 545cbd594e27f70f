"""The draft: what was learned since the last write, as one write."""

from __future__ import annotations

from msgspec import structs

from reflow import RunStatus
from reflow._core.journal import Entry, Timer
from reflow._engine.draft import Draft
from reflow.storage.records import Ending, Lease, NewRun

LEASE = Lease("r", "lease")


def entry(position: str) -> Entry:
    """Some entry."""
    return Entry(position, "step", "a", False, b"", 1, 0, 0)


def timer(position: str) -> Timer:
    """Some timer."""
    return Timer(position, "sleep", "sleep", 1, 0, 0)


def test_an_empty_draft():
    """Nothing is written where nothing was learned."""
    assert Draft(3).is_empty


def test_one_write():
    """Everything goes into one write: entries after those that are recorded, timers that are set, positions whose timer
    goes, messages, runs and cancellations, and the ending."""
    draft = Draft(2)
    draft.entries += [entry("2"), entry("3")]
    draft.timers |= {"4": timer("4"), "2": None, "5": timer("5")}
    draft.consumed.append(7)
    draft.started.append(NewRun("child", "flow", 1, 1, b"", 0, 0))
    draft.cancelled.append("loser")
    draft.is_cancel_delivered = True
    ending = Ending(RunStatus.WAITING)
    progress = draft.progress(LEASE, 9, ending)

    assert (LEASE, 9, 2, ["2", "3"]) == (
        progress.lease,
        progress.now,
        progress.recorded,
        [e.position for e in progress.entries],
    )
    assert (["4", "5"], ["2"], ending) == ([t.position for t in progress.timers], progress.settled, progress.ending)
    assert ([7], ["child"], ["loser"], True) == (
        progress.consumed,
        [run.run_id for run in progress.children],
        progress.cancelled,
        progress.cancel_delivered,
    )


def test_the_last_word_on_a_timer_counts():
    """A timer that is set and goes before it was written is only removed; one that is set again is written once."""
    draft = Draft(0)
    draft.timers["0"] = timer("0")
    draft.timers["0"] = None
    draft.timers["1"] = timer("1")
    draft.timers["1"] = last = structs.replace(timer("1"), attempts=2)
    progress = draft.progress(LEASE, 0, None)

    assert ([last], ["0"]) == (progress.timers, progress.settled)


def test_what_follows():
    """The draft after a write begins empty, behind what was written."""
    draft = Draft(2)
    draft.entries.append(entry("2"))
    draft.consumed.append(1)
    draft.timers["2"] = None
    progress = draft.progress(LEASE, 0, None)
    draft.written()

    assert (3, True, [], []) == (draft.recorded, draft.is_empty, draft.entries, draft.consumed)
    assert (2, [entry("2")], ["2"], [1]) == (progress.recorded, progress.entries, progress.settled, progress.consumed)
