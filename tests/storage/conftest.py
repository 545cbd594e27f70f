"""What tests of the Postgres adapter need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from reflow.storage.postgres import PostgresStorage
from reflow.testing.conformance.words import opened
from tests.support.postgres import Schemas, Server, or_skip
from tests.support.postgres.outside import Outside, outside
from tests.support.postgres.schemas import Place


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server of our own, for databases, roles and settings; whoever stops it starts it again."""
    with or_skip(), Server(tcp=True) as server:
        yield server


@pytest.fixture
def place(schemas: Schemas) -> Iterator[Place]:
    """A schema with empty tables, or one that does not exist yet."""
    with schemas.lend() as place:
        yield place


@pytest.fixture
def untouched(schemas: Schemas) -> Iterator[Place]:
    """A schema that does not exist yet."""
    with schemas.lend(fresh=True) as place:
        yield place


@pytest.fixture
def own(server: Server) -> Iterator[Place]:
    """A schema of the server that may be stopped and set otherwise; it runs as before in the end."""
    yield Place(make_conninfo(server.dsn, application_name="own"), "own")
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("drop schema if exists own cascade")


@pytest.fixture
async def adapter(place: Place, anyio_backend: str) -> AsyncIterator[PostgresStorage]:
    """An open adapter."""
    async with opened(PostgresStorage(place.dsn, schema=place.schema)) as adapter:
        yield adapter


@pytest.fixture
async def pair(place: Place, anyio_backend: str) -> AsyncIterator[tuple[PostgresStorage, PostgresStorage]]:
    """Two open adapters on the same schema, as in two processes."""
    one, other = (PostgresStorage(place.dsn, schema=place.schema) for _ in range(2))
    async with opened(one), opened(other):
        yield one, other


@pytest.fixture
def beside(place: Place) -> Iterator[Outside]:
    """A connection beside the adapters."""
    with outside(place) as beside:
        yield beside
