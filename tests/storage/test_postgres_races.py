"""Adapters side by side on one schema: nobody waits in a circle, and no journal is made of two."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from anyio import create_task_group, to_thread
from msgspec.structs import replace
from psycopg.conninfo import make_conninfo

from reflow import RunStatus, StorageError
from reflow._core.journal import MessageKind
from reflow.storage.postgres import PostgresStorage
from reflow.storage.records import Ending, Lease, Progress
from reflow.testing.conformance.words import (
    LEASE_UNTIL,
    NOW,
    bound,
    claim,
    create,
    entry,
    get,
    hold,
    ids,
    new_run,
    opened,
    progress,
    state,
    together,
)
from tests.support.postgres import Schemas, Server
from tests.support.postgres.outside import Outside, outside
from tests.support.postgres.schemas import Place

pytestmark = pytest.mark.anyio

Pair = tuple[PostgresStorage, PostgresStorage]
DONE = Ending(RunStatus.COMPLETED, output=b"out")
TAKE_OVER = "update run set lease_id = 'second', idle_claims = 0 where run_id = 'r'"


# ---- the order of locks ----------------------------------------------------------------------------------------------


async def test_opposite_orders_make_no_deadlock(schemas: Schemas):
    """Two adapters whose batches touch the same runs in opposite orders, by everything that one run does to another,
    never make the server break up a deadlock."""
    with schemas.lend() as place, outside(place) as beside:
        before = deadlocks(beside)
        one, other = (PostgresStorage(place.dsn, schema=place.schema) for _ in range(2))
        async with opened(one), opened(other):
            for number in range(12):
                await entangle(one, other, f"{number}.")
        await beside.soon("select count(*) = 0 from pg_stat_activity where application_name = %s", (place.schema,))

        assert before == deadlocks(beside)


def deadlocks(beside: Outside) -> int:
    """How many deadlocks the server has broken up in this database."""
    count: int = beside.one("select deadlocks from pg_stat_database where datname = current_database()")
    return count


async def entangle(one: PostgresStorage, other: PostgresStorage, prefix: str) -> None:
    """Have families of runs append, be sent events, beat, end, cancel and be cancelled: one adapter does it to half of
    them from the first to the last, the other to the other half, the other way around."""
    parents = [f"{prefix}p{number}" for number in range(4)]
    children = [f"{parent}.{number}" for number in range(4) for parent in parents]
    family = [new_run(run_id) for run_id in parents]
    family += [new_run(child, parent=child[:-2], parent_position=child[-1]) for child in children]
    await one.create_runs(family)
    held = {run_id: Lease(run_id, "here") for run_id in ids(await claim(one, "here"))}
    assert len(family) == len(held)

    async def both(do: Callable[[PostgresStorage, str], Awaitable[Any]], runs: list[str]) -> list[Any]:
        forth = [partial(do, one, run_id) for run_id in runs[::2]]
        back = [partial(do, other, run_id) for run_id in reversed(runs[1::2])]
        return await together(*(call for calls in zip(forth, back, strict=True) for call in calls))

    def save(storage: PostgresStorage, run_id: str, recorded: int, **more: Any) -> Awaitable[bool]:
        return storage.save_progress(progress(held[run_id], recorded=recorded, **more))

    # What only adds an entry names no run, but of one that was idle the row is written.
    half = len(family) // 2
    runs = list(held)
    await together(
        *(bound(one.send_message, run_id, "go", b"", now=NOW) for run_id in runs[:half]),
        *(bound(other.send_message, run_id, "go", b"", now=NOW) for run_id in runs[half:]),
        *(bound(save, one, run_id, 0, entries=[entry("0")]) for run_id in runs[half:]),
        *(bound(save, other, run_id, 0, entries=[entry("0")]) for run_id in runs[:half]),
    )
    ending, cancelling = children[: len(children) // 2], children[len(children) // 2 :]
    answers = await together(
        *(bound(both, lambda storage, run_id: save(storage, run_id, 1, ending=DONE), ending) for _ in range(1)),
        bound(both, lambda storage, run_id: storage.send_message(run_id, "go", b"", now=NOW), runs),
        bound(both, lambda storage, run_id: storage.request_cancel(run_id, now=NOW), runs),
        bound(both, lambda storage, run_id: save(storage, run_id, 1, cancelled=cancelling), parents),
        bound(one.heartbeat, [*held.values()], lease_until=LEASE_UNTIL),
        bound(other.heartbeat, [*reversed(held.values())], lease_until=LEASE_UNTIL),
    )
    assert ([True] * len(ending), [True] * len(parents)) == (answers[0], answers[3])
    told = [message for run_id in parents for message in (await one.get_journal(run_id)).messages]
    assert len(ending) == sum(message.kind is MessageKind.CHILD for message in told)


# ---- an append and a claim -------------------------------------------------------------------------------------------


async def test_an_append_beside_a_takeover_is_in_the_one_journal(pair: Pair, beside: Outside):
    """[119] An entry that is appended while an uncommitted claim holds the row is in the journal; what the new holder
    would write in its place is answered False and changes nothing; the lost reply, asked for again, is True."""
    one, other = pair
    lease = await hold(one)
    assert await one.save_progress(progress(lease, entries=[entry("0")]))
    late = progress(lease, recorded=1, entries=[entry("1", payload=b"late")])

    beside("begin")
    beside(TAKE_OVER)
    # It does not wait: nothing but the entry is written.
    assert await one.save_progress(late)
    beside("commit")
    before = await state(other, "r")
    assert not await other.save_progress(progress(Lease("r", "second"), recorded=1, entries=[entry("1")]))

    assert before == await state(other, "r")
    assert [b"value", b"late"] == [found.payload for found in (await one.get_journal("r")).entries]
    assert not await one.save_progress(late)
    # Whoever reads the journal first goes on from there.
    assert await other.save_progress(progress(Lease("r", "second"), recorded=2, entries=[entry("2")]))
    assert await other.save_progress(progress(Lease("r", "second"), recorded=2, entries=[entry("2")]))


@pytest.mark.parametrize("durability", ["full", "process"])
async def test_an_append_of_an_idle_run_waits_for_the_takeover(place: Place, beside: Outside, durability: Any):
    """[117] Where the row has to be written too, the append waits for the claim, and finds its lease lost: nothing of
    it is there. What shares the batch is carried out."""
    async with opened(PostgresStorage(place.dsn, schema=place.schema, durability=durability)) as storage:
        leases = [await hold(storage, run_id) for run_id in ("r", "other")]
        beside("begin")
        beside(TAKE_OVER)
        answers: list[bool] = []

        async def append() -> None:
            writes = [progress(lease, entries=[entry("0")]) for lease in leases]
            answers.extend(await together(*(bound(storage.save_progress, write) for write in writes)))

        async with create_task_group() as tasks:
            tasks.start_soon(append)
            await beside.somebody_waits()
            beside("commit")

        assert [False, True] == answers
        assert [0, 1] == [len((await storage.get_journal(run_id)).entries) for run_id in ("r", "other")]
        assert [0, 0] == [(await get(storage, run_id)).idle_claims for run_id in ("r", "other")]


@pytest.mark.parametrize("append", ["alone", "beside others"])
async def test_an_append_waits_for_nobody_who_waits_for_it(place: Place, beside: Outside, append: str):
    """Whoever locks runs in order of their ids never waits in a circle with an append, although that names no run and
    writes the rows of those that were idle."""
    async with opened(PostgresStorage(place.dsn, schema=place.schema)) as storage:
        before = deadlocks(beside)
        first, last = await hold(storage, "first"), await hold(storage, "last")
        if append == "alone":
            calls = [bound(storage.save_progress, progress(lease, entries=[entry("0")])) for lease in (last, first)]
        else:
            calls = [
                bound(storage.send_message, "last", "go", b"", now=NOW),
                bound(storage.save_progress, progress(first, entries=[entry("0")])),
            ]
        answers: list[bool] = []

        async def call() -> None:
            answers.extend(await together(*calls))

        beside("begin")
        beside("select 1 from run where run_id = 'first' for no key update")
        async with create_task_group() as tasks:
            tasks.start_soon(call)
            await beside.somebody_waits()
            await to_thread.run_sync(beside, "select 1 from run where run_id = 'last' for no key update nowait")
            beside("commit")

    await beside.soon("select count(*) = 0 from pg_stat_activity where application_name = %s", (place.schema,))
    assert ([True, True], before) == (answers, deadlocks(beside))


async def test_what_is_refused_in_a_batch_hurts_nobody_else(pair: Pair, beside: Outside):
    """[117] In one batch, writes with a gap are StorageErrors, those of a lost lease and those in the place of another
    entry are False, repeated ones are True, and all others are carried out."""
    one, _ = pair
    leases = {run_id: await hold(one, run_id) for run_id in ("good", "gap", "lost", "taken", "again", "ending")}
    for run_id in ("taken", "again"):
        assert await one.save_progress(progress(leases[run_id], entries=[entry("0")]))
    writes = {
        "good": progress(leases["good"], entries=[entry("0"), entry("1")]),
        "gap": progress(leases["gap"], recorded=3, entries=[entry("3")]),
        "lost": progress(Lease("lost", "another"), entries=[entry("0")]),
        "taken": progress(leases["taken"], entries=[entry("0", payload=b"another"), entry("1")]),
        "again": progress(leases["again"], entries=[entry("0"), entry("1")]),
        "ending": progress(leases["ending"], entries=[entry("0")], ending=DONE),
    }
    before = {run_id: await state(one, run_id) for run_id in ("gap", "lost", "taken")}

    answers = dict(zip(writes, await together(*(bound(said, one, write) for write in writes.values())), strict=True))

    gap = answers.pop("gap")
    assert {"good": True, "lost": False, "taken": False, "again": True, "ending": True} == answers
    assert "entries of run 'gap' are missing" in gap
    assert before == {run_id: await state(one, run_id) for run_id in before}
    assert [2, 2, 1] == [len((await one.get_journal(run_id)).entries) for run_id in ("good", "again", "ending")]


async def said(storage: PostgresStorage, write: Progress) -> Any:
    """What becomes of a write: its answer, or its error as text."""
    try:
        return await storage.save_progress(write)
    except StorageError as error:
        return str(error)


async def test_a_lost_reply_with_another_in_the_batch(pair: Pair):
    """[31] A write that is repeated in one batch with its own continuation is there once, and both are True."""
    lease = await hold(pair[0])
    first = progress(lease, entries=[entry("0")])
    assert await pair[0].save_progress(first)
    then = progress(lease, recorded=1, entries=[entry("1")])

    assert [True, True] == await together(bound(pair[0].save_progress, first), bound(pair[0].save_progress, then))

    assert ["0", "1"] == [found.position for found in (await pair[1].get_journal("r")).entries]


async def test_claims_at_once_share_what_is_due(pair: Pair):
    """[112] Two adapters that claim at the same moment get different runs, and none waits for the other."""
    await pair[0].create_runs([new_run(str(number)) for number in range(40)])

    claimed = await together(
        *(
            bound(claim, storage, f"{name}{number}", limit=10)
            for number in range(4)
            for name, storage in zip("ab", pair, strict=True)
        )
    )

    assert sorted(map(str, range(40))) == sorted(run_id for each in claimed for run_id in ids(each))


async def test_a_locked_run_is_passed_over(pair: Pair, beside: Outside):
    """A claim does not wait for a run that another connection has locked, and gets the others."""
    await pair[0].create_runs([new_run(run_id) for run_id in "abc"])
    beside("begin")
    beside("select 1 from run where run_id = 'a' for no key update")

    claimed = await claim(pair[0])

    beside("commit")
    assert (["b", "c"], ["a"]) == (ids(claimed), ids(await claim(pair[1])))


async def test_a_run_that_is_stored_late_is_found(pair: Pair):
    """[114] A run that is stored as due long before others which are claimed already comes first: at once where nothing
    more was to be claimed, and within a second in any case."""
    one, other = pair
    await one.create_runs([new_run(str(number), due_at=NOW) for number in range(4)])
    assert ["0"] == ids(await claim(one, limit=1))
    await create(other, new_run("late", due_at=NOW - 600_000_000))
    assert "late" in ids(await claim(one, limit=2, now=NOW + 1_000_000))
    assert ["2", "3"] == ids(await claim(one, now=NOW + 1_000_000))
    assert [] == ids(await claim(one, now=NOW + 1_000_000))
    await create(other, new_run("later", due_at=NOW - 600_000_000))
    assert ["later"] == ids(await claim(one, now=NOW + 1_000_000))


async def test_older_runs_of_a_lower_priority_are_found(pair: Pair):
    """[114] Where claims came no further than the higher priorities, older runs of lower ones are found as soon as it
    is their turn, and until then some are known to be left."""
    one = pair[0]
    await one.create_runs([new_run(f"high {number}", priority=1, due_at=NOW) for number in range(3)])
    await one.create_runs([new_run(f"low {number}", due_at=NOW - 600_000_000 + number) for number in range(2)])

    claims = [await claim(one, f"{number}", limit=2) for number in range(3)]

    assert [["high 0", "high 1"], ["high 2", "low 0"], ["low 1"]] == [ids(claimed) for claimed in claims]
    assert [True, True, False] == [(claimed.next_due_at or 0) <= NOW for claimed in claims]


# ---- what the server breaks up ---------------------------------------------------------------------------------------


async def test_a_deadlock_is_tried_again(server: Server):
    """A verb whose transaction the server breaks up to end a deadlock is tried again, and succeeds."""
    place = Place(make_conninfo(server.dsn, application_name="deadlocked"), "deadlocked")
    impatient = make_conninfo(place.dsn, options="-c deadlock_timeout=200ms")
    with outside(place) as beside:
        beside("set deadlock_timeout = '20s'")
        before = deadlocks(beside)
        async with opened(PostgresStorage(impatient, schema=place.schema)) as storage:
            parent, child = await hold(storage, "a"), await hold(storage, "b")
            beside("begin")
            beside("select 1 from run where run_id = 'b' for update")
            async with create_task_group() as tasks:
                tasks.start_soon(storage.save_progress, progress(parent, cancelled=[child.run_id]))
                await beside.somebody_waits()
                await to_thread.run_sync(beside, "update run set tags = null where run_id = 'a'")
                beside("commit")
            cancelled = await get(storage, "b")
        await beside.soon("select count(*) = 0 from pg_stat_activity where application_name = 'deadlocked'")
        after = deadlocks(beside)
        beside("drop schema deadlocked cascade")

    assert cancelled.cancel_requested
    assert after > before


@pytest.mark.parametrize(("times", "succeeds"), [(9, True), (100, False)])
async def test_a_failed_serialization_is_tried_again(untouched: Place, times: int, succeeds: bool):
    """A verb whose transaction cannot be serialized is tried again, ten times, with all that shares it."""
    async with opened(PostgresStorage(untouched.dsn, schema=untouched.schema)) as storage:
        leases = [await hold(storage, run_id) for run_id in "ab"]
        with outside(untouched) as beside:
            beside("create sequence tries")
            beside(f"""create function refuse() returns trigger language plpgsql as $$ begin
                if nextval('{untouched.schema}.tries') <= {times} then
                    raise 'not now' using errcode = 'serialization_failure';
                end if; return new; end $$""")
            beside("create trigger refuse before update on run for each statement execute function refuse()")
        answers = await together(*(bound(said, storage, progress(lease, ending=DONE)) for lease in leases))

    assert [True, True] == answers if succeeds else all("not now" in answer for answer in answers)


async def test_one_that_cannot_be_redone_hurts_itself(pair: Pair):
    """In a batch with a value that no column takes, the verb that brought it fails and all others are carried out."""

    async def make(number: int) -> Any:
        try:
            return (await create(pair[0], new_run(str(number), due_at=2**63 if number == 3 else NOW)))[1]
        except StorageError as error:
            return error.verb

    answers = await together(*(bound(make, number) for number in range(6)))

    assert [True, True, True, "create_runs", True, True] == answers


@pytest.mark.parametrize("spoilt", [{"position": b"0"}, {"name": 5}, {"payload": "text"}, {"recorded_at": "5"}])
async def test_a_value_of_another_type_is_refused(pair: Pair, spoilt: dict[str, Any]):
    """An entry with bytes for a text, a text for bytes, or such, is a StorageError, though arrays would take it."""
    lease = await hold(pair[0])

    with pytest.raises(StorageError, match="belongs"):
        await pair[0].save_progress(progress(lease, entries=[replace(entry("0"), **spoilt)]))

    assert [] == (await pair[0].get_journal("r")).entries
