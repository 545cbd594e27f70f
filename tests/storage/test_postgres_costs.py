"""What `PostgresStorage` costs: which rows its statements visit, counted by the server and not timed."""

from __future__ import annotations

from typing import Any

import pytest

from reflow import RunStatus
from reflow.storage.postgres import PostgresStorage
from reflow.storage.records import Ending, Lease
from reflow.testing.conformance.words import (
    LEASE_UNTIL,
    NOW,
    bound,
    claim,
    entry,
    hold,
    ids,
    new_run,
    opened,
    progress,
    resume,
    together,
)
from tests.storage.test_costs import call_every_verb
from tests.support.postgres.outside import Outside, outside
from tests.support.postgres.schemas import Place

pytestmark = pytest.mark.anyio

SCANS = """select relname, seq_scan from pg_stat_user_tables
    where schemaname = current_schema() and relname <> 'schema' order by relname"""
BLOCKS = """select (sum(heap_blks_hit + heap_blks_read + coalesce(idx_blks_hit, 0) + coalesce(idx_blks_read, 0)))::int
    from pg_statio_user_tables where schemaname = current_schema() and relname in ('run', 'entry')"""
FILL = """insert into run (run_id, workflow, version, rules, status, priority, due_at, executions, idle_claims,
    generation, cancel_requested, cancel_delivered, last_message, created_at, updated_at, ended_at, input)
    select 'filled ' || %s::text || number, %s, 1, 1, %s, %s, %s::bigint, 0, 0, 0, 0, 0, 0, 0, 0, %s::bigint, 'in'
    from generate_series(1, %s) as number"""


async def counted(beside: Outside, query: str) -> list[tuple[Any, ...]]:
    """What the server has counted when everybody has left; connections count for themselves until they end."""
    await beside.soon(
        "select count(*) = 0 from pg_stat_activity where application_name = current_setting('search_path')"
    )
    return beside(query)


async def test_no_verb_scans_a_table(place: Place, beside: Outside):
    """No statement of any verb reads a table from end to end, small and unknown as they all are here; lists of all and
    counts read an index."""
    async with opened(PostgresStorage(place.dsn, schema=place.schema)):
        pass
    before = await counted(beside, SCANS)
    storage = PostgresStorage(place.dsn, schema=place.schema)
    async with opened(storage):
        await call_every_verb(storage)
        storage.transact(await hold(storage, "t"), "0", "t", lambda _: b"")
    after = await counted(beside, SCANS)

    assert before == after


async def test_no_append_scans_a_table(place: Place, beside: Outside):
    """However often entries were appended, of runs that were idle and others, and whatever the server has come to think
    of the statement, no table is read from end to end."""
    async with opened(PostgresStorage(place.dsn, schema=place.schema)):
        pass
    before = await counted(beside, SCANS)
    async with opened(PostgresStorage(place.dsn, schema=place.schema)) as storage:
        for turn in range(20):
            await storage.create_runs([new_run(f"{turn} {number}") for number in range(25)])
            leases = [Lease(run_id, str(turn)) for run_id in ids(await claim(storage, str(turn)))]
            for recorded in range(3):
                writes = [progress(lease, recorded=recorded, entries=[entry(str(recorded))]) for lease in leases]
                assert all(await together(*(bound(storage.save_progress, write) for write in writes)))
    after = await counted(beside, SCANS)

    assert before == after


async def test_the_backlog_costs_a_claim_nothing(place: Place, beside: Outside):
    """[114] A claim of ten runs visits as many blocks with 100 due runs as with 5,000, and with any number of ended,
    sleeping and foreign ones and of any number of lower priorities, although nobody has looked at the table since it
    grew."""

    async def blocks() -> int:
        """What a claim visits; its connection has done so before."""
        storage = PostgresStorage(place.dsn, schema=place.schema)
        async with opened(storage):
            assert 10 == len((await claim(storage, limit=10, now=9, until=2**60)).runs)
        before = (await counted(beside, BLOCKS))[0][0]
        async with opened(storage):
            assert 10 == len((await claim(storage, limit=10, now=9, until=2**60)).runs)
        return int((await counted(beside, BLOCKS))[0][0] - before)

    def fill(name: str, count: int, due_at: int | None, *, priority: int = 0, workflow: str = "w") -> None:
        status = "pending" if due_at is not None else "completed"
        ended_at = 1 if due_at is None else None
        beside(FILL, (name, workflow, status, priority, due_at, ended_at, count))

    async with opened(PostgresStorage(place.dsn, schema=place.schema)):
        fill("few", 100, 5)
        fill("asleep", 20, 2**60, priority=3)
        fill("low", 20, 5, priority=-7)
    few = await blocks()
    fill("many", 5_000, 6)
    fill("ended", 10_000, None)
    fill("sleepers", 2_000, 2**60)
    fill("first sleepers", 2_000, 2**60, priority=3)
    fill("last", 2_000, 4, priority=-7)
    for priority in range(8, 300):
        fill(f"low {priority} ", 5, 4, priority=-priority)
    # What filling has cost counts before a claim is counted.
    beside("select pg_stat_force_next_flush()")
    fill("foreign", 2_000, 1, workflow="other")
    many = await blocks()

    # A tree of an index is one level higher.
    assert many <= few * 1.5


async def test_other_runs_cost_a_verb_nothing(place: Place, beside: Outside):
    """[34] What is done to one run, and to its parent and its child, visits as many blocks with 5,000 others there as
    with none, children and ended ones among them."""

    async def blocks(name: str) -> int:
        before = (await counted(beside, BLOCKS))[0][0]
        async with opened(PostgresStorage(place.dsn, schema=place.schema)) as storage:
            parent = await hold(storage, name)
            child = new_run(f"{name} child", parent=name, parent_position="0")
            assert await storage.save_progress(progress(parent, entries=[entry("0")], children=[child]))
            assert [child.run_id] == ids(await claim(storage, "second"))
            lease = Lease(child.run_id, "second")
            assert await storage.send_message(child.run_id, "go", b"", now=NOW)
            assert await storage.request_cancel(child.run_id, now=NOW)
            assert [] == await storage.heartbeat([lease], lease_until=LEASE_UNTIL)
            assert 1 == len(await storage.check_runs([child.run_id]))
            storage.transact(lease, "0", "t", lambda _: b"")
            assert await storage.save_progress(progress(lease, consumed=[1], ending=Ending(RunStatus.CANCELLED)))
            assert await resume(storage, child.run_id, now=2**60)
            assert 1 == len((await storage.get_journal(name)).messages)
        return int((await counted(beside, BLOCKS))[0][0] - before)

    async with opened(PostgresStorage(place.dsn, schema=place.schema)):
        pass
    few = [await blocks(f"first {number}") for number in range(2)][-1]
    beside(FILL, ("ended", "w", "completed", 0, None, 1, 5_000))
    beside("update run set parent = 'filled ended1', parent_position = '0' where id % 2 = 0 and ended_at is not null")
    many = await blocks("second")

    assert many <= few * 1.5


async def test_an_open_transaction_costs_a_claim_little(place: Place, beside: Outside):
    """[114] While a transaction stays open nobody may clean up what claims leave behind; a claim visits hardly more
    blocks all the same after 2,000 runs were claimed than before."""

    async def blocks(claims: int) -> int:
        """What so many claims of one adapter visit, of which the first looks at everything."""
        before = (await counted(counting, BLOCKS))[0][0]
        async with opened(PostgresStorage(place.dsn, schema=place.schema)) as storage:
            for number in range(claims):
                assert 10 == len((await claim(storage, str(number), limit=10, now=2**50, until=2**60)).runs)
        return int((await counted(counting, BLOCKS))[0][0] - before)

    async def blocks_of_one() -> float:
        return (await blocks(21) - await blocks(1)) / 20

    with outside(place) as counting:
        async with opened(PostgresStorage(place.dsn, schema=place.schema)):
            beside(FILL, ("due", "w", "pending", 0, 0, None, 3_000))
            beside("update run set due_at = id * 1000000")
        beside("begin isolation level repeatable read")
        beside("select count(*) from run")
        few = await blocks_of_one()
        await blocks(200)
        many = await blocks_of_one()

    assert many <= few * 1.5


async def test_a_long_journal_costs_a_write_nothing(place: Place, beside: Outside):
    """[34] Appending to a journal of 3,000 entries visits as many blocks as to one of 100."""
    counts: list[int] = []
    recorded = 0
    async with opened(PostgresStorage(place.dsn, schema=place.schema)) as storage:
        lease = await hold(storage)

    async def append(count: int) -> int:
        nonlocal recorded
        added = [entry(str(recorded + number)) for number in range(count)]
        before = (await counted(beside, BLOCKS))[0][0]
        async with opened(PostgresStorage(place.dsn, schema=place.schema)) as storage:
            assert await storage.save_progress(progress(lease, recorded=recorded, entries=added))
        recorded += count
        return int((await counted(beside, BLOCKS))[0][0] - before)

    for length in (100, 2_900):
        await append(length)
        counts.append(await append(1))

    assert counts[1] <= counts[0] * 1.5
