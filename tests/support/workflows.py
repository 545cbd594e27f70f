"""A corpus of workflow shapes, each with the result it must have whatever happens to it.

Bodies note their beginning and end in `effects`, so that a test can tell which ran when.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from reflow import (
    Call,
    Flow,
    Retry,
    RunCancelledError,
    RunStatus,
    WaitTimeoutError,
    Winner,
    Workflow,
    continue_as_new,
    current_step,
    gather,
    new_uuid,
    now,
    patched,
    race,
    sleep,
    spawn,
    step,
    wait_event,
    workflow,
)

Body = tuple[str, int, str]


@dataclass
class Effects:
    """What step bodies did: (run, generation, position) in the order in which they began, and of those that ended."""

    began: list[Body] = field(default_factory=list)
    ended: list[Body] = field(default_factory=list)

    def clear(self) -> None:
        """Start afresh."""
        self.began.clear()
        self.ended.clear()


effects = Effects()


def begin() -> Body:
    """Note that this body has begun."""
    info = current_step()
    here = (info.run_id, info.generation, info.position)
    effects.began.append(here)
    return here


class Declined(Exception):
    """An error that a step lists in `raises=`."""


async def add(a: int, b: int) -> int:
    """An async body."""
    effects.ended.append(begin())
    return a + b


def double(a: int) -> int:
    """A body in a thread."""
    effects.ended.append(begin())
    return a * 2


async def flaky(until: int) -> int:
    """Fails until its attempt number `until`."""
    here = begin()
    if current_step().attempt < until:
        raise ConnectionError("not yet")
    effects.ended.append(here)
    return current_step().attempt


async def decline() -> int:
    """Always fails."""
    begin()
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


# ---- events, other runs, changes, cancellation -----------------------------------------------------------------------


@workflow
def collected() -> Flow[list[Any]]:
    """Events that were sent before, one after the other and side by side."""
    first = yield from wait_event("word", str)
    second = yield from step(add, first.count("a"), 1)
    third, number = yield from gather(wait_event("word", str), wait_event("number", int, timeout="1h"))
    last = yield from wait_event("word", str)
    return [first, second, third, number, last]


@workflow
def patient() -> Flow[list[Any]]:
    """Waits that end by their limits, alone and side by side, and one that does not."""
    try:
        yield wait_event("never", timeout="30m")
    except WaitTimeoutError:
        yield step(add, 1, 1)
    missed, word = yield from gather(
        wait_event("never", timeout="30m"), wait_event("word", str, timeout="2h"), return_exceptions=True
    )
    return [type(missed).__name__, word]


@workflow
def parent() -> Flow[list[Any]]:
    """A child, one that fails, and steps around them."""
    first = yield from step(add, 1, 1)
    second = yield from mixed(first)
    try:
        yield broken()
    except Exception as error:
        return [*second, type(error).__name__, (yield from step(double, first))]
    return []


@workflow
def broken() -> Flow[None]:
    """Fails."""
    yield step(decline)


@workflow
def family() -> Flow[list[Any]]:
    """Children side by side, one with a child of its own."""
    a, b, c = yield from gather(chain(3), middle(2), _branch(4))
    return [a, b, c, (yield from step(add, a, c))]


@workflow
def middle(value: int) -> Flow[int]:
    """A child that has one."""
    below = yield from chain(value)
    return (yield from step(double, below))


@workflow
def spawner() -> Flow[str]:
    """Two runs that go their own way."""
    yield spawn(chain(2))
    yield step(add, 1, 1)
    run_ids = yield from gather(spawn(mixed(1)), spawn(chain(1)))
    return run_ids[1].rpartition(":")[2]


@workflow
def paged(page: int, total: int) -> Flow[int]:
    """Goes on as new, with steps, an event, a child and a sleep in each generation."""
    number = yield from wait_event("number", int)
    more = yield from step(add, page, number)
    below = yield from chain(page)
    yield sleep("10m")
    if page == 3:
        return total + more + below
    yield continue_as_new(paged(page + 1, total + more + below))
    return -1


@workflow
def changed() -> Flow[list[Any]]:
    """Changes of the code before, between and after commands."""
    log = [(yield from patched("first"))]
    log.append((yield from step(add, 1, 1)))
    yield sleep("1h")
    if (yield from patched("second")):
        log.append((yield from step(double, 4)))
    return [*log, (yield from patched("first"))]


@workflow
def lasting(value: int) -> Flow[None]:
    """Lasts until it is cancelled, and cleans up."""
    yield from _slow(value)


@workflow
def abandoned() -> Flow[None]:
    """Cleans up when it is cancelled: in its branches, with steps, a sleep and a child."""
    booked = yield from step(add, 1, 1)
    try:
        yield gather(_slow(3), wait_event("never"), lasting(4))
    finally:
        yield step(double, booked).options(name="undo")
        yield sleep("10m")
        yield chain(2)
        yield step(add, booked, 1).options(name="report")


@workflow
def bereaved() -> Flow[str]:
    """Its child is cancelled, not the run itself."""
    try:
        yield lasting(5)
    except RunCancelledError:
        yield step(add, 1, 1)
    return "went on"


@dataclass(frozen=True)
class Scenario:
    """A call, and what it must give.

    `events` are sent to the run before it begins. Once it rests, the run that `cancels` names is cancelled: "" is the
    run itself, ":0" its child at position 0. In the end there are so many `runs`, and the run has these `entries`, by
    name, where it says so.
    """

    name: str
    call: Call[Any]
    result: Any
    others: tuple[Workflow[..., Any], ...] = ()
    events: tuple[tuple[str, Any], ...] = ()
    cancels: str | None = None
    runs: int = 1
    entries: tuple[str, ...] | None = None

    @property
    def status(self) -> RunStatus:
        """How the run must end."""
        return RunStatus.CANCELLED if self.cancels == "" else RunStatus.COMPLETED

    def __str__(self) -> str:
        return self.name


SCENARIOS = [
    Scenario("chain", chain(4), 6),
    Scenario("mixed", mixed(1), [2, 4]),
    Scenario("retried", retried(), 5),
    Scenario("saga", saga(), "no funds 3"),
    Scenario("fan_out", fan_out(3), [2, 4, 6, 12]),
    Scenario("raced", raced(), 7),
    Scenario(
        "collected",
        collected(),
        ["a", 2, "b", 7, "a"],
        events=(("word", "a"), ("word", "b"), ("number", 7), ("word", "a")),
    ),
    Scenario("patient", patient(), ["WaitTimeoutError", "here"], events=(("word", "here"),)),
    Scenario("parent", parent(), [3, 6, "RunFailedError", 4], others=(mixed, broken), runs=3),
    Scenario("family", family(), [3, 2, 10, 13], others=(chain, middle), runs=4),
    Scenario("spawner", spawner(), "2.1", others=(chain, mixed), runs=4),
    Scenario(
        "paged",
        paged(1, 0),
        11 + 22 + 33 + 0 + 1 + 3,
        others=(chain,),
        events=(("number", 10), ("number", 20), ("number", 30)),
        runs=4,
    ),
    Scenario("changed", changed(), [True, 2, 8, True]),
    Scenario(
        "abandoned",
        abandoned(),
        None,
        others=(lasting, chain),
        cancels="",
        runs=3,
        entries=("add", "cancel", "clean_up", "undo", "sleep", "chain", "report"),
    ),
    Scenario("bereaved", bereaved(), "went on", others=(lasting,), cancels=":0", runs=2),
]
