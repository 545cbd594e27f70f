"""Memory beside SQLite, and beside Postgres: the same verbs, the same answers, the same rows. Memory is the model."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeAlias, cast

from anyio.from_thread import start_blocking_portal
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from reflow import MemoryStorage, RunStatus, SQLiteStorage, StorageAdapter, StorageError
from reflow._core.journal import Entry, MessageKind, Timer
from reflow._core.status import is_allowed
from reflow.storage.postgres import PostgresStorage
from reflow.storage.records import (
    Claimed,
    Continued,
    Ending,
    Lease,
    NewRun,
    Progress,
    RunFilter,
    RunRow,
    ScheduleRow,
)
from reflow.testing.conformance.words import create, together
from tests.support.postgres import Schemas

Verb: TypeAlias = Callable[[StorageAdapter], Awaitable[Any]]

RUN_IDS = ("a", "B", "é", "z", "1", "02")
PAIRS = [("w", 1), ("w", 2), ("v", 1)]
KEYS = ("s", "é")
NOT_TEXT = cast(str, b"no text")

instants = st.integers(0, 8)
contents = st.binary(max_size=3)
positions = st.sampled_from(("0", "1", "10", "2.0"))
run_ids = st.sampled_from(RUN_IDS)
pairs = st.sampled_from(PAIRS)
workflows = st.sampled_from(("w", "v"))
tags = st.lists(st.sampled_from(("t", "u", "")), max_size=2).map(tuple)
statuses = st.lists(st.sampled_from(RunStatus), max_size=3).map(tuple)

entries = st.builds(
    Entry, positions, st.just("step"), st.just("s"), st.booleans(), contents, st.integers(0, 3), instants, instants
)
timers = st.builds(
    Timer, positions, st.just("step"), st.just("s"), instants, st.integers(0, 3), instants, st.none() | contents
)
new_runs = st.builds(
    lambda pair, *values: NewRun(values[0], *pair, 1, *values[1:]),
    pairs,
    run_ids,
    contents,
    instants,
    instants,
    st.sampled_from((0, 0, 0, 3, -1)),
    tags,
    st.sampled_from((None, None, "key", "other")),
    st.none() | run_ids,
    st.none() | positions,
)
awaits = st.lists(st.tuples(st.sampled_from(MessageKind), positions), max_size=2).map(tuple)
continued = st.builds(lambda pair, content: Continued(*pair, 2, content), pairs, contents)
bytes_or_none = st.none() | contents
endings = st.one_of(
    st.builds(
        Ending,
        st.sampled_from((RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)),
        st.none(),
        bytes_or_none,
        bytes_or_none,
    ),
    st.builds(Ending, st.sampled_from((RunStatus.SLEEPING, RunStatus.WAITING)), instants, awaits=awaits),
    st.builds(Ending, st.just(RunStatus.WAITING), awaits=awaits),
    st.builds(Ending, st.just(RunStatus.PENDING), instants, continued=st.none() | continued),
    st.builds(Ending, st.sampled_from(RunStatus), st.none() | instants, bytes_or_none, bytes_or_none, awaits),
)
plain = {
    "now": instants,
    "recorded": st.integers(0, 4),
    "entries": st.lists(entries, max_size=3),
    "timers": st.lists(timers, max_size=2),
    "settled": st.lists(positions, max_size=2),
    "ending": st.none() | st.none() | endings,
}
plain_writes = st.fixed_dictionaries(plain)
writes = st.fixed_dictionaries(
    plain
    | {
        "consumed": st.just([]) | st.lists(st.integers(1, 4), max_size=2),
        "children": st.just([]) | st.lists(new_runs, max_size=2),
        "cancel_delivered": st.booleans(),
    }
)
filters = st.builds(RunFilter, statuses, st.none() | workflows, tags, st.none() | run_ids)
schedules = st.builds(
    ScheduleRow,
    st.sampled_from(KEYS),
    workflows,
    st.none() | st.integers(1, 2),
    contents,
    st.sampled_from("hd"),
    st.just("skip"),
    st.just("allow"),
    instants,
    instants,
    instants,
    instants,
    st.booleans(),
    st.none() | run_ids,
)


def create_run(run_id: str, pair: tuple[str, int], content: bytes, due_at: int, now: int) -> Verb:
    """A run, perhaps one that is there already."""
    return lambda storage: create(storage, NewRun(run_id, *pair, 1, content, due_at, now))


async def pages(storage: StorageAdapter, filter: RunFilter, limit: int) -> list[list[RunRow]]:
    """All pages of a list. What a cursor says is the adapter's own business."""
    page = await storage.list_runs(filter, limit=limit)
    found = [page.rows]
    while page.cursor is not None:
        page = await storage.list_runs(filter, limit=limit, cursor=page.cursor)
        found.append(page.rows)
    return found


def claim_runs(pairs: list[tuple[str, int]], limit: int, lease_id: str, now: int, length: int) -> Verb:
    """A claim, perhaps with a lease that is over at once. How long ago one is due that was left, no clause says."""

    async def claim(storage: StorageAdapter) -> Claimed:
        until = now + length
        claimed = await storage.claim_runs(pairs, limit=limit, lease_id=lease_id, now=now, lease_until=until)
        next_due_at = claimed.next_due_at
        return Claimed(claimed.runs, None if next_due_at is None else max(now, next_due_at))

    return claim


def save_progress(lease: Lease, write: dict[str, Any]) -> Verb:
    """A write, perhaps under a lease that is lost, or with a gap."""
    return lambda storage: storage.save_progress(Progress(lease, **write))


def heartbeat(leases: list[Lease], lease_until: int) -> Verb:
    """A heartbeat, perhaps for lost leases too."""
    return lambda storage: storage.heartbeat(leases, lease_until=lease_until)


async def answer(storage: StorageAdapter, verb: Verb) -> Any:
    """What a verb returns, or which verb its StorageError names."""
    try:
        return await verb(storage)
    except StorageError as error:
        return f"could not {error.verb}"


class Agreement(RuleBasedStateMachine):
    """Every rule is one verb, or several at once, put to both."""

    backend = "asyncio"
    spoilt_entry = Entry(NOT_TEXT, "step", "s", False, b"", 1, 0, 0)
    leases: Bundle[Lease] = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp())
        self.loop = start_blocking_portal(self.backend)
        self.portal = self.loop.__enter__()
        self.memory = MemoryStorage()
        self.other = self.another()
        self.claims = 0
        self.portal.call(self.other.initialize)

    def another(self) -> StorageAdapter:
        """An adapter on what is stored, beside memory."""
        return SQLiteStorage(self.folder / "test.db", durability="process")

    def teardown(self) -> None:
        """Close everything."""
        self.portal.call(self.other.close)
        self.loop.__exit__(None, None, None)
        shutil.rmtree(self.folder)

    def put(self, verb: Verb) -> Any:
        """The answer of both, which is the same; what it does to a status is allowed."""
        before = self.states()
        expected, actual = (self.portal.call(answer, storage, verb) for storage in (self.memory, self.other))
        assert expected == actual
        after = self.states()
        assert [] == [
            (run_id, before[run_id], after[run_id])
            for run_id in before.keys() & after.keys()
            if before[run_id] is not after[run_id] and not is_allowed(before[run_id], after[run_id])
        ]
        return expected

    def states(self) -> dict[str, RunStatus]:
        """The status of every run."""
        return {run_id: run.row.status for run_id, run in self.memory._runs.items()}

    @initialize(target=leases)
    def a_lease_nobody_has(self) -> Lease:
        """A foreign lease."""
        return Lease(RUN_IDS[0], "foreign")

    @rule(runs=st.lists(new_runs, max_size=3))
    def create(self, runs: list[NewRun]) -> None:
        """Create runs."""
        self.put(lambda storage: storage.create_runs(runs))

    @rule(
        target=leases,
        pairs=st.just(PAIRS) | st.lists(pairs, max_size=4),
        limit=st.integers(0, 4),
        now=instants,
        length=st.integers(0, 5),
    )
    def claim(self, pairs: list[tuple[str, int]], limit: int, now: int, length: int) -> Any:
        """Claim due runs."""
        self.claims += 1
        limit = self.limit_of_claim(pairs, limit, now)
        claimed = self.put(claim_runs(pairs, limit, f"lease {self.claims}", now, length))
        assert isinstance(claimed, Claimed)
        return multiple(*(Lease(row.run_id, row.lease_id or "") for row in claimed.runs))

    def limit_of_claim(self, pairs: list[tuple[str, int]], limit: int, now: int) -> int:
        """The limit that is put to both."""
        return limit

    @rule(lease=leases, write=writes)
    def save(self, lease: Lease, write: dict[str, Any]) -> None:
        """Write progress that may not fit what is there."""
        self.put(save_progress(lease, write))

    @rule(run_id=run_ids, write=writes, back=st.integers(0, 2))
    def save_what_fits(self, run_id: str, write: dict[str, Any], back: int) -> None:
        """Write progress under the lease that is held, after what is there, perhaps with a little of it again."""
        row = self.portal.call(self.memory.get_run, run_id)
        if row is None or row.lease_id is None:
            # Nobody holds it: make it so.
            self.put(create_run(run_id, PAIRS[0], b"", 0, 0))
            self.claims += 1
            self.put(claim_runs(PAIRS, 9, f"lease {self.claims}", 8, 5))
            row = self.portal.call(self.memory.get_run, run_id)
        journal = self.portal.call(self.memory.get_journal, run_id)
        recorded = max(0, len(journal.entries) - back)
        self.put(save_progress(Lease(run_id, row.lease_id or "none"), write | {"recorded": recorded}))

    @rule(lease=leases, write=writes)
    def save_what_is_spoilt(self, lease: Lease, write: dict[str, Any]) -> None:
        """Write what cannot be stored: an error, or False where the lease is lost; it is not said which comes first."""
        known = len(self.portal.call(self.memory.get_journal, lease.run_id).entries)
        # The spoilt one is the first that is new: entries that are there already are not looked at again.
        write = write | {"entries": [self.spoilt_entry], "recorded": known}
        for storage in (self.memory, self.other):
            said = self.portal.call(answer, storage, save_progress(lease, write))
            assert said in (False, "could not save_progress")

    @rule(held=st.lists(leases, max_size=4), lease_until=instants)
    def keep(self, held: list[Lease], lease_until: int) -> None:
        """Send a heartbeat."""
        self.put(heartbeat(held, lease_until))

    @rule(held=st.lists(leases, min_size=1, max_size=4), run_id=run_ids, write=plain_writes, now=instants)
    def at_once(self, held: list[Lease], run_id: str, write: dict[str, Any], now: int) -> None:
        """Put several verbs at once, of which one fails: they share a transaction, and agree with one after the other.

        They touch different runs, none of which tells another, so that their order does not matter.
        """
        parents = {run.row.run_id: run.row.parent for run in self.memory._runs.values()}
        by_run = {lease.run_id: lease for lease in held if lease.run_id != run_id and parents.get(lease.run_id) is None}
        verbs = [
            create_run(run_id, PAIRS[0], b"", now, now),
            *(save_progress(lease, write) for lease in by_run.values()),
        ]
        verbs.append(lambda storage: create(storage, NewRun(NOT_TEXT, *PAIRS[0], 1, b"", now, now)))
        expected = [self.portal.call(answer, self.memory, verb) for verb in verbs]

        actual = self.portal.call(together, *(partial(answer, self.other, verb) for verb in verbs))

        assert expected == actual

    @rule(run_id=run_ids, name=positions, content=contents, now=instants, message_id=st.none() | st.sampled_from("mn"))
    def send(self, run_id: str, name: str, content: bytes, now: int, message_id: str | None) -> None:
        """Send a message."""
        self.put(lambda storage: storage.send_message(run_id, name, content, now=now, message_id=message_id))

    @rule(run_id=run_ids, now=instants)
    def cancel(self, run_id: str, now: int) -> None:
        """Request the cancellation of a run."""
        self.put(lambda storage: storage.request_cancel(run_id, now=now))

    @rule(run_id=run_ids, keep=st.integers(0, 3), now=instants, late=st.sampled_from((0, 0, 0, 1)))
    def resume(self, run_id: str, keep: int, now: int, late: int) -> None:
        """Resume a run, as it is or as it was one execution ago."""
        row = self.portal.call(self.memory.get_run, run_id)
        generation, executions = (row.generation, row.executions - late) if row else (0, 0)
        self.put(
            lambda storage: storage.resume_run(run_id, generation=generation, executions=executions, keep=keep, now=now)
        )

    @rule(before=instants, statuses=statuses, limit=st.integers(0, 3))
    def prune(self, before: int, statuses: tuple[RunStatus, ...], limit: int) -> None:
        """Prune ended runs."""
        self.put(lambda storage: storage.prune(before=before, statuses=statuses, limit=limit))

    @rule(filter=filters, limit=st.integers(1, 4))
    def list_some(self, filter: RunFilter, limit: int) -> None:
        """List runs, page by page."""
        self.put(lambda storage: pages(storage, filter, limit))

    @rule(row=schedules)
    def put_schedule(self, row: ScheduleRow) -> None:
        """Store a schedule."""
        self.put(lambda storage: storage.put_schedule(row))

    @rule(key=st.sampled_from(KEYS), now=instants, runs=st.lists(new_runs, max_size=2), wrong=st.booleans())
    def fire_schedule(self, key: str, now: int, runs: list[NewRun], wrong: bool) -> None:
        """Fire a schedule, at the right time or a wrong one."""
        schedule = self.memory._schedules.get(key)
        due_at = schedule.next_at + wrong if schedule else 0
        self.put(
            lambda storage: storage.fire_schedule(key, expected_next_at=due_at, next_at=due_at + 1, runs=runs, now=now)
        )

    @rule(key=st.sampled_from(KEYS), paused=st.booleans(), now=instants)
    def pause_schedule(self, key: str, paused: bool, now: int) -> None:
        """Pause a schedule, or let it go on."""
        self.put(lambda storage: storage.pause_schedule(key, paused=paused, now=now))

    @rule(key=st.sampled_from(KEYS), names=st.lists(workflows, max_size=3), limit=st.integers(0, 2), now=instants)
    def remove_due_schedule(self, key: str, names: list[str], limit: int, now: int) -> None:
        """Look for due schedules, and remove one."""
        self.put(lambda storage: storage.due_schedules(names, limit=limit, now=now))
        self.put(lambda storage: storage.delete_schedule(key))

    @rule()
    def reopen(self) -> None:
        """Close the storage and open it with another adapter."""
        self.portal.call(self.other.close)
        self.other = self.another()
        self.portal.call(self.other.initialize)

    @invariant()
    def same_rows(self) -> None:
        """Every row and every journal is the same."""
        expected, actual = (self.portal.call(self.rows, storage) for storage in (self.memory, self.other))
        assert expected == actual

    async def rows(self, storage: StorageAdapter) -> list[Any]:
        """All that a storage keeps."""
        found: list[Any] = [await pages(storage, RunFilter(), 9), await storage.count_runs()]
        found += await storage.get_schedules()
        found += await storage.check_runs(RUN_IDS)
        for run_id in RUN_IDS:
            found += [await storage.get_journal(run_id), await storage.get_cut_entries(run_id)]
        return found


class AgreementOnTrio(Agreement):
    """The same on the other loop."""

    backend = "trio"


class AgreementWithPostgres(Agreement):
    """Memory beside Postgres."""

    # Postgres writes bytes as a text, in words of its own, where a column asks for one.
    spoilt_entry = Entry("\ud800", "step", "s", False, b"", 1, 0, 0)

    def __init__(self, schemas: Schemas, backend: str) -> None:
        self.backend = backend
        self.lending = schemas.lend()
        self.place = self.lending.__enter__()
        super().__init__()

    def another(self) -> StorageAdapter:
        """An adapter on the schema."""
        return PostgresStorage(self.place.dsn, schema=self.place.schema, listen=False)

    def limit_of_claim(self, pairs: list[tuple[str, int]], limit: int, now: int) -> int:
        """A limit that leaves none of those behind that are due at the same time: which of them come first, no clause
        says, and Postgres takes them as they lie."""
        named = [run.row for run in self.memory._runs.values() if (run.row.workflow, run.row.version) in pairs]
        due = sorted((-row.priority, row.due_at) for row in named if row.due_at is not None and row.due_at <= now)
        while 0 < limit < len(due) and due[limit - 1] == due[limit]:
            limit += 1
        return limit

    def teardown(self) -> None:
        """Close everything, and give the schema back."""
        super().teardown()
        self.lending.__exit__(None, None, None)


# Not shrunk, which would take minutes with a file for each try: the program that is printed has 40 steps at most.
LIMITS = settings(
    max_examples=45, stateful_step_count=40, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)

TestAgreement = Agreement.TestCase
TestAgreement.settings = LIMITS
TestAgreementOnTrio = AgreementOnTrio.TestCase
TestAgreementOnTrio.settings = settings(LIMITS, max_examples=15)


def test_agreement_with_postgres(schemas: Schemas, anyio_backend: str):
    """Whatever is put to memory and to Postgres, they agree; few programs, because each verb is a journey."""
    run_state_machine_as_test(
        lambda: AgreementWithPostgres(schemas, anyio_backend), settings=settings(LIMITS, max_examples=5)
    )
