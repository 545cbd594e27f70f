"""W4: from `enqueue` to the start of the body, 200 times one after the other: in process, and from a second process on
the same storage. And what an idle engine costs. The floor of a dispatch: what its one commit takes after such a pause.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import anyio

from reflow import Engine, Flow, step, workflow
from tests.bench.contents import Contents, contents
from tests.bench.floor import lone_seconds
from tests.bench.place import Place
from tests.bench.process import apart, companion
from tests.bench.result import Result, percentiles
from tests.bench.setting import Setting

# An engine that looks into the file at intervals is met at any moment of them.
_LONGEST_PAUSE_S = 0.02

_began: list[float] = []


def _pause_s() -> float:
    return random.uniform(0, _LONGEST_PAUSE_S)


async def note() -> None:
    """Note when it began, by the clock that all processes of a machine share."""
    _began.append(time.time())


@workflow
def noted() -> Flow[None]:
    """One step."""
    yield step(note)


def measure(setting: Setting) -> Iterator[Result]:
    """In process, from another process, idle."""
    dispatches = setting.sized(200, 50, 2)
    lags = setting.run(once, setting, dispatches)
    commits = lone_seconds(setting, dispatches, lambda: time.sleep(_pause_s()))
    floor = {f"floor_{name}": value for name, value in percentiles(commits).items()}
    yield Result("W4 dispatch in process", {"dispatches": dispatches, **percentiles(lags), **floor})
    place = setting.new_place()
    with companion(setting, _enqueue_on_demand, place) as other:
        lags = setting.run(_from_another_process, setting, place, dispatches, other.pipe)
    yield Result("W4 dispatch across processes", {"dispatches": dispatches, **percentiles(lags)})
    seconds = setting.sized(10.0, 3.0, 0.1)
    with place.connected() as idle:
        idle.execute("select count(*) from reflow_run").fetchone()
        share = apart(setting, _idle, place, seconds)
    yield Result("W4 idle engine", {"seconds": seconds, "percent_of_a_core": share * 100})


async def once(setting: Setting, dispatches: int = 200) -> list[float]:
    """In process."""
    place, lags = setting.new_place(), list[float]()
    storage = setting.storage(place)
    _began.clear()
    async with Engine(storage, [noted]) as engine:
        await engine.execute(noted())
        for _ in range(dispatches):
            await anyio.sleep(_pause_s())
            asked = time.time()
            run = await engine.enqueue(noted())
            await run.result()
            lags.append(_began[-1] - asked)
    assert 1 + dispatches == len(_began)
    assert Contents({"completed": 1 + dispatches}, 1 + dispatches) == contents(place)
    return lags


async def _from_another_process(setting: Setting, place: Place, dispatches: int, pipe: Connection) -> list[float]:
    """The other process enqueues when it is told to, and answers with the id, and the time at which it began to."""
    lags: list[float] = []
    _began.clear()
    async with Engine(setting.storage(place), [noted]) as engine:
        await engine.execute(noted())
        for _ in range(dispatches):
            await anyio.sleep(_pause_s())
            pipe.send("enqueue")
            run_id, asked = await anyio.to_thread.run_sync(pipe.recv)
            await (await engine.handle(run_id)).result()
            lags.append(_began[-1] - asked)
    assert 1 + dispatches == len(_began)
    assert Contents({"completed": 1 + dispatches}, 1 + dispatches) == contents(place)
    return lags


async def _enqueue_on_demand(pipe: Connection, setting: Setting, place: Place) -> None:
    storage = setting.storage(place)
    await storage.initialize()
    client = Engine(storage, [noted])
    # Whoever asks, waits: there is nothing else to do in this process meanwhile.
    while pipe.recv():
        asked = time.time()
        run = await client.enqueue(noted())
        pipe.send((run.run_id, asked))


async def _idle(setting: Setting, place: Place, seconds: float) -> float:
    """The processor time of this process, all threads, for each second in which its engine has nothing to do."""
    async with Engine(setting.storage(place), [noted]) as engine:
        await engine.execute(noted())
        await anyio.sleep(seconds / 10)
        before, started = time.process_time(), time.perf_counter()
        await anyio.sleep(seconds)
        return (time.process_time() - before) / (time.perf_counter() - started)
