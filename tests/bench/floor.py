"""The floor: a bare sqlite3 loop that writes the rows of the journal, in the same batches and with the same pragmas."""

from __future__ import annotations

import time

from reflow.storage._sqlite.connection import open_writer
from tests.bench.setting import Setting

_RUN = """insert into reflow_run (id, run_id, workflow, version, rules, status, executions, created_at, updated_at,
    input) values (1, 'floor', 'w', 1, 1, 'pending', 0, 0, 0, x'')"""
_ENTRY = "insert into reflow_entry values (?, ?, ?, 'step', 'add', 0, x'01', 1, 0, 0)"


def rows_per_second(setting: Setting, *, rows: int, batch: int) -> float:
    """How many journal rows a second SQLite writes when `batch` of them share a commit."""
    db = open_writer(setting.folder / f"floor-{batch}.db", setting.durability)
    db.execute(_RUN)
    started = time.perf_counter()
    for first in range(0, rows, batch):
        db.execute("begin immediate")
        for seq in range(first, first + batch):
            db.execute(_ENTRY, (1, seq, str(seq)))
        db.execute("commit")
    took = time.perf_counter() - started
    db.close()
    return rows / took
