"""W3: a process in the midst of a long run is killed (SIGKILL), and a new one takes the run over.

Measured is the time from entering the engine of the new process to the start of the first body whose step has no stored
result. With nothing stored it is what a start costs anyway; the rest is reading and replaying.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from uuid import uuid4

import anyio

from reflow import Engine, Flow, SQLiteStorage, step, workflow
from tests.bench.contents import Contents, contents
from tests.bench.place import File
from tests.bench.process import apart, companion
from tests.bench.result import Result
from tests.bench.setting import Setting

# What this process has done: numbers of the bodies that ran, and what happens in the last one.
_ran: list[int] = []
_at_the_end: list[Callable[[], Awaitable[None]]] = []


async def add(total: int, number: int, stored: int) -> int:
    """Adds; the one after those that are stored does what the process wants to do there."""
    _ran.append(number)
    if number == stored:
        await _at_the_end[-1]()
    return total + number


@workflow
def long(stored: int) -> Flow[int]:
    """A chain: so many steps, and one more."""
    total = 0
    for number in range(stored + 1):
        total = yield step(add, total, number, stored)
    return total


def measure(setting: Setting) -> Iterator[Result]:
    """Nothing stored, 2,000 steps, 100,000 steps."""
    sizes = setting.sized((0, 2_000, 100_000), (0, 2_000, 10_000), (0, 50))
    repetitions = setting.sized(7, 3, 1)
    times = {stored: _recoveries(setting, stored, repetitions) for stored in sizes}
    for stored in sizes[1:]:
        figures = {
            "seconds": min(times[stored]),
            "seconds_median": median(times[stored]),
            "seconds_fixed": min(times[0]),
            "us_per_step": (min(times[stored]) - min(times[0])) / stored * 1e6,
            "us_per_step_median": (median(times[stored]) - median(times[0])) / stored * 1e6,
        }
        yield Result("W3 recovery", {"stored_steps": stored, "repetitions": repetitions, **figures})


async def once(setting: Setting, stored: int = 20_000) -> float:
    """One recovery in this process."""
    killed = await anyio.to_thread.run_sync(_killed, setting, stored)
    return await _recover(setting, killed, stored)


def _recoveries(setting: Setting, stored: int, repetitions: int) -> list[float]:
    """Each of a copy of the same file, in a process of its own."""
    killed = _killed(setting, stored)
    return [apart(setting, _recover, _copy(killed, _new_file(setting)), stored) for _ in range(repetitions)]


def _killed(setting: Setting, stored: int) -> Path:
    """A file as a killed process leaves it."""
    path, lease_s = _new_file(setting), setting.sized(1.0, 1.0, 0.3)
    with companion(setting, _write, path, stored, lease_s) as other:
        assert other.pipe.recv() == "reached"
        other.process.kill()
        other.process.join()
        assert other.process.exitcode == -signal.SIGKILL
    time.sleep(lease_s)
    assert Contents({"running": 1}, stored) == contents(File(_copy(path, _new_file(setting))))
    return path


def _new_file(setting: Setting) -> Path:
    return setting.folder / f"{uuid4().hex}.db"


def _copy(path: Path, to: Path) -> Path:
    """The last commits are in the WAL; only this process knows that nobody else writes."""
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{to}{suffix}")
    return to


async def _write(pipe: Connection, setting: Setting, path: Path, stored: int, lease_s: float) -> None:
    """In the process that is killed. How fast it gets there is no matter of this workload: no fsyncs."""

    async def stay() -> None:
        pipe.send("reached")
        await anyio.sleep_forever()

    _at_the_end.append(stay)
    async with Engine(SQLiteStorage(path, durability="process"), [long], lease=lease_s) as engine:
        await engine.execute(long(stored), run_id="long")


async def _recover(setting: Setting, path: Path, stored: int) -> float:
    """In the process that takes over."""
    reached: list[float] = []

    async def note() -> None:
        reached.append(time.perf_counter())

    _at_the_end.append(note)
    storage = setting.storage(File(path))
    started = time.perf_counter()
    async with Engine(storage, [long]) as engine:
        result = await (await engine.handle("long")).result()
    assert result == stored * (stored + 1) // 2
    assert _ran == [stored]
    assert Contents({"completed": 1}, stored + 1) == contents(File(path))
    return reached[0] - started
