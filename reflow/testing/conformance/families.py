"""Clauses F9, F10, F11 and F15: children, what their parents are told, and what a write cancels."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from reflow import RunStatus, StorageAdapter
from reflow._core.journal import Message, MessageKind
from reflow.storage.records import Ending, Lease, NewRun
from reflow.testing.conformance.expectation import expect
from reflow.testing.conformance.words import (
    ALL_BYTES,
    NOT_TEXT,
    NOW,
    Another,
    bound,
    claim,
    end,
    entry,
    get,
    hold,
    ids,
    new_run,
    opened,
    park,
    progress,
    refusal,
    resume,
    state,
    together,
)


def _child(run_id: str = "child", position: str = "4.2", parent: str = "r", **more: Any) -> NewRun:
    """A child of `r`, in a workflow of its own, so that nothing else is claimed with it."""
    return new_run(run_id, workflow="child", parent=parent, parent_position=position, **more)


def _told(
    seq: int, status: RunStatus | None = RunStatus.COMPLETED, payload: bytes = b"", position: str = "4.2"
) -> Message:
    """What a child has left in the mailbox of its parent."""
    return Message(seq, MessageKind.CHILD, position, payload, status)


async def _finish(storage: StorageAdapter, ending: Ending, lease_id: str = "of child") -> None:
    """Claim the child and end it so."""
    [row] = (await claim(storage, lease_id, workflows=[("child", 1)], now=NOW)).runs
    expect(True, await storage.save_progress(progress(Lease(row.run_id, lease_id), ending=ending)))


async def f9_children_are_created_with_the_write(storage: StorageAdapter, another: Another) -> None:
    """The runs that a write starts are created like any others: children, which name their parent, and free ones."""
    lease = await hold(storage)
    runs = [_child(priority=3, tags=("t",)), new_run("free", workflow="child")]

    await storage.save_progress(progress(lease, entries=[entry("0")], children=runs))

    expect([run.row() for run in runs], [await get(storage, "child"), await get(storage, "free")])
    expect(["child", "free"], ids(await claim(storage, "second", workflows=[("child", 1)])))


async def f9_a_write_that_is_not_made_starts_nothing(storage: StorageAdapter, another: Another) -> None:
    """A write under a lost lease, or one that is refused, creates no run."""
    lease = await hold(storage)

    saved = await storage.save_progress(progress(Lease("r", "foreign"), children=[_child()]))
    refused = [
        await refusal(storage, write)
        for write in (
            progress(lease, children=[_child()], consumed=[1]),
            progress(lease, children=[_child(), _child(NOT_TEXT)]),
            progress(lease, children=[_child()], ending=Ending(RunStatus.RUNNING)),
        )
    ]

    expect((False, ["save_progress"] * 3), (saved, refused))
    expect(None, await storage.get_run("child"))


async def f9_a_child_is_started_once(storage: StorageAdapter, another: Another) -> None:
    """A child that its parent starts again, under the same lease or the next one, is left as it is."""
    lease = await hold(storage, until=NOW)
    await storage.save_progress(progress(lease, children=[_child()]))
    await claim(storage, "of child", workflows=[("child", 1)])
    before = await state(storage, "child")

    await storage.save_progress(progress(lease, children=[_child(input=b"other")]))
    await claim(storage, "second")
    await storage.save_progress(progress(Lease("r", "second"), children=[_child(due_at=0)]))

    expect(before, await state(storage, "child"))
    expect([], await storage.get_messages("r", after=0))


async def f9_a_child_that_has_ended_is_told_when_started_again(storage: StorageAdapter, another: Another) -> None:
    """A parent that starts a child which has ended is told how, once, and is due at once if it parks for that."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, children=[_child()]))
    await _finish(storage, Ending(RunStatus.COMPLETED, output=b"out"))
    await storage.save_progress(progress(lease, entries=[entry("0")], consumed=[1]))
    again = progress(lease, recorded=1, children=[_child()])

    for _ in range(3):
        await storage.save_progress(again)

    expect([_told(2, payload=b"out")], await storage.get_messages("r", after=0))
    await park(storage, lease, awaits=((MessageKind.CHILD, "4.2"),), due_at=NOW + 9)
    expect(NOW, (await get(storage)).due_at)


async def f9_starting_and_parking_is_one_write(storage: StorageAdapter, another: Another) -> None:
    """A write that starts a child which has ended, and parks for it, leaves the run due."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, children=[_child()]))
    await _finish(storage, Ending(RunStatus.COMPLETED))
    await storage.save_progress(progress(lease, entries=[entry("0")], consumed=[1]))
    parked = Ending(RunStatus.WAITING, awaits=((MessageKind.CHILD, "4.2"),))

    await storage.save_progress(progress(lease, recorded=1, children=[_child()], ending=parked, now=NOW + 3))

    expect(NOW + 3, (await get(storage)).due_at)


async def f9_a_free_run_that_is_there_is_left_alone(storage: StorageAdapter, another: Another) -> None:
    """A run without parent whose id is taken is not created, and nobody is told."""
    lease = await hold(storage)
    await end(storage, "taken", Ending(RunStatus.FAILED, error=b"why"))
    before = await state(storage, "taken")

    await storage.save_progress(progress(lease, children=[new_run("taken", workflow="child")]))

    expect((before, []), (await state(storage, "taken"), await storage.get_messages("r", after=0)))


async def f10_an_id_of_another_is_told(storage: StorageAdapter, another: Another) -> None:
    """Where the id of a child is that of a run elsewhere, it stays, and the parent has a message without status."""
    lease = await hold(storage)
    others = [
        new_run("free", workflow="child"),
        _child("of another", parent="other"),
        _child("elsewhere", "5"),
        _child("with key", "6", idempotency_key="key"),
    ]
    await storage.create_runs(others)
    before = [await state(storage, run.run_id) for run in others]
    children = [_child("free", "0"), _child("of another", "1"), _child("elsewhere", "2")]
    children.append(_child("new", "3", idempotency_key="key"))

    for _ in range(2):
        await storage.save_progress(progress(lease, children=children))

    expect(before, [await state(storage, run.run_id) for run in others])
    expect(None, await storage.get_run("new"))
    expected = [_told(seq, None, position=str(seq - 1)) for seq in range(1, 5)]
    expect(expected, await storage.get_messages("r", after=0))


async def f11_the_parent_is_told_how_a_child_ended(storage: StorageAdapter, another: Another) -> None:
    """A child that ends leaves its status, and its output or error, in the mailbox of its parent, by its position."""
    lease = await hold(storage)
    endings = [
        Ending(RunStatus.COMPLETED, output=ALL_BYTES, error=b"no"),
        Ending(RunStatus.COMPLETED),
        Ending(RunStatus.FAILED, output=b"no", error=b"why"),
        Ending(RunStatus.CANCELLED),
        Ending(RunStatus.CANCELLED, error=b"why"),
    ]
    for number, ending in enumerate(endings):
        await storage.save_progress(progress(lease, children=[_child(str(number), f"4.{number}")]))
        await _finish(storage, ending)

    payloads = [ALL_BYTES, b"", b"why", b"", b"why"]
    expected = [
        _told(number + 1, ending.status, payload, f"4.{number}")
        for number, (ending, payload) in enumerate(zip(endings, payloads, strict=True))
    ]
    expect(expected, (await storage.get_journal("r")).messages)


async def f11_a_child_wakes_the_parent_that_awaits_it(storage: StorageAdapter, another: Another) -> None:
    """A parked parent that awaits this position is due when the child ends; one that awaits another is not."""
    for number, position in enumerate(("4.2", "4")):
        parent = f"of {position}"
        lease = await hold(storage, parent)
        await storage.save_progress(progress(lease, children=[_child(str(number), parent=parent)]))
        await park(storage, lease, "4.2", awaits=((MessageKind.CHILD, position),), due_at=NOW + 9)
        await _finish(storage, Ending(RunStatus.FAILED))

    expect([NOW, NOW + 9], [(await get(storage, parent)).due_at for parent in ("of 4.2", "of 4")])


async def f11_a_child_that_goes_on_tells_nothing(storage: StorageAdapter, another: Another) -> None:
    """A child that parks, or is given back, tells its parent nothing."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, children=[_child()]))

    for number, status in enumerate((RunStatus.PENDING, RunStatus.SLEEPING, RunStatus.WAITING)):
        await _finish(storage, Ending(status, NOW), str(number))

    expect([], await storage.get_messages("r", after=0))


async def f11_a_parent_that_has_ended_is_told_nothing(storage: StorageAdapter, another: Another) -> None:
    """A child whose parent has ended, or was never there, ends like any other run; the parent stays as it is."""
    lease = await hold(storage)
    await storage.save_progress(
        progress(lease, children=[_child(), _child("orphan", parent="unknown")], ending=Ending(RunStatus.FAILED))
    )
    before = await state(storage, "r")

    await claim(storage, "second", workflows=[("child", 1)])
    for run_id in ("child", "orphan"):
        expect(True, await storage.save_progress(progress(Lease(run_id, "second"), ending=Ending(RunStatus.COMPLETED))))

    expect(before, await state(storage, "r"))
    expect([RunStatus.COMPLETED] * 2, [(await get(storage, run_id)).status for run_id in ("child", "orphan")])


async def f11_no_child_is_lost_while_the_parent_parks(storage: StorageAdapter, another: Another) -> None:
    """Whichever comes first, the parking of the parent or the end of the child: the parent is due afterwards."""
    async with opened(another()) as other:
        for number in range(20):
            run_id = str(number)
            lease = await hold(storage, run_id)
            await storage.save_progress(progress(lease, children=[_child(f"child {run_id}", parent=run_id)]))
            await claim(other, "of child", workflows=[("child", 1)])
            write = progress(Lease(f"child {run_id}", "of child"), ending=Ending(RunStatus.COMPLETED))
            parking = bound(park, storage, lease, awaits=((MessageKind.CHILD, "4.2"),))
            ending = bound(other.save_progress, write)

            await together(*((parking, ending) if number % 2 else (ending, parking)))

            expect(NOW, (await get(storage, run_id)).due_at)


async def f11_a_child_may_be_resumed_and_end_again(storage: StorageAdapter, another: Another) -> None:
    """A child that is resumed tells its parent again when it ends the second time."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, children=[_child()]))
    await _finish(storage, Ending(RunStatus.FAILED, error=b"why"))
    await resume(storage, "child")

    await _finish(storage, Ending(RunStatus.COMPLETED, output=b"out"), "second")

    expected = [_told(1, RunStatus.FAILED, b"why"), _told(2, payload=b"out")]
    expect(expected, await storage.get_messages("r", after=0))


async def f11_a_grandchild_tells_its_own_parent(storage: StorageAdapter, another: Another) -> None:
    """A run that is a child and has children tells its parent, and is told by its children."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, children=[_child()]))
    [row] = (await claim(storage, "of child", workflows=[("child", 1)])).runs
    grandchild = replace(_child("grandchild", "0", "child"), workflow="grandchild")
    await storage.save_progress(progress(Lease(row.run_id, "of child"), children=[grandchild]))
    await claim(storage, "of grandchild", workflows=[("grandchild", 1)])

    await storage.save_progress(progress(Lease("grandchild", "of grandchild"), ending=Ending(RunStatus.COMPLETED)))

    expect([_told(1, position="0")], await storage.get_messages("child", after=0))
    expect([], await storage.get_messages("r", after=0))
    expect(1, (await get(storage, "child")).last_message)


async def f15_cancelled_runs_are_cancelled_with_the_write(storage: StorageAdapter, another: Another) -> None:
    """What a write cancels is asked to stop: one that was never claimed ends, also if the same write has started it."""
    lease = await hold(storage)
    await storage.create_runs([new_run("held", workflow="v"), new_run("ended", workflow="u")])
    await claim(storage, "of held", workflows=[("v", 1)])
    names = ["child", "held", "unknown"]

    saved = await storage.save_progress(progress(lease, entries=[entry("0")], children=[_child()], cancelled=names))

    rows = [await get(storage, run_id) for run_id in ("child", "held", "ended")]
    expect(True, saved)
    expect(
        [(RunStatus.CANCELLED, False), (RunStatus.RUNNING, True), (RunStatus.PENDING, False)],
        [(row.status, row.cancel_requested) for row in rows],
    )


async def f15_a_refused_write_cancels_nothing(storage: StorageAdapter, another: Another) -> None:
    """A write whose lease is lost cancels no run."""
    await hold(storage)
    await storage.create_runs([new_run("other", workflow="v")])

    saved = await storage.save_progress(progress(Lease("r", "foreign"), cancelled=["other"]))

    expect((False, RunStatus.PENDING), (saved, (await get(storage, "other")).status))
