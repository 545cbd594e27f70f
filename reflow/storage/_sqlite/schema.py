"""How a file comes to have the tables, in one transaction."""

from __future__ import annotations

from sqlite3 import Connection

from reflow.errors import StorageError, StorageFormatError
from reflow.storage._sql.tables import MIGRATIONS, VERSION, refuse_newer, set_version

__all__ = ["check", "migrate", "require"]


def check(db: Connection, path: str) -> int:
    """The version of the tables in the file, 0 where it has none; `StorageSchemaError` for a newer one,
    `StorageFormatError` for one that no Reflow has written."""
    known = db.execute("select 1 from sqlite_master where type = 'table' and name = 'reflow_schema'").fetchone()
    row = db.execute("select version from reflow_schema").fetchone() if known else None
    version = row[0] if row else 0
    if known and (not isinstance(version, int) or version < 1):
        raise StorageFormatError(
            "initialize", f"{path} has a table reflow_schema that is not Reflow's; use another file"
        )
    refuse_newer(version, path)
    return version


def require(db: Connection, path: str, verb: str) -> None:
    """Raise where the tables are not those of `VERSION`, for a `verb` that does not bring them up to date."""
    version = check(db, path)
    if version != VERSION:
        raise StorageError(
            verb,
            f"{path} has no tables of this version (schema {version}, not {VERSION}); start a worker on it once, which "
            "brings them up to date",
        )


def migrate(db: Connection, path: str) -> None:
    """Bring the tables up to `VERSION`, in one transaction; processes that start together wait for each other.

    Where nothing is to be done, something is written nevertheless, that changes nothing: a file that may only be read
    shows here and not at the first verb.
    """
    db.execute("begin immediate")
    try:
        version = check(db, path)
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                db.execute(statement)
        if version < VERSION:
            db.execute("create table if not exists reflow_schema (version integer not null) strict")
            set_version(db)
        else:
            db.execute("delete from reflow_schema where false")
        db.execute("commit")
    except BaseException:
        if db.in_transaction:
            db.execute("rollback")
        raise
