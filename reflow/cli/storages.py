"""What the text after `--storage` names: a file, or a database of a server.

app.db                      a SQLite file; so does sqlite:///app.db, and sqlite:////var/lib/app.db from the root
postgresql://user@host/db   a database of a Postgres server
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from reflow.cli.loading import is_installed
from reflow.errors import ConfigError
from reflow.storage import SQLiteStorage, StorageAdapter
from reflow.storage._sqlite import tables
from reflow.storage.tables import Tables

__all__ = ["existing", "reading", "storage_of", "writing"]


def storage_of(text: str, schema: str | None) -> StorageAdapter:
    """The storage, not opened yet. `ConfigError` for a text that names none."""
    return SQLiteStorage(_path(text, schema))


def existing(text: str, schema: str | None) -> StorageAdapter:
    """The same, for verbs that would find nothing in a new file: a slip of the pen makes none."""
    path = _path(text, schema)
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    return SQLiteStorage(path)


def reading(text: str) -> AbstractContextManager[Tables]:
    """Its tables, to be copied from."""
    return tables.reading(_path(text))


def writing(text: str) -> AbstractContextManager[Tables]:
    """Its tables, to be copied to."""
    return tables.writing(_path(text))


def _path(text: str, schema: str | None = None) -> Path:
    scheme, mark, rest = text.partition("://")
    if mark and scheme in ("postgresql", "postgres"):
        if not is_installed("psycopg"):
            raise ConfigError("a storage in Postgres needs psycopg: pip install 'reflow[postgres]'")
        raise ConfigError("this version of Reflow keeps runs in SQLite files only")
    if mark and (scheme != "sqlite" or not rest.startswith("/")):
        raise ConfigError(f"storage is {text!r}; write a file (app.db, sqlite:///app.db) or postgresql://host/database")
    if schema is not None:
        raise ConfigError(f"schema is {schema!r}, and {text} is a file; only databases of a server have schemas")
    path = rest[1:] if mark else text
    # Refuses what names no file.
    return SQLiteStorage(path).path
