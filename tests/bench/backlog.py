"""W7: what a claim costs with 100, 10,000 and 1,000,000 pending and as many ended rows in the file."""

from __future__ import annotations

import time
from uuid import uuid4

from reflow import RunStatus, SQLiteStorage
from reflow.storage._sqlite.connection import open_writer
from tests.bench.setting import Setting

_FILL = f"""insert into reflow_run (run_id, workflow, version, rules, status, due_at, executions, created_at,
    updated_at, input, output)
    with recursive n(i) as (select 1 union all select i + 1 from n where i < ?)
    select ? || i, 'backlog', 1, 1, case when ? then '{RunStatus.PENDING}' else '{RunStatus.COMPLETED}' end,
        case when ? then i end, 0, 0, 0, x'80', null from n"""


async def measure(setting: Setting) -> None:
    """Claims of 10 from each backlog, far fewer than it holds."""
    sizes = (100, 10_000, 100_000 if setting.quick else 1_000_000)
    medians: list[float] = []
    for rows in sizes:
        storage = setting.storage(f"backlog-{rows}")
        _fill(storage, rows)
        medians.append(await _claim_ms(storage, min(rows, 1_000)))
    setting.show(
        "W7 claim 10 of a backlog",
        **{f"median_ms_{rows}": ms for rows, ms in zip(sizes, medians, strict=True)},
        largest_to_smallest=medians[-1] / medians[0],
    )


def _fill(storage: SQLiteStorage, rows: int) -> None:
    db = open_writer(storage.path, "process")
    for pending in (True, False):
        db.execute("begin immediate")
        db.execute(_FILL, (rows, f"{pending}-", pending, pending))
        db.execute("commit")
    db.execute("pragma wal_checkpoint(truncate)")
    db.close()


async def _claim_ms(storage: SQLiteStorage, claims: int) -> float:
    """The median over claims, each in a commit of its own."""
    await storage.initialize()
    times: list[float] = []
    for number in range(claims // 10):
        started = time.perf_counter()
        claimed = await storage.claim_runs(
            [("backlog", 1)], limit=10, lease_id=uuid4().hex, now=2**50 + number, lease_until=2**51
        )
        times.append(time.perf_counter() - started)
        assert len(claimed.runs) == 10
    await storage.close()
    return sorted(times)[len(times) // 2] * 1e3
