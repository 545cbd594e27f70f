"""The clauses of the storage contract as cases: what any adapter must do, whoever wrote it.

A case is an async function named after its clause. It takes an open, empty adapter and `another`, which makes further
adapters on the same data, not initialized yet (an adapter that keeps its data in the process may return itself). It
asserts, and needs no test framework. A2 and A3 have no case here: what a table of another version or a file that
cannot be opened is, differs from adapter to adapter, and so each adapter has tests of its own for them.
"""

from __future__ import annotations

import inspect
import re

from tests.storage.cases import (
    claiming,
    endings,
    families,
    inspection,
    listening,
    mailbox,
    opening,
    reading,
    schedules,
    writing,
)
from tests.storage.cases.words import Case

_MODULES = (opening, claiming, writing, families, endings, mailbox, inspection, schedules, reading, listening)


def cases() -> list[Case]:
    """Every case, in the order of the contract."""
    members = [member for module in _MODULES for member in vars(module).items()]
    return [member for name, member in members if re.match(r"[a-z]\d+_", name) and inspect.iscoroutinefunction(member)]
