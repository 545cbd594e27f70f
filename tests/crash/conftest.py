"""Prints the faults that were caused, when the tests are over."""

from __future__ import annotations

import pytest

from tests.crash import ledger


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of faults."""
    if lines := ledger.table():
        terminalreporter.section("faults that were caused")
        for line in lines:
            terminalreporter.line(line)
