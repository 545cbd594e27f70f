"""The tables, in SQLite's words, and how those of an older version become those of this version.

Every table begins with `reflow_`, so that Reflow may live in a file beside your own tables. (In Postgres they are in a
schema of their own, without the prefix.) `reflow_schema` holds one number. Version n+1 is version n and one more
migration; a storage is brought up in the transaction that reads the number.

    reflow_run         one row a run, what changes often in front of the values. Of its indexes a claim reads one only,
                       and that a run which has ended, or waits without limit, is not in.
    reflow_tag         the tags of runs, for finding runs by tag; the run itself has them too
    reflow_entry       the journal, clustered by run and in order of arrival: replay is one sequential read
    reflow_cut_entry   what was cut out of a journal, and at which time of cutting
    reflow_timer       what open commands must remember
    reflow_message     the mailboxes
    reflow_message_id  what was sent already
    reflow_outcome     what the bodies of transactions gave, until the run is deleted
    reflow_schedule    recurrences

In `reflow_run` a few columns are no fields of `RunRow`. `keyed_as` is the workflow under which the idempotency key
counts, though the run may have become another one. `awaits` says, in JSON, which messages a parked run waits for.
`ended_at` is set in a run that has ended: its index is written once in the life of a run.
"""

from __future__ import annotations

from reflow._core.journal import MessageKind
from reflow._core.status import RunStatus
from reflow.errors import StorageSchemaError
from reflow.storage._sql.session import Database

__all__ = ["MIGRATIONS", "OF_RUNS", "VERSION", "refuse_newer", "set_version"]

_STATUSES = ", ".join(f"'{status}'" for status in RunStatus)
_KINDS = ", ".join(f"'{kind}'" for kind in MessageKind)

_OUTCOME = """position text not null,
            kind text not null,
            name text not null,
            failed integer not null,
            payload blob not null,
            attempts integer not null,
            started_at integer not null,
            recorded_at integer not null,
            digest blob"""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        f"""create table reflow_run (
            id integer primary key,
            run_id text not null unique,
            workflow text not null,
            version integer not null,
            rules integer not null,
            status text not null check (status in ({_STATUSES})),
            priority integer not null,
            due_at integer,
            lease_id text,
            executions integer not null,
            idle_claims integer not null,
            generation integer not null,
            cancel_requested integer not null,
            cancel_delivered integer not null,
            last_message integer not null,
            created_at integer not null,
            updated_at integer not null,
            ended_at integer,
            idempotency_key text,
            keyed_as text,
            parent text,
            parent_position text,
            tags text,
            awaits text,
            input blob not null,
            output blob,
            error blob,
            check ((status = '{RunStatus.RUNNING}') = (lease_id is not null))
        ) strict""",
        "create index reflow_run_due on reflow_run (workflow, version, priority, due_at) where due_at is not null",
        "create index reflow_run_workflow on reflow_run (workflow, status)",
        "create index reflow_run_ended on reflow_run (ended_at) where ended_at is not null",
        "create index reflow_run_parent on reflow_run (parent) where parent is not null",
        """create unique index reflow_run_key on reflow_run (keyed_as, idempotency_key)
            where idempotency_key is not null""",
        """create table reflow_tag (
            tag text not null,
            run integer not null references reflow_run (id),
            primary key (tag, run)
        ) strict, without rowid""",
        f"""create table reflow_entry (
            run integer not null references reflow_run (id),
            seq integer not null,
            {_OUTCOME},
            primary key (run, seq)
        ) strict, without rowid""",
        f"""create table reflow_cut_entry (
            run integer not null references reflow_run (id),
            cut integer not null,
            seq integer not null,
            {_OUTCOME},
            primary key (run, cut, seq)
        ) strict, without rowid""",
        """create table reflow_timer (
            run integer not null references reflow_run (id),
            position text not null,
            kind text not null,
            name text not null,
            due_at integer not null,
            attempts integer not null,
            started_at integer not null,
            failure blob,
            primary key (run, position)
        ) strict, without rowid""",
        f"""create table reflow_message (
            run integer not null references reflow_run (id),
            seq integer not null,
            kind text not null check (kind in ({_KINDS})),
            name text not null,
            payload blob not null,
            status text check (status in ({_STATUSES})),
            primary key (run, seq)
        ) strict, without rowid""",
        """create table reflow_message_id (
            run integer not null references reflow_run (id),
            message_id text not null,
            primary key (run, message_id)
        ) strict, without rowid""",
        """create table reflow_outcome (
            run integer not null references reflow_run (id),
            position text not null,
            name text not null,
            payload blob not null,
            primary key (run, position)
        ) strict, without rowid""",
        """create table reflow_schedule (
            key text primary key,
            workflow text not null,
            version integer,
            input blob not null,
            recurrence text not null,
            missed text not null,
            overlap text not null,
            anchor_at integer not null,
            next_at integer not null,
            created_at integer not null,
            updated_at integer not null,
            paused integer not null,
            last_run_id text
        ) strict, without rowid""",
        "create index reflow_schedule_due on reflow_schedule (workflow, next_at) where paused = 0",
    ),
)

VERSION = len(MIGRATIONS)

OF_RUNS = (
    "reflow_entry",
    "reflow_cut_entry",
    "reflow_timer",
    "reflow_message",
    "reflow_message_id",
    "reflow_outcome",
)
"""The tables whose rows belong to runs, and go with them; tags are found by their text."""


def refuse_newer(version: int, name: str) -> None:
    """Raise `StorageSchemaError` for tables of a version that is not known here; `name` is whose they are."""
    if version > VERSION:
        raise StorageSchemaError(
            "initialize",
            f"{name} was written by a newer Reflow (schema {version}; this one reads up to {VERSION}). "
            "Upgrade Reflow, or use another storage. Nothing was changed",
        )


def set_version(db: Database) -> None:
    """Write down that the tables are of this version."""
    db.execute("delete from reflow_schema")
    db.execute("insert into reflow_schema values (?)", (VERSION,))
