"""What the verbs and the lane need of a database and its driver.

The verbs are written once, for SQLite and for Postgres, in the words that both have: question marks for values,
`on conflict`, `returning`, no functions beyond min, max, count and coalesce. What they may rely on is the same too.
Inside a transaction, nobody else changes the rows of a run that a verb has named when it was called, nor those of its
parent: SQLite locks the file, Postgres these runs. A row that does not exist yet is guarded by a unique index.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from msgspec import Struct

__all__ = ["Database", "Job", "Rows", "Session", "Verb", "named_by"]

A = TypeVar("A")
R = TypeVar("R")


class Rows(Protocol):
    """What a statement gave: rows to read once, or how many it has written."""

    @property
    def rowcount(self) -> int:
        """How many rows were written."""
        ...

    def fetchone(self) -> Any:
        """The next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Database(Protocol):
    """Performs statements. `sqlite3.Connection` is one."""

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows:
        """Perform a statement, its question marks standing for `values`."""
        ...

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> object:
        """Perform a statement for each of `rows`."""
        ...


Verb = Callable[[Database, Sequence[A]], Sequence[R]]
"""What a job does: given the arguments of neighbouring calls, the answers to them, in the same order."""


class Job(Struct, eq=False):
    """One call of a verb, and what came of it.

    `runs` are those that nobody else may write meanwhile; `runs_again` are more of them, where it is tried again.
    `is_news` says that other processes may have something to do because of it.
    """

    name: str
    verb: Verb[Any, Any]
    argument: Any
    runs: Sequence[str] = ()
    runs_again: Sequence[str] = ()
    is_news: bool = False
    answer: Any = None
    error: Exception | None = None


class Session(Protocol):
    """A connection with its transactions, used by one thread."""

    @property
    def name(self) -> str:
        """What it is connected to, for messages."""
        ...

    @property
    def connection(self) -> Any:
        """The driver's connection."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether a transaction is open, and can be committed."""
        ...

    @property
    def is_lost(self) -> bool:
        """Whether the connection has broken."""
        ...

    @property
    def is_in_doubt(self) -> bool:
        """Whether nobody knows what became of the transaction: its commit was sent, and not answered."""
        ...

    def lock(self, runs: Sequence[str]) -> None:
        """Keep others from writing these runs, until the transaction ends."""
        ...

    def begin(self, jobs: Sequence[Job], attempt: int) -> Database:
        """Open a transaction for these jobs. `attempt` counts from 0 how often they were tried together."""
        ...

    def commit(self) -> None:
        """Commit the transaction."""
        ...

    def rollback(self) -> None:
        """Undo the transaction, if there is one; raises nothing."""
        ...

    def is_worth_another(self, attempt: int, error: Exception) -> bool:
        """Whether the same verbs may succeed when they are tried again, all together; after `rollback`."""
        ...

    def named(self, verb: str, error: Exception) -> Exception:
        """What `error` is called outside: a `StorageError` where it comes from the driver."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


@contextmanager
def named_by(name: Callable[[str, Exception], Exception], verb: str) -> Generator[None]:
    """Raise what the driver raises as what `name` calls it outside; leave all else as it is."""
    try:
        yield
    except Exception as error:
        if (named := name(verb, error)) is error:
            raise
        raise named from error
