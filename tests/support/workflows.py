"""A corpus of workflow shapes, each with the result it must have whatever happens to it.

Bodies note their beginning and end in `effects`, so that a test can tell which ran when.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from reflow import Call, Flow, Retry, Winner, current_step, gather, new_uuid, now, race, sleep, step, workflow


@dataclass
class Effects:
    """What step bodies did: (run, position, name) in the order in which they began, and of those that ended."""

    began: list[tuple[str, str]] = field(default_factory=list)
    ended: list[tuple[str, str]] = field(default_factory=list)

    def clear(self) -> None:
        """Start afresh."""
        self.began.clear()
        self.ended.clear()


effects = Effects()


class Declined(Exception):
    """An error that a step lists in `raises=`."""


async def add(a: int, b: int) -> int:
    """An async body."""
    here = (current_step().run_id, current_step().position)
    effects.began.append(here)
    effects.ended.append(here)
    return a + b


def double(a: int) -> int:
    """A body in a thread."""
    here = (current_step().run_id, current_step().position)
    effects.began.append(here)
    effects.ended.append(here)
    return a * 2


async def flaky(until: int) -> int:
    """Fails until its attempt number `until`."""
    here = (current_step().run_id, current_step().position)
    effects.began.append(here)
    if current_step().attempt < until:
        raise ConnectionError("not yet")
    effects.ended.append(here)
    return current_step().attempt


async def decline() -> int:
    """Always fails."""
    effects.began.append((current_step().run_id, current_step().position))
    raise Declined("no funds", 3)


@workflow
def chain(length: int) -> Flow[int]:
    """Steps in a row."""
    total = 0
    for number in range(length):
        total = yield from step(add, total, number)
    return total


@workflow
def mixed(start: int) -> Flow[list[int]]:
    """Both kinds of body, a sleep, a recorded time and an identifier."""
    first = yield from step(add, start, 1)
    yield sleep("1h")
    second = yield from step(double, first)
    yield now()
    yield new_uuid()
    return [first, second]


@workflow
def retried() -> Flow[int]:
    """A flaky step with short and long back-off."""
    quick = Retry(max_attempts=3, initial_delay=0, jitter=False)
    patient = Retry(max_attempts=3, initial_delay="1m", backoff="linear", jitter=False)
    first = yield from step(flaky, 3).options(retry=quick)
    second = yield from step(flaky, 2).options(retry=patient)
    return first + second


@workflow
def saga() -> Flow[str]:
    """A failure that is caught, and compensated by steps."""
    account = yield from step(add, 1, 1)
    try:
        yield step(decline).options(raises=Declined)
    except Declined as error:
        yield step(double, account)
        return f"{error.args[0]} {error.args[1]}"
    return "accepted"


def _branch(start: int) -> Flow[int]:
    first = yield from step(add, start, 1)
    yield sleep("10s")
    second = yield from step(double, first)
    return second


@workflow
def fan_out(width: int) -> Flow[list[int]]:
    """Branches side by side, bounded."""
    values = yield from gather(*(_branch(start) for start in range(width)), limit=2)
    total = yield from step(add, sum(values), 0)
    return [*values, total]


def _slow(value: int) -> Flow[int]:
    try:
        # Longer than any time a test lets pass, crashes included.
        yield sleep("365d")
        return value
    finally:
        yield step(add, value, 0).options(name="clean_up")


@workflow
def raced() -> Flow[int]:
    """A race whose loser cleans up with a step, and a gather inside it."""
    winner: Winner[Any] = yield from race(_slow(7), gather(step(add, 1, 2), step(double, 2)))
    first, second = winner.value
    more = yield from step(add, first, second)
    return more


@dataclass(frozen=True)
class Scenario:
    """A call, and what it must give."""

    name: str
    call: Call[Any]
    result: Any

    def __str__(self) -> str:
        return self.name


SCENARIOS = [
    Scenario("chain", chain(4), 6),
    Scenario("mixed", mixed(1), [2, 4]),
    Scenario("retried", retried(), 5),
    Scenario("saga", saga(), "no funds 3"),
    Scenario("fan_out", fan_out(3), [2, 4, 6, 12]),
    Scenario("raced", raced(), 7),
]
