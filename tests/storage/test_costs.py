"""What `SQLiteStorage` costs: which rows its statements visit, counted and not timed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec import json
from msgspec.structs import replace

from reflow import RunStatus, SQLiteStorage
from reflow._core.journal import MessageKind
from reflow.storage._sql.verbs import mailbox
from reflow.storage._sql.verbs.rows import SCHEDULE
from reflow.storage.records import Continued, Ending, Lease, RunFilter
from reflow.testing.conformance.words import (
    NOW,
    claim,
    create,
    entry,
    hold,
    ids,
    new_run,
    opened,
    progress,
    resume,
    schedule,
    state,
    timer,
)
from tests.storage.test_sqlite import reader_of, writer_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def storage(tmp_path: Path, anyio_backend: str) -> AsyncIterator[SQLiteStorage]:
    """An open adapter."""
    storage = SQLiteStorage(tmp_path / "test.db", durability="process")
    async with opened(storage):
        yield storage


async def test_no_verb_scans_a_table(storage: SQLiteStorage):
    """Every statement of every verb finds its rows by an index, in order, and sorts nothing; but for the count, which
    reads an index from end to end, and lists of all. The claim uses the partial index of due runs."""
    said: set[str] = set()
    for db in (writer_of(storage), reader_of(storage)):
        db.set_trace_callback(said.add)
    await call_every_verb(storage)
    for db in (writer_of(storage), reader_of(storage)):
        db.set_trace_callback(None)

    statements = {text for text in said if "reflow_" in text}
    plans = {
        text: [detail for *_, detail in writer_of(storage).execute(f"explain query plan {text}")] for text in statements
    }
    inefficient = {text: plan for text, plan in plans.items() if "SCAN reflow" in str(plan) or "B-TREE" in str(plan)}
    assert {
        "select workflow, status, count(*) from reflow_run group by workflow, status order by workflow, status": [
            "SCAN reflow_run USING COVERING INDEX reflow_run_workflow"
        ],
        f"select {SCHEDULE} from reflow_schedule order by key": ["SCAN reflow_schedule"],
    } == inefficient
    claims = [text for text in statements if "order by due_at" in text]
    expected = (
        "SEARCH reflow_run USING COVERING INDEX reflow_run_due (workflow=? AND version=? AND priority=? AND due_at>?)"
    )
    assert [[expected]] * len(claims) == [plans[text] for text in claims]
    assert claims


async def call_every_verb(storage: SQLiteStorage) -> None:
    """Call every verb, with every kind of filter, so that every statement is used."""
    event = (MessageKind.EVENT, "go")
    lease = await hold(storage)
    child = new_run("child", parent="r", parent_position="1", tags=("a", "b"), idempotency_key="key")
    await create(storage, replace(child, run_id="same key"))
    await storage.send_message("r", "go", b"", now=NOW, message_id="once")
    await storage.save_progress(
        progress(
            lease, entries=[entry("0")], timers=[timer("1")], children=[child], consumed=[1], cancel_delivered=True
        )
    )
    await storage.save_progress(
        progress(lease, recorded=1, settled=["1"], ending=Ending(RunStatus.WAITING, awaits=(event,)))
    )
    await storage.send_message("r", "go", b"", now=NOW)
    await claim(storage, "second", workflows=[("w", 1), ("other", 2)])
    await storage.heartbeat([Lease("r", "second")], lease_until=1)
    await storage.save_progress(progress(Lease("r", "second"), ending=Ending(RunStatus.FAILED)))
    await resume(storage)
    await storage.request_cancel("r", now=NOW)
    await storage.get_cut_entries("r")
    await claim(storage, "third")
    continued = Continued("w", 2, 1, b"")
    await storage.save_progress(
        progress(Lease("r", "third"), ending=Ending(RunStatus.PENDING, NOW, continued=continued))
    )
    await storage.request_cancel("r", now=NOW)
    await storage.check_runs(["r"])
    await state(storage, "r")
    for filter in (
        RunFilter(),
        RunFilter((RunStatus.PENDING, RunStatus.FAILED)),
        RunFilter(workflow="w"),
        RunFilter(tags=("a", "b")),
        RunFilter(parent="r"),
        RunFilter((RunStatus.PENDING,), "w", ("a",), "r"),
    ):
        await storage.list_runs(filter, limit=1, cursor="9")
    await storage.count_runs()
    await storage.put_schedule(schedule())
    await storage.pause_schedule("s", paused=False, now=NOW)
    await storage.get_schedules()
    await storage.due_schedules(["w"], limit=1, now=NOW)
    await storage.fire_schedule("s", expected_next_at=NOW, next_at=NOW + 1, runs=[new_run("fired")], now=NOW)
    await storage.delete_schedule("s")
    await storage.prune(before=NOW * 2, statuses=list(RunStatus), limit=9)


async def test_the_backlog_costs_a_claim_nothing(storage: SQLiteStorage):
    """[114] A claim of ten runs takes as many steps of SQLite's machine with 100 due runs as with 10,000, and with any
    number of sleeping, ended and foreign ones and of other priorities."""

    async def steps() -> int:
        count = 0

        def one() -> None:
            nonlocal count
            count += 1

        writer_of(storage).set_progress_handler(one, 1)
        assert 10 == len((await claim(storage, limit=10)).runs)
        writer_of(storage).set_progress_handler(None, 1)
        return count

    def fill(count: int, workflow: str, status: str, due_at: int | None, priority: int = 0) -> None:
        writer_of(storage).executemany(
            "insert into reflow_run (run_id, workflow, version, rules, status, priority, due_at, executions, "
            "idle_claims, generation, cancel_requested, cancel_delivered, last_message, created_at, updated_at, input) "
            "values (hex(randomblob(8)), ?, 1, 1, ?, ?, ?, 0, 0, 0, 0, 0, 0, 0, 0, x'')",
            [(workflow, status, priority, due_at)] * count,
        )

    fill(100, "w", "pending", 5)
    fill(20, "w", "sleeping", 2**62, priority=3)
    fill(20, "w", "pending", 5, priority=-7)
    few = await steps()
    writer_of(storage).execute("begin")
    fill(10_000, "w", "pending", 6)
    fill(5_000, "w", "sleeping", 2**62)
    fill(5_000, "w", "sleeping", 2**62, priority=3)
    fill(5_000, "w", "pending", 4, priority=-7)
    fill(5_000, "w", "completed", None)
    fill(5_000, "other", "pending", 1)
    writer_of(storage).execute("commit")

    assert few == pytest.approx(await steps(), rel=0.05)


@pytest.mark.parametrize("workflows", [(("w", 1),), (("other", 1), ("w", 1))], ids=["one workflow", "two workflows"])
async def test_lower_priorities_cost_a_claim_nothing(storage: SQLiteStorage, workflows: list[tuple[str, int]]):
    """[114] A claim that leaves due runs behind performs as many statements with two priorities as with 500."""
    statements: list[str] = []

    async def claimed(name: str) -> int:
        writer_of(storage).set_trace_callback(statements.append)
        assert 10 == len((await claim(storage, name, workflows=workflows, limit=10)).runs)
        writer_of(storage).set_trace_callback(None)
        count = len(statements)
        statements.clear()
        return count

    await storage.create_runs([new_run(str(number), priority=number % 2) for number in range(80)])
    few = await claimed("few")
    await storage.create_runs([new_run(f"low {number}", priority=-number) for number in range(500)])

    assert few == await claimed("many")


async def test_ten_thousand_runs_are_one_commit(storage: SQLiteStorage):
    """Ten thousand runs are created in one transaction, and a statement or two for each."""
    statements: list[str] = []
    writer_of(storage).set_trace_callback(statements.append)

    answers = await storage.create_runs([new_run(str(number)) for number in range(10_000)])

    writer_of(storage).set_trace_callback(None)
    assert 10_000 == sum(created for _, created in answers)
    assert ["begin immediate", "commit"] == [text for text in statements if "reflow_" not in text]
    assert 10_000 == len(statements) - 2


async def test_what_a_run_awaits_is_read_until_it_is_due(storage: SQLiteStorage, monkeypatch: pytest.MonkeyPatch):
    """A run that waits for many others learns from the first that ends that it is due; for those that end after it,
    what it awaits is not read again, nor while somebody holds it."""
    lease = await hold(storage)
    children = [new_run(str(number), parent="r", parent_position=str(number)) for number in range(100)]
    awaits = tuple((MessageKind.CHILD, str(number)) for number in range(100))
    ending = Ending(RunStatus.WAITING, awaits=awaits)
    await storage.save_progress(progress(lease, timers=[timer("0")], children=children, ending=ending))
    read = 0

    def decode(data: bytes) -> object:
        nonlocal read
        read += 1
        return json.decode(data)

    monkeypatch.setattr(mailbox, "decode", decode)
    for number in range(50):
        await storage.request_cancel(str(number), now=NOW)
    assert ["r"] == ids(await claim(storage, "second", limit=1))
    for number in range(50, 100):
        await storage.request_cancel(str(number), now=NOW)

    assert 1 == read
    assert 100 == len(await storage.get_messages("r", after=0))


async def test_a_long_journal_costs_a_write_nothing(storage: SQLiteStorage):
    """[34] Appending to a journal of 10,000 entries takes as many steps of SQLite's machine as to one of 100."""
    lease = await hold(storage)
    counts: list[int] = []
    recorded = 0

    async def append(count: int) -> None:
        nonlocal recorded
        added = [entry(str(recorded + number)) for number in range(count)]
        assert await storage.save_progress(progress(lease, recorded=recorded, entries=added))
        recorded += count

    def one() -> None:
        counts[-1] += 1

    for length in (100, 9_900):
        await append(length)
        counts.append(0)
        writer_of(storage).set_progress_handler(one, 1)
        await append(1)
        writer_of(storage).set_progress_handler(None, 1)

    assert counts[0] == pytest.approx(counts[1], rel=0.05)
