"""What the text after `--storage` names: a file, or a schema of a database.

app.db                      a SQLite file; so does sqlite:///app.db, and sqlite:////var/lib/app.db from the root
postgresql://user@host/db   a database of a Postgres server; runs are in its schema `reflow`, or in that of `--schema`
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from reflow.cli.loading import is_installed
from reflow.cli.looking import LookedAtFile
from reflow.errors import ConfigError
from reflow.storage import SQLiteStorage, StorageAdapter
from reflow.storage._sql.copying import Tables
from reflow.storage._sqlite import copying

if TYPE_CHECKING:
    from reflow.storage.postgres import PostgresStorage

__all__ = ["are_same", "existing", "reading", "shown", "storage_of", "writing"]

_DEFAULT_SCHEMA = "reflow"


def storage_of(text: str, schema: str | None) -> StorageAdapter:
    """The storage, not opened yet. `ConfigError` for a text that names none."""
    return _postgres(text, schema) if _is_server(text) else SQLiteStorage(_path(text, schema))


def existing(text: str, schema: str | None, *, looks: bool) -> StorageAdapter:
    """The same, for verbs that would find nothing in a new file: a slip of the pen makes none. One that only `looks`
    may look at a file that it may not write."""
    storage = storage_of(text, schema)
    if isinstance(storage, SQLiteStorage):
        if not storage.path.is_file():
            raise ConfigError(f"there is no file {storage.path}")
        if looks:
            return LookedAtFile(storage.path)
    return storage


def reading(text: str, schema: str | None) -> AbstractContextManager[Tables]:
    """Its tables, to be copied from."""
    if _is_server(text):
        server = _postgres(text, schema).server
        from reflow.storage._postgres.copying import reading as reading_of

        return reading_of(server)
    return copying.reading(_path(text, None))


def writing(text: str, schema: str | None) -> AbstractContextManager[Tables]:
    """Its tables, to be copied to."""
    if _is_server(text):
        server = _postgres(text, schema).server
        from reflow.storage._postgres.copying import writing as writing_of

        return writing_of(server)
    return copying.writing(_path(text, None))


def are_same(text: str, other: str) -> bool:
    """Whether two texts name one storage: one file, by whatever path, or one database; the schema is that of both."""
    if _is_server(text) or _is_server(other):
        return _is_server(text) and _is_server(other) and _database(text) == _database(other)
    one, another = _path(text, None), _path(other, None)
    return one.resolve() == another.resolve() or (one.exists() and another.exists() and one.samefile(another))


def shown(text: str, schema: str | None) -> str:
    """The same for messages: without a password."""
    return _postgres(text, schema).server.name if _is_server(text) else text


def _is_server(text: str) -> bool:
    return text.startswith(("postgresql://", "postgres://"))


def _postgres(text: str, schema: str | None) -> PostgresStorage:
    if not is_installed("psycopg"):
        raise ConfigError("a storage in Postgres needs psycopg: pip install 'reflow[postgres]'")
    from reflow.storage.postgres import PostgresStorage

    return PostgresStorage(text, schema=schema or _DEFAULT_SCHEMA)


def _database(text: str) -> tuple[object, ...]:
    """What tells databases apart, without who connects to them; one without a name is called as its user."""
    _postgres(text, None)
    from psycopg.conninfo import conninfo_to_dict

    known = conninfo_to_dict(text)
    return (*map(known.get, ("host", "hostaddr", "port", "service")), known.get("dbname", known.get("user")))


def _path(text: str, schema: str | None) -> Path:
    scheme, mark, rest = text.partition("://")
    if mark and (scheme != "sqlite" or not rest.startswith("/")):
        raise ConfigError(f"storage is {text!r}; write a file (app.db, sqlite:///app.db) or postgresql://host/database")
    if schema is not None:
        raise ConfigError(f"schema is {schema!r}, and {text} is a file; only databases of a server have schemas")
    path = rest[1:] if mark else text
    # Refuses what names no file.
    return SQLiteStorage(path).path
