"""The workflows that the workloads run, with the smallest useful body."""

from __future__ import annotations

from reflow import Flow, gather, step, workflow


async def add(a: int, b: int) -> int:
    """The smallest useful body."""
    return a + b


@workflow
def chain(length: int) -> Flow[int]:
    """Steps in a row: 0 + 0 + 1 + 2 + ..."""
    total = 0
    for number in range(length):
        total = yield step(add, total, number)
    return total


@workflow
def wide(width: int) -> Flow[int]:
    """Steps side by side: the sum of 0 + 1, 1 + 1, 2 + 1, ..."""
    values = yield gather(*(step(add, number, 1) for number in range(width)))
    return sum(values)
