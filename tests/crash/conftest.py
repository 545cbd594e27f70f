"""What tests that break things share; and prints what was counted, when the tests are over."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import ledger
from tests.crash.nursery import Nursery
from tests.crash.postgres_fleet import Beside, ServerFleet
from tests.support.postgres import Server, or_skip


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Forks child processes."""
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that runs; who stops it starts it again."""
    with or_skip(), Server() as server:
        yield server


@pytest.fixture
def fleet(tmp_path: Path, server: Server) -> ServerFleet:
    """Workers on the server, none yet."""
    return ServerFleet(tmp_path, server)


@pytest.fixture
def beside(server: Server) -> Iterator[Beside]:
    """A connection that looks on at what they do; the tables are gone in the end."""
    beside = Beside(server)
    beside.open_shop()
    yield beside
    beside.clear()
    beside.close()


_LIMIT_S, _LONG_LIMIT_S = 900, 3_600


@pytest.fixture
def patience(_no_test_hangs: None) -> None:
    """More time than other tests have: many cases are one test, and a case that fails is made smaller first."""
    faulthandler.dump_traceback_later(ledger.scaled(_LIMIT_S, long=_LONG_LIMIT_S), exit=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The tables."""
    for title, lines in ledger.tables().items():
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.line(line)
