"""A worker process for tests that kill: `python -m tests.crash.fleet_worker FILE BACKEND LEASE`.

It serves until it is killed, or until its standard input is closed. Every step body appends one line to the file
REFLOW_FLEET_LOG when it begins: run, position, attempt, process. The log is outside the database, so it also shows what
a kill made forgotten. Bodies that take a moment take REFLOW_FLEET_PACE_S.

It may be told more: REFLOW_FLEET_CLOCK is a file that says how far its clock is ahead (shifted.py); at the point
REFLOW_FLEET_STOPS_AT (mortal.py) it stops itself, by SIGSTOP, and says on standard error where; with REFLOW_FLEET_SAYS
it says there what the engine has to say from that level up.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import anyio
from anyio import to_thread

from reflow import (
    Engine,
    Flow,
    Retry,
    SQLiteStorage,
    WorkflowCancelled,
    current_step,
    gather,
    sleep,
    step,
    wait_event,
    workflow,
)
from tests.crash.mortal import strike
from tests.crash.shifted import ShiftedClock


def began() -> None:
    """Note that this body began; one write, so that lines of several processes do not mix."""
    info = current_step()
    os.write(_log, f"{info.run_id} {info.position} {info.attempt} {os.getpid()}\n".encode())


async def add(a: int, b: int) -> int:
    """Takes a moment, so that a kill can hit it."""
    began()
    await anyio.sleep(_pace_s)
    return a + b


def square(a: int) -> int:
    """A body in a thread."""
    began()
    return a * a


async def flaky(a: int) -> int:
    """Fails at first."""
    began()
    if current_step().attempt == 1:
        raise ConnectionError("busy")
    return a


def pair(number: int) -> Flow[int]:
    """A branch."""
    first = yield from step(add, number, 1)
    second = yield from step(square, first)
    return second


@workflow
def killed(number: int) -> Flow[int]:
    """Seven step bodies: in a row, side by side, retried."""
    first = yield from step(add, number, 1)
    left, right = yield from gather(pair(first), pair(first + 1))
    total = yield from step(flaky, left + right).options(retry=Retry(max_attempts=3, initial_delay="1ms"))
    last = yield from step(add, total, 1)
    return last


@workflow
def shared(number: int) -> Flow[int]:
    """Five steps in a row."""
    for _ in range(5):
        number = yield from step(add, number, 1)
    return number


@workflow
def dozing(number: int) -> Flow[int]:
    """A sleep that parks the run, an attempt that does, and a sleep that does not."""
    first = yield from step(add, number, 1)
    yield sleep("150ms")
    patient = Retry(max_attempts=3, initial_delay="150ms", jitter=False)
    tried = yield from step(flaky, first).options(retry=patient)
    yield sleep("20ms")
    return (yield from step(add, tried, 1))


@workflow
def answered(number: int) -> Flow[list[int]]:
    """Children side by side, then two events; steps that clean up where it is cancelled."""
    try:
        first = yield from step(add, number, 1)
        left, right = yield from gather(shared(first), shared(first + 1))
        answers: list[int] = []
        for _ in range(2):
            answer = yield from wait_event("answer", int)
            answers.append((yield from step(add, answer, 1)))
        return [left, right, *answers]
    except WorkflowCancelled:
        yield step(add, number, 1).options(name="undo")
        yield step(square, number).options(name="report")
        raise


@workflow
def resting(number: int) -> Flow[None]:
    """A run that only waits."""
    yield gather(sleep("14d"), wait_event("never"))


WORKFLOWS = [killed, shared, dozing, answered, resting]

_log = os.open(os.environ.get("REFLOW_FLEET_LOG", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_pace_s = float(os.environ.get("REFLOW_FLEET_PACE_S", "0"))


async def main(path: str, lease: str) -> None:
    """Serve until standard input is closed."""
    if point := os.environ.get("REFLOW_FLEET_STOPS_AT"):
        strike(int(point), signal.SIGSTOP, sys.stderr.fileno())
    if level := os.environ.get("REFLOW_FLEET_SAYS"):
        logging.basicConfig(level=level)
    shift = os.environ.get("REFLOW_FLEET_CLOCK")
    clock = ShiftedClock(Path(shift)) if shift else None
    async with Engine(SQLiteStorage(path), WORKFLOWS, lease=lease, concurrency=20, clock=clock):
        await to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[3], backend=sys.argv[2])
