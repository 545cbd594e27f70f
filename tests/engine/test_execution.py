"""The execution, driven by hand: it needs no storage and no event loop."""

from __future__ import annotations

from typing import Any

from anyio import CapacityLimiter

from reflow import Flow, MsgpackCodec, RunStatus, Workflow, gather, race, sleep, spawn, step, wait_event, workflow
from reflow._core.journal import NEVER, Entry, Journal, Message, MessageKind, Timer
from reflow._core.replay import RULES
from reflow._engine.bodies import Arrival, Bodies
from reflow._engine.execution import Execution
from reflow._engine.observers import Observers
from reflow._engine.perform import Attempt, attempt
from reflow._engine.teller import Teller
from reflow.storage.records import NewRun
from reflow.testing.clock import START, VirtualClock
from tests.support.bodies import give

CODEC = MsgpackCodec()


@workflow
def child() -> Flow[int]:
    """Some child."""
    yield sleep("1h")
    return 1


class Alone:
    """An execution without a runner: bodies are answered by the test."""

    def __init__(self, workflow: Workflow[[], Any], journal: Journal | None = None, **row: Any) -> None:
        self.clock = VirtualClock()
        new = NewRun("r", workflow.name, 1, RULES, workflow.encode_input({}, CODEC), START, START, **row)
        # No body is started here, so nobody asks for a thread.
        teller = Teller(new.row(), workflow, Observers(), CODEC, self.clock)
        self.bodies = Bodies(new.row(), CapacityLimiter(1), self.clock, teller, attempt)
        self.execution = Execution(new.row(), workflow, CODEC, self.clock, self.bodies, teller)
        self.execution.begin(journal)
        if journal is not None:
            self.execution.catch_up(len(journal.entries))
            self.execution.take_up(journal.timers)
        self.execution.absorb()

    def answer(self, value: Any) -> None:
        """The only body that is ready ends with `value`."""
        [ready] = self.bodies.ready.values()
        self.bodies.ready.clear()
        self.bodies.arrivals.append(Arrival(ready.node, ready.step, 1, ready.started_at, Attempt(value, None), START))
        self.execution.absorb()

    def send(self, seq: int, name: str, value: Any, kind: MessageKind = MessageKind.EVENT, **more: Any) -> None:
        """A message arrives."""
        self.execution.mailbox.put([Message(seq, kind, name, CODEC.encode(value), **more)])
        self.execution.absorb()


def entries(alone: Alone) -> list[tuple[str, bool]]:
    """What the draft says has settled, and whether it has failed."""
    return [(entry.position, entry.failed) for entry in alone.execution.draft.entries]


@workflow
def listening() -> Flow[list[Any]]:
    """A wait with a limit beside one without."""
    return list((yield gather(wait_event("a", timeout="1h"), wait_event("b"))))


def test_waits_leave_timers():
    """A wait is left with a timer, at the end of time where it has no limit; the run is waiting, due at the first
    limit, and says for what."""
    alone = Alone(listening)
    ending = alone.execution.parked()

    assert {"0.0": START + 3_600_000_000, "0.1": NEVER} == {
        position: timer and timer.due_at for position, timer in alone.execution.draft.timers.items()
    }
    assert (RunStatus.WAITING, START + 3_600_000_000) == (ending.status, ending.due_at)
    assert ((MessageKind.EVENT, "a"), (MessageKind.EVENT, "b")) == ending.awaits


def test_an_event_is_taken_with_its_entry():
    """The draft that has the entry of a wait consumes the event, and drops the timer."""
    alone = Alone(listening)
    alone.send(5, "b", 1)
    draft, ending = alone.execution.draft, alone.execution.parked()

    assert ([("0.1", False)], [5], None) == (entries(alone), draft.consumed, draft.timers["0.1"])
    assert ((MessageKind.EVENT, "a"),) == ending.awaits


def test_an_event_goes_before_a_timer():
    """[85] Where the limit of a wait is over and an event is there, the event counts."""
    alone = Alone(listening)
    alone.clock.advance("2h")
    is_due = alone.execution.is_wait_due
    alone.send(1, "a", 1)

    assert (True, [("0.0", False)], False) == (is_due, entries(alone), alone.execution.is_wait_due)


def test_a_limit_that_is_over():
    """[85] Where no event is there the wait fails, and waits no more."""
    alone = Alone(listening)
    alone.clock.advance("1h")
    alone.execution.absorb()

    assert [("0.0", True)] == entries(alone)
    assert alone.execution.is_over


@workflow
def family() -> Flow[Any]:
    """A child that races a step, and a spawned run."""
    yield spawn(child())
    return (yield race(child(), step(give, 1)))


def test_runs_are_started_in_the_draft():
    """[148][150] A spawned run is started with its entry; a child with a timer that says so, linked to its place, and
    with the priority of its parent."""
    alone = Alone(family, priority=3)
    spawned, started = alone.execution.draft.started

    assert ([("0", False)], ["1.0"]) == (entries(alone), list(alone.execution.timers))
    assert ("r:0", None, None) == (spawned.run_id, spawned.parent, spawned.parent_position)
    assert ("r:1.0", "r", "1.0", 3) == (started.run_id, started.parent, started.parent_position, started.priority)


def test_a_loser_is_cancelled_in_the_draft():
    """[67][134] The write that decides a race asks for the cancellation of a child that lost it."""
    alone = Alone(family)
    alone.answer(1)
    draft = alone.execution.draft

    assert (["r:1.0"], {"1.0": None}) == (draft.cancelled, draft.timers)
    assert ([("0", False), ("1.1", False)], ()) == (entries(alone), alone.execution.mailbox.awaits)


def test_a_child_is_not_started_again():
    """[148] After a restart a child that was begun is waited for, and not started."""
    timer = Timer("1.0", "child", "child", NEVER, 0, START)
    alone = Alone(family, Journal([Entry("0", "spawn", "child", False, CODEC.encode("r:0"), 1, 0, 0)], [timer]))
    started = list(alone.execution.draft.started)
    alone.send(1, "1.0", 7, MessageKind.CHILD, status=RunStatus.COMPLETED)

    assert ([], [("1.0", False)], True) == (started, entries(alone), alone.execution.is_over)
    assert {"index": 0, "value": 7} == CODEC.decode(alone.execution.ended().output or b"", Any)


def test_a_cancellation():
    """[134] A cancellation is an entry; the draft says that it was delivered, and cancels the children."""
    alone = Alone(family)
    alone.execution.cancel()
    alone.execution.absorb()
    draft = alone.execution.draft

    assert ([("0", False), ("", False)], True, ["r:1.0"]) == (
        entries(alone),
        draft.is_cancel_delivered,
        draft.cancelled,
    )
    assert RunStatus.CANCELLED == alone.execution.ended().status


def test_waits_of_one_name_after_a_restart():
    """[80] After a restart waits of one name are served in the order in which the program opened them, not in that of
    their positions."""

    def late() -> Flow[Any]:
        yield sleep("1s")
        return (yield wait_event("a"))

    @workflow
    def flow() -> Flow[list[Any]]:
        return list((yield gather(late(), wait_event("a"))))

    slept = Entry("0.0.0", "sleep", "sleep", False, CODEC.encode(None), 1, 0, 0)
    timers = [Timer(position, "wait_event", "a", NEVER, 0, START) for position in ("0.0.1", "0.1")]
    alone = Alone(flow, Journal([slept], timers))
    alone.send(1, "a", 1)

    assert [("0.1", False)] == entries(alone)
