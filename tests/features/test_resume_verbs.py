"""resume: an ended run goes on with the part of its journal that is still good."""

from __future__ import annotations

from typing import Any

import pytest
from anyio import create_task_group, wait_all_tasks_blocked

from reflow import (
    Client,
    ConfigError,
    Failure,
    Flow,
    RunFailedError,
    RunStatus,
    WorkflowNotFoundError,
    sleep,
    step,
    workflow,
)
from reflow._core.journal import CANCEL, Entry, Journal, cancel_entry
from reflow.storage.records import Ending, Lease, Progress
from tests.support.bodies import Steps
from tests.support.parked import child_of, claim, fail, leave
from tests.support.world import World

pytestmark = pytest.mark.anyio


def two_steps(steps: Steps) -> Any:
    """A workflow of two steps, of which the second fails while it is in `steps.broken`."""

    @workflow
    def flow() -> Flow[list[str]]:
        first = yield from step(steps, "first")
        second = yield from step(steps, "second")
        return [first, second]

    return flow


async def test_the_failed_step_again(world: World) -> None:
    """[137][141] A failed run goes on at the step that failed: what was completed does not run again. It works a second
    and a third time."""
    steps = Steps()
    steps.broken.add("second")
    flow = two_steps(steps)
    await world.settle(flow())
    engine = world.engine(flow)
    resumed = []
    for _ in range(2):
        resumed.append(await engine.resume("r"))
        await engine.drain()
    steps.broken.clear()
    resumed.append(await engine.resume("r"))
    await engine.drain()

    assert [True] * 3 == resumed
    assert ["first", *["second"] * 4] == steps.begun
    assert ["first", "second"] == (await world.info()).output


async def test_how_a_resumed_run_looks(world: World) -> None:
    """[137] A resumed run is pending and due, without error, and what was cut out of its journal stays readable."""
    steps = Steps()
    steps.broken.add("second")
    flow = two_steps(steps)
    await world.settle(flow())
    world.clock.advance("1h")
    client = Client(world.storage, clock=world.clock)
    await client.resume("r")
    info, cut = await world.info(), await client.get_cut_entries("r")

    assert (RunStatus.PENDING, None) == (info.status, info.error)
    assert info.due_at == info.updated_at
    assert [("0", "completed")] == [(entry.position, entry.status) for entry in info.entries]
    assert [("1", "failed", "ValueError: second")] == [(e.position, e.status, str(e.error)) for e in cut]


async def test_at_a_position(world: World) -> None:
    """[137] With `at`, everything from that entry on is done again."""
    steps = Steps()
    steps.broken.add("second")
    flow = two_steps(steps)
    await world.settle(flow())
    steps.broken.clear()
    engine = world.engine(flow)
    await engine.resume("r", at="0")
    await engine.drain()

    assert ["first", "second"] * 2 == steps.begun


@pytest.mark.parametrize("at", ["7", 1, ""], ids=repr)
async def test_at_no_position(world: World, at: Any) -> None:
    """A position at which there is no entry is a `ConfigError`; the run stays failed."""
    steps = Steps()
    steps.broken.add("second")
    flow = two_steps(steps)
    await world.settle(flow())
    with pytest.raises(ConfigError, match=r"at is .*; write the position of an entry of this run"):
        await world.engine(flow).resume("r", at=at)

    assert RunStatus.FAILED is (await world.info()).status


async def test_an_error_of_the_code(world: World) -> None:
    """[137] An error of the workflow's own code takes nothing away: after a fix no step runs again."""
    steps = Steps()
    steps.broken.add("nothing")
    is_mended: list[None] = []

    @workflow
    def flow() -> Flow[str]:
        first = yield from step(steps, "first")
        if not is_mended:
            raise KeyError("typo")
        return first

    await world.settle(flow())
    is_mended.append(None)
    engine = world.engine(flow)
    await engine.resume("r")
    await engine.drain()

    assert ["first"] == steps.begun
    assert "first" == (await world.info()).output


async def test_what_cannot_be_resumed(world: World) -> None:
    """[138] `resume` of a completed, pending, sleeping, running or unknown run is False; nothing is disturbed."""
    steps = Steps()

    @workflow
    def sleeper() -> Flow[None]:
        yield sleep("1h")

    flow = two_steps(steps)
    engine = world.engine(flow, sleeper)
    await engine.enqueue(flow(), run_id="completed")
    await engine.enqueue(sleeper(), run_id="sleeping")
    await engine.drain()
    await engine.enqueue(flow(), run_id="running")
    await claim(world, "running")
    await engine.enqueue(flow(), run_id="pending")
    ids = ["completed", "sleeping", "running", "pending"]
    before = [await world.info(run_id) for run_id in ids]
    resumed = [await engine.resume(run_id) for run_id in [*ids, "nobody"]]

    assert [False] * 5 == resumed
    assert before == [await world.info(run_id) for run_id in ids]


async def test_an_unknown_workflow(world: World) -> None:
    """[139] An engine that does not know the workflow raises `WorkflowNotFoundError`, and the run stays as it is; a
    client resumes it."""
    steps = Steps()
    steps.broken.add("second")
    await world.settle(two_steps(steps)())
    before = await world.info()
    with pytest.raises(WorkflowNotFoundError, match="does not know the workflow 'flow'"):
        await world.engine().resume("r")

    assert before == await world.info()
    assert await Client(world.storage, clock=world.clock).resume("r")


async def test_an_old_lease(world: World) -> None:
    """[140] An engine that still believes in its lease can write nothing after `resume`."""
    steps = Steps()
    engine = world.engine(two_steps(steps))
    await engine.enqueue("flow", run_id="r")
    lease = await claim(world, "r")
    failure = world.codec.encode(Failure("ValueError", "no"))
    ended = Progress(lease, world.clock.now(), 0, [], [], [], Ending(RunStatus.FAILED, error=failure))
    await world.storage.save_progress(ended)
    await engine.resume("r")

    assert not await world.storage.save_progress(ended)
    assert [lease] == await world.storage.heartbeat([lease], lease_until=world.clock.now() + 1)
    assert await world.given_back()


async def test_the_handle_waits_for_the_new_end(world: World) -> None:
    """[141] A handle that has told of the failure tells of the result once the run was resumed."""
    steps = Steps("second")
    steps.broken.add("second")
    flow = two_steps(steps)
    results: list[list[str]] = []

    async def wait(run: Any) -> None:
        results.append(await run.result())

    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow(), run_id="r")
        steps.held["second"].set()
        with pytest.raises(RunFailedError, match="second"):
            await run.result()
        steps.broken.clear()
        async with create_task_group() as tasks:
            await engine.resume("r")
            tasks.start_soon(wait, run)
            await wait_all_tasks_blocked()

    assert [["first", "second"]] == results


async def test_events_stay(world: World) -> None:
    """[141] `resume` keeps the events that the run has not taken yet."""
    engine = world.engine(two_steps(Steps()))
    await engine.enqueue("flow", run_id="r")
    await engine.send_event("r", "approval", 7)
    await fail(world, "r", Failure("ValueError", "no"))
    await engine.resume("r")

    assert ["approval"] == [message.name for message in await world.storage.get_messages("r", after=0)]


# ---- children --------------------------------------------------------------------------------------------------------


def failed_child(world: World, position: str, child_id: str) -> tuple[Entry, Failure]:
    """The entry of a child that failed, and the failure of the parent that stems from it."""
    inner = Failure("ValueError", "no")
    args = (child_id, "inner")
    failure = Failure("RunFailedError", "failed", code="run_failed", args=args, causes=(inner,), raised_at=position)
    now = world.clock.now()
    entry = Entry(position, "child", "inner", True, world.codec.encode(failure), 1, now, now)
    return entry, failure


async def family(world: World, *ids: str) -> None:
    """A chain of runs, each the child of the one before at position 0, which have all failed from the inside out."""
    await Client(world.storage, clock=world.clock).enqueue("outer", run_id=ids[0])
    leases: list[Lease] = []
    for parent, child in zip(ids, [*ids[1:], None], strict=True):
        lease = await claim(world, parent)
        leases.append(lease)
        children = [child_of(world, parent, "0", "inner", child)] if child else []
        await world.storage.save_progress(Progress(lease, world.clock.now(), 0, [], [], [], children=children))
    inner: str | None = None
    for lease in reversed(leases):
        entries, failure = [], Failure("ValueError", "no")
        if inner is not None:
            entry, failure = failed_child(world, "0", inner)
            entries = [entry]
        ending = Ending(RunStatus.FAILED, error=world.codec.encode(failure))
        await world.storage.save_progress(Progress(lease, world.clock.now(), 0, entries, [], [], ending))
        inner = lease.run_id


async def statuses(world: World, *ids: str) -> list[RunStatus]:
    """The states of these runs."""
    return [(await world.info(run_id)).status for run_id in ids]


async def test_who_comes_late(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """[137][141] A resume that was overtaken by another, after which the run failed further on, is told False and takes
    nothing away of what was stored since."""
    steps = Steps()
    steps.broken.add("first")
    flow = two_steps(steps)
    await world.settle(flow())
    steps.broken = {"second"}
    engine = world.engine(flow)
    read, answers = world.storage.get_journal, []

    async def overtaken(run_id: str) -> Journal:
        journal = await read(run_id)
        monkeypatch.undo()
        answers.append(await world.resume())
        await engine.drain()
        return journal

    monkeypatch.setattr(world.storage, "get_journal", overtaken)
    answers.append(await world.resume())
    await engine.drain()

    assert [True, False] == answers
    assert ["first", "first", "second"] == steps.begun
    assert RunStatus.FAILED == (await world.info()).status


async def test_a_failed_child(world: World) -> None:
    """[141] Where a run failed by a child, that child is resumed first, and its own child before it."""
    await family(world, "a", "b", "c")
    resumed = await Client(world.storage, clock=world.clock).resume("a")

    assert resumed
    assert [RunStatus.PENDING] * 3 == await statuses(world, "a", "b", "c")
    assert () == (await world.info("a")).entries


async def test_a_child_that_goes_on_already(world: World) -> None:
    """[141] A child that was resumed by itself is left alone."""
    await family(world, "a", "b")
    client = Client(world.storage, clock=world.clock)
    await client.resume("b")
    await leave(world, "b", RunStatus.COMPLETED, output=world.codec.encode(7))
    await client.resume("a")

    assert [RunStatus.PENDING, RunStatus.COMPLETED] == await statuses(world, "a", "b")


async def test_children_that_were_cancelled_along(world: World) -> None:
    """[137] Children that were cancelled along with a run go on with it; one that had been cancelled long before, such
    as the loser of a race, does not."""
    client = Client(world.storage, clock=world.clock)
    await client.enqueue("outer", run_id="r")
    loser, sibling = (child_of(world, "r", position, "inner", run_id) for position, run_id in (("0", "x"), ("1", "y")))
    await leave(world, "r", RunStatus.WAITING, children=[loser, sibling], due_at=world.clock.now())
    await client.cancel("x")
    world.clock.advance("1m")
    await leave(world, "r", RunStatus.CANCELLED, entries=[cancel_entry(world.clock.now())])
    await client.cancel("y")
    await client.resume("r")
    cut = await client.get_cut_entries("r")

    assert [RunStatus.PENDING, RunStatus.CANCELLED, RunStatus.PENDING] == await statuses(world, "r", "x", "y")
    assert [CANCEL] == [entry.kind for entry in cut]
