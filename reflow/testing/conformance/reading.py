"""Clauses G and H, get_run and get_journal, and X: every verb."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

from anyio import CancelScope, create_task_group
from anyio.lowlevel import checkpoint
from msgspec.structs import replace

from reflow import RunStatus, StorageAdapter
from reflow._core.journal import Journal
from reflow.storage.records import Ending, Lease, NewRun, RunFilter
from reflow.testing.conformance.expectation import expect, expect_one_of
from reflow.testing.conformance.words import (
    NOT_A_NUMBER,
    NOW,
    Another,
    bound,
    claim,
    create,
    entry,
    failing,
    hold,
    ids,
    new_run,
    opened,
    progress,
    schedule,
    state,
    timer,
    together,
)

# ---- G, H: get_run, get_journal -------------------------------------------------------------------------------------


async def g1_an_unknown_run_is_none(storage: StorageAdapter, another: Another) -> None:
    """[182] The row of an unknown run is None, even where its id differs from a known one in case or blanks only."""
    await create(storage, new_run("Run"))

    expect([None] * 4, [await storage.get_run(run_id) for run_id in ("", "run", "Run ", "other")])


async def h1_entries_of_this_run_only(storage: StorageAdapter, another: Another) -> None:
    """[183] Each run has the entries and timers that were written for it, also when they were written in turns."""
    leases = [await hold(storage, run_id) for run_id in ("a", "b")]
    for number in range(3):
        for lease in leases:
            added = entry(str(number), payload=lease.run_id.encode())
            await storage.save_progress(progress(lease, recorded=number, entries=[added], timers=[timer(lease.run_id)]))

    expected = {
        run_id: Journal([entry(str(number), payload=run_id.encode()) for number in range(3)], [timer(run_id)])
        for run_id in ("a", "b")
    }
    expect(expected, {run_id: await storage.get_journal(run_id) for run_id in ("a", "b")})


async def h1_a_journal_that_was_read_stays_as_it_was(storage: StorageAdapter, another: Another) -> None:
    """What is written later does not show in a journal that was read before."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, entries=[entry("0")], timers=[timer("1")]))
    journal = await storage.get_journal("r")

    await storage.save_progress(progress(lease, recorded=1, entries=[entry("1")], timers=[timer("2")], settled=["1"]))

    expect(Journal([entry("0")], [timer("1")]), journal)


async def h1_a_long_journal_keeps_its_order(storage: StorageAdapter, another: Another) -> None:
    """[183] A thousand entries come back in order, and timers by position as text."""
    lease = await hold(storage)
    entries = [entry(str(number)) for number in range(1000)]
    await storage.save_progress(progress(lease, entries=entries, timers=[timer(position) for position in "z10é92Z"]))

    journal = await storage.get_journal("r")

    expect(entries, journal.entries)
    expect([*"0129Zzé"], [timer.position for timer in journal.timers])


async def h2_an_unknown_run_has_an_empty_journal(storage: StorageAdapter, another: Another) -> None:
    """[183] The journal of an unknown run, and of one without entries, is empty."""
    await create(storage, new_run())

    expect([Journal([], [])] * 2, [await storage.get_journal(run_id) for run_id in ("r", "unknown")])


# ---- X: every verb --------------------------------------------------------------------------------------------------


async def x1_what_cannot_be_asked_is_a_storage_error(storage: StorageAdapter, another: Another) -> None:
    """[175] A verb that is given what cannot be stored raises StorageError, names itself, and leaves the storage
    usable."""
    bad = "\ud800"
    await create(storage, new_run("due"))
    calls: list[Callable[[], Awaitable[object]]] = [
        bound(create, storage, new_run(bad)),
        bound(create, storage, replace(new_run(), input=cast(bytes, "text"))),
        bound(create, storage, replace(new_run(), due_at=2**64)),
        bound(claim, storage, bad),
        bound(claim, storage, workflows=[(bad, 1)]),
        bound(storage.heartbeat, [Lease("r", bad)], lease_until=NOW),
        bound(storage.get_run, bad),
        bound(storage.get_journal, bad),
        bound(storage.get_messages, bad, after=0),
        bound(storage.send_message, "due", bad, b"", now=NOW),
        bound(storage.send_message, "due", "name", cast(bytes, "text"), now=NOW),
        bound(storage.send_message, "due", "name", b"", now=NOW, message_id=bad),
        bound(storage.request_cancel, bad, now=NOW),
        bound(storage.check_runs, [bad]),
        bound(storage.resume_run, bad, generation=0, executions=1, keep=0, now=NOW),
        bound(storage.get_cut_entries, bad),
        bound(storage.list_runs, RunFilter(workflow=bad), limit=1),
        bound(storage.list_runs, RunFilter(tags=(bad,)), limit=1),
        bound(storage.prune, before=2**64, statuses=[], limit=1),
        bound(storage.put_schedule, schedule(bad)),
        bound(storage.put_schedule, replace(schedule(), next_at=NOT_A_NUMBER)),
        bound(storage.delete_schedule, bad),
        bound(storage.pause_schedule, bad, paused=True, now=NOW),
        bound(storage.due_schedules, [bad], limit=1, now=NOW),
        bound(storage.fire_schedule, bad, expected_next_at=0, next_at=0, runs=[], now=NOW),
    ]

    verbs = [await failing(call) for call in calls]

    tried = """create_runs create_runs create_runs claim_runs claim_runs heartbeat get_run get_journal get_messages
        send_message send_message send_message request_cancel check_runs resume_run get_cut_entries list_runs list_runs
        prune put_schedule put_schedule delete_schedule pause_schedule due_schedules fire_schedule"""
    expect(tried.split(), verbs)
    expect((["due"], []), (ids(await claim(storage)), await storage.get_messages("due", after=0)))


async def x2_a_cancelled_caller_leaves_nothing_half_done(storage: StorageAdapter, another: Another) -> None:
    """A verb whose caller is cancelled has happened as a whole or not at all, and those beside it go on."""
    lease = await hold(storage)
    write = progress(lease, entries=[entry("0"), entry("1")], ending=Ending(RunStatus.COMPLETED, output=b"out"))

    async def cancelled() -> None:
        with CancelScope() as scope:
            scope.cancel()
            await storage.save_progress(write)

    await together(cancelled, *(bound(create, storage, new_run(str(number))) for number in range(5)))

    row, journal = await state(storage, "r")
    expect_one_of(((RunStatus.COMPLETED, 2), (RunStatus.RUNNING, 0)), (row.status, len(journal.entries)))
    expect(["0", "1", "2", "3", "4"], sorted(ids(await claim(storage, "second"))))


async def x2_whenever_its_caller_is_cancelled(storage: StorageAdapter, another: Another) -> None:
    """At whatever point of a verb its caller is cancelled, it has happened as a whole or not at all."""
    for count in range(20):
        lease = await hold(storage, str(count))
        write = progress(lease, entries=[entry("0")], ending=Ending(RunStatus.COMPLETED, output=b"out"))
        async with create_task_group() as tasks:
            tasks.start_soon(storage.save_progress, write)
            for _ in range(count):
                await checkpoint()
            tasks.cancel_scope.cancel()
        await create(storage, new_run(f"after {count}", due_at=NOW))

        row, journal = await state(storage, lease.run_id)
        expect_one_of([(RunStatus.COMPLETED, 1), (RunStatus.RUNNING, 0)], (row.status, len(journal.entries)))


async def x3_an_answer_is_the_truth_for_everybody(storage: StorageAdapter, another: Another) -> None:
    """What a verb was answered for is there for every verb called afterwards, also through another adapter."""
    async with opened(another()) as other:

        async def follow(run_id: str) -> list[int]:
            seen: list[int] = []
            await create(storage, new_run(run_id, workflow=run_id))
            await claim(other, workflows=[(run_id, 1)])
            for number in range(10):
                writer, reader = (storage, other) if number % 2 else (other, storage)
                write = progress(Lease(run_id, "first"), recorded=number, entries=[entry(str(number))])
                expect(True, await writer.save_progress(write))
                seen.append(len((await reader.get_journal(run_id)).entries))
            return seen

        answers = await together(*(bound(follow, str(number)) for number in range(5)))

    expect([list(range(1, 11))] * 5, answers)


async def x4_text_and_numbers_come_back_exactly(storage: StorageAdapter, another: Another) -> None:
    """Ids and names are any text, told apart by code points; integers have 64 bits."""
    texts = ["'; drop table reflow_run; --", "a\0b", "a", "A", "é", "e\u0301", "🦆", " a", "a ", "%", "1", "01"]
    largest = 2**63 - 1
    rows = [(await create(storage, NewRun(text, text, 1, 0, b"", largest, -largest)))[0] for text in texts]

    expect(rows, [await storage.get_run(text) for text in texts])
    expect(
        [(text, text, largest, -largest) for text in texts],
        [(row.run_id, row.workflow, row.due_at, row.created_at) for row in rows],
    )
    expect(
        texts, sorted(ids(await claim(storage, now=largest, workflows=[(text, 1) for text in texts])), key=texts.index)
    )
