"""A cancellation that meets something else: a write that is on its way, another engine, a killed one."""

from __future__ import annotations

from typing import Any

import pytest
from anyio import Event, wait_all_tasks_blocked

from reflow import Flow, RunCancelledError, RunStatus, gather, sleep, step, wait_event, workflow
from tests.support.bodies import Steps
from tests.support.clock import VirtualClock
from tests.support.crash import Crash, MortalStorage
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio


class Scene:
    """A run with a step, a rest if it is told so, and a clean-up step, under an engine whose storage has taps."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.steps = Steps("work")
        self.tapped = TappedStorage(world.storage)

        @workflow
        def flow(rest: str | None) -> Flow[str]:
            try:
                yield step(self.steps, "work").options(name="work")
                match rest:
                    case "sleep":
                        yield sleep("14d")
                    case "wait":
                        yield wait_event("never")
                    case "both":
                        yield gather(sleep("14d"), wait_event("never"))
                    case _:
                        pass
            except BaseException:
                yield step(self.steps, "clean up").options(name="clean up")
                raise
            return "done"

        self.flow = flow

    def engine(self, **options: Any) -> Any:
        """An engine on the storage with taps."""
        return self.world.engine(self.flow, storage=self.tapped, **options)  # type: ignore[arg-type]

    async def entries(self) -> list[str]:
        """The names of the entries."""
        return [entry.name for entry in (await self.world.info()).entries]


@pytest.fixture
def scene(world: World) -> Scene:
    """See there."""
    return Scene(world)


# ---- a write that is on its way --------------------------------------------------------------------------------------


@pytest.mark.parametrize("carried_out", [False, True], ids=["before", "after"])
async def test_with_completion(scene: Scene, carried_out: bool) -> None:
    """[128] A cancel that comes while the completion is being written changes nothing any more: the run completes, and
    nothing is cleaned up."""
    async with scene.engine() as engine:
        run = await engine.enqueue(scene.flow(None), run_id="r")
        await scene.steps.until("work begins")
        gate = scene.tapped.hold_answer("save_progress") if carried_out else scene.tapped.hold("save_progress")
        scene.steps.held["work"].set()
        await gate.arrived.wait()
        told = scene.tapped.done("check_runs")
        answer = await scene.world.cancel("r")
        if not carried_out:
            await told.wait()
        gate.open()
        result = await run.result()
        await engine.drain()

    assert (not carried_out, "done") == (answer, result)
    assert (RunStatus.COMPLETED, ["work"]) == ((await scene.world.info()).status, await scene.entries())


@pytest.mark.parametrize("rest", ["sleep", "wait", "both"])
@pytest.mark.parametrize("carried_out", [False, True], ids=["before", "after"])
async def test_with_parking(scene: Scene, carried_out: bool, rest: str) -> None:
    """[82][133] A cancel that comes while the run is being parked is not lost, and takes effect at once."""
    async with scene.engine() as engine:
        run = await engine.enqueue(scene.flow(rest), run_id="r")
        await scene.steps.until("work begins")
        gate = scene.tapped.hold_answer("save_progress") if carried_out else scene.tapped.hold("save_progress")
        scene.steps.held["work"].set()
        await gate.arrived.wait()
        told, claimed = scene.tapped.done("check_runs"), scene.tapped.done("claim_runs")
        await scene.world.cancel("r")
        await claimed.wait()
        if not carried_out:
            await told.wait()
        gate.open()
        with pytest.raises(RunCancelledError):
            await run.result()

    assert ["work", "cancel", "clean up"] == await scene.entries()
    assert ["work", "clean up"] == scene.steps.begun


@pytest.mark.parametrize("carried_out", [False, True], ids=["before", "after"])
async def test_with_a_result(scene: Scene, carried_out: bool) -> None:
    """[130] A cancel that comes while a result is being written keeps that result, once, and starts no later step."""
    steps = Steps()

    @workflow
    def flow() -> Flow[None]:
        yield step(steps, "first").options(name="first")
        yield step(steps, "second").options(name="second")

    gate = scene.tapped.hold_answer("save_progress") if carried_out else scene.tapped.hold("save_progress")
    async with scene.world.engine(flow, storage=scene.tapped) as engine:  # type: ignore[arg-type]
        run = await engine.enqueue(flow(), run_id="r")
        await gate.arrived.wait()
        await scene.world.cancel("r")
        # The engine does not wait for the answer to its write: it is interrupted.
        with pytest.raises(RunCancelledError):
            await run.result()
        gate.open()

    assert (["first", "cancel"], ["first"]) == (await scene.entries(), steps.begun)


async def test_with_its_own_write(scene: Scene) -> None:
    """[133] Asked again while the cancellation is being written, the engine delivers it once."""
    async with scene.engine() as engine:
        run = await engine.enqueue(scene.flow(None), run_id="r")
        await scene.steps.until("work begins")
        gate = scene.tapped.hold("save_progress")
        await scene.world.cancel("r")
        await gate.arrived.wait()
        told = scene.tapped.done("check_runs")
        await scene.world.cancel("r")
        await told.wait()
        await wait_all_tasks_blocked()
        gate.open()
        with pytest.raises(RunCancelledError):
            await run.result()

    assert ["cancel", "clean up"] == await scene.entries()


async def test_while_the_journal_is_read(scene: Scene) -> None:
    """[133] A cancel that comes while the journal is being read is delivered once it has been replayed."""
    scene.steps.held["work"].set()
    await scene.world.settle(scene.flow("sleep"))
    scene.world.clock.advance("14d")
    gate = scene.tapped.hold("get_journal")
    async with scene.engine() as engine:
        await gate.arrived.wait()
        told = scene.tapped.done("check_runs")
        await scene.world.cancel("r")
        await told.wait()
        gate.open()
        with pytest.raises(RunCancelledError):
            await (await engine.handle("r")).result()

    assert ["work", "cancel", "clean up"] == await scene.entries()


async def test_while_the_storage_fails(scene: Scene) -> None:
    """[120][133] A storage that fails meanwhile delays the cancellation and loses nothing."""
    async with scene.engine() as engine:
        run = await engine.enqueue(scene.flow(None), run_id="r")
        await scene.steps.until("work begins")
        scene.tapped.fail("check_runs", 1)
        failed = scene.tapped.done("check_runs")
        await scene.world.cancel("r")
        await failed.wait()
        scene.tapped.fail("save_progress", 1)
        failed = scene.tapped.done("save_progress")
        scene.world.clock.advance("500ms")
        await failed.wait()
        await scene.world.clock.has_timer("200ms")
        scene.world.clock.advance("200ms")
        with pytest.raises(RunCancelledError):
            await run.result()

    assert ["cancel", "clean up"] == await scene.entries()


# ---- other engines ---------------------------------------------------------------------------------------------------


async def test_with_a_takeover(scene: Scene) -> None:
    """[117][133] Where the lease is lost while the cancellation is being written, the next engine delivers it: once,
    with one clean-up, and the first one writes nothing any more."""
    ahead = VirtualClock()
    ahead.advance("31s")
    async with scene.engine() as engine:
        await engine.enqueue(scene.flow(None), run_id="r")
        await scene.steps.until("work begins")
        gate = scene.tapped.hold("save_progress")
        await scene.world.cancel("r")
        await gate.arrived.wait()
        await scene.world.engine(scene.flow, clock=ahead).drain()
        info = await scene.world.info()
        gate.open()

    assert (RunStatus.CANCELLED, info) == (info.status, await scene.world.info())
    assert ["cancel", "clean up"] == await scene.entries()
    assert ["work", "clean up"] == scene.steps.begun


async def test_from_another_engine(scene: Scene) -> None:
    """[132] Asked for through another engine in the same process, the cancellation takes effect at once: the clock
    stands still."""
    async with scene.world.engine(scene.flow) as engine:
        run = await engine.enqueue(scene.flow(None), run_id="r")
        await scene.steps.until("work begins")
        async with scene.world.engine(scene.flow):
            await scene.world.cancel("r")
            with pytest.raises(RunCancelledError):
                await run.result()

    assert ["work begins", "work is cancelled", "clean up begins", "clean up ends"] == scene.steps.log


async def test_a_killed_engine(scene: Scene) -> None:
    """[128][133] A run whose engine was killed in the middle of a step can be cancelled: True; the next engine, once
    the lease is over, runs the clean-up only."""
    mortal = MortalStorage(scene.world.storage, 3, after=False)
    begun = Event()

    @workflow(name="flow")
    def dying(rest: str | None) -> Flow[None]:
        yield step(begun_and_dead)

    async def begun_and_dead() -> None:
        begun.set()
        raise Crash

    engine = scene.world.engine(dying, storage=mortal)  # type: ignore[arg-type]
    await engine.enqueue(dying(None), run_id="r")
    with pytest.raises((Crash, BaseExceptionGroup)):
        await engine.drain()
    running = (await scene.world.info()).status
    answer = await scene.world.cancel("r")
    early = await scene.world.continued(scene.flow)
    late = await scene.world.continued(scene.flow, after="1m")

    assert (RunStatus.RUNNING, True, RunStatus.RUNNING) == (running, answer, early.status)
    assert (RunStatus.CANCELLED, ["clean up"]) == (late.status, scene.steps.begun)
