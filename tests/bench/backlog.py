"""W7: what a claim costs with 100, 10,000 and 1,000,000 pending and as many finished rows in the file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from reflow import RunStatus, SQLiteStorage
from reflow.storage._sqlite.connection import open_writer
from tests.bench.contents import Contents, contents
from tests.bench.result import Result, percentiles
from tests.bench.setting import Setting

_AT_ONCE = 10

_FILL = f"""insert into reflow_run (run_id, workflow, version, rules, status, priority, due_at, executions, idle_claims,
    generation, cancel_requested, cancel_delivered, last_message, created_at, updated_at, ended_at, keyed_as, input)
    with recursive n(i) as (select 1 union all select i + 1 from n where i < ?)
    select ? || i, 'backlog', 1, 1, case when ? then '{RunStatus.PENDING}' else '{RunStatus.COMPLETED}' end, 0,
        case when ? then i end, 0, 0, 0, 0, 0, 0, 0, 0, case when ? then null else i end, 'backlog', x'80' from n"""


def measure(setting: Setting) -> Iterator[Result]:
    """Claims of 10 from each backlog, in turn."""
    sizes = setting.sized((100, 10_000, 1_000_000), (100, 10_000, 100_000), (100, 1_000))
    paths = {rows: setting.new_path() for rows in sizes}
    for rows, path in paths.items():
        _fill(path, rows)
    claims = setting.sized(300, 100, 5)
    times = setting.run(_claim, [setting.storage(path) for path in paths.values()], claims)
    medians: list[float] = []
    for (rows, path), seconds in zip(paths.items(), times, strict=True):
        found = contents(path)
        claimed = min(rows, claims * _AT_ONCE)
        assert Contents(_without_none({"pending": rows - claimed, "running": claimed, "completed": rows}), 0) == found
        figures = percentiles(seconds)
        medians.append(figures["p50_ms"])
        yield Result(
            "W7 claim", {"pending": rows, "finished": rows, "claims": claims, "runs_each": _AT_ONCE, **figures}
        )
    yield Result("W7 claim, largest to smallest backlog", {"ratio_of_p50": medians[-1] / medians[0]})


def _without_none(counts: dict[str, int]) -> dict[str, int]:
    return {status: count for status, count in counts.items() if count}


def _fill(path: Path, rows: int) -> None:
    db = open_writer(path, "process")
    for pending in (True, False):
        db.execute("begin immediate")
        db.execute(_FILL, (rows, f"{pending}-", pending, pending, pending))
        db.execute("commit")
    db.execute("pragma wal_checkpoint(truncate)")
    db.close()


async def _claim(storages: list[SQLiteStorage], claims: int) -> list[list[float]]:
    """The seconds of each claim, by storage. A lease is over as soon as it is given: the backlog stays as long as it
    is, and who was claimed is at its end."""
    times: list[list[float]] = [[] for _ in storages]
    for storage in storages:
        await storage.initialize()
    for number in range(claims):
        for storage, seconds in zip(storages, times, strict=True):
            now = 2**50 + number
            started = time.perf_counter()
            claimed = await storage.claim_runs(
                [("backlog", 1)], limit=_AT_ONCE, lease_id=uuid4().hex, now=now, lease_until=now
            )
            seconds.append(time.perf_counter() - started)
            assert _AT_ONCE == len({row.run_id for row in claimed.runs})
    for storage in storages:
        await storage.close()
    return times
