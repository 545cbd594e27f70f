"""The tables, and how a file of an older version becomes one of this version.

Every table begins with `reflow_`, so that Reflow may live in a file beside your own tables. `reflow_schema` holds one
number. Version n+1 is version n and one more migration; a file is brought up in the transaction that reads the number.

    reflow_run    one row a run. The partial index is the only one a claim reads: a run that has ended, or waits
                  without limit, is not in it.
    reflow_entry  the journal, clustered by run and in order of arrival: replay is one sequential read
    reflow_timer  what open commands must remember
"""

from __future__ import annotations

from sqlite3 import Connection

from reflow._core.status import RunStatus
from reflow.errors import StorageSchemaError

__all__ = ["VERSION", "check", "migrate"]

_STATUSES = ", ".join(f"'{status}'" for status in RunStatus)

_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        f"""create table reflow_run (
            id integer primary key,
            run_id text not null unique,
            workflow text not null,
            version integer not null,
            rules integer not null,
            status text not null check (status in ({_STATUSES})),
            due_at integer,
            lease_id text,
            executions integer not null,
            created_at integer not null,
            updated_at integer not null,
            input blob not null,
            output blob,
            error blob,
            check ((status = '{RunStatus.RUNNING}') = (lease_id is not null))
        ) strict""",
        "create index reflow_run_due on reflow_run (workflow, version, due_at) where due_at is not null",
        """create table reflow_entry (
            run integer not null references reflow_run (id),
            seq integer not null,
            position text not null,
            kind text not null,
            name text not null,
            failed integer not null,
            payload blob not null,
            attempts integer not null,
            started_at integer not null,
            recorded_at integer not null,
            primary key (run, seq)
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
    ),
)

VERSION = len(_MIGRATIONS)


def check(db: Connection, path: str) -> int:
    """The version of the tables in the file, 0 where it has none; `StorageSchemaError` for a newer one."""
    known = db.execute("select 1 from sqlite_master where type = 'table' and name = 'reflow_schema'").fetchone()
    row = db.execute("select version from reflow_schema").fetchone() if known else None
    version: int = row[0] if row else 0
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
