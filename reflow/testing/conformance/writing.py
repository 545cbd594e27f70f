"""Clauses F: save_progress."""

from __future__ import annotations

from typing import cast

from msgspec.structs import replace

from reflow import RunStatus, StorageAdapter
from reflow._core.journal import Entry, Journal, MessageKind, Timer
from reflow.storage.records import Continued, Ending, Lease
from reflow.testing.conformance.expectation import expect
from reflow.testing.conformance.words import (
    ALL_BYTES,
    NOT_TEXT,
    NOW,
    Another,
    bound,
    claim,
    create,
    entry,
    get,
    hold,
    new_run,
    opened,
    progress,
    refusal,
    state,
    timer,
    together,
)


async def f1_entries_are_appended_in_order(storage: StorageAdapter, another: Another) -> None:
    """[183] Entries of several writes come back in the order in which they were written, whatever their positions."""
    lease = await hold(storage)
    entries = [entry(position) for position in ("3", "0", "10", "9", "4.2.1", "4.10")]

    await storage.save_progress(progress(lease, entries=entries[:1]))
    await storage.save_progress(progress(lease, entries=entries[1:4], recorded=1))
    await storage.save_progress(progress(lease, entries=entries[4:], recorded=4))

    expect(Journal(entries, []), await storage.get_journal("r"))


async def f1_timers_are_replaced_and_removed_by_position(storage: StorageAdapter, another: Another) -> None:
    """A timer takes the place of the one at its position; the timers at settled positions go."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, timers=[timer("0"), timer("1"), timer("2")]))
    changed = timer("1", due_at=NOW + 99, attempts=2, failure=b"why")

    await storage.save_progress(progress(lease, timers=[changed, timer("3")], settled=["0", "2", "no timer here"]))

    expect(Journal([], [changed, timer("3")]), await storage.get_journal("r"))


async def f1_an_entry_keeps_every_field(storage: StorageAdapter, another: Another) -> None:
    """An entry and a timer come back with every field as it was written."""
    lease = await hold(storage)
    entries = [
        Entry("4.2.0", "step", "charge", True, ALL_BYTES, 5, NOW - 8, NOW - 2),
        Entry("5", "now", "now", False, b"", 0, 0, -1),
    ]
    timers = [Timer("6", "step", "mail", NOW + 4, 2, NOW - 1, ALL_BYTES), Timer("7", "sleep", "sleep", 1, 0, 0, None)]

    await storage.save_progress(progress(lease, entries=entries, timers=timers))

    expect(Journal(entries, timers), await storage.get_journal("r"))


async def f2_an_ending_ends_the_lease(storage: StorageAdapter, another: Another) -> None:
    """With an ending the run takes status, due time, output and error from it, and nobody holds it any more."""
    endings = [
        Ending(RunStatus.COMPLETED, output=ALL_BYTES),
        Ending(RunStatus.FAILED, error=b"reason"),
        Ending(RunStatus.CANCELLED),
        Ending(RunStatus.SLEEPING, due_at=NOW + 9),
        Ending(RunStatus.WAITING),
        Ending(RunStatus.WAITING, due_at=NOW + 9),
        Ending(RunStatus.PENDING, due_at=NOW + 2),
    ]
    for number, ending in enumerate(endings):
        lease = await hold(storage, str(number))
        row = await get(storage, str(number))

        expect(True, await storage.save_progress(progress(lease, entries=[entry("0")], ending=ending, now=NOW + 2)))

        expected = replace(
            row,
            status=ending.status,
            idle_claims=0,
            due_at=ending.due_at,
            lease_id=None,
            updated_at=NOW + 2,
            output=ending.output,
            error=ending.error,
        )
        expect((expected, Journal([entry("0")], [])), await state(storage, str(number)))


async def f2_without_an_ending_the_run_goes_on(storage: StorageAdapter, another: Another) -> None:
    """Without an ending the row stays as it is: running, under its lease."""
    lease = await hold(storage)
    row = replace(await get(storage), idle_claims=0)

    expect(True, await storage.save_progress(progress(lease, entries=[entry("0")], now=NOW + 5)))

    expect(row, await storage.get_run("r"))


async def f2_no_output_is_not_an_empty_one(storage: StorageAdapter, another: Another) -> None:
    """An output of no bytes comes back as such, and none as None; a later ending replaces both."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, ending=Ending(RunStatus.PENDING, NOW, output=b"", error=None)))
    first = await get(storage)
    await claim(storage, "second")
    await storage.save_progress(progress(Lease("r", "second"), ending=Ending(RunStatus.FAILED, error=b"")))
    second = await get(storage)

    expect([(b"", None), (None, b"")], [(row.output, row.error) for row in (first, second)])


async def f2_an_ending_with_a_problem_is_refused(storage: StorageAdapter, another: Another) -> None:
    """An ending is refused that leaves a run running, or ended and due, or never due though nothing would wake it."""
    lease = await hold(storage)
    before = await state(storage, "r")
    continued = Continued("w", 2, 1, b"")
    endings = [
        Ending(RunStatus.RUNNING, NOW),
        *(Ending(status, NOW) for status in RunStatus if status.is_terminal),
        *(Ending(status, awaits=((MessageKind.EVENT, "a"),)) for status in RunStatus if status.is_terminal),
        Ending(RunStatus.PENDING),
        Ending(RunStatus.SLEEPING),
        *(Ending(status, NOW, continued=continued) for status in (RunStatus.SLEEPING, RunStatus.WAITING)),
        Ending(RunStatus.COMPLETED, continued=continued),
    ]

    refusals = [await refusal(storage, progress(lease, entries=[entry("0")], ending=ending)) for ending in endings]

    expect(["save_progress"] * len(endings), refusals)
    expect(before, await state(storage, "r"))


async def f2_a_problem_is_refused_before_anything_else(storage: StorageAdapter, another: Another) -> None:
    """Where the lease is lost, an entry is in the place of another, or some are missing, an ending with a problem is
    refused all the same: it is a mistake of the caller, and not what becomes of a run."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, entries=[entry("0")]))
    before = await state(storage, "r")
    ending = Ending(RunStatus.RUNNING, NOW)
    writes = [
        progress(Lease("r", "lost"), recorded=1, entries=[entry("1")], ending=ending),
        progress(Lease("unknown", "lost"), ending=ending),
        progress(lease, entries=[entry("0", payload=b"another")], ending=ending),
        progress(lease, recorded=5, ending=ending),
    ]

    refusals = [await refusal(storage, write) for write in writes]

    expect(["save_progress"] * len(writes), refusals)
    expect(before, await state(storage, "r"))


async def f3_what_cannot_be_written_whole_is_not_written(storage: StorageAdapter, another: Another) -> None:
    """Where one part of a write cannot be stored, the write raises StorageError and none of its parts is there."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, entries=[entry("0")], timers=[timer("1"), timer("2")]))
    before = await state(storage, "r")
    whole = progress(
        lease,
        recorded=1,
        entries=[entry("1"), entry("2")],
        timers=[timer("3")],
        settled=["1", "2"],
        ending=Ending(RunStatus.COMPLETED, output=b"out"),
    )
    spoilt = [
        replace(whole, entries=[entry("1"), entry(NOT_TEXT)]),
        replace(whole, entries=[entry("1"), replace(entry("2"), payload=cast(bytes, "text"))]),
        replace(whole, timers=[timer("3"), timer(NOT_TEXT)]),
        replace(whole, ending=Ending(RunStatus.COMPLETED, output=cast(bytes, object()))),
        replace(whole, entries=[entry("1"), entry("\ud800")]),
    ]

    expect(["save_progress"] * 5, [await refusal(storage, bad) for bad in spoilt])
    expect(before, await state(storage, "r"))
    expect(True, await storage.save_progress(whole))


async def f3_a_refused_write_hurts_no_other(storage: StorageAdapter, another: Another) -> None:
    """A verb that fails among others that are called at the same time hurts only itself."""
    leases = [await hold(storage, str(number)) for number in range(5)]
    writes = [progress(lease, entries=[entry("0")], timers=[timer("1")]) for lease in leases]
    writes[2] = progress(leases[2], entries=[entry("0"), entry(NOT_TEXT)])

    answers = await together(
        *(bound(refusal, storage, write) for write in writes), bound(create, storage, new_run("new"))
    )

    expect([None, None, "save_progress", None, None], answers[:5])
    expect([1, 1, 0, 1, 1], [len((await storage.get_journal(lease.run_id)).entries) for lease in leases])
    expect(RunStatus.PENDING, (await get(storage, "new")).status)


async def f4_the_same_write_again_changes_nothing(storage: StorageAdapter, another: Another) -> None:
    """[31][183] A write that is sent again under the same lease says True, and its entries and timers are there
    once."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, entries=[entry("0")]))
    write = progress(lease, recorded=1, entries=[entry("1"), entry("2")], timers=[timer("3")], settled=["4"])
    await storage.save_progress(write)
    before = await state(storage, "r")

    expect(True, await storage.save_progress(write))
    expect(before, await state(storage, "r"))


async def f4_entries_that_are_known_are_left_alone(storage: StorageAdapter, another: Another) -> None:
    """[31] A write that repeats known entries and goes on appends the new ones."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, entries=[entry("0", payload=b"first"), entry("1")]))

    saved = await storage.save_progress(progress(lease, entries=[entry("0", payload=b"first"), entry("1"), entry("2")]))

    entries = [entry("0", payload=b"first"), entry("1"), entry("2")]
    expect((True, entries), (saved, (await storage.get_journal("r")).entries))


async def f4_another_entry_in_its_place_is_a_lost_lease(storage: StorageAdapter, another: Another) -> None:
    """[31][117] A write with another entry in the place of a known one says False and changes nothing: what was
    recorded first stays."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, entries=[entry("0", payload=b"first"), entry("1")]))
    before = await state(storage, "r")

    writes = [
        progress(lease, entries=[entry("0", payload=b"second"), entry("1"), entry("2")]),
        progress(lease, recorded=1, entries=[entry("2")], timers=[timer("3")]),
        progress(lease, entries=[entry("0", payload=b"second")], ending=Ending(RunStatus.COMPLETED)),
    ]
    answers = [await storage.save_progress(write) for write in writes]

    expect([False] * 3, answers)
    expect(before, await state(storage, "r"))


async def f4_one_of_several_endings_counts(storage: StorageAdapter, another: Another) -> None:
    """[144] Of several endings of one run sent at once, exactly one is told True, and it is the one that is there."""
    lease = await hold(storage)
    async with opened(another()) as other:
        endings = [Ending(RunStatus.COMPLETED, output=bytes([number])) for number in range(6)]
        writes = [
            bound((storage, other)[number % 2].save_progress, progress(lease, ending=ending))
            for number, ending in enumerate(endings)
        ]

        answers = await together(*writes)

    expect(
        [(await get(storage)).output], [ending.output for ending, saved in zip(endings, answers, strict=True) if saved]
    )


async def f5_a_lease_that_is_not_held_writes_nothing(storage: StorageAdapter, another: Another) -> None:
    """[117][184][185] A write under a replaced, foreign, released or ended lease, or of an unknown run, says False and
    changes nothing."""
    first = await hold(storage, until=NOW)
    unknown = Lease("unknown", "r")
    held = Lease("r", "second")
    attempts: list[bool] = []

    async def attempt(*leases: Lease) -> None:
        before = await state(storage, "r")
        for lease in leases:
            plain = progress(lease, recorded=1, entries=[entry("1")])
            whole = replace(plain, timers=[timer("2")], settled=["0"])
            for write in (plain, whole, replace(whole, ending=Ending(RunStatus.FAILED, error=b"zombie"))):
                attempts.append(await storage.save_progress(write))
        expect(before, await state(storage, "r"))

    await storage.save_progress(progress(first, entries=[entry("0")], timers=[timer("0")]))
    await claim(storage, "second")
    await attempt(first, unknown, Lease("r", "foreign"), Lease("r", ""))
    await storage.save_progress(progress(held, ending=Ending(RunStatus.PENDING, due_at=NOW)))
    await attempt(held, first)
    await claim(storage, "third", now=NOW)
    await storage.save_progress(progress(Lease("r", "third"), ending=Ending(RunStatus.SLEEPING, due_at=NOW + 9)))
    await attempt(Lease("r", "third"), held, first)

    expect([False] * 27, attempts)


async def f5_who_has_lost_a_lease_is_in_nobodys_way(storage: StorageAdapter, another: Another) -> None:
    """[117] Of writes that only add entries and are made at once, those under a lost lease alone are refused."""
    runs = [str(number) for number in range(6)]
    leases = [await hold(storage, run_id) for run_id in runs]
    for run_id in runs[::2]:
        await storage.save_progress(progress(Lease(run_id, "first"), ending=Ending(RunStatus.COMPLETED, output=b"")))
    writes = [progress(lease, entries=[entry("0")]) for lease in leases]

    expect([False, True] * 3, await together(*(bound(storage.save_progress, write) for write in writes)))

    expect([0, 1] * 3, [len((await storage.get_journal(run_id)).entries) for run_id in runs])


async def f5_one_lease_may_hold_several_runs(storage: StorageAdapter, another: Another) -> None:
    """A lease id that was given to several runs by one claim is lost for each of them by itself."""
    for run_id in ("a", "b"):
        await create(storage, new_run(run_id))
    await claim(storage, "first")

    await storage.save_progress(progress(Lease("a", "first"), ending=Ending(RunStatus.COMPLETED, output=b"")))

    expect([Lease("a", "first")], await storage.heartbeat([Lease("a", "first"), Lease("b", "first")], lease_until=NOW))


async def f6_a_gap_is_refused(storage: StorageAdapter, another: Another) -> None:
    """[144] Entries that would follow others which are not there are refused: something was lost, and nothing is
    written."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, entries=[entry("0")]))
    before = await state(storage, "r")

    expect("save_progress", await refusal(storage, progress(lease, recorded=2, entries=[entry("2")])))
    expect(before, await state(storage, "r"))
