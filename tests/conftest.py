"""The matrix: every async test runs on asyncio and trio; what takes `storage`, `another` or `world`, on each adapter.

Warnings are errors (pyproject.toml), and a test that hangs ends the run with every stack on the screen.
"""

from __future__ import annotations

import faulthandler
import logging
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from reflow import MemoryStorage, SQLiteStorage, StorageAdapter
from reflow.storage.postgres import PostgresStorage
from reflow.testing.conformance import Another
from tests.support.postgres import Schemas, or_skip, serving
from tests.support.world import World

ADAPTERS = ["memory", "sqlite", "postgres"]
_TEST_LIMIT_S = 120


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The event loop."""
    return str(request.param)


@pytest.fixture(scope="session")
def schemas() -> Iterator[Schemas]:
    """Lends schemas of a Postgres server, one server for all these tests; without one, what asks for it is skipped."""
    with or_skip(), serving() as dsn, Schemas(dsn) as schemas:
        yield schemas


@pytest.fixture(params=ADAPTERS)
def another(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Another]:
    """Makes adapters on the same data, empty at first; they are not initialized. `durability="process"` spares the
    tests SQLite's fsyncs, as settings of the server do Postgres'; who tests those says so."""
    if request.param == "memory":
        memory = MemoryStorage()
        yield lambda: memory
    elif request.param == "sqlite":
        yield lambda: SQLiteStorage(tmp_path / "test.db", durability="process")
    else:
        with request.getfixturevalue("schemas").lend() as place:
            yield lambda: PostgresStorage(place.dsn, schema=place.schema)


@pytest.fixture
def storage(another: Another) -> StorageAdapter:
    """An adapter that is not initialized yet."""
    return another()


@pytest.fixture
async def world(storage: StorageAdapter, anyio_backend: str) -> AsyncIterator[World]:
    """A storage that is open, a clock that only tests turn, and engines on them."""
    await storage.initialize()
    yield World(storage)
    await storage.close()


@pytest.fixture(autouse=True)
def _no_test_hangs() -> Iterator[None]:
    faulthandler.dump_traceback_later(_TEST_LIMIT_S, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def _no_unforeseen_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An exception that the engine had to log as its own is a bug, whatever the test was about."""
    yield
    bugs = [record for record in caplog.get_records("call") if record.name == "reflow" and record.exc_info]
    assert not bugs, logging.Formatter().format(bugs[0])


@pytest.fixture(autouse=True, scope="session")
def _hears_ctrl_c() -> None:
    """A job in the background of a shell is born deaf to Ctrl-C, and some tests press it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
