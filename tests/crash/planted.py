"""Bugs to plant in a copy of the product, each of them one that somebody could write.

A plant is a change of one place, and the test that must fail because of it. Nothing here may show in a plain run: with
the bug planted, a run of a few steps still ends as it must.

When the product changes, the old text of a plant may be gone: then find where that bug could be made now.
"""

from __future__ import annotations

from msgspec import Struct

__all__ = ["PLANTS", "Plant"]


class Plant(Struct, frozen=True):
    """`bug` says what goes wrong when `old`, which `file` below `reflow/` has once, is `new` instead. `caught_by` is a
    test below `tests/`, with its parameters."""

    bug: str
    file: str
    old: str
    new: str
    caught_by: str

    def __str__(self) -> str:
        return self.bug


def _clause(adapter: str, case: str) -> str:
    """A case of the conformance suite, for an adapter."""
    return f"storage/test_contract.py::test_clause[asyncio-{adapter}-{case}]"


_MEMORY = "storage/memory.py"
_PROGRESS = "storage/_sql/verbs/progress.py"
_ENDINGS = "storage/_sql/verbs/endings.py"
_JOURNAL = "storage/_sql/verbs/journal.py"
_RUNS = "storage/_sql/verbs/runs.py"
_SCHEDULES = "storage/_sql/verbs/schedules.py"
_CLAIMS = "storage/_sqlite/claims.py"
_SERVER_CLAIMS = "storage/_postgres/claims.py"
_RUNNER = "_engine/runner.py"
_EXECUTION = "_engine/execution.py"

# What a verb does is not one transaction any more.
_IN_BETWEEN = """    db.execute("commit")
    db.execute("begin immediate")
"""

_IN_STORAGE = (
    Plant(
        "a write is accepted under a lease that is over (SQLite)",
        _PROGRESS,
        "lease = (progress.lease.run_id, progress.lease.lease_id)",
        'lease = next((key for key in held if key[0] == progress.lease.run_id), ("", ""))',
        _clause("sqlite", "f5_a_lease_that_is_not_held_writes_nothing"),
    ),
    Plant(
        "a write is accepted under a lease that is over (memory)",
        _MEMORY,
        "if run and run.row.lease_id == lease.lease_id else None",
        "if run and run.row.lease_id else None",
        _clause("memory", "f5_a_lease_that_is_not_held_writes_nothing"),
    ),
    Plant(
        "a transaction takes the lock when it first writes",
        "storage/sqlite.py",
        'FileSession(writer, self.path, "begin immediate")',
        'FileSession(writer, self.path, "begin")',
        "storage/test_sqlite.py::test_a_verb_that_writes_has_the_file_to_itself[asyncio-claim_runs]",
    ),
    Plant(
        "leases are looked up in one transaction, and written under in the next",
        _PROGRESS,
        "    rows = _Rows(db)\n",
        f"{_IN_BETWEEN}    rows = _Rows(db)\n",
        "storage/test_sqlite.py::test_a_verb_that_writes_has_the_file_to_itself[asyncio-save_progress]",
    ),
    Plant(
        "an event is taken in one transaction, and recorded in another",
        _PROGRESS,
        "    if progress.children or progress.cancelled:\n",
        f"{_IN_BETWEEN}    if progress.children or progress.cancelled:\n",
        "storage/test_sqlite.py::test_a_verb_that_writes_has_the_file_to_itself[asyncio-save_progress]",
    ),
    Plant(
        "due runs are found in one transaction, and claimed in another",
        _CLAIMS,
        "    marks, bound = padded(ids)\n",
        f"{_IN_BETWEEN}    marks, bound = padded(ids)\n",
        "storage/test_sqlite.py::test_a_verb_that_writes_has_the_file_to_itself[asyncio-claim_runs]",
    ),
    Plant(
        "a schedule moves on in one transaction, and starts its runs in another",
        _SCHEDULES,
        "    if rows := create_runs(db, runs):\n",
        f"{_IN_BETWEEN}    if rows := create_runs(db, runs):\n",
        _clause("sqlite", "w2_a_firing_happens_whole_or_not_at_all"),
    ),
    Plant(
        "a claim takes runs that are not due, so two engines have one (SQLite)",
        _CLAIMS,
        " for due_at, id in rows if due_at <= now)",
        " for due_at, id in rows)",
        _clause("sqlite", "d5_a_takeover_has_one_winner"),
    ),
    Plant(
        "a claim takes runs that are not due, so two engines have one (memory)",
        _MEMORY,
        "for due_at, _, run in waiting if due_at <= now)",
        "for due_at, _, run in waiting)",
        _clause("memory", "d5_a_takeover_has_one_winner"),
    ),
    Plant(
        "a message that came before the run parked does not wake it (SQLite)",
        _ENDINGS,
        "elif cancel_requested or has_any_message(db, run, ending.awaits):",
        "elif cancel_requested:",
        _clause("sqlite", "f12_a_message_that_came_before_parking_wakes"),
    ),
    Plant(
        "a message that came before the run parked does not wake it (memory)",
        _MEMORY,
        "elif row.cancel_requested or run.has_any_message(ending.awaits):",
        "elif row.cancel_requested:",
        _clause("memory", "f12_a_message_that_came_before_parking_wakes"),
    ),
    Plant(
        "a cancellation that came before the run parked does not wake it",
        _ENDINGS,
        "elif cancel_requested or has",
        "elif has",
        _clause("sqlite", "f12_a_requested_cancellation_wakes"),
    ),
    Plant(
        "a heartbeat keeps a run that another engine has claimed (SQLite)",
        _CLAIMS,
        "where run_id = ? and lease_id = ?",
        "where run_id = ? and ? is not null",
        _clause("sqlite", "e2_a_lost_lease_is_told"),
    ),
    Plant(
        "an occurrence fires again, for an engine that has looked before (SQLite)",
        _SCHEDULES,
        "next_at = ? and paused",
        "next_at >= ? and paused",
        _clause("sqlite", "w1_an_occurrence_fires_once"),
    ),
    Plant(
        "an occurrence fires again, for an engine that has looked before (memory)",
        _MEMORY,
        " or schedule.next_at != expected_next_at",
        "",
        _clause("memory", "w1_what_is_not_as_expected_does_not_fire"),
    ),
    Plant(
        "a cancellation is delivered again, to clean-up that is under way",
        _ENDINGS,
        "and cancel_requested = 0 and cancel_delivered = 0",
        "and cancel_requested = 0",
        "features/test_cancel.py::test_a_second_cancel_while_clean_up_sleeps[asyncio-sqlite]",
    ),
    Plant(
        "every claim counts as the first without progress (SQLite)",
        _CLAIMS,
        "idle_claims = idle_claims + 1",
        "idle_claims = 1",
        "features/test_poison.py::test_it_is_parked[asyncio-sqlite]",
    ),
    Plant(
        "every claim counts as the first without progress (memory)",
        _MEMORY,
        "idle_claims=run.row.idle_claims + 1",
        "idle_claims=1",
        "features/test_poison.py::test_it_is_parked[asyncio-memory]",
    ),
    Plant(
        "a journal is read in the order of its positions, as text",
        _JOURNAL,
        '{_OF_RUN} order by seq"',
        '{_OF_RUN} order by position"',
        _clause("sqlite", "h1_a_long_journal_keeps_its_order"),
    ),
    Plant(
        "entries are appended in the order of their positions, and not of their outcomes",
        _MEMORY,
        "run.entries.extend(added)",
        'run.entries.extend(sorted(added, key=attrgetter("position")))',
        "features/test_gather.py::test_the_result_is_in_argument_order[asyncio-memory]",
    ),
    Plant(
        "a write that is sent again appends its entries again",
        _PROGRESS,
        "        added = added[known:]\n",
        "",
        _clause("sqlite", "f4_the_same_write_again_changes_nothing"),
    ),
    Plant(
        "a write that others have made otherwise is taken for the same",
        _PROGRESS,
        "if not _is_the_same(added, read_entries(db, _KNOWN, run.id, progress.recorded)):",
        "if False:",
        _clause("sqlite", "f4_another_entry_in_its_place_is_a_lost_lease"),
    ),
    Plant(
        "an idempotency key is not stored (SQLite)",
        _RUNS,
        "as_text(new.tags), new.idempotency_key,",
        "as_text(new.tags), None,",
        "features/test_enqueue_options.py::test_one_key_twice[asyncio-sqlite]",
    ),
    Plant(
        "an idempotency key is not stored (memory)",
        _MEMORY,
        "            self._keys[key] = new.run_id\n",
        "            pass\n",
        "features/test_enqueue_options.py::test_one_key_twice[asyncio-memory]",
    ),
    Plant(
        "workflows share their idempotency keys",
        _RUNS,
        "keyed_as = ? and idempotency_key = ?",
        "? is not null and idempotency_key = ?",
        _clause("sqlite", "c5_keys_are_of_one_workflow"),
    ),
    Plant(
        "timers stay when their commands have settled",
        _PROGRESS,
        "self._db.executemany(DROP_TIMER, gone)",
        "pass",
        "features/test_sleep.py::test_many_timers_at_once[asyncio-sqlite]",
    ),
    Plant(
        "a verb that fails makes those fail that share its transaction",
        "storage/_sql/lane.py",
        "elif len(jobs) == 1 or session.is_in_doubt:",
        "elif jobs:",
        "storage/test_lane.py::test_a_failing_job_hurts_only_itself[asyncio]",
    ),
    Plant(
        'a commit with `durability="full"` does not reach the disk',
        "storage/_sqlite/connection.py",
        '"full": "full"',
        '"full": "normal"',
        "storage/test_sqlite.py::test_the_pragmas_are_in_force[asyncio-full-2]",
    ),
)

_ON_THE_SERVER = (
    Plant(
        "entries are appended under a lease that is over (Postgres)",
        "storage/_postgres/writes.py",
        "where run_id = added.run_id and lease_id = added.lease limit 1",
        "where run_id = added.run_id limit 1",
        _clause("postgres", "f5_a_lease_that_is_not_held_writes_nothing"),
    ),
    Plant(
        "a write looks at the lease before it has the lock (Postgres)",
        "storage/_postgres/session.py",
        "        if runs:\n            self.lock(runs)",
        "",
        "storage/test_postgres_locks.py::test_a_write_that_had_to_wait_looks_at_the_lease_afterwards[asyncio]",
    ),
    Plant(
        "what shared a commit whose answer was lost is done again (Postgres)",
        "storage/_sql/lane.py",
        " or session.is_in_doubt",
        "",
        "storage/test_postgres_broken.py::test_a_commit_that_was_done_is_not_redone[asyncio]",
    ),
    Plant(
        "a connection that takes no statement any more is kept (Postgres)",
        "storage/_postgres/session.py",
        "            self._connection.close()\n",
        "            pass\n",
        "storage/test_postgres_broken.py::test_a_connection_stuck_amid_statements_is_given_up[asyncio]",
    ),
    Plant(
        "a process that is frozen in a transaction keeps its locks (Postgres)",
        "storage/_postgres/session.py",
        "timeout = '{_FROZEN}'",
        "timeout = 0",
        "storage/test_postgres_broken.py::test_who_is_frozen_in_a_transaction_holds_up_nobody_for_long[asyncio]",
    ),
    Plant(
        "a claim fails where somebody else has locked a run (Postgres)",
        _SERVER_CLAIMS,
        " for no key update skip locked",
        " for no key update nowait",
        "storage/test_postgres_races.py::test_a_locked_run_is_passed_over[asyncio]",
    ),
    Plant(
        "a heartbeat keeps a run that another engine has claimed (Postgres)",
        _SERVER_CLAIMS,
        " and run.lease_id = held.lease_id returning",
        " returning",
        _clause("postgres", "e2_a_lost_lease_is_told"),
    ),
)

_IN_THE_ENGINE = (
    Plant(
        "a run is told to have ended before its last step is stored",
        _RUNNER,
        "        await self._write(ending)\n        self.ending",
        "        self._services.on_end(self.row.run_id, ending)\n"
        "        await self._write(ending)\n        self.ending",
        "engine/test_client.py::test_a_result_is_told_once_it_is_stored[asyncio-sqlite]",
    ),
    Plant(
        "the next body starts before the result of the last is stored",
        _RUNNER,
        "not execution.timers:\n                await self._write()\n",
        "not execution.timers:\n",
        "features/test_steps.py::test_a_result_is_stored_before_the_next_body_starts[asyncio-sqlite]",
    ),
    Plant(
        "bodies side by side start before the results that they follow are stored",
        _RUNNER,
        "                await self._write()\n                if bodies.arrivals:",
        "                if bodies.arrivals:",
        "engine/test_runner.py::test_side_by_side_too[asyncio-sqlite]",
    ),
    Plant(
        "a write that failed is taken for done",
        _RUNNER,
        "                await self._storage_failed(error)\n        if not held:",
        "                held = True\n                break\n        if not held:",
        "engine/test_runner.py::test_a_storage_error_fails_no_run[asyncio-sqlite-1-save_progress]",
    ),
    Plant(
        "an engine whose write was refused goes on",
        _RUNNER,
        "        if not held:\n",
        "        if not held and ending:\n",
        "engine/test_lease.py::test_a_zombie_s_write_is_refused[asyncio-sqlite-flow]",
    ),
    Plant(
        "an engine that stops keeps its leases",
        _RUNNER,
        "                await self._give_back()\n",
        "                pass\n",
        "features/test_shutdown.py::test_steps_that_take_too_long[asyncio-sqlite-one step]",
    ),
    Plant(
        "generators are dropped whenever Python collects them",
        _RUNNER,
        "            self._execution.close()\n            if self._left",
        "            if self._left",
        "features/test_context.py::test_blocks_on_eviction[asyncio-memory]",
    ),
    Plant(
        "claims of one engine have one lease id",
        "_engine/worker.py",
        "lease_id = new_id(now)",
        'lease_id = f"{id(self)}"',
        "engine/test_lease.py::test_an_engine_claims_under_a_new_lease_each_time[asyncio-sqlite]",
    ),
    Plant(
        "a lease is trusted from when the heartbeat was answered",
        "_engine/lease.py",
        "self._renewed_at = sent_at",
        "self._renewed_at = self._clock.now()",
        "engine/test_lease.py::test_trust_counts_from_the_sending[asyncio-memory]",
    ),
    Plant(
        "no heartbeat is due once the clock was put back",
        "_engine/lease.py",
        "if self._renewed_at <= sent_at < self._renewed_at",
        "if sent_at < self._renewed_at",
        "engine/test_lease.py::test_a_clock_that_is_put_back[asyncio-memory-1h]",
    ),
    Plant(
        "trust is over a moment after the clock was put back",
        "_engine/lease.py",
        "while not renewed.is_set() and self._clock.now() < (until :=",
        "if not renewed.is_set() and self._clock.now() < (until :=",
        "engine/test_lease.py::test_trust_where_the_clock_was_put_back[asyncio-memory]",
    ),
    Plant(
        "nobody looks for due runs once the clock was put back",
        "_engine/worker.py",
        "self._look_at = min(self._look_at, now + self._look_us)",
        "pass",
        "engine/test_worker.py::test_it_looks_on_when_the_clock_is_put_back[asyncio-memory]",
    ),
    Plant(
        "a wait goes on until a clock that was put back shows the old time again",
        "_engine/clock.py",
        "and 0 < left <= before",
        "and 0 < left",
        "engine/test_clock.py::test_a_clock_that_is_put_back[asyncio]",
    ),
    Plant(
        "an attempt is cut short when the clock is put back",
        "_engine/perform.py",
        "while not over.is_set() and clock.now() < deadline",
        "if not over.is_set() and clock.now() < deadline",
        "engine/test_perform.py::test_a_clock_that_is_put_back[asyncio]",
    ),
    Plant(
        "an event that was taken stays in the mailbox",
        _EXECUTION,
        "            self.draft.consumed.append(message.seq)\n",
        "",
        "crash/test_simulation.py::test_families[asyncio]",
    ),
    Plant(
        "the newest event of a name is taken first",
        "_engine/mailbox.py",
        "message = messages.popleft()",
        "message = messages.pop()",
        "features/test_events.py::test_oldest_first[asyncio-sqlite-4]",
    ),
    Plant(
        "a wait is over, though an event came in time",
        _EXECUTION,
        "return bool(self.timers and self.mailbox.awaits) and self.next_due_at <= self._clock.now()",
        "return False",
        "features/test_events.py::test_an_event_in_time_wins_while_the_run_is_held[asyncio-sqlite]",
    ),
    Plant(
        "a sleep that goes on after a restart begins anew, by the clock",
        _EXECUTION,
        "is node and node.position not in self.timers:",
        "is node:",
        "features/test_sleep.py::test_a_takeover_keeps_the_wake_time[asyncio-sqlite]",
    ),
    Plant(
        "attempts are counted from one after a restart",
        _EXECUTION,
        "            self.timers[timer.position] = timer\n",
        "            kept = (timer.position, timer.kind, timer.name, timer.due_at)\n"
        "            self.timers[timer.position] = Timer(*kept, 0, timer.started_at)\n",
        "features/test_retry.py::test_a_restart_in_mid_back_off[asyncio-sqlite]",
    ),
    Plant(
        "the timer of a retry stays when the step has settled",
        _EXECUTION,
        "        if attempts > 1:\n            self.draft.timers[position] = None\n",
        "",
        "features/test_retry.py::test_a_restart_in_mid_back_off[asyncio-sqlite]",
    ),
    Plant(
        "a body gets what was returned, and after a crash what was stored",
        _EXECUTION,
        "started_at, attempts, decoded)",
        "started_at, attempts, value)",
        "features/test_values.py::test_without_annotation[asyncio-sqlite]",
    ),
    Plant(
        "children of a cancelled command go on",
        _EXECUTION,
        "                self.draft.cancelled.append(child)\n",
        "                pass\n",
        "features/test_children.py::test_a_cancelled_parent[asyncio-sqlite]",
    ),
    Plant(
        "each attempt of a step has an idempotency key of its own",
        "_engine/perform.py",
        '{stem_of(self.run_id, self.generation)}:{self.position}"',
        '{stem_of(self.run_id, self.generation)}:{self.position}:{self.attempt}"',
        "engine/test_perform.py::test_the_key_is_the_same_on_every_attempt[asyncio-sqlite]",
    ),
)

_IN_THE_CORE = (
    Plant(
        "an entry of another name is taken for the outcome of the step",
        "_core/replay.py",
        "if command.kind != entry.kind or command.name != entry.name:",
        "if command.kind != entry.kind:",
        "core/test_nondeterminism.py::test_a_renamed_step",
    ),
    Plant(
        "a timer of another command is taken for that of the command",
        "_core/replay.py",
        "if node.command.kind != timer.kind or node.command.name != timer.name:",
        "if False:",
        "core/test_replay.py::test_a_timer_that_meets_another_command[timer0-sleep-step 'a']",
    ),
    Plant(
        "a child that is started again is another one",
        "_core/replay.py",
        "child_id(self._stem, node.position)",
        'child_id(self._stem, f"{node.position}/{id(self)}")',
        "features/test_spawn.py::test_one_run_over_any_crash[asyncio-sqlite-before]",
    ),
    Plant(
        "positions are counted otherwise than in the release before",
        "_core/program.py",
        '{frame.prefix}{frame.count}"',
        '{frame.prefix}{frame.count + 1}"',
        "golden/test_golden.py::test_a_golden_transcript_replays[rules_1-chain]",
    ),
    Plant(
        "a run that is past a change takes the new way",
        "_core/replay.py",
        "not known and not self._stored.goes_on(self.open)",
        "not known",
        "features/test_patched.py::test_a_run_that_was_past_both_places[asyncio-sqlite]",
    ),
    Plant(
        "a body that is dropped has effects: its clean-up writes into the log",
        "_core/replay.py",
        "        self._context.is_replaying = True\n",
        "",
        "features/test_logging.py::test_while_it_is_dropped[asyncio-sqlite]",
    ),
    Plant(
        "a body that is dropped meets an error in its clean-up",
        "_core/program.py",
        "frame.context.run(innermost(frame.generator).close)",
        "frame.context.run(frame.generator.close)",
        "core/test_replay.py::test_close_shows_no_error_to_the_body",
    ),
    Plant(
        "a body that is cancelled twice is told twice",
        "_core/program.py",
        "        if self._is_cancelled:\n            return\n",
        "",
        "core/test_cancel.py::test_a_second_one_changes_nothing",
    ),
    Plant(
        "a UUID is another one after a crash",
        "_core/derived.py",
        '_digest("uuid", stem, position)[:16]',
        '__import__("os").urandom(16)',
        "core/test_replay.py::test_identity_and_randomness_need_no_entry",
    ),
)

PLANTS = (*_IN_STORAGE, *_ON_THE_SERVER, *_IN_THE_ENGINE, *_IN_THE_CORE)
