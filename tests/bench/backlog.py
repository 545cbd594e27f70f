"""W7: what a claim costs with 100, 10,000 and 1,000,000 pending and as many finished rows in the file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from uuid import uuid4

from reflow import RunStatus, StorageAdapter
from tests.bench.contents import Contents, contents
from tests.bench.place import File, Place
from tests.bench.result import Result, percentiles
from tests.bench.setting import Setting

_AT_ONCE = 10
# A thousand runs a second.
_BETWEEN_CLAIMS_US = 10_000

_FILL = f"""insert into reflow_run (run_id, workflow, version, rules, status, priority, due_at, executions, idle_claims,
    generation, cancel_requested, cancel_delivered, last_message, created_at, updated_at, ended_at, keyed_as, input)
    with recursive n(i) as (select 1 union all select i + 1 from n where i < ?)
    select ? || i, 'backlog', 1, 1, case when ? = 1 then '{RunStatus.PENDING}' else '{RunStatus.COMPLETED}' end, 0,
        case when ? = 1 then i * 1000 end, 0, 0, 0, 0, 0, 0, 0, 0, case when ? = 1 then null else i end, 'backlog', ?
    from n"""


def measure(setting: Setting) -> Iterator[Result]:
    """Claims of 10 from each backlog, in turn."""
    sizes = setting.sized((100, 10_000, 1_000_000), (100, 10_000, 100_000), (100, 1_000))
    places = {rows: setting.new_place() for rows in sizes}
    for rows, place in places.items():
        _fill(place, rows)
    claims = setting.sized(300, 100, 5)
    times = setting.run(_claim, [setting.storage(place) for place in places.values()], claims)
    medians: list[float] = []
    for (rows, place), seconds in zip(places.items(), times, strict=True):
        found = contents(place)
        claimed = min(rows, claims * _AT_ONCE)
        assert Contents(_without_none({"pending": rows - claimed, "running": claimed, "completed": rows}), 0) == found
        figures = percentiles(seconds)
        medians.append(figures["p50_ms"])
        yield Result(
            "W7 claim", {"pending": rows, "finished": rows, "claims": claims, "runs_each": _AT_ONCE, **figures}
        )
    yield Result("W7 claim, largest to smallest backlog", {"ratio_of_p50": medians[-1] / medians[0]})
    if setting.dsn:
        yield _beside_an_open_transaction(setting, sizes[1], setting.sized(6_000, 500, 5))


def _beside_an_open_transaction(setting: Setting, rows: int, claims: int) -> Result:
    """An old snapshot keeps the server from cleaning up: a claim may have to walk over what was claimed before."""
    medians: list[float] = []
    for is_beside in (False, True):
        place = setting.new_place()
        _fill(place, rows)
        with place.connected() as db:
            if is_beside:
                db.execute("begin isolation level repeatable read")
                db.execute("select count(*) from reflow_run").fetchone()
            [seconds] = setting.run(_claim, [setting.storage(place)], claims)
        medians.append(percentiles(seconds[-claims // 4 :])["p50_ms"])
    alone, beside = medians
    return Result(
        "W7 claim beside an open transaction",
        {"pending": rows, "claims": claims, "p50_ms_alone": alone, "p50_ms": beside, "ratio_of_p50": beside / alone},
    )


def _without_none(counts: dict[str, int]) -> dict[str, int]:
    return {status: count for status, count in counts.items() if count}


def _fill(place: Place, rows: int) -> None:
    with place.connected() as db:
        for is_pending in (True, False):
            db.execute(place.begin)
            db.execute(_FILL, (rows, f"{is_pending}-", is_pending, is_pending, is_pending, b"\x80"))
            db.execute("commit")
        if isinstance(place, File):
            db.execute("pragma wal_checkpoint(truncate)")
        else:
            # What autovacuum does within a minute.
            db.execute("vacuum analyze reflow_run")


async def _claim(storages: Sequence[StorageAdapter], claims: int) -> list[list[float]]:
    """The seconds of each claim, by storage. A lease is over as soon as it is given: the backlog stays as long as it
    is, and who was claimed is at its end."""
    times: list[list[float]] = [[] for _ in storages]
    for storage in storages:
        await storage.initialize()
    for number in range(claims):
        for storage, seconds in zip(storages, times, strict=True):
            now = 2**50 + number * _BETWEEN_CLAIMS_US
            started = time.perf_counter()
            claimed = await storage.claim_runs(
                [("backlog", 1)], limit=_AT_ONCE, lease_id=uuid4().hex, now=now, lease_until=now
            )
            seconds.append(time.perf_counter() - started)
            assert _AT_ONCE == len({row.run_id for row in claimed.runs})
    for storage in storages:
        await storage.close()
    return times
