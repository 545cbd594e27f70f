"""The workflows that the workloads run, with the smallest useful bodies."""

from __future__ import annotations

import time

from anyio import Event

from reflow import Flow, gather, sleep, step, workflow

began: list[float] = []
"""When bodies began, where a workload wants to know (perf_counter)."""

hold: list[Event] = []
"""What `held` waits for."""


async def add(a: int, b: int) -> int:
    """The smallest useful body."""
    return a + b


async def mark(a: int, b: int) -> int:
    """The same, and notes when it began."""
    began.append(time.perf_counter())
    return a + b


@workflow
def chain(length: int) -> Flow[int]:
    """Steps in a row: 0 + 1 + 2 + ..."""
    total = 0
    for number in range(length):
        total = yield step(add, total, number)
    return total


@workflow
def marked(length: int) -> Flow[int]:
    """The same with bodies that note when they began."""
    total = 0
    for number in range(length):
        total = yield step(mark, total, number)
    return total


@workflow
def wide(width: int) -> Flow[int]:
    """Steps side by side."""
    values = yield gather(*(step(add, number, 1) for number in range(width)))
    return sum(values)


@workflow
def sleeper(seconds: float) -> Flow[int]:
    """A step, a sleep, and a step that notes when it began."""
    first = yield step(add, 1, 1)
    yield sleep(seconds)
    last = yield step(mark, first, 1)
    return last
