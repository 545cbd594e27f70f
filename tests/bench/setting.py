"""Under what conditions a workload runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar
from uuid import uuid4

import anyio

from reflow import SQLiteStorage
from reflow.storage._sqlite.connection import Durability
from reflow.storage.postgres import PostgresStorage
from tests.bench.place import File, Place, Schema

Size: TypeAlias = Literal["full", "quick", "tiny"]

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """One event loop, one durability, a folder for files or a server, and how much is measured: `quick` is enough to
    see the shape, `tiny` to see that it runs."""

    folder: Path
    backend: str
    durability: Durability
    size: Size
    dsn: str | None = None

    def sized(self, full: T, quick: T, tiny: T) -> T:
        """The one of the three that this size asks for."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.size]

    def new_place(self) -> Place:
        """One of its own for each measurement."""
        name = uuid4().hex
        return Schema(self.dsn, f"bench_{name}") if self.dsn else File(self.folder / f"{name}.db")

    def storage(self, place: Place) -> SQLiteStorage | PostgresStorage:
        """A storage there."""
        return place.storage(self.durability)

    def run(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """What an async function returns, in a new event loop of this kind."""
        return anyio.run(function, *arguments, backend=self.backend)
