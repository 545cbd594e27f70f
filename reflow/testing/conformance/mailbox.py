"""Clauses I, J and L, get_messages, send_message, check_runs, and what save_progress does with messages."""

from __future__ import annotations

from msgspec.structs import replace

from reflow import RunStatus, StorageAdapter
from reflow._core.journal import Message, MessageKind
from reflow.storage.records import Ending, Lease, RunSignal
from reflow.testing.conformance.expectation import expect
from reflow.testing.conformance.words import (
    ALL_BYTES,
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
    together,
)

# ---- F8, F12: taking messages, and parking --------------------------------------------------------------------------


async def f8_consumed_messages_go_with_the_write(storage: StorageAdapter, another: Another) -> None:
    """A write that consumes messages removes them from the mailbox, and leaves the others in their order."""
    lease = await hold(storage)
    for name in ("a", "b", "a", "c"):
        await storage.send_message("r", name, b"", now=NOW)

    expect(True, await storage.save_progress(progress(lease, entries=[entry("0"), entry("1")], consumed=[3, 1])))

    expect([event(2, "b"), event(4, "c")], (await storage.get_journal("r")).messages)


async def f8_a_message_is_consumed_once(storage: StorageAdapter, another: Another) -> None:
    """A write that consumes what is not in the mailbox is refused, with all that it brings."""
    lease = await hold(storage)
    await storage.send_message("r", "a", b"", now=NOW)
    await storage.send_message("r", "a", b"", now=NOW)
    await storage.save_progress(progress(lease, entries=[entry("0")], consumed=[1]))
    before = await state(storage, "r")
    whole = progress(lease, recorded=1, entries=[entry("1")], consumed=[2])

    refusals = [await refusal(storage, replace(whole, consumed=consumed)) for consumed in ([1], [2, 1], [3])]

    expect((["save_progress"] * 3, before), (refusals, await state(storage, "r")))


async def f8_the_same_write_again_consumes_nothing_more(storage: StorageAdapter, another: Another) -> None:
    """A write that is sent again, perhaps with more, is no second taking: its entries show that it was there."""
    lease = await hold(storage)
    for _ in range(3):
        await storage.send_message("r", "a", b"", now=NOW)
    write = progress(lease, entries=[entry("0")], consumed=[1])
    await storage.save_progress(write)

    expect(True, await storage.save_progress(write))
    expect(True, await storage.save_progress(replace(write, entries=[entry("0"), entry("1")], consumed=[1, 2])))
    expect([event(3, "a")], await storage.get_messages("r", after=0))


async def f8_a_lost_lease_consumes_nothing(storage: StorageAdapter, another: Another) -> None:
    """A write under a lost lease leaves the mailbox as it is."""
    lease = await hold(storage, until=NOW)
    await storage.send_message("r", "a", b"", now=NOW)
    await claim(storage, "second")

    expect(False, await storage.save_progress(progress(lease, entries=[entry("0")], consumed=[1])))
    expect([event(1, "a")], await storage.get_messages("r", after=0))


async def f12_a_message_that_came_before_parking_wakes(storage: StorageAdapter, another: Another) -> None:
    """A run that is parked while a message which it awaits is in its mailbox is due at once, with whatever deadline."""
    for status, due_at in ((RunStatus.WAITING, None), (RunStatus.WAITING, NOW + 9), (RunStatus.SLEEPING, NOW + 9)):
        run_id = f"{status} until {due_at}"
        lease = await hold(storage, run_id)
        await storage.send_message(run_id, "go", b"", now=NOW)

        await park(storage, lease, "other", "go", status=status, due_at=due_at, now=NOW + 2)

        row = await get(storage, run_id)
        expect((status, NOW + 2, None), (row.status, row.due_at, row.lease_id))


async def f12_other_messages_do_not_wake(storage: StorageAdapter, another: Another) -> None:
    """A run that is parked with messages of other names or kinds in its mailbox waits."""
    lease = await hold(storage)
    await storage.send_message("r", "0", b"", now=NOW)

    await park(storage, lease, "go", awaits=((MessageKind.CHILD, "0"),), due_at=NOW + 9)

    expect(NOW + 9, (await get(storage)).due_at)


async def f12_what_is_consumed_does_not_wake(storage: StorageAdapter, another: Another) -> None:
    """A run that takes a message and awaits the next one of that name in one write waits."""
    lease = await hold(storage)
    await storage.send_message("r", "go", b"", now=NOW)
    ending = Ending(RunStatus.WAITING, awaits=((MessageKind.EVENT, "go"),))

    await storage.save_progress(progress(lease, entries=[entry("0")], consumed=[1], ending=ending))

    expect(None, (await get(storage)).due_at)


async def f12_waking_is_not_putting_off(storage: StorageAdapter, another: Another) -> None:
    """[185] A run that is parked with a deadline in the past keeps it, and so its rank among due runs."""
    lease = await hold(storage)
    await storage.send_message("r", "go", b"", now=NOW)

    await park(storage, lease, "go", due_at=NOW - 5)

    expect(NOW - 5, (await get(storage)).due_at)


async def f12_no_message_is_lost_between_parking_and_sending(storage: StorageAdapter, another: Another) -> None:
    """Whichever comes first, parking or the message, through whatever adapter: the run is due afterwards."""
    async with opened(another()) as other:
        for number in range(20):
            lease = await hold(storage, str(number))
            parking = bound(park, storage, lease, "go")
            sending = bound(other.send_message, str(number), "go", b"", now=NOW)

            await together(*((parking, sending) if number % 2 else (sending, parking)))

            expect(NOW, (await get(storage, str(number))).due_at)


# ---- I: get_messages ------------------------------------------------------------------------------------------------


async def i1_messages_come_in_order(storage: StorageAdapter, another: Another) -> None:
    """Messages have numbers from 1 and come in the order in which they were sent, those after a number only."""
    await create(storage, new_run())
    for number in range(1, 5):
        await storage.send_message("r", "a" if number % 2 else "b", bytes([number]), now=NOW)

    messages = [event(number, "a" if number % 2 else "b", bytes([number])) for number in range(1, 5)]

    expect(messages, await storage.get_messages("r", after=0))
    expect(messages[2:], await storage.get_messages("r", after=2))
    expect([], await storage.get_messages("r", after=4))
    expect(messages, (await storage.get_journal("r")).messages)


async def i1_no_number_is_given_twice(storage: StorageAdapter, another: Another) -> None:
    """A number that was consumed is not used again, and the row knows the last one."""
    lease = await hold(storage)
    await storage.send_message("r", "a", b"", now=NOW)
    await storage.save_progress(progress(lease, entries=[entry("0")], consumed=[1]))

    await storage.send_message("r", "a", b"", now=NOW)

    expect(([event(2, "a")], 2), (await storage.get_messages("r", after=0), (await get(storage)).last_message))


async def i1_messages_of_this_run_only(storage: StorageAdapter, another: Another) -> None:
    """Each run has its own messages and its own numbers."""
    for run_id in ("a", "b"):
        await create(storage, new_run(run_id))
        await storage.send_message(run_id, run_id, b"", now=NOW)

    expect([[event(1, "a")], [event(1, "b")]], [await storage.get_messages(run_id, after=0) for run_id in ("a", "b")])


async def i2_an_unknown_run_has_no_messages(storage: StorageAdapter, another: Another) -> None:
    """The mailbox of an unknown run is empty."""
    expect([], await storage.get_messages("unknown", after=0))


# ---- J: send_message ------------------------------------------------------------------------------------------------


async def j1_a_message_comes_back_exactly(storage: StorageAdapter, another: Another) -> None:
    """Name and payload come back as they were sent; equal messages are not merged."""
    await create(storage, new_run())
    sent = [("", b""), ("a\0b", ALL_BYTES), ("a", b"x"), ("a", b"x"), ("é 🦆", b"\0")]

    answers = [await storage.send_message("r", name, payload, now=NOW) for name, payload in sent]

    expect([True] * 5, answers)
    expected = [Message(seq, MessageKind.EVENT, name, payload) for seq, (name, payload) in enumerate(sent, 1)]
    expect(expected, await storage.get_messages("r", after=0))


async def j1_a_message_waits_through_all_states(storage: StorageAdapter, another: Another) -> None:
    """A message from before the first claim is there when the run was given back, parked, failed and resumed."""
    await create(storage, new_run(due_at=0))
    await storage.send_message("r", "a", b"", now=NOW)
    seen: list[Message] = []
    endings = [Ending(RunStatus.PENDING, 0), Ending(RunStatus.SLEEPING, 0), Ending(RunStatus.FAILED)]
    for number, ending in enumerate(endings):
        await claim(storage, str(number))
        await storage.save_progress(progress(Lease("r", str(number)), ending=ending))
        seen += await storage.get_messages("r", after=0)
    await resume(storage, "r")
    seen += await storage.get_messages("r", after=0)

    expect([event(1, "a")] * 4, seen)


async def j1_who_has_ended_gets_no_message(storage: StorageAdapter, another: Another) -> None:
    """A message to an unknown run, or one that has ended, is refused with False and leaves nothing."""
    for status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED):
        await end(storage, status.value, Ending(status))
    before = [await state(storage, status) for status in ("completed", "failed", "cancelled")]

    answers = [
        await storage.send_message(run_id, "a", b"", now=NOW, message_id="m")
        for run_id in ("unknown", "completed", "failed", "cancelled")
    ]

    expect([False] * 4, answers)
    expect(before, [await state(storage, status) for status in ("completed", "failed", "cancelled")])
    await resume(storage, "failed")
    expect(True, await storage.send_message("failed", "a", b"", now=NOW, message_id="m"))
    expect(1, len(await storage.get_messages("failed", after=0)))


async def j2_a_message_wakes_who_awaits_it(storage: StorageAdapter, another: Another) -> None:
    """[185] A parked run is due at once when a message comes that it awaits; its status stays until it is claimed."""
    for status, due_at in ((RunStatus.WAITING, None), (RunStatus.WAITING, NOW + 9), (RunStatus.SLEEPING, NOW + 9)):
        run_id = f"{status} until {due_at}"
        await park(storage, await hold(storage, run_id), "other", "go", status=status, due_at=due_at)
        before = await get(storage, run_id)

        await storage.send_message(run_id, "go", b"", now=NOW + 2)

        expect(replace(before, due_at=NOW + 2, last_message=1), await get(storage, run_id))
        expect([run_id], ids(await claim(storage, "second", now=NOW + 2)))


async def j2_a_message_wakes_nobody_else(storage: StorageAdapter, another: Another) -> None:
    """A message of another name, or to a run that is held, delayed or due already, changes no due time."""
    await park(storage, await hold(storage, "other name"), "go", due_at=NOW + 9)
    await park(storage, await hold(storage, "child of that name"), awaits=((MessageKind.CHILD, "a"),), due_at=NOW + 9)
    await park(storage, await hold(storage, "due"), "a", due_at=NOW - 1)
    await create(storage, new_run("delayed", due_at=NOW + 9))
    await hold(storage, "held", until=NOW + 9)
    run_ids = ("other name", "child of that name", "due", "delayed", "held")

    for run_id in run_ids:
        await storage.send_message(run_id, "a", b"", now=NOW)

    expect([NOW + 9, NOW + 9, NOW - 1, NOW + 9, NOW + 9], [(await get(storage, run_id)).due_at for run_id in run_ids])


async def j2_what_was_awaited_before_is_forgotten(storage: StorageAdapter, another: Another) -> None:
    """What a run awaited when it was parked last does not wake it from where it is now."""
    await park(storage, await hold(storage), "go", due_at=NOW)
    await claim(storage, "second", until=NOW + 9)
    await storage.send_message("r", "go", b"", now=NOW)
    held = await get(storage)
    await park(storage, Lease("r", "second"), "later", due_at=NOW + 9)

    await storage.send_message("r", "go", b"", now=NOW)

    expect([NOW + 9] * 2, [held.due_at, (await get(storage)).due_at])


async def j3_a_message_id_counts_once(storage: StorageAdapter, another: Another) -> None:
    """A message whose id this run was sent before is accepted and not there twice, even after it was consumed."""
    lease = await hold(storage)
    await create(storage, new_run("other"))

    first = await storage.send_message("r", "a", b"1", now=NOW, message_id="m")
    again = await storage.send_message("r", "b", b"2", now=NOW, message_id="m")
    await storage.send_message("r", "c", b"3", now=NOW, message_id="n")
    await storage.save_progress(progress(lease, entries=[entry("0")], consumed=[1]))
    consumed = await storage.send_message("r", "a", b"4", now=NOW, message_id="m")
    await storage.send_message("other", "a", b"5", now=NOW, message_id="m")

    expect([True] * 3, [first, again, consumed])
    expect([event(2, "c", b"3")], await storage.get_messages("r", after=0))
    expect([event(1, "a", b"5")], await storage.get_messages("other", after=0))


async def j3_one_of_several_with_one_id_is_there(storage: StorageAdapter, another: Another) -> None:
    """Of several messages with one id that are sent at once, through two adapters, one is there; all are accepted."""
    await create(storage, new_run())
    async with opened(another()) as other:
        answers = await together(
            *(
                bound(adapter.send_message, "r", "a", bytes([number]), now=NOW, message_id="m")
                for number in range(5)
                for adapter in (storage, other)
            )
        )

    expect(([True] * 10, 1), (answers, len(await storage.get_messages("r", after=0))))


# ---- L: check_runs --------------------------------------------------------------------------------------------------


async def l1_only_runs_with_news_are_told(storage: StorageAdapter, another: Another) -> None:
    """Of the runs asked for, those with a message or a requested cancellation are told, in the order of asking."""
    leases = {run_id: await hold(storage, run_id) for run_id in ("quiet", "mail", "cancel", "both", "read", "unasked")}
    for run_id in ("mail", "both", "read", "unasked", "mail"):
        await storage.send_message(run_id, "a", b"", now=NOW)
    for run_id in ("cancel", "both"):
        await storage.request_cancel(run_id, now=NOW)
    await storage.save_progress(progress(leases["read"], entries=[entry("0")], consumed=[1]))

    signals = await storage.check_runs(["read", "both", "unknown", "mail", "quiet", "cancel"])

    expect([RunSignal("both", True, 1), RunSignal("mail", False, 2), RunSignal("cancel", True, 0)], signals)
    expect([], await storage.check_runs([]))
