"""Prints what was counted, when the tests are over."""

from __future__ import annotations

import faulthandler

import pytest

from tests.crash import ledger

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
