"""Prints what was counted, when the tests are over."""

from __future__ import annotations

import pytest

from tests.crash import ledger


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The tables."""
    for title, lines in ledger.tables().items():
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.line(line)
