"""Events: what is sent to a run is kept until the run waits for it, and is taken once, with the entry that says so."""

from __future__ import annotations

import gc
import sys
import weakref
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group, fail_after, run_process, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from reflow import (
    ConfigError,
    Engine,
    Event,
    Flow,
    RunFailedError,
    RunStatus,
    SQLiteStorage,
    StorageError,
    ValidationError,
    WaitTimeoutError,
    Winner,
    gather,
    race,
    sleep,
    step,
    wait_event,
    workflow,
)
from reflow._core.duration import from_micros
from reflow._core.journal import MessageKind
from reflow.storage.records import Progress
from reflow.testing.crash import Crash, MortalStorage
from tests.support.bodies import Steps, give
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio


@dataclass
class Approval:
    """What an approver says."""

    approved: bool
    by: str


approval = Event("approval", Approval)


@workflow
def listener(names: list[str]) -> Flow[list[Any]]:
    """One wait after the other."""
    heard: list[Any] = []
    for name in names:
        heard.append((yield wait_event(name)))
    return heard


@workflow
def patient(limit: str | None = None) -> Flow[Any]:
    """A wait, perhaps with a limit, that says when it was in vain."""
    try:
        return (yield wait_event("a", timeout=limit))
    except WaitTimeoutError as error:
        return [error.event, error.limit_s]


@workflow
def approved() -> Flow[str]:
    """Waits for something typed, twice if need be."""
    try:
        answer = yield from wait_event(approval)
    except ValidationError as error:
        answer = yield from wait_event(approval)
        return f"{answer.by}, after {error.path}"
    return answer.by


async def kept(world: World, run_id: str = "r") -> list[Any]:
    """The payloads of the events that the run has been sent and not taken."""
    messages = await world.storage.get_messages(run_id, after=0)
    return [world.codec.decode(message.payload, Any) for message in messages if message.kind is MessageKind.EVENT]


# ---- waiting ---------------------------------------------------------------------------------------------------------


async def test_a_waiting_run(world: World) -> None:
    """[78] A run that waits has status `waiting`, no lease and no time at which it is due; the payload is then the
    value of its yield."""
    waiting = await world.settle(listener(["a"]))
    row = await world.storage.get_run("r")
    assert row is not None
    await world.send("r", "a", {"n": 1})
    info = await world.continued(listener)

    assert (RunStatus.WAITING, None, None) == (waiting.status, waiting.due_at, row.lease_id)
    assert [("wait_event", "a", "waiting", None)] == [(e.kind, e.name, e.status, e.due_at) for e in waiting.entries]
    assert [("wait_event", "a", "completed", {"n": 1})] == [(e.kind, e.name, e.status, e.value) for e in info.entries]
    assert (RunStatus.COMPLETED, [{"n": 1}]) == (info.status, info.output)


async def test_it_has_no_slot(world: World) -> None:
    """[78] Waiting runs have no slot: with a concurrency of 1 a hundred may wait, and others run."""
    engine = world.engine(listener, concurrency=1)
    for number in range(100):
        await engine.enqueue(listener(["a"]), run_id=f"waits-{number}")
    await engine.enqueue(listener([]), run_id="quick")
    await engine.drain()

    assert RunStatus.COMPLETED == (await world.info("quick")).status
    assert RunStatus.WAITING == (await world.info("waits-99")).status


async def test_it_has_no_memory(world: World) -> None:
    """[78] What a waiting run's body held is freed."""

    class Weighty:
        pass

    held: list[weakref.ref[Weighty]] = []

    @workflow
    def flow() -> Flow[None]:
        weighty = Weighty()
        held.append(weakref.ref(weighty))
        yield wait_event("a", timeout="1h")
        del weighty

    engine = world.engine(flow)
    await engine.enqueue(flow())
    await engine.drain()
    gc.collect()

    assert [None] == [reference() for reference in held]


async def test_no_limit(world: World) -> None:
    """[86] Without a timeout the run waits for ever, and can be cancelled."""
    await world.settle(patient())
    years_later = await world.continued(patient, after="3650d")
    assert await world.cancel()
    info = await world.continued(patient)

    assert (RunStatus.WAITING, 1) == (years_later.status, years_later.executions)
    assert RunStatus.CANCELLED == info.status


@pytest.mark.parametrize("timeout", [0, -1, "0s", timedelta(0)])
def test_a_limit_of_nothing(timeout: Any) -> None:
    """[86] A timeout that is not longer than nothing is a ConfigError."""
    with pytest.raises(ConfigError, match="timeout is"):
        wait_event("a", timeout=timeout)


# ---- buffering and order ---------------------------------------------------------------------------------------------


async def test_sent_before_the_first_execution(world: World) -> None:
    """[79] An event that is sent before the run was ever executed is there when it waits, and nothing parks."""
    engine = world.engine(listener)
    run = await engine.enqueue(listener(["a"]), run_id="r")
    await world.send("r", "a", 1)
    await engine.drain()
    info = await run.info()

    assert ([1], 1) == (info.output, info.executions)


@pytest.mark.parametrize("order", list(permutations("abc")), ids="".join)
async def test_the_order_of_names_is_free(world: World, order: tuple[str, ...]) -> None:
    """[79] In whatever order events of several names come, each wait is given its own."""
    await world.settle(listener(["b", "a", "c"]))
    for name in order:
        await world.send("r", name, name.upper())
        info = await world.continued(listener)

    assert ["B", "A", "C"] == info.output


@pytest.mark.parametrize("sent_first", [0, 1, 4])
async def test_oldest_first(world: World, sent_first: int) -> None:
    """[80] Events of one name are taken oldest first, each once, whether they come before the waits or while it waits;
    equal payloads are not merged."""
    payloads = [3, 1, 1, 2]
    engine = world.engine(listener)
    await engine.enqueue(listener(["a"] * 4), run_id="r")
    for payload in payloads[:sent_first]:
        await world.send("r", "a", payload)
    await engine.drain()
    for payload in payloads[sent_first:]:
        await world.send("r", "a", payload)
        await world.continued(listener)

    assert payloads == (await world.info()).output
    assert [] == await kept(world)


async def test_never_another_name_or_run(world: World) -> None:
    """[80] An event is for one name of one run: other waits are left waiting, and what nobody waits for stays."""
    engine = world.engine(listener)
    for run_id in ("r", "other"):
        await engine.enqueue(listener(["a"]), run_id=run_id)
    await engine.drain()
    for name in ("b", "A", "a ", "a.b"):
        await world.send("r", name, name)
    await world.send("other", "a", "for the other")
    await engine.drain()

    assert (RunStatus.WAITING, 1) == ((await world.info()).status, (await world.info()).executions)
    assert ["for the other"] == (await world.info("other")).output
    assert ["b", "A", "a ", "a.b"] == await kept(world)


async def test_sent_twice_under_one_id(world: World) -> None:
    """[80] An event with an id is taken once, however often it is sent, also when it was taken long ago."""
    await world.settle(listener(["a", "a"]))
    for _ in range(2):
        assert await world.send("r", "a", 1, event_id="one")
    await world.continued(listener)
    assert await world.send("r", "a", 1, event_id="one")
    waiting = await world.continued(listener)
    await world.send("r", "a", 2, event_id="two")
    info = await world.continued(listener)

    assert (RunStatus.WAITING, [1, 2]) == (waiting.status, info.output)


async def test_whom_events_reach(world: World) -> None:
    """[84] Sending is True for every run that has not ended, whatever the name, and False for any other."""
    engine = world.engine(listener)
    await engine.enqueue(listener([]), run_id="ended")
    await engine.enqueue(listener(["a"]), run_id="cancelled")
    await engine.drain()
    await world.cancel("cancelled")
    await engine.drain()
    await engine.enqueue(listener(["a"]), run_id="pending")

    sent = {run_id: await world.send(run_id, "whatever") for run_id in ("unknown", "ended", "cancelled", "pending")}

    assert {"unknown": False, "ended": False, "cancelled": False, "pending": True} == sent


async def test_nobody_takes_it(world: World) -> None:
    """[89] An event that nobody took is kept when the run has ended, and goes when the run is pruned."""
    engine = world.engine(listener)
    await engine.enqueue(listener(["a"]), run_id="r")
    for name in "ab":
        await world.send("r", name, name)
    await engine.drain()
    left = await kept(world)
    world.clock.advance("1h")
    await engine.prune(older_than="30m")

    assert (["b"], [], None) == (left, await kept(world), await world.client().get_run("r"))


# ---- taken once, with the entry --------------------------------------------------------------------------------------


async def test_taken_in_the_write_that_records_it(world: World) -> None:
    """[81] The entry of a wait and the event it has taken are in one write, with whatever else follows."""
    tapped = TappedStorage(world.storage)
    engine = world.engine(listener, storage=tapped)  # type: ignore[arg-type]
    await engine.enqueue(listener(["a", "b", "a"]), run_id="r")
    for name in "aab":
        await world.send("r", name, name)
    await engine.drain()
    [write] = tapped.named("save_progress")

    assert (["0", "1", "2"], [1, 3, 2]) == ([entry.position for entry in write.entries], write.consumed)
    assert write.ending.status is RunStatus.COMPLETED


async def test_a_lease_lost_in_between(world: World) -> None:
    """[81] An engine that loses its lease between taking an event and recording it takes nothing: the event is kept for
    whoever has the run by then."""
    tapped = TappedStorage(world.storage)
    writing = tapped.hold("save_progress")
    engine = world.engine(listener, storage=tapped)  # type: ignore[arg-type]
    await engine.enqueue(listener(["a", "a"]), run_id="r")
    await world.send("r", "a", 1)
    async with create_task_group() as tasks:
        tasks.start_soon(engine.tick)
        await writing.arrived.wait()
        await world.take_away()
        writing.open()
    after_loss = await kept(world)
    await world.send("r", "a", 2)
    info = await world.continued(listener, after="1h")

    assert ([1], [1, 2]) == (after_loss, info.output)
    assert [("0", 1), ("1", 2)] == [(entry.position, entry.value) for entry in info.entries]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_kill_in_between(world: World, after: bool) -> None:
    """[81] Wherever the process dies, each event is either kept or recorded, and in the end each was taken once."""
    point = 1
    while await survives(world, f"run-{point}-{after}", point, after):
        point += 1

    assert point > 6


async def survives(world: World, run_id: str, point: int, after: bool) -> bool:
    """Crash at the verb of this number, look where the events are, then go on to the end; whether the crash came."""
    mortal = MortalStorage(world.storage, point, after=after)
    await world.engine(listener).enqueue(listener(["a", "b", "a"]), run_id=run_id)
    try:
        engine = world.engine(listener, storage=mortal)  # type: ignore[arg-type]
        for number, name in enumerate("aba"):
            await engine.drain()
            await world.send(run_id, name, number)
        await engine.drain()
    except (Crash, BaseExceptionGroup):
        assert mortal.is_dead
    taken = [entry.value for entry in (await world.info(run_id)).entries if entry.status == "completed"]
    missing = range(len(taken) + len(await kept(world, run_id)), 3)
    assert [0, 1, 2] == [*taken, *await kept(world, run_id), *missing]
    world.clock.advance("1h")
    for number in missing:
        await world.send(run_id, "aba"[number], number)
    await world.engine(listener).drain()

    assert ([0, 1, 2], []) == ((await world.info(run_id)).output, await kept(world, run_id))
    return mortal.is_dead


class AnswerLost(TappedStorage):
    """Carries out its first write of progress, and answers with an error."""

    is_lost = False

    async def save_progress(self, progress: Progress) -> bool:
        """Clauses F."""
        held = await self._storage.save_progress(progress)
        if not self.is_lost:
            self.is_lost = True
            raise StorageError("save_progress", "the answer is lost")
        return held


async def test_a_write_whose_answer_is_lost(world: World) -> None:
    """[81] A write that was carried out and is made again, because nobody heard of it, takes no second event."""

    @workflow
    def flow() -> Flow[list[int]]:
        first = yield wait_event("a")
        yield step(give, "between")
        second = yield wait_event("a")
        return [first, second]

    engine = world.engine(flow, storage=AnswerLost(world.storage))  # type: ignore[arg-type]
    await engine.enqueue(flow(), run_id="r")
    await world.send("r", "a", 1)
    async with create_task_group() as tasks:
        tasks.start_soon(engine.tick)
        await world.clock.has_timer(within="200ms")
        await world.send("r", "a", 2)
        world.clock.advance("1s")
    info = await world.continued(flow)

    assert ([1, 2], ["0", "1", "2"]) == (info.output, [entry.position for entry in info.entries])


async def test_sent_while_the_run_is_parking(world: World) -> None:
    """[82] An event that comes after the run has looked for one, and before it is parked, wakes it all the same, and
    at once: the clock stands still."""
    tapped = TappedStorage(world.storage)
    parking = tapped.hold("save_progress")
    async with world.engine(listener, storage=tapped) as engine:  # type: ignore[arg-type]
        run = await engine.enqueue(listener(["a"]), run_id="r")
        await parking.arrived.wait()
        await world.send("r", "b", "of another name")
        await world.send("r", "a", 1)
        await wait_all_tasks_blocked()
        parking.open()
        with fail_after(5):
            result = await run.result()

    assert ([1], 2) == (result, (await world.info()).executions)


async def test_sent_when_the_run_has_just_been_parked(world: World) -> None:
    """[82] So does one that comes after it is parked, and before its engine has heard that it is."""
    tapped = TappedStorage(world.storage)
    parked = tapped.hold_answer("save_progress")
    async with world.engine(listener, storage=tapped) as engine:  # type: ignore[arg-type]
        run = await engine.enqueue(listener(["a"]), run_id="r")
        await parked.arrived.wait()
        await world.send("r", "a", 1)
        parked.open()
        with fail_after(5):
            result = await run.result()

    assert ([1], 2) == (result, (await world.info()).executions)


async def test_reading_the_mailbox_fails(world: World) -> None:
    """[82] Where the mailbox cannot be read, parking finds what is in it."""
    tapped = TappedStorage(world.storage)
    steps = Steps("slow")

    @workflow
    def flow() -> Flow[list[Any]]:
        return list((yield gather(step(steps, "slow"), wait_event("a"))))

    tapped.fail("get_messages", 1)
    async with world.engine(flow, storage=tapped) as engine:  # type: ignore[arg-type]
        run = await engine.enqueue(flow(), run_id="r")
        await steps.until("slow begins")
        done = tapped.done("get_messages")
        await tapped.send_message("r", "a", world.codec.encode(1), now=world.clock.now())
        await done.wait()
        steps.held["slow"].set()
        with fail_after(5):
            result = await run.result()

    assert ["slow", 1] == result


# ---- types -----------------------------------------------------------------------------------------------------------


async def test_a_declared_event(world: World) -> None:
    """[83] With a declared Event, a payload that does not fit is refused to the sender and the run goes on waiting;
    one that fits arrives as the declared type."""
    await world.settle(approved())
    with pytest.raises(ValidationError, match="payload of event 'approval'") as caught:
        await world.send("r", approval, {"approved": "perhaps", "by": "me"})
    waiting = await world.continued(approved)
    await world.send("r", approval, Approval(True, "me"))
    info = await world.continued(approved)

    assert "$.approved" == caught.value.path
    assert (RunStatus.WAITING, "me") == (waiting.status, info.output)


async def test_a_payload_that_does_not_fit(world: World) -> None:
    """[83] Sent by its bare name, it raises ValidationError at the yield, where the run may catch it and wait again;
    a restart in between raises the same."""
    await world.settle(approved())
    await world.send("r", "approval", {"approved": True, "by": 7})
    again = await world.continued(approved)
    await world.send("r", "approval", {"approved": True, "by": "me"})
    info = await world.continued(approved)

    assert [("failed", "ValidationError"), ("waiting", None)] == [
        (e.status, e.error and e.error.type) for e in again.entries
    ]
    assert "me, after $.by" == info.output


async def test_a_payload_that_nobody_catches(world: World) -> None:
    """[83] A run that does not catch it fails with it."""

    @workflow
    def flow() -> Flow[int]:
        return (yield from wait_event("a", int))

    await world.settle(flow())
    await world.send("r", "a", "seven")
    info = await world.continued(flow)

    assert info.error is not None
    assert (RunStatus.FAILED, "validation") == (info.status, info.error.code)
    assert "payload of event 'a'" in info.error.message


async def test_names_types_and_limits_computed_at_run_time(world: World) -> None:
    """[89] Names, types and timeouts of waits may come from data."""

    @workflow
    def flow(names: list[str]) -> Flow[list[Any]]:
        heard: list[Any] = []
        for number, name in enumerate(names):
            limit = yield from step(give, number + 1)
            heard.append((yield wait_event(f"{name}/{number}", list[int] if number else str, timeout=limit)))
        return heard

    await world.settle(flow(["a", "b"]))
    await world.send("r", "b/1", [1])
    await world.send("r", "a/0", "text")
    info = await world.continued(flow)

    assert ["text", [1]] == info.output


# ---- limits ----------------------------------------------------------------------------------------------------------


async def test_no_event_in_time(world: World) -> None:
    """[85] A wait whose limit is over raises WaitTimeoutError, with the name and the limit, at the yield."""
    started = world.clock.now()
    waiting = await world.settle(patient("90m"))
    early = await world.continued(patient, after="89m")
    info = await world.continued(patient, after="1m")

    assert (RunStatus.WAITING, from_micros(started) + timedelta(minutes=90)) == (waiting.status, waiting.due_at)
    assert (RunStatus.WAITING, ["a", 5400.0]) == (early.status, info.output)


async def test_a_limit_that_nobody_catches(world: World) -> None:
    """[85] A run that does not catch it fails with it, and says so."""

    @workflow
    def flow() -> Flow[None]:
        yield wait_event("a", timeout="1s")

    await world.settle(flow())
    info = await world.continued(flow, after="1s")
    with pytest.raises(RunFailedError, match="'a'"):
        await (await world.engine(flow).handle("r")).result()

    assert info.error is not None
    assert (RunStatus.FAILED, "wait_timeout") == (info.status, info.error.code)


async def test_the_deadline_stays(world: World) -> None:
    """[85] The deadline is fixed when the run first arrives: neither other events nor restarts count it anew."""

    @workflow
    def flow() -> Flow[list[Any]]:
        return list((yield gather(patiently("a", "1h"), patiently("b", None), return_exceptions=True)))

    def patiently(name: str, limit: str | None) -> Flow[Any]:
        try:
            return (yield wait_event(name, timeout=limit))
        except WaitTimeoutError:
            return (yield step(give, f"no {name}"))

    started = world.clock.now()
    await world.settle(flow())
    await world.continued(flow, after="40m")
    await world.send("r", "b", 1)
    parked = await world.continued(flow)
    early = await world.continued(flow, after="19m")
    info = await world.continued(flow, after="1m")

    assert from_micros(started) + timedelta(hours=1) == parked.due_at == early.due_at
    assert ["no a", 1] == info.output


async def test_an_event_in_time_wins(world: World) -> None:
    """[85] An event that was sent in time wins, also when an engine looks only after the deadline."""
    await world.settle(patient("1h"))
    world.clock.advance("59m")
    await world.send("r", "a", "in time")
    info = await world.continued(patient, after="1d")

    assert "in time" == info.output


async def test_an_event_in_time_wins_while_the_run_is_held(world: World) -> None:
    """[85] It wins too where the run is held by an engine to which the deadline and the event come at once."""
    steps = Steps("slow")

    @workflow
    def flow() -> Flow[list[Any]]:
        return list((yield gather(step(steps, "slow"), wait_event("a", timeout="1s"))))

    engine = world.engine(flow)
    await engine.enqueue(flow(), run_id="r")
    async with create_task_group() as tasks:
        tasks.start_soon(engine.drain)
        await steps.until("slow begins")
        await world.send("r", "a", "in time")
        world.clock.advance("1s")
        steps.held["slow"].set()

    assert ["slow", "in time"] == (await world.info()).output


# ---- side by side ----------------------------------------------------------------------------------------------------


async def test_several_waits_of_one_name(world: World) -> None:
    """[80] Of several waits of one name, the one that was there first is given the first event, also after restarts."""

    def late(name: str) -> Flow[Any]:
        yield sleep("1s")
        return (yield wait_event(name))

    @workflow
    def flow() -> Flow[list[Any]]:
        return list((yield gather(late("a"), wait_event("a"), wait_event("a"))))

    await world.settle(flow())
    await world.send("r", "a", 1)
    await world.continued(flow, after="1s")
    await world.continued(flow)
    for payload in (2, 3):
        await world.send("r", "a", payload)
    info = await world.continued(flow)

    assert ([3, 1, 2], ["0.1", "0.0.0", "0.2", "0.0.1"]) == (info.output, [entry.position for entry in info.entries])


async def test_a_gather_of_names(world: World) -> None:
    """[79] Waits of several names side by side take what comes, in whatever order, and keep what has come."""

    @workflow
    def flow() -> Flow[list[Any]]:
        return list((yield gather(*(wait_event(name) for name in "abc"))))

    await world.settle(flow())
    for name in "cab":
        await world.send("r", name, name)
        info = await world.continued(flow)

    assert (["a", "b", "c"], ["0.2", "0.0", "0.1"]) == (info.output, [entry.position for entry in info.entries])


async def test_a_wait_that_lost_a_race(world: World) -> None:
    """[80] A wait that lost a race, or was given up, takes nothing: the event is there for the next wait."""

    @workflow
    def flow() -> Flow[list[Any]]:
        first = yield from race(wait_event("a"), wait_event("b"))
        second: Winner[Any] = yield from race(wait_event("a"), sleep("1m"))
        return [first.index, second.index, (yield wait_event("a")), (yield wait_event("b"))]

    await world.settle(flow())
    await world.send("r", "b", "B1")
    await world.continued(flow)
    await world.continued(flow, after="1m")
    for name in ("a", "b"):
        await world.send("r", name, f"{name.upper()}2")
    info = await world.continued(flow)

    assert [1, 1, "A2", "B2"] == info.output


async def test_a_race_of_waits_of_one_name(world: World) -> None:
    """[80] Of a race of waits of one name one event decides, and the next one is there for the next wait."""

    @workflow
    def flow() -> Flow[list[Any]]:
        winner: Winner[Any] = yield from race(wait_event("a"), wait_event("a"))
        return [winner.index, winner.value, (yield wait_event("a"))]

    engine = world.engine(flow)
    await engine.enqueue(flow(), run_id="r")
    for payload in (1, 2):
        await world.send("r", "a", payload)
    await engine.drain()
    info = await world.info()

    assert ([0, 1, 2], ["0.0", "1"]) == (info.output, [entry.position for entry in info.entries])


async def test_beside_a_running_step(world: World) -> None:
    """[78] A wait beside a step that runs is given its event at once, and what follows it goes on beside the step."""
    steps = Steps("slow")

    def answer() -> Flow[str]:
        name = yield from wait_event("a", str)
        return (yield from step(steps, name))

    @workflow
    def flow() -> Flow[list[Any]]:
        return list((yield gather(step(steps, "slow"), answer())))

    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow(), run_id="r")
        await steps.until("slow begins")
        await world.send("r", "a", "quick")
        with fail_after(5):
            await steps.until("quick ends")
        steps.held["slow"].set()
        result = await run.result()

    assert (["slow", "quick"], ["slow begins", "quick begins", "quick ends", "slow ends"]) == (result, steps.log)


# ---- from elsewhere --------------------------------------------------------------------------------------------------


async def test_an_event_wakes_the_engine(world: World) -> None:
    """[127] An event wakes a run that waits at once, in the same process: the clock stands still meanwhile."""
    async with world.engine(listener) as engine:
        run = await engine.enqueue(listener(["a", "a"]), run_id="r")
        for payload in (1, 2):
            while (await world.info()).status is not RunStatus.WAITING:
                await checkpoint()
            await world.send("r", "a", payload)
        with fail_after(5):
            result = await run.result()

    assert [1, 2] == result


async def test_any_engine(world: World) -> None:
    """[87] Whoever delivers, whoever resumes: events and waits survive the engines."""
    begun, resumed, ended = (world.engine(listener) for _ in range(3))
    await begun.enqueue(listener(["a", "a", "b"]), run_id="r")
    await begun.drain()
    await world.send("r", "b", 3)
    await world.send("r", "a", 1)
    await resumed.drain()
    await world.send("r", "a", 2)
    await ended.drain()

    assert [1, 2, 3] == (await world.info()).output


SENDER = """
import sys
import anyio
from reflow import Client, SQLiteStorage

async def main():
    async with Client(SQLiteStorage(sys.argv[1])) as client:
        assert await client.send_event("r", "a", "from elsewhere")

anyio.run(main)
"""


@pytest.mark.slow
async def test_another_process(tmp_path: Path) -> None:
    """[87][88] A process without the workflow's code sends an event, and the run in this one goes on soon."""
    async with Engine(SQLiteStorage(tmp_path / "app.db"), [listener]) as engine:
        run = await engine.enqueue(listener(["a"]), run_id="r")
        while (await run.info()).status is not RunStatus.WAITING:
            await checkpoint()
        await run_process([sys.executable, "-c", SENDER, str(tmp_path / "app.db")])
        sent = datetime.now().astimezone()
        with fail_after(20):
            result = await run.result()
        info = await run.info()

    assert ["from elsewhere"] == result
    assert info.updated_at < sent + timedelta(seconds=1)
