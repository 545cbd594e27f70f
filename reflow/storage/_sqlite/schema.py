"""The tables, and how a file of an older version becomes one of this version.

Every table begins with `reflow_`, so that Reflow may live in a file beside your own tables. `reflow_schema` holds one
number. Version n+1 is version n and one more migration; a file is brought up in the transaction that reads the number.

    reflow_run         one row a run, what changes often in front of the values. Of its indexes a claim reads one only,
                       and that a run which has ended, or waits without limit, is not in.
    reflow_tag         the tags of runs, for finding runs by tag; the run itself has them too
    reflow_entry       the journal, clustered by run and in order of arrival: replay is one sequential read
    reflow_cut_entry   what was cut out of a journal, and at which time of cutting
    reflow_timer       what open commands must remember
    reflow_message     the mailboxes
    reflow_message_id  what was sent already
    reflow_schedule    recurrences

In `reflow_run` a few columns are no fields of `RunRow`. `keyed_as` is the workflow under which the idempotency key
counts, though the run may have become another one. `awaits` says, in JSON, which messages a parked run waits for.
`ended_at` is set in a run that has ended: its index is written once in the life of a run.
"""

from __future__ import annotations

from sqlite3 import Connection

from reflow._core.journal import MessageKind
from reflow._core.status import RunStatus
from reflow.errors import StorageFormatError, StorageSchemaError

__all__ = ["VERSION", "check", "migrate"]

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

_MIGRATIONS: tuple[tuple[str, ...], ...] = (
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
        "create index reflow_schedule_due on reflow_schedule (workflow, next_at) where not paused",
    ),
)

VERSION = len(_MIGRATIONS)


def check(db: Connection, path: str) -> int:
    """The version of the tables in the file, 0 where it has none; `StorageSchemaError` for a newer one,
    `StorageFormatError` for one that no Reflow has written."""
    known = db.execute("select 1 from sqlite_master where type = 'table' and name = 'reflow_schema'").fetchone()
    row = db.execute("select version from reflow_schema").fetchone() if known else None
    version = row[0] if row else 0
    if known and (not isinstance(version, int) or version < 1):
        raise StorageFormatError(
            "initialize",
            f"{path} has a table reflow_schema that is not Reflow's; use another file. Nothing was changed",
        )
    if version > VERSION:
        raise StorageSchemaError(
            "initialize",
            f"{path} was written by a newer Reflow (schema {version}; this one reads up to {VERSION}). "
            "Upgrade Reflow, or use another file. Nothing was changed",
        )
    return version


def migrate(db: Connection, path: str) -> None:
    """Bring the tables up to `VERSION`, in one transaction; processes that start together wait for each other.

    Where nothing is to be done, something is written nevertheless, that changes nothing: a file that may only be read
    shows here and not at the first verb.
    """
    db.execute("begin immediate")
    try:
        version = check(db, path)
        for statements in _MIGRATIONS[version:]:
            for statement in statements:
                db.execute(statement)
        if version < VERSION:
            db.execute("create table if not exists reflow_schema (version integer not null) strict")
            db.execute("delete from reflow_schema")
            db.execute("insert into reflow_schema values (?)", (VERSION,))
        else:
            db.execute("delete from reflow_schema where false")
        db.execute("commit")
    except BaseException:
        if db.in_transaction:
            db.execute("rollback")
        raise
