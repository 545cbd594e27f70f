"""The workflows that the workers of these tests run, in a module as users have one. Bodies tell standard output what
they do, which the tests read."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import anyio

from reflow import Flow, step, wait_event, workflow


def told(what: str) -> None:
    """A line of its own, in one write: several processes have the same output."""
    os.write(1, f"{what} in {os.getpid()}\n".encode())


async def give(value: int) -> int:
    """Returns what it is given."""
    told(f"give {value}")
    return value


def read(path: str) -> str:
    """Waits until somebody has written to a pipe."""
    told("read")
    return Path(path).read_text()


async def rest() -> None:
    """Ends when it is cancelled."""
    told("rest")
    await anyio.sleep_forever()


async def weigh() -> None:
    """Tells whether the garbage collector leaves out what was there before."""
    told(f"frozen {gc.get_freeze_count() > 10_000}")


def stick() -> None:
    """Never ends: a thread cannot be cancelled."""
    told("stick")
    threading.Event().wait()


@workflow
def reading(path: str) -> Flow[str]:
    """Its first step ends when the test says so."""
    text = yield from step(read, path)
    yield step(give, 2)
    return text


@workflow
def resting() -> Flow[None]:
    """Its second step ends when it is cancelled."""
    yield step(give, 1)
    yield step(rest)


@workflow
def weighing() -> Flow[None]:
    """Its only step looks at its process."""
    yield step(weigh)


@workflow
def sticking() -> Flow[None]:
    """Its step never ends."""
    yield step(stick)


@workflow
def failing() -> Flow[None]:
    """Fails after a step."""
    yield step(give, 1)
    raise ValueError("boom")


@workflow
def giving(value: int) -> Flow[int]:
    """One step."""
    return (yield from step(give, value))


@workflow
def waiting(times: int = 1) -> Flow[str]:
    """Waits for events."""
    text = ""
    for _ in range(times):
        text = yield from wait_event("go", str, timeout="52w")
    return text


@workflow
def echoing(text: str) -> Flow[str]:
    """One step that gives a text."""
    return (yield from step(str, text))


@workflow(name="giving")
def giving_again(value: int) -> Flow[int]:
    """Has the name and version of another one."""
    return (yield from step(give, value))


GOOD = [reading, resting, sticking, failing, giving]
NONE: list[object] = []
MIXED = (giving, give)
