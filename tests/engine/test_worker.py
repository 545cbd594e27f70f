"""The worker: when it claims, how much, and what it leaves the storage alone for."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from anyio import fail_after
from anyio.lowlevel import checkpoint

from reflow import Flow, sleep, step, workflow
from reflow._engine.ends import Ends
from reflow.storage.records import Lease
from tests.support.bodies import Steps
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio


class Scene:
    """An engine with taps, whose runs are held by name."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.steps = Steps(*"abcdef")
        self.tapped = TappedStorage(world.storage)

        @workflow
        def flow(name: str) -> Flow[str]:
            return (yield from step(self.steps, name))

        @workflow
        def napping(duration: str) -> Flow[None]:
            yield sleep(duration)

        self.flow = flow
        self.napping = napping

    def engine(self, **options: Any) -> Any:
        """An engine on the storage with taps."""
        return self.world.engine(self.flow, self.napping, storage=self.tapped, grace=0, **options)  # type: ignore[arg-type]

    @property
    def limits(self) -> list[int]:
        """How many runs each claim asked for."""
        return [kwargs["limit"] for verb, _, kwargs in self.tapped.calls if verb == "claim_runs"]

    def after(self, instant: int) -> list[str]:
        """The claims and heartbeats sent after `instant`."""
        return [verb for verb, _, kwargs in self.tapped.calls if kwargs.get("lease_until", 0) > instant + 29_000_000]

    async def turn(self, milliseconds: int, times: int = 1) -> None:
        """Turn the clock and let everybody see it."""
        for _ in range(times):
            self.world.clock.advance(milliseconds / 1_000)
            for _ in range(30):
                await checkpoint()


@pytest.fixture
def scene(world: World) -> Scene:
    """See there."""
    return Scene(world)


async def test_an_idle_engine_leaves_the_storage_alone(scene: Scene) -> None:
    """With nothing due an engine looks once on entering and once a second, and sends nothing else."""
    first = scene.tapped.done("claim_runs")
    async with scene.engine():
        await first.wait()
        await scene.turn(90, times=10)
        early = list(scene.tapped.log)
        second = scene.tapped.done("claim_runs")
        await scene.turn(150)
        await second.wait()

    assert ["claim_runs"] == early
    assert ["claim_runs"] * 2 == scene.tapped.log


async def test_it_looks_on_when_the_clock_is_put_back(scene: Scene) -> None:
    """[115] An engine whose clock is put back goes on looking once a second: a run is taken over when its lease is
    over, though nobody says a word."""
    clock, storage = scene.world.clock, scene.world.storage
    lease = Lease("r", "of one that died")
    await scene.engine().enqueue(scene.flow("a"), run_id="r")
    await storage.claim_runs(
        [("flow", 1)], limit=1, lease_id=lease.lease_id, now=clock.now(), lease_until=clock.now() + 30_000_000
    )
    first = scene.tapped.done("claim_runs")
    async with scene.engine():
        await first.wait()
        clock.turn_to(clock.now() - 3_600_000_000)
        await scene.turn(0)
        await storage.heartbeat([lease], lease_until=clock.now() + 3_000_000)
        with fail_after(10):
            for _ in range(4):
                looked = scene.tapped.done("claim_runs")
                await scene.turn(1_000)
                await looked.wait()
            await scene.steps.until("a begins")

    assert ["a begins", "a is cancelled"] == scene.steps.log


async def test_it_listens_before_it_looks(scene: Scene) -> None:
    """[127] An engine listens to its storage before it looks for due runs, in whichever order its tasks start: what is
    enqueued in between would wait for the next look."""
    looked = scene.tapped.done("claim_runs")
    async with scene.engine():
        await looked.wait()

    assert ["listen", "claim_runs"] == [name for name, *_ in scene.tapped.calls if name in ("listen", "claim_runs")]


async def test_a_full_engine_asks_for_nothing(scene: Scene) -> None:
    """An engine without a free slot does not claim, and one with some asks for so many."""
    async with scene.engine(concurrency=2) as engine:
        for name in "abc":
            await engine.enqueue(scene.flow(name), run_id=name)
        await scene.steps.until("a begins", "b begins")
        full = len(scene.limits)
        await scene.turn(1_000, times=5)
        await engine.enqueue(scene.flow("d"), run_id="d")
        still_full = len(scene.limits)
        scene.steps.held["a"].set()
        await scene.steps.until("c begins")

    assert full == still_full
    assert 2 == scene.limits[0]
    assert 1 == scene.limits[still_full]
    assert ["a", "b", "c"] == sorted(scene.steps.begun)


async def test_it_looks_when_the_next_is_due(scene: Scene) -> None:
    """Between polls an engine claims when the next known run is due, and not earlier."""
    async with scene.engine() as engine:
        parked = scene.tapped.done("save_progress")
        await engine.enqueue(scene.napping("400ms"), run_id="r")
        await parked.wait()
        claims = len(scene.limits)
        await scene.turn(395)
        early = len(scene.limits)
        woken = scene.tapped.done("claim_runs")
        await scene.turn(5)
        await woken.wait()
        await (await engine.handle("r")).result()

    assert claims == early


async def test_an_overdue_heartbeat_goes_first(scene: Scene) -> None:
    """After a jump of the clock the heartbeat goes before the claim, which would find the engine's own runs due."""
    async with scene.engine(lease="30s") as engine:
        await engine.enqueue(scene.flow("a"), run_id="a")
        await scene.steps.until("a begins")
        jumped = scene.world.clock.now() + 3_600_000_000
        await scene.turn(3_600_000)
        while len(late := scene.after(jumped)) < 2:
            await scene.turn(10)

    assert ["heartbeat", "claim_runs"] == late[:2]
    assert ["a"] == scene.steps.begun


async def test_no_claim_while_heartbeats_fail(scene: Scene) -> None:
    """An engine that cannot keep the runs it has takes no more."""
    async with scene.engine(lease="30s") as engine:
        await engine.enqueue(scene.flow("a"), run_id="a")
        await scene.steps.until("a begins")
        scene.tapped.fail("heartbeat", 1_000)
        await scene.turn(10_000)
        claims = len(scene.limits)
        await engine.enqueue(scene.flow("b"), run_id="b")
        await scene.turn(1_000, times=5)
        meanwhile = len(scene.limits)
        scene.tapped.fail("heartbeat", 0)
        await scene.turn(1_500)
        await scene.steps.until("b begins")

    assert claims == meanwhile
    assert ["a", "b"] == scene.steps.begun


async def test_nothing_stays_behind(scene: Scene) -> None:
    """An engine holds nothing of runs that have left it: no runner, no waiter."""
    for held in scene.steps.held.values():
        held.set()
    async with scene.engine() as engine:
        for number in range(20):
            await engine.execute(scene.flow("abcdef"[number % 6]))
        await engine.drain()
        gc.collect()
        left = len(engine._worker._leases.held) + len(Ends.of(scene.tapped))

    assert 0 == left


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_runs_go_by_a_task_without_deadlines(scene: Scene) -> None:
    """[176] Whether asyncio has cancelled a run is told by a task that only waits. The one that claims has deadlines,
    and each is a cancellation for a moment: a body that failed in it would pass for cancelled, and end the worker."""
    async with scene.world.engine(scene.flow) as engine:
        await engine.enqueue(scene.flow("a"))
        await scene.steps.until("a begins")
        waiting = engine._worker._waiting
        [claiming] = [task for task in asyncio.all_tasks() if "Worker.serve" in task.get_name()]
        scene.steps.held["a"].set()

    assert waiting is not None
    assert waiting.task is not claiming
