"""Retry: attempts are counted in the storage, and waiting for the next one costs nothing."""

from __future__ import annotations

import gc
import weakref
from datetime import timedelta

import pytest
from anyio import Event, create_task_group

from reflow import (
    EntryInfo,
    Flow,
    Retry,
    RunInfo,
    RunStatus,
    StepFailedError,
    current_step,
    gather,
    sleep,
    step,
    workflow,
)
from reflow.testing.crash import MortalStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio

AT_ONCE = Retry(max_attempts=3, initial_delay=0)


class Attempts:
    """A body that notes its attempts, and fails until attempt number `until`."""

    def __init__(self, until: int = 1_000, error: BaseException | None = None) -> None:
        self.seen: list[int] = []
        self._until = until
        self._error = error or ConnectionError("no route")

    async def __call__(self) -> int:
        attempt = current_step().attempt
        self.seen.append(attempt)
        if attempt < self._until:
            raise self._error
        return attempt


def entry(info: RunInfo) -> EntryInfo:
    """The only entry of a run."""
    [only] = info.entries
    return only


async def test_one_attempt_without_a_policy(world: World) -> None:
    """[35] Without `retry=` a step has exactly one attempt; its failure raises `StepFailedError` at the yield."""
    body = Attempts()

    @workflow
    def flow() -> Flow[tuple[str, int]]:
        try:
            yield step(body)
        except StepFailedError as error:
            return error.position, error.attempts
        return "", 0

    info = await world.settle(flow())

    assert [1] == body.seen
    assert ["0", 1] == list(info.output)


@pytest.mark.parametrize("until", [1, 2, 3])
async def test_succeeds_at_last(world: World, until: int) -> None:
    """[36] With `max_attempts=N` the body is tried up to N times; the entry says how many were used."""
    body = Attempts(until)

    @workflow
    def flow() -> Flow[int]:
        return (yield from step(body).options(retry=AT_ONCE))

    info = await world.settle(flow())

    assert list(range(1, until + 1)) == body.seen
    assert ("completed", until, until) == (entry(info).status, entry(info).attempts, info.output)


async def test_fails_for_good(world: World) -> None:
    """[36][38] When the last attempt fails the step has failed, no wait follows, and the entry says how many."""
    body = Attempts()

    @workflow
    def flow() -> Flow[None]:
        yield step(body).options(retry=Retry(max_attempts=3, initial_delay=0))

    info = await world.settle(flow())

    assert [1, 2, 3] == body.seen
    assert (RunStatus.FAILED, "failed", 3) == (info.status, entry(info).status, entry(info).attempts)
    assert info.error is not None
    assert "step 'Attempts' failed after 3 attempts: ConnectionError: no route" == info.error.message


@pytest.mark.parametrize(
    ("policy", "waits"),
    [
        (Retry(max_attempts=4, backoff="constant", initial_delay="10s", jitter=False), [10, 10, 10]),
        (Retry(max_attempts=4, backoff="linear", initial_delay="10s", jitter=False), [10, 20, 30]),
        (Retry(max_attempts=4, backoff="exponential", initial_delay="10s", jitter=False), [10, 20, 40]),
        (Retry(max_attempts=4, initial_delay="10s", max_delay="15s", jitter=False), [10, 15, 15]),
    ],
    ids=["constant", "linear", "exponential", "capped"],
)
async def test_back_off(world: World, policy: Retry, waits: list[int]) -> None:
    """[37][39] The wait before the next attempt follows the policy, up to its cap."""
    body = Attempts()

    @workflow
    def flow() -> Flow[None]:
        yield step(body).options(retry=policy)

    info = await world.settle(flow())
    seen: list[float] = []
    while info.due_at is not None:
        wait = info.due_at - timedelta(microseconds=world.clock.now())
        seen.append(wait.timestamp())
        info = await world.continued(flow, after=wait.timestamp())

    assert waits == seen
    assert (RunStatus.FAILED, [1, 2, 3, 4]) == (info.status, body.seen)


async def test_jitter_by_default(world: World) -> None:
    """[37] Full jitter by default: runs that fail together do not come back together, and none later than the delay."""
    body = Attempts()

    @workflow
    def flow() -> Flow[None]:
        yield gather(*(step(body).options(retry=Retry(initial_delay="1h")) for _ in range(20)))

    info = await world.settle(flow())

    due = {entry.due_at for entry in info.entries if entry.due_at}
    assert 10 < len(due)
    assert all(0 <= instant.timestamp() - world.clock.now() / 1e6 <= 3600 for instant in due)


class Limited(Exception):
    """Says when to come back."""

    def __init__(self, retry_after: str) -> None:
        super().__init__("too many requests")
        self.retry_after = retry_after


async def test_retry_after_wins(world: World) -> None:
    """[39] A `retry_after` on the exception wins over the policy."""
    body = Attempts(2, Limited("7h"))

    @workflow
    def flow() -> Flow[int]:
        return (yield from step(body).options(retry=Retry(initial_delay=1, max_delay=1)))

    info = await world.settle(flow())
    assert info.due_at is not None
    assert 7 * 3600 == info.due_at.timestamp() - world.clock.now() / 1e6
    info = await world.continued(flow, after="7h")

    assert 2 == info.output


async def test_give_up_on(world: World) -> None:
    """[39] Exceptions of a class in `give_up_on` are not tried again."""
    body = Attempts(error=PermissionError("no"))

    @workflow
    def flow() -> Flow[None]:
        yield step(body).options(retry=Retry(max_attempts=5, give_up_on=(KeyError, OSError)))

    info = await world.settle(flow())

    assert [1] == body.seen
    assert RunStatus.FAILED == info.status


async def test_a_restart_in_mid_back_off(world: World) -> None:
    """[40] Attempts and the time of the next attempt are stored: a restart in mid back-off skips and adds none."""
    body = Attempts()

    @workflow
    def flow() -> Flow[None]:
        yield step(body).options(retry=Retry(max_attempts=3, backoff="constant", initial_delay="1h", jitter=False))

    await world.settle(flow())
    early = await world.continued(flow, after="59m")
    seen_early = list(body.seen)
    await world.continued(flow, after="1m")
    info = await world.continued(flow, after="1h")

    assert RunStatus.SLEEPING == early.status
    assert [1] == seen_early
    assert [1, 2, 3] == body.seen
    assert (RunStatus.FAILED, 3) == (info.status, entry(info).attempts)


async def test_a_kill_during_an_attempt(world: World) -> None:
    """[40] A kill during the second attempt repeats that one, and leaves those before it counted."""
    body = Attempts(3)

    @workflow
    def flow() -> Flow[int]:
        return (yield from step(body).options(retry=AT_ONCE))

    # Verbs: create, claim, save the first attempt, and save the second, which never happens.
    mortal = MortalStorage(world.storage, dies_at=4, after=False)
    engine = world.engine(flow, storage=mortal)  # type: ignore[arg-type]
    await engine.enqueue(flow(), run_id="r")
    with pytest.raises(BaseExceptionGroup):
        await engine.drain()
    info = await world.continued(flow, after="1m")

    assert [1, 2, 2, 3] == body.seen
    assert (RunStatus.COMPLETED, 3) == (info.status, entry(info).attempts)


async def test_a_long_back_off_parks_the_run(world: World) -> None:
    """[41] A long back-off parks the run like a sleep: no slot, no lease, no memory."""

    class Weighty:
        pass

    held: list[weakref.ref[Weighty]] = []
    body = Attempts()

    @workflow
    def flow() -> Flow[None]:
        weighty = Weighty()
        held.append(weakref.ref(weighty))
        yield step(body).options(retry=Retry(initial_delay="1h", jitter=False))

    @workflow
    def other() -> Flow[str]:
        return (yield from step(give, "other"))

    engine = world.engine(flow, other, concurrency=1)
    await engine.enqueue(flow(), run_id="r")
    await engine.drain()
    await engine.enqueue(other(), run_id="o")
    await engine.drain()

    row = await world.storage.get_run("r")
    assert row is not None
    assert (RunStatus.SLEEPING, None) == (row.status, row.lease_id)
    assert "other" == (await world.info("o")).output
    gc.collect()
    assert [None] == [reference() for reference in held]


async def give(value: str) -> str:
    """Returns what it is given."""
    return value


async def test_a_step_in_back_off_shows(world: World) -> None:
    """Between two attempts `get_run` shows the step as retrying, until when, after how many, and why."""
    body = Attempts()

    @workflow
    def flow() -> Flow[None]:
        yield step(body).options(retry=Retry(initial_delay="1h", jitter=False))

    info = await world.settle(flow())

    shown = entry(info)
    assert ("retrying", 1, info.due_at) == (shown.status, shown.attempts, shown.due_at)
    assert shown.error is not None
    assert ("ConnectionError", "no route") == (shown.error.type, shown.error.message)


async def test_a_short_back_off_stays_in_memory(world: World) -> None:
    """A back-off of milliseconds keeps the run where it is: no second claim, and no replay."""
    failed = Event()
    starts: list[None] = []

    async def body() -> int:
        if current_step().attempt == 1:
            failed.set()
            raise ConnectionError
        return current_step().attempt

    @workflow
    def flow() -> Flow[int]:
        starts.append(None)
        return (yield from step(body).options(retry=Retry(initial_delay="50ms", jitter=False)))

    engine = world.engine(flow)
    await engine.enqueue(flow(), run_id="r")
    async with create_task_group() as tasks:
        tasks.start_soon(engine.drain)
        await failed.wait()
        await world.clock.has_timer(within="50ms")
        world.clock.advance("50ms")

    info = await world.info()
    assert (2, 1, 1) == (info.output, info.executions, len(starts))


async def test_a_replay_takes_the_same_path(world: World) -> None:
    """[43] Retry decisions use recorded times and counts only: with the clock moved a replay changes nothing."""
    body = Attempts(2)

    @workflow
    def flow() -> Flow[int]:
        attempts = yield from step(body).options(retry=AT_ONCE)
        yield sleep("1h")
        return attempts

    before = await world.settle(flow())
    info = await world.continued(flow, after="1000d")

    assert before.entries[0] == info.entries[0]
    assert ([1, 2], 2) == (body.seen, info.output)


async def test_each_step_counts_for_itself(world: World) -> None:
    """Attempts used by one step are none of the next one's."""
    bodies = [Attempts(2), Attempts(3)]

    @workflow
    def flow() -> Flow[list[int]]:
        counts: list[int] = []
        for body in bodies:
            counts.append((yield step(body).options(retry=AT_ONCE)))
        return counts

    info = await world.settle(flow())

    assert [2, 3] == info.output
