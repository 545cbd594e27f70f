"""W4: from `enqueue` to the start of the first body, one dispatch after the other: in process, and from a second
process on the same file. And what an idle engine costs meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
import time
from uuid import uuid4

import anyio
from anyio import Event, to_thread

from reflow import Engine, Flow, SQLiteStorage, step, workflow
from tests.bench.setting import Setting, percentiles

DISPATCHES = 200
_IDLE_S = 3.0

_began: list[float] = []
_seen: list[Event] = []


async def note() -> None:
    """Note when it began, by the clock that all processes of a machine share."""
    _began.append(time.time())
    _seen[0].set()


@workflow
def noted() -> Flow[None]:
    """One step."""
    yield step(note)


async def measure(setting: Setting) -> None:
    """In process, from another process, idle."""
    storage = setting.storage("dispatch")
    async with setting.engine(storage, noted) as engine:
        setting.show("W4 dispatch in process", dispatches=DISPATCHES, **percentiles(await _here(engine)))
        setting.show("W4 dispatch across processes", dispatches=DISPATCHES, **percentiles(await _elsewhere(storage)))
        setting.show("W4 idle engine", percent_of_a_core=await _idle())


async def _here(engine: Engine) -> list[float]:
    lags: list[float] = []
    for _ in range(DISPATCHES):
        _seen[:] = [Event()]
        asked = time.time()
        await engine.enqueue(noted())
        await _seen[0].wait()
        lags.append(_began[-1] - asked)
    return lags


async def _elsewhere(storage: SQLiteStorage) -> list[float]:
    """The other process enqueues on each line it reads, and answers with the time at which it was asked to."""
    command = [sys.executable, "-m", "tests.bench.dispatch", str(storage.path), storage.durability]
    process = await to_thread.run_sync(
        lambda: subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lags: list[float] = []
    for _ in range(DISPATCHES):
        _seen[:] = [Event()]
        process.stdin.write("go\n")
        process.stdin.flush()
        asked = float(await to_thread.run_sync(process.stdout.readline))
        await _seen[0].wait()
        lags.append(_began[-1] - asked)
    process.stdin.close()
    await to_thread.run_sync(process.wait)
    process.stdout.close()
    return lags


async def _idle() -> float:
    before, started = time.process_time(), time.monotonic()
    await anyio.sleep(_IDLE_S)
    return (time.process_time() - before) / (time.monotonic() - started) * 100


async def _enqueue_on_demand(path: str, durability: str) -> None:
    storage = SQLiteStorage(path, durability="full" if durability == "full" else "process")
    await storage.initialize()
    engine = Engine(storage, [noted])
    while await to_thread.run_sync(sys.stdin.readline):
        asked = time.time()
        await engine.enqueue(noted(), run_id=uuid4().hex)
        print(asked, flush=True)
    await storage.close()


if __name__ == "__main__":
    anyio.run(_enqueue_on_demand, sys.argv[1], sys.argv[2])
