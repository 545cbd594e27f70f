"""Clauses R to W: schedules."""

from __future__ import annotations

from msgspec.structs import replace

from reflow import RunStatus, StorageAdapter
from reflow.storage.records import DueSchedules, ScheduleRow
from reflow.testing.conformance.expectation import expect
from reflow.testing.conformance.words import (
    ALL_BYTES,
    NOT_TEXT,
    NOW,
    Another,
    bound,
    claim,
    create,
    failing,
    get,
    ids,
    new_run,
    opened,
    schedule,
    together,
)

_CHANGED = ScheduleRow(
    "s", "v", 7, b"other", "every day", "catch up", "skip", NOW, NOW + 1, NOW + 2, NOW + 3, True, "x"
)


async def r1_a_new_schedule_is_stored_as_given(storage: StorageAdapter, another: Another) -> None:
    """A schedule whose key is unknown comes back with every field as it was given."""
    rows = [
        replace(_CHANGED, key="a", input=ALL_BYTES),
        schedule("b", version=None, last_run_id=None),
        schedule("c\0é 🦆", workflow="", recurrence="", missed="", overlap=""),
    ]

    expect(rows, [await storage.put_schedule(row) for row in rows])
    expect(rows, await storage.get_schedules())


async def r2_the_same_recurrence_keeps_its_cadence(storage: StorageAdapter, another: Another) -> None:
    """A known schedule with the same recurrence keeps when it is due next; what it starts is replaced."""
    row = schedule(last_run_id="run")
    await storage.put_schedule(row)
    await storage.pause_schedule("s", paused=True, now=NOW)
    new = replace(_CHANGED, recurrence=row.recurrence, paused=False)

    answer = await storage.put_schedule(new)

    kept = {name: getattr(row, name) for name in ("anchor_at", "next_at", "created_at", "last_run_id")}
    expected = replace(new, paused=True, **kept)
    expect((expected, [expected]), (answer, await storage.get_schedules()))


async def r2_another_recurrence_begins_anew(storage: StorageAdapter, another: Another) -> None:
    """A known schedule with another recurrence is counted from the new anchor; it keeps its past."""
    row = schedule(last_run_id="run")
    await storage.put_schedule(row)

    answer = await storage.put_schedule(_CHANGED)

    expected = replace(_CHANGED, created_at=row.created_at, paused=False, last_run_id="run")
    expect((expected, [expected]), (answer, await storage.get_schedules()))


async def s1_a_schedule_is_removed_once(storage: StorageAdapter, another: Another) -> None:
    """A schedule that was removed is not there any more and fires no more; its runs stay."""
    await storage.put_schedule(schedule())
    await storage.put_schedule(schedule("other"))
    await storage.fire_schedule("s", expected_next_at=NOW, next_at=NOW + 1, runs=[new_run()], now=NOW)

    answers = [await storage.delete_schedule(key) for key in ("s", "s", "unknown")]

    expect([True, False, False], answers)
    expect(False, await storage.fire_schedule("s", expected_next_at=NOW + 1, next_at=NOW + 2, runs=[], now=NOW))
    expect(([schedule("other")], "r"), (await storage.get_schedules(), (await get(storage)).run_id))


async def t1_a_schedule_rests_and_goes_on(storage: StorageAdapter, another: Another) -> None:
    """Pausing and unpausing change this and the time of the update, and only where it was otherwise."""
    await storage.put_schedule(schedule())
    seen: list[bool | ScheduleRow] = []
    for number, paused in enumerate((False, True, True, False)):
        seen.append(await storage.pause_schedule("s", paused=paused, now=NOW + number))
        seen += await storage.get_schedules()

    row = schedule()
    resting, back = replace(row, paused=True, updated_at=NOW + 1), replace(row, updated_at=NOW + 3)
    expect([True, row, True, resting, True, resting, True, back], seen)
    expect(False, await storage.pause_schedule("unknown", paused=True, now=NOW))


async def u1_schedules_come_in_order_of_their_keys(storage: StorageAdapter, another: Another) -> None:
    """All schedules are listed by key as text, also those that rest; none gives an empty list."""
    expect([], await storage.get_schedules())
    for key in ("b", "", "é", "10", "B", "9"):
        await storage.put_schedule(schedule(key, paused=key == "b"))

    expect(["", "10", "9", "B", "b", "é"], [row.key for row in await storage.get_schedules()])


async def v1_due_schedules_of_named_workflows(storage: StorageAdapter, another: Another) -> None:
    """[186] Schedules come that are due, of named workflows and not paused; oldest first, no more than asked for."""
    rows = [
        schedule("later", next_at=NOW + 1),
        schedule("now", next_at=NOW),
        schedule("old", next_at=NOW - 9, workflow="v"),
        schedule("paused", next_at=NOW - 9, paused=True),
        schedule("foreign", next_at=NOW - 9, workflow="x"),
        schedule("older", next_at=NOW - 10),
    ]
    for row in rows:
        await storage.put_schedule(row)

    answers = [await storage.due_schedules(["w", "v", "w"], limit=limit, now=NOW) for limit in (9, 2)]

    expect([["older", "old", "now"], ["older", "old"]], [[row.key for row in due.schedules] for due in answers])
    expect(rows[5], answers[0].schedules[0])
    expect(DueSchedules([], None), await storage.due_schedules([], limit=9, now=NOW))


async def v2_the_next_due_time_is_told(storage: StorageAdapter, another: Another) -> None:
    """The next time is that of the first schedule that was left: in the past where due ones were left."""
    expect(DueSchedules([], None), await storage.due_schedules(["w"], limit=9, now=NOW))
    for key, next_at in (("a", NOW + 9), ("b", NOW - 1), ("c", NOW)):
        await storage.put_schedule(schedule(key, next_at=next_at))
    await storage.put_schedule(schedule("paused", next_at=NOW + 1, paused=True))
    await storage.put_schedule(schedule("foreign", next_at=NOW + 1, workflow="x"))

    answers = [await storage.due_schedules(["w"], limit=limit, now=NOW) for limit in (9, 1, 0)]

    expect([NOW + 9, NOW, NOW - 1], [due.next_due_at for due in answers])


async def w1_an_occurrence_fires_once(storage: StorageAdapter, another: Another) -> None:
    """[154][186] Of several that fire one occurrence at once, through two adapters, one is told True, and its run is
    there."""
    await storage.put_schedule(schedule())
    async with opened(another()) as other:

        async def fire(number: int) -> bool:
            adapter = other if number % 2 else storage
            runs = [new_run(str(number))]
            return await adapter.fire_schedule("s", expected_next_at=NOW, next_at=NOW + 1, runs=runs, now=NOW)

        answers = await together(*(bound(fire, number) for number in range(10)))

    expect([str(number) for number, fired in enumerate(answers) if fired], ids(await claim(storage)))


async def w1_what_is_not_as_expected_does_not_fire(storage: StorageAdapter, another: Another) -> None:
    """A schedule that is unknown, paused, or due at another time does not fire: False, no run, no change."""
    rows = [schedule("other time"), schedule("paused", paused=True)]
    for row in rows:
        await storage.put_schedule(row)

    answers = [
        await storage.fire_schedule(key, expected_next_at=at, next_at=NOW + 9, runs=[new_run()], now=NOW)
        for key, at in (("unknown", NOW), ("paused", NOW), ("other time", NOW - 1), ("other time", NOW + 1))
    ]

    expect(([False] * 4, rows, None), (answers, await storage.get_schedules(), await storage.get_run("r")))


async def w2_a_firing_moves_on_and_starts_runs(storage: StorageAdapter, another: Another) -> None:
    """[186] A firing sets the next time, creates its runs, and remembers the last; one that starts none keeps it."""
    await storage.put_schedule(schedule())
    runs = [new_run("1", tags=("t",)), new_run("2")]

    fired = [
        await storage.fire_schedule("s", expected_next_at=NOW, next_at=NOW + 5, runs=runs, now=NOW + 1),
        await storage.fire_schedule("s", expected_next_at=NOW + 5, next_at=NOW + 9, runs=[], now=NOW + 6),
    ]

    expect([True, True], fired)
    expect([schedule(next_at=NOW + 9, updated_at=NOW + 6, last_run_id="2")], await storage.get_schedules())
    expect([run.row() for run in runs], [await get(storage, "1"), await get(storage, "2")])


async def w2_a_run_that_is_there_is_not_started_again(storage: StorageAdapter, another: Another) -> None:
    """Where the id or the key of a run is known, that run stays, and is the last run."""
    await storage.put_schedule(schedule())
    await create(storage, new_run(idempotency_key="key"))
    await storage.request_cancel("r", now=NOW)
    run = new_run("new", idempotency_key="key")

    expect(True, await storage.fire_schedule("s", expected_next_at=NOW, next_at=NOW + 1, runs=[run], now=NOW))

    expect((None, RunStatus.CANCELLED), (await storage.get_run("new"), (await get(storage)).status))
    expect(["r"], [row.last_run_id for row in await storage.get_schedules()])


async def w2_a_firing_happens_whole_or_not_at_all(storage: StorageAdapter, another: Another) -> None:
    """[154] Where a run cannot be stored the schedule stays where it was, and no other run is there."""
    await storage.put_schedule(schedule())
    fire = bound(
        storage.fire_schedule, "s", expected_next_at=NOW, next_at=NOW + 1, runs=[new_run(), new_run(NOT_TEXT)], now=NOW
    )

    expect("fire_schedule", await failing(fire))
    expect(([schedule()], None), (await storage.get_schedules(), await storage.get_run("r")))
