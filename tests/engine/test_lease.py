"""Leases: kept by heartbeats, lost without a trace in the run, and never trusted for longer than they last."""

from __future__ import annotations

import logging

import pytest
from anyio import CancelScope, Event, fail_after, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from reflow import Duration, Engine, Flow, RunStatus, gather, race, sleep, step, workflow
from reflow._core.duration import to_micros
from reflow.storage.records import Lease, Progress
from tests.support.bodies import Steps
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio

LEASE = {"lease": "30s", "grace": 0}


class Scene:
    """A run whose first step is held, under an engine whose storage has taps."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.steps = Steps("held")
        self.tapped = TappedStorage(world.storage)
        self._claims = 0

        @workflow
        def flow() -> Flow[list[str]]:
            first = yield from step(self.steps, "held")
            second = yield from step(self.steps, "next")
            return [first, second]

        @workflow(name="flow")
        def side_by_side() -> Flow[list[str]]:
            yield race(sleep("1d"), gather(step(self.steps, "held"), sleep("1d")))
            second = yield from step(self.steps, "next")
            return [second]

        self.flow = flow
        self.side_by_side = side_by_side
        self.engine: Engine = world.engine(flow, storage=self.tapped, **LEASE)  # type: ignore[arg-type]

    async def begin(self, engine: Engine | None = None) -> None:
        """Start the run, and wait until its step is under way."""
        await (engine or self.engine).enqueue(self.flow(), run_id="r")
        await self.steps.until("held begins")

    async def beat(self, after: Duration = "10s") -> None:
        """Let the clock run on to the next heartbeat, and wait for it."""
        done = self.tapped.done("heartbeat")
        self.world.clock.advance(after)
        await done.wait()

    async def taken_over(self) -> Lease:
        """Another engine claims the run, an hour later."""
        self._claims += 1
        lease = Lease("r", f"another-{self._claims}")
        now = self.world.clock.now() + self._claims * 3_600_000_000
        claimed = await self.world.storage.claim_runs(
            [("flow", 1)], limit=1, lease_id=lease.lease_id, now=now, lease_until=now + 1
        )
        assert ["r"] == [row.run_id for row in claimed.runs]
        return lease


@pytest.fixture
def scene(world: World) -> Scene:
    """See there."""
    return Scene(world)


async def test_heartbeats_keep_a_long_step(scene: Scene) -> None:
    """[116] Heartbeats keep a step longer than the lease from being taken over."""
    other = scene.world.engine(scene.flow, **LEASE)  # type: ignore[arg-type]
    async with scene.engine:
        await scene.begin()
        for _ in range(10):
            await scene.beat()
        claimed = await other.tick()
        scene.steps.held["held"].set()
        result = await (await scene.engine.handle("r")).result()

    assert 0 == claimed
    assert ["held", "next"] == result
    assert 1 == (await scene.world.info()).executions


async def test_heartbeats_stop_with_the_run(scene: Scene) -> None:
    """An engine that holds nothing sends no heartbeats."""
    async with scene.engine:
        await scene.begin()
        scene.steps.held["held"].set()
        await (await scene.engine.handle("r")).result()
        await _pass(scene.world, 60)

    assert 0 == scene.tapped.log.count("heartbeat")


async def test_a_claim_has_a_fresh_lease(world: World) -> None:
    """[112][115] Every claim has a lease id of its own; a run whose lease is over is claimable, one whose lease is not
    is not."""
    scene = Scene(world)
    leases: list[str | None] = []
    async with scene.engine:
        await scene.begin()
        for _ in range(2):
            row = await world.storage.get_run("r")
            assert row is not None
            leases.append(row.lease_id)
            await scene.taken_over()
        row = await world.storage.get_run("r")
        assert row is not None
        leases.append(row.lease_id)
        # It is not over yet.
        assert 0 == await world.engine(scene.flow, **LEASE).tick()  # type: ignore[arg-type]

    assert None not in leases
    assert 3 == len(set(leases))


async def test_an_engine_claims_under_a_new_lease_each_time(world: World) -> None:
    """[112] No two claims of one engine have one lease id: what is left of the first writes nothing in the second."""

    @workflow
    def flow() -> Flow[None]:
        for _ in range(3):
            yield sleep("1h")

    tapped = TappedStorage(world.storage)
    engine = world.engine(flow, storage=tapped)  # type: ignore[arg-type]
    await engine.enqueue(flow(), run_id="r")
    for _ in range(4):
        await engine.drain()
        world.clock.advance("1h")
    leases = [options["lease_id"] for verb, _, options in tapped.calls if verb == "claim_runs"]

    assert 4 == (await world.info()).executions
    assert len(leases) == len(set(leases))


@pytest.mark.parametrize("shape", ["flow", "side_by_side"])
async def test_a_lost_lease_drops_the_run(world: World, shape: str, caplog: pytest.LogCaptureFixture) -> None:
    """[62][117] An engine whose heartbeat is told that a lease is lost cancels the body, drops the run and records no
    failure; it never completes it."""
    scene = Scene(world)
    scene.flow = getattr(scene, shape)
    engine = world.engine(scene.flow, storage=scene.tapped, **LEASE)  # type: ignore[arg-type]
    async with engine:
        await scene.begin(engine)
        await scene.taken_over()
        before = await world.storage.get_run("r")
        with caplog.at_level(logging.WARNING, logger="reflow"):
            await scene.beat()
            await scene.steps.until("held is cancelled")
    after = await world.storage.get_run("r")

    assert before == after
    assert [
        "run r: another engine has taken it over; dropped here. Did the event loop, or the process, stand still for "
        "longer than the lease?"
    ] == caplog.messages


@pytest.mark.parametrize("shape", ["flow", "side_by_side"])
async def test_a_zombie_s_write_is_refused(world: World, shape: str) -> None:
    """[117] The late result of an engine that lost its lease unawares is refused, and it begins no further step."""
    scene = Scene(world)
    scene.flow = getattr(scene, shape)
    engine = world.engine(scene.flow, storage=scene.tapped, **LEASE)  # type: ignore[arg-type]
    async with engine:
        await scene.begin(engine)
        await scene.taken_over()
        before = await world.storage.get_run("r")
        refused = scene.tapped.done("save_progress")
        scene.steps.held["held"].set()
        await refused.wait()
        await wait_all_tasks_blocked()

    journal = await world.storage.get_journal("r")
    assert [] == [entry for entry in journal.entries if entry.name == "Steps" and entry.position in ("0", "0.0")]
    assert before == await world.storage.get_run("r")
    assert "next" not in scene.steps.begun


async def test_a_takeover_continues_the_journal(world: World) -> None:
    """[119] After a takeover only commands without an entry are performed, and there is one entry per position."""
    steps = Steps("second")

    @workflow
    def flow() -> Flow[list[str]]:
        first = yield from step(steps, "first")
        second = yield from step(steps, "second")
        return [first, second]

    # The first engine's heartbeats do not get through: it is cut off.
    tapped = TappedStorage(world.storage)
    tapped.fail("heartbeat", 1_000)
    async with world.engine(flow, storage=tapped, **LEASE) as cut_off:  # type: ignore[arg-type]
        await cut_off.enqueue(flow(), run_id="r")
        await steps.until("second begins")
        world.clock.advance("31s")
        async with world.engine(flow, **LEASE) as heir:  # type: ignore[arg-type]
            run = await heir.handle("r")
            while steps.begun.count("second") < 2:
                await wait_all_tasks_blocked()
            steps.held["second"].set()
            result = await run.result()

    info = await world.info()
    assert ["first", "second"] == result
    assert ["first", "second", "second"] == steps.begun
    assert [("0", "first"), ("1", "second")] == [(entry.position, entry.value) for entry in info.entries]
    assert 2 == info.executions


async def test_failing_heartbeats_are_retried(scene: Scene) -> None:
    """[118] A heartbeat that fails is tried again soon, and the run goes on."""
    scene.tapped.fail("heartbeat", 3)
    async with scene.engine:
        await scene.begin()
        await scene.beat()
        failed_at = scene.world.clock.now()
        while "heartbeat" not in scene.tapped.log:
            await scene.beat(after="1500ms")
        renewed_at = scene.world.clock.now()
        scene.steps.held["held"].set()
        result = await (await scene.engine.handle("r")).result()

    assert renewed_at - failed_at < 10_000_000
    assert ["held", "next"] == result
    assert 1 == (await scene.world.info()).executions


async def test_trust_ends_before_the_lease(scene: Scene) -> None:
    """[118] When no heartbeat gets through, the engine stops working on its runs before their leases could have
    expired, and the runs have not failed."""
    scene.tapped.fail("heartbeat", 1_000)
    began_at = scene.world.clock.now()
    async with scene.engine:
        await scene.begin()
        await _until_cancelled(scene)
        stopped_at = scene.world.clock.now()

    assert 20_000_000 < stopped_at - began_at < 30_000_000
    info = await scene.world.info()
    assert (RunStatus.PENDING, None) == (info.status, info.error)


async def test_a_run_that_was_dropped_is_given_back(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """[118] A run that was dropped because the storage did not answer is given back when it does: no lease has to run
    out, what had an outcome by then is not repeated, and nobody takes it for a run that kills its process."""
    clock, began_at = scene.world.clock, scene.world.clock.now()
    scene.steps.held["held"].set()
    unanswered = scene.tapped.hold("save_progress")
    scene.tapped.fail("heartbeat", 1_000)
    async with scene.engine:
        run = await scene.engine.enqueue(scene.flow(), run_id="r")
        await unanswered.arrived.wait()
        with fail_after(10):
            await _pass(scene.world, 29)
            result = await run.result()

    assert (["held", "next"], ["held", "next"]) == (result, scene.steps.begun)
    assert clock.now() - began_at < 30_000_000
    assert 1 == sum("dropped" in record.getMessage() for record in caplog.records)
    assert 2 == (await scene.world.info()).executions


async def test_a_run_that_was_dropped_and_taken_over(scene: Scene) -> None:
    """[118] Giving back is a write like any other: where another engine has taken the run over, it changes nothing."""
    scene.steps.held["held"].set()
    unanswered = scene.tapped.hold("save_progress")
    scene.tapped.fail("heartbeat", 1_000)
    async with scene.engine:
        await scene.engine.enqueue(scene.flow(), run_id="r")
        await unanswered.arrived.wait()
        lease = await scene.taken_over()
        before = await scene.world.storage.get_run("r")
        await _pass(scene.world, 29)
        after = await scene.world.storage.get_run("r")

    assert before is not None
    assert (before, lease.lease_id) == (after, before.lease_id)


async def test_trust_counts_from_the_sending(scene: Scene) -> None:
    """[118] A heartbeat whose answer took long renews trust from when it was sent, as it does the lease."""
    async with scene.engine:
        await scene.begin()
        gate = scene.tapped.hold_answer("heartbeat")
        await scene.world.clock.has_timer(within="10s")
        scene.world.clock.advance("10s")
        await gate.arrived.wait()
        sent_at = scene.world.clock.now()
        scene.world.clock.advance("15s")
        scene.tapped.fail("heartbeat", 1_000)
        gate.open()
        await _until_cancelled(scene)
        stopped_at = scene.world.clock.now()

    assert stopped_at - sent_at < 30_000_000


async def _until_cancelled(scene: Scene) -> None:
    """Turn the clock, a little at a time, until the body is cancelled."""
    for _ in range(100):
        await _pass(scene.world, 1)
        if "held is cancelled" in scene.steps.log:
            return
    raise AssertionError("still running")


async def test_a_jump_of_the_clock(scene: Scene) -> None:
    """A clock that jumps past the end of all leases (a laptop that slept, a body that blocked the loop) takes no run
    from an engine whose heartbeat still finds it: it neither drops nor claims it again."""
    async with scene.engine:
        await scene.begin()
        for _ in range(10):
            await scene.beat(after="1h")
        scene.steps.held["held"].set()
        result = await (await scene.engine.handle("r")).result()

    assert ["held", "next"] == result
    assert ["held", "next"] == scene.steps.begun
    assert 1 == (await scene.world.info()).executions


@pytest.mark.parametrize("back", ["1h", "365d"])
async def test_a_clock_that_is_put_back(scene: Scene, back: str) -> None:
    """[116] A clock that is put back makes a heartbeat due, and heartbeats go on from there: nobody takes over a step
    that was begun before, however long it takes."""
    clock = scene.world.clock
    other = scene.world.engine(scene.flow, **LEASE)  # type: ignore[arg-type]
    async with scene.engine:
        await scene.begin()
        with fail_after(10):
            done = scene.tapped.done("heartbeat")
            clock.turn_to(clock.now() - to_micros(back))
            await done.wait()
            for _ in range(10):
                await scene.beat()
        claimed = await other.tick()
        scene.steps.held["held"].set()
        result = await (await scene.engine.handle("r")).result()

    assert 0 == claimed
    assert ["held", "next"] == result
    assert 1 == (await scene.world.info()).executions


async def test_trust_where_the_clock_was_put_back(scene: Scene) -> None:
    """[118] A clock that was put back cannot tell how old the last heartbeat is. Where none gets through from then on,
    the engine stops working on its runs within the length of a lease: not at once, nor when it is that late again."""
    clock = scene.world.clock
    async with scene.engine:
        await scene.begin()
        scene.tapped.fail("heartbeat", 1_000)
        clock.turn_to(clock.now() - 3_600_000_000)
        put_back_at = clock.now()
        await wait_all_tasks_blocked()
        await _until_cancelled(scene)
        stopped_at = clock.now()

    assert 20_000_000 < stopped_at - put_back_at < 30_000_000


async def test_a_dropped_run_is_not_kept_from_others(world: World) -> None:
    """A run that was dropped is left to its lease: no further heartbeat of this engine prolongs it, even where its body
    takes long to end."""
    begun, may_end = Event(), Event()

    async def reluctant() -> None:
        begun.set()
        with CancelScope(shield=True):
            await may_end.wait()

    @workflow
    def flow() -> Flow[None]:
        yield step(reluctant)

    tapped = TappedStorage(world.storage)
    async with world.engine(flow, storage=tapped, **LEASE) as engine:  # type: ignore[arg-type]
        await engine.enqueue(flow(), run_id="r")
        await begun.wait()
        row = await world.storage.get_run("r")
        tapped.fail("heartbeat", 1_000)
        await _pass(world, 29)
        tapped.fail("heartbeat", 0)
        tapped.calls.clear()
        await _pass(world, 40)
        sent = tapped.named("heartbeat")
        may_end.set()

    assert row is not None
    assert [] == [leases for leases in sent if Lease("r", str(row.lease_id)) in leases]


async def _pass(world: World, seconds: int) -> None:
    """Turn the clock, a second at a time, and let everybody see it."""
    for _ in range(seconds):
        world.clock.advance("1s")
        for _ in range(50):
            await checkpoint()


async def test_no_write_without_a_lease(scene: Scene) -> None:
    """Every write of an engine names the lease of its claim."""
    scene.steps.held["held"].set()
    await scene.engine.enqueue(scene.flow(), run_id="r")
    await scene.engine.drain()

    writes: list[Progress] = scene.tapped.named("save_progress")
    [claim] = [
        kwargs["lease_id"] for verb, _, kwargs in scene.tapped.calls if verb == "claim_runs" and kwargs["limit"]
    ][:1]
    assert 2 == len(writes)
    assert {Lease("r", claim)} == {write.lease for write in writes}
