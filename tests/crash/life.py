"""One life of a process that works on a scenario; another one may come after it. As a process of its own:
`python -m tests.crash.life SCENARIO FILE LOG BACKEND LIFE POINT`.

Whoever lives starts the run or takes it up, and works until it and its kin have ended. A process of its own kills
itself at that point (tests/crash/mortal.py), if it lives so long. It notes in LOG when bodies begin and end, what
killed it, and if nothing did, how many points there were. The clock of each life begins long after the one before.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import anyio

from reflow import Engine, SQLiteStorage, StorageAdapter
from reflow.storage.records import RunFilter, RunRow
from reflow.testing import VirtualClock
from tests.crash.mortal import strike
from tests.support.workflows import SCENARIOS, Body, Scenario, effects

# A run that has not ended by then has lost something.
_MOST_ROUNDS = 30


async def work(engine: Engine, scenario: Scenario, run_id: str, clock: VirtualClock, beside: StorageAdapter) -> None:
    """Start or resume the run, and work until it and its kin have ended, as one sees who looks at them `beside`."""
    await _start(engine, scenario, run_id)
    for _ in range(_MOST_ROUNDS):
        await engine.drain()
        if all(row.status.is_terminal for row in await runs_of(beside, run_id)):
            break
        if scenario.cancels is not None:
            await engine.cancel(run_id + scenario.cancels)
            await engine.drain()
        clock.advance("1h")


async def _start(engine: Engine, scenario: Scenario, run_id: str) -> None:
    """As a client does that may have died before: it asks for the same run, and sends the same events."""
    await engine.enqueue(scenario.call, run_id=run_id)
    for number, (name, payload) in enumerate(scenario.events):
        await engine.send_event(run_id, name, payload, event_id=str(number))


async def runs_of(storage: StorageAdapter, run_id: str) -> list[RunRow]:
    """The run, and those that it has started."""
    page = await storage.list_runs(RunFilter(), limit=100_000)
    return [row for row in page.rows if row.run_id == run_id or row.run_id.startswith((f"{run_id}:", f"{run_id}+"))]


# ---- a process of its own --------------------------------------------------------------------------------------------

# Long after whatever the lives before could have come to.
_A_LIFE = timedelta(hours=2 * _MOST_ROUNDS)
# Nothing here waits for anything but the disk.
_LIMIT_S = 60


class _Noted(list[Body]):
    """Goes to the log, which outlives the process."""

    def __init__(self, what: str, log: int) -> None:
        super().__init__()
        self._what = what
        self._log = log

    def append(self, body: Body) -> None:
        run_id, generation, position = body
        os.write(self._log, f"{self._what}\t{run_id} {generation} {position}\n".encode())


async def _live(scenario: Scenario, file: Path, life: int) -> None:
    clock = VirtualClock()
    clock.advance(life * _A_LIFE)
    storage = SQLiteStorage(file)
    engine = Engine(storage, [scenario.call.workflow, *scenario.others], clock=clock)
    await storage.initialize()
    try:
        await work(engine, scenario, "r", clock, storage)
    finally:
        await storage.close()


def _main(name: str, file: str, log_file: str, backend: str, life: str, point: str) -> None:
    signal.alarm(_LIMIT_S)
    log = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    effects.began, effects.ended = _Noted("began", log), _Noted("ended", log)
    points = strike(int(point), signal.SIGKILL, log)
    [scenario] = [each for each in SCENARIOS if each.name == name]
    anyio.run(_live, scenario, Path(file), int(life), backend=backend)
    os.write(log, f"points\t{next(points) - 1}\n".encode())
    # To take an interpreter down takes longer than most lives.
    os._exit(0)


if __name__ == "__main__":
    _main(*sys.argv[1:])
