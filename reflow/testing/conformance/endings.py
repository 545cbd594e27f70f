"""Clauses F7, F13 and F14, K, M and N: idle claims, cancelling, continuing as new, resuming."""

from __future__ import annotations

from msgspec.structs import replace

from reflow import RunStatus, StorageAdapter
from reflow._core.journal import Journal, Message, MessageKind
from reflow.storage.records import Continued, Ending, Lease, RunSignal
from reflow.testing.conformance.expectation import expect, expect_one_of
from reflow.testing.conformance.words import (
    NOW,
    Another,
    bound,
    claim,
    create,
    end,
    entry,
    event,
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
    timer,
    together,
)

# ---- F7: idle claims ------------------------------------------------------------------------------------------------


async def f7_claims_without_progress_are_counted(storage: StorageAdapter, another: Another) -> None:
    """Every claim counts as idle until something new is written; executions are counted on."""
    await create(storage, new_run())
    counts: list[tuple[int, int]] = []
    for number in range(3):
        [row] = (await claim(storage, str(number), until=NOW)).runs
        counts.append((row.executions, row.idle_claims))

    await storage.save_progress(progress(Lease("r", "2"), entries=[entry("0")]))
    counts.append(((await get(storage)).executions, (await get(storage)).idle_claims))
    [row] = (await claim(storage, "3")).runs
    counts.append((row.executions, row.idle_claims))

    expect([(1, 1), (2, 2), (3, 3), (3, 0), (4, 1)], counts)


async def f7_a_timer_and_an_ending_are_progress_too(storage: StorageAdapter, another: Another) -> None:
    """A write with a timer, or one by which the run is given back, ends the count: its process lived."""
    with_timer = await hold(storage, "timer")
    given_back = await hold(storage, "given back")

    await storage.save_progress(progress(with_timer, timers=[timer("0")]))
    await storage.save_progress(progress(given_back, ending=Ending(RunStatus.PENDING, NOW)))

    expect([0, 0], [(await get(storage, run_id)).idle_claims for run_id in ("timer", "given back")])


async def f7_nothing_new_is_no_progress(storage: StorageAdapter, another: Another) -> None:
    """A write that brings only what was known, or starts what was started, leaves the count."""
    lease = await hold(storage, until=NOW)
    child = new_run("child", workflow="child", parent="r", parent_position="1")
    await storage.save_progress(progress(lease, entries=[entry("0")], children=[child]))
    await claim(storage, "second")

    await storage.save_progress(progress(Lease("r", "second"), entries=[entry("0")], children=[child], settled=["0"]))

    expect(1, (await get(storage)).idle_claims)


# ---- K, F13: request_cancel, and its delivery -----------------------------------------------------------------------


async def k1_a_run_that_never_began_is_cancelled_at_once(storage: StorageAdapter, another: Another) -> None:
    """A pending run that nobody has claimed is cancelled and never claimed any more, whether it was due or not."""
    runs = [new_run("due"), new_run("later", due_at=NOW + 9)]
    await storage.create_runs(runs)

    answers = [await storage.request_cancel(run.run_id, now=NOW + 1) for run in runs]

    expected = [replace(run.row(), status=RunStatus.CANCELLED, due_at=None, updated_at=NOW + 1) for run in runs]
    expect([True, True], answers)
    expect(expected, [await get(storage, "due"), await get(storage, "later")])
    expect([], ids(await claim(storage, now=NOW * 2)))


async def k1_its_parent_is_told(storage: StorageAdapter, another: Another) -> None:
    """The parent of a run that is cancelled at once is told, and wakes where it awaits that."""
    lease = await hold(storage)
    child = new_run("child", workflow="child", parent="r", parent_position="4")
    await storage.save_progress(progress(lease, children=[child]))
    await park(storage, lease, awaits=((MessageKind.CHILD, "4"),))

    await storage.request_cancel("child", now=NOW + 2)

    told = Message(1, MessageKind.CHILD, "4", b"", RunStatus.CANCELLED)
    expect(([told], NOW + 2), (await storage.get_messages("r", after=0), (await get(storage)).due_at))


async def k1_of_a_claim_and_a_cancellation_one_comes_first(storage: StorageAdapter, another: Another) -> None:
    """A run that is claimed and cancelled at the same time is either cancelled and unclaimed, or claimed and told."""
    async with opened(another()) as other:
        for number in range(20):
            run_id = str(number)
            await create(storage, new_run(run_id))
            claiming = bound(claim, storage, run_id, limit=1)
            cancelling = bound(other.request_cancel, run_id, now=NOW)

            await together(*((claiming, cancelling) if number % 2 else (cancelling, claiming)))

            row = await get(storage, run_id)
            seen = (row.status, row.lease_id, row.cancel_requested)
            expect_one_of(((RunStatus.CANCELLED, None, False), (RunStatus.RUNNING, run_id, True)), seen)


async def k2_a_parked_run_wakes_to_be_cancelled(storage: StorageAdapter, another: Another) -> None:
    """A sleeping or waiting run, and one that was given back, is due at once; its status stays."""
    await park(storage, await hold(storage, "sleeping"), status=RunStatus.SLEEPING, due_at=NOW + 9)
    await park(storage, await hold(storage, "waiting"))
    await park(storage, await hold(storage, "pending"), status=RunStatus.PENDING, due_at=NOW + 9)
    await park(storage, await hold(storage, "due"), status=RunStatus.SLEEPING, due_at=NOW - 9)
    run_ids = ("sleeping", "waiting", "pending", "due")
    before = [await get(storage, run_id) for run_id in run_ids]

    answers = [await storage.request_cancel(run_id, now=NOW + 1) for run_id in run_ids]

    due = [NOW + 1, NOW + 1, NOW + 1, NOW - 9]
    expected = [replace(row, cancel_requested=True, due_at=at) for row, at in zip(before, due, strict=True)]
    expect(([True] * 4, expected), (answers, [await get(storage, run_id) for run_id in run_ids]))


async def k2_a_held_run_is_told_and_stays_held(storage: StorageAdapter, another: Another) -> None:
    """A running run keeps its lease and its due time; the request shows in its row and its signal."""
    lease = await hold(storage)
    before = await get(storage)

    expect(True, await storage.request_cancel("r", now=NOW))

    expect(replace(before, cancel_requested=True), await get(storage))
    expect([RunSignal("r", True, 0)], await storage.check_runs(["r"]))
    expect(True, await storage.save_progress(progress(lease, entries=[entry("0")])))


async def k2_who_has_ended_cannot_be_cancelled(storage: StorageAdapter, another: Another) -> None:
    """[184] An unknown run, and one that has ended, is not cancelled: False, and nothing changes."""
    ended = ("completed", "failed", "cancelled")
    for status in ended:
        await end(storage, status, Ending(RunStatus(status)))
    before = [await state(storage, run_id) for run_id in ended]

    answers = [await storage.request_cancel(run_id, now=NOW) for run_id in ("unknown", *ended)]

    expect(([False] * 4, before), (answers, [await state(storage, run_id) for run_id in ended]))


async def k3_a_second_request_changes_nothing(storage: StorageAdapter, another: Another) -> None:
    """A request that is made again says True and changes nothing, also once the first was delivered."""
    await park(storage, await hold(storage), due_at=NOW + 9)
    await storage.request_cancel("r", now=NOW)
    requested = await get(storage)
    again = await storage.request_cancel("r", now=NOW - 5)
    expect((True, requested), (again, await get(storage)))
    await claim(storage, "second")
    write = progress(Lease("r", "second"), entries=[entry("0")], cancel_delivered=True)
    await storage.save_progress(replace(write, ending=Ending(RunStatus.SLEEPING, NOW + 9)))
    delivered = await get(storage)

    again = await storage.request_cancel("r", now=NOW)

    expect((True, delivered), (again, await get(storage)))


async def f12_a_requested_cancellation_wakes(storage: StorageAdapter, another: Another) -> None:
    """A run that is parked while its cancellation is requested is due at once, whatever it awaits."""
    for number, status in enumerate((RunStatus.PENDING, RunStatus.SLEEPING, RunStatus.WAITING)):
        lease = await hold(storage, str(number))
        await storage.request_cancel(str(number), now=NOW)

        await park(storage, lease, status=status, due_at=NOW + 9, now=NOW + 2)

        expect((status, NOW + 2), ((await get(storage, str(number))).status, (await get(storage, str(number))).due_at))


async def f13_a_delivered_cancellation_is_not_requested_any_more(storage: StorageAdapter, another: Another) -> None:
    """Once the cancellation was delivered the run may sleep for its clean-up, and has no news."""
    lease = await hold(storage)
    await storage.request_cancel("r", now=NOW)

    sleep = Ending(RunStatus.SLEEPING, NOW + 9)
    await storage.save_progress(progress(lease, entries=[entry("0")], cancel_delivered=True, ending=sleep))

    row = await get(storage)
    expect((False, True, NOW + 9), (row.cancel_requested, row.cancel_delivered, row.due_at))
    expect([], await storage.check_runs(["r"]))


# ---- F14: continuing as new -----------------------------------------------------------------------------------------


async def f14_a_run_begins_anew_under_its_id(storage: StorageAdapter, another: Another) -> None:
    """A run that continues as new is pending with another workflow, version, rules and input, and an empty journal."""
    await create(storage, new_run(tags=("t",), idempotency_key="key", priority=2, parent="p", parent_position="0"))
    for number in range(3):
        await claim(storage, str(number), until=NOW)
    before = await get(storage)
    ending = Ending(RunStatus.PENDING, NOW + 5, continued=Continued("v", 2, 3, b"next"))

    write = progress(Lease("r", "2"), entries=[entry("0")], timers=[timer("1")], ending=ending, now=NOW + 1)
    expect(True, await storage.save_progress(write))

    expected = replace(
        before,
        workflow="v",
        version=2,
        rules=3,
        input=b"next",
        status=RunStatus.PENDING,
        due_at=NOW + 5,
        lease_id=None,
        executions=0,
        idle_claims=0,
        generation=1,
        updated_at=NOW + 1,
    )
    expect((expected, Journal([], [])), await state(storage, "r"))
    expect([], ids(await claim(storage, "old", now=NOW + 5)))
    expect(["r"], ids(await claim(storage, "new", workflows=[("v", 2)], now=NOW + 5)))


async def f14_the_mailbox_stays(storage: StorageAdapter, another: Another) -> None:
    """Events are kept and numbered on, and their ids remembered; what children told the old generation goes."""
    lease = await hold(storage)
    await storage.send_message("r", "a", b"", now=NOW, message_id="m")
    child = new_run("child", workflow="child", parent="r", parent_position="0")
    await storage.save_progress(progress(lease, children=[child]))
    await storage.request_cancel("child", now=NOW)
    ending = Ending(RunStatus.PENDING, NOW, continued=Continued("w", 1, 1, b""))

    await storage.save_progress(progress(lease, ending=ending))
    await storage.send_message("r", "a", b"", now=NOW, message_id="m")
    await storage.send_message("r", "b", b"", now=NOW)

    expect([event(1, "a"), event(3, "b")], await storage.get_messages("r", after=0))


async def f14_a_requested_cancellation_stays(storage: StorageAdapter, another: Another) -> None:
    """A cancellation that is requested when the run continues as new is still to be delivered, and at once; one that
    was delivered is over."""
    ending = Ending(RunStatus.PENDING, NOW + 9, continued=Continued("w", 1, 1, b""))
    for run_id in ("requested", "delivered"):
        lease = await hold(storage, run_id)
        await storage.request_cancel(run_id, now=NOW)
        await storage.save_progress(progress(lease, cancel_delivered=run_id == "delivered", ending=ending))

    rows = [await get(storage, run_id) for run_id in ("requested", "delivered")]

    expect(
        [(True, False, NOW), (False, False, NOW + 9)],
        [(row.cancel_requested, row.cancel_delivered, row.due_at) for row in rows],
    )


async def f14_cut_entries_go(storage: StorageAdapter, another: Another) -> None:
    """What was cut out of the journal of an older generation is gone."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, entries=[entry("0")], ending=Ending(RunStatus.FAILED)))
    await resume(storage, "r")
    await claim(storage, "second")
    ending = Ending(RunStatus.PENDING, NOW, continued=Continued("w", 1, 1, b""))

    await storage.save_progress(progress(Lease("r", "second"), ending=ending))

    expect([], await storage.get_cut_entries("r"))


async def f14_what_cannot_be_continued_is_left(storage: StorageAdapter, another: Another) -> None:
    """Where what the run should become cannot be stored, it keeps its journal and its lease."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, entries=[entry("0")]))
    before = await state(storage, "r")
    ending = Ending(RunStatus.PENDING, NOW, continued=Continued("\ud800", 1, 1, b""))

    expect("save_progress", await refusal(storage, progress(lease, recorded=1, ending=ending)))
    expect(before, await state(storage, "r"))


# ---- M, N: resume_run, get_cut_entries ------------------------------------------------------------------------------


async def m1_a_resumed_run_is_as_if_it_had_not_ended(storage: StorageAdapter, another: Another) -> None:
    """A failed or cancelled run is pending and due, without output, error, idle claims or cancellation."""
    for status in (RunStatus.FAILED, RunStatus.CANCELLED):
        lease = await hold(storage, status.value)
        await storage.request_cancel(status, now=NOW)
        ending = Ending(status, output=b"out", error=b"why")
        await storage.save_progress(progress(lease, entries=[entry("0")], cancel_delivered=True, ending=ending))
        before = await get(storage, status)

        expect(True, await resume(storage, status, keep=1, now=NOW + 7))

        expected = replace(
            before,
            status=RunStatus.PENDING,
            due_at=NOW + 7,
            updated_at=NOW + 7,
            output=None,
            error=None,
            cancel_delivered=False,
        )
        expect((expected, Journal([entry("0")], [])), await state(storage, status))
        expect([status.value], ids(await claim(storage, "second", now=NOW + 7)))


async def m1_nothing_else_is_resumed(storage: StorageAdapter, another: Another) -> None:
    """[144][184] A completed, pending, held, parked or unknown run is not resumed: False, and nothing changes."""
    await end(storage, "completed", Ending(RunStatus.COMPLETED, output=b""))
    await create(storage, new_run("pending"))
    await hold(storage, "held")
    await park(storage, await hold(storage, "sleeping"), status=RunStatus.SLEEPING, due_at=NOW + 9)
    await park(storage, await hold(storage, "waiting"))
    run_ids = ("completed", "pending", "held", "sleeping", "waiting")
    before = [await state(storage, run_id) for run_id in run_ids]

    answers = [await resume(storage, run_id) for run_id in ("unknown", *run_ids)]

    expect(([False] * 6, before), (answers, [await state(storage, run_id) for run_id in run_ids]))


async def m1_the_old_lease_is_over(storage: StorageAdapter, another: Another) -> None:
    """Whoever held the run before it ended can write nothing once it was resumed."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, ending=Ending(RunStatus.FAILED)))
    await resume(storage, "r")
    before = await state(storage, "r")

    expect(False, await storage.save_progress(progress(lease, entries=[entry("0")])))
    expect(([lease], before), (await storage.heartbeat([lease], lease_until=NOW * 2), await state(storage, "r")))


async def m1_one_of_several_resumes(storage: StorageAdapter, another: Another) -> None:
    """Of several callers that resume a run at once, through two adapters, one is told True."""
    await end(storage, "r", Ending(RunStatus.FAILED))
    async with opened(another()) as other:
        answers = await together(*(bound(resume, adapter) for _ in range(5) for adapter in (storage, other)))

    expect([True], [answer for answer in answers if answer])


async def m2_the_journal_is_cut(storage: StorageAdapter, another: Another) -> None:
    """The first entries stay and can be written on after; the others are moved, timers go."""
    lease = await hold(storage)
    entries = [entry(str(number)) for number in range(4)]
    await storage.save_progress(progress(lease, entries=entries, timers=[timer("9")], ending=Ending(RunStatus.FAILED)))

    await resume(storage, "r", keep=2)
    await claim(storage, "second")
    await storage.save_progress(progress(Lease("r", "second"), recorded=2, entries=[entry("new")]))

    expect(Journal([*entries[:2], entry("new")], []), await storage.get_journal("r"))
    expect(entries[2:], await storage.get_cut_entries("r"))


async def m2_more_may_be_kept_than_there_is(storage: StorageAdapter, another: Another) -> None:
    """Where there are no more entries than are to be kept, all stay and nothing is cut."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, entries=[entry("0")], ending=Ending(RunStatus.FAILED)))

    await resume(storage, "r", keep=5)

    expect(([entry("0")], []), ((await storage.get_journal("r")).entries, await storage.get_cut_entries("r")))


async def m2_events_stay_and_what_children_told_goes(storage: StorageAdapter, another: Another) -> None:
    """The events in the mailbox are there after the run was resumed; what a child told is told again when started."""
    lease = await hold(storage)
    child = new_run("child", workflow="child", parent="r", parent_position="0")
    await storage.save_progress(progress(lease, children=[child]))
    await storage.request_cancel("child", now=NOW)
    await storage.send_message("r", "a", b"", now=NOW)
    await storage.save_progress(progress(lease, ending=Ending(RunStatus.FAILED)))

    await resume(storage, "r")

    expect([event(2, "a")], await storage.get_messages("r", after=0))
    await claim(storage, "second")
    await storage.save_progress(progress(Lease("r", "second"), children=[child]))
    told = Message(3, MessageKind.CHILD, "0", b"", RunStatus.CANCELLED)
    expect([told], await storage.get_messages("r", after=2))


async def m3_who_comes_late_cuts_nothing(storage: StorageAdapter, another: Another) -> None:
    """A run that was resumed since it was looked at, and has failed again further on, is not resumed as it was then:
    False, and nothing changes."""
    entries = [entry(str(number)) for number in range(3)]
    lease = await hold(storage)
    await storage.save_progress(progress(lease, entries=entries[:1], ending=Ending(RunStatus.FAILED)))
    seen = await get(storage)
    await resume(storage, keep=1)
    await claim(storage, "second")
    write = progress(Lease("r", "second"), recorded=1, entries=entries[1:], ending=Ending(RunStatus.FAILED))
    await storage.save_progress(write)
    before = await state(storage, "r")

    answers = [await storage.resume_run("r", generation=0, executions=seen.executions, keep=0, now=NOW)]
    answers.append(await storage.resume_run("r", generation=1, executions=2, keep=0, now=NOW))

    expect(([False, False], before), (answers, await state(storage, "r")))
    expect(True, await resume(storage, keep=2))
    expect(entries[:2], (await storage.get_journal("r")).entries)


async def n1_every_cut_is_kept(storage: StorageAdapter, another: Another) -> None:
    """A run may be resumed again and again; what was cut each time is there, in that order, and of this run only."""
    for run_id in ("other", "r"):
        await create(storage, new_run(run_id, due_at=0))
    for number, keep in enumerate((1, 0, 0)):
        await claim(storage, str(number))
        for run_id in ("other", "r"):
            known = len((await storage.get_journal(run_id)).entries)
            added = [entry(f"{run_id} {number}.{index}") for index in range(2)]
            write = progress(Lease(run_id, str(number)), recorded=known, entries=added)
            await storage.save_progress(replace(write, ending=Ending(RunStatus.FAILED)))
            await resume(storage, run_id, keep=keep)

    expected = ["r 0.1", "r 0.0", "r 1.0", "r 1.1", "r 2.0", "r 2.1"]
    expect(expected, [entry.position for entry in await storage.get_cut_entries("r")])
    expect([], await storage.get_cut_entries("unknown"))
