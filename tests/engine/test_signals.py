"""Signals: how an engine hears that a run it holds is to be cancelled, or was sent a message."""

from __future__ import annotations

from typing import Any

import pytest
from anyio import sleep_forever
from anyio.lowlevel import checkpoint

from reflow import Flow, RunCancelledError, gather, sleep, step, wait_event, workflow
from reflow.storage.listeners import Wake
from tests.support.bodies import Steps
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio


class Anonymous(TappedStorage):
    """Its hints do not say for which run there is news, as those about other processes."""

    async def listen(self, wake: Wake) -> None:
        """Clauses Y."""
        await self._storage.listen(lambda run_id: wake(None))


class Silent(TappedStorage):
    """It gives no hints."""

    async def listen(self, wake: Wake) -> None:
        """Clauses Y, but for the hints."""
        await sleep_forever()


class Scene:
    """Runs with a held step, under an engine whose storage has taps."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.steps = Steps(*"abc")

        @workflow
        def flow(name: str) -> Flow[str]:
            return (yield from step(self.steps, name))

        self.flow = flow

    def engine(self, tapped: TappedStorage, **options: Any) -> Any:
        """An engine on that storage."""
        return self.world.engine(self.flow, storage=tapped, grace=0, **options)  # type: ignore[arg-type]

    async def begin(self, engine: Any, *names: str) -> list[Any]:
        """Start runs, and wait until their steps are under way."""
        runs = [await engine.enqueue(self.flow(name), run_id=name) for name in names]
        await self.steps.until(*(f"{name} begins" for name in names))
        return runs

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


async def test_a_hint_that_names_the_run(scene: Scene) -> None:
    """[132] A hint for a run that is held has the engine ask at once, for all that it holds in one question."""
    tapped = TappedStorage(scene.world.storage)
    async with scene.engine(tapped) as engine:
        runs = await scene.begin(engine, "a", "b")
        await scene.world.cancel("a")
        with pytest.raises(RunCancelledError):
            await runs[0].result()

    assert ["a", "b"] == sorted(tapped.named("check_runs")[-1])


async def test_a_hint_for_another_run(scene: Scene) -> None:
    """A hint for a run that is not held is no reason to ask."""
    tapped = TappedStorage(scene.world.storage)
    async with scene.engine(tapped) as engine:
        await scene.begin(engine, "a")
        await scene.world.cancel("another")
        await scene.turn(0)

    assert [] == tapped.named("check_runs")


async def test_a_hint_that_names_none(scene: Scene) -> None:
    """[132] A hint that does not say for which run it is has the engine ask within a tenth of a second."""
    async with scene.engine(Anonymous(scene.world.storage)) as engine:
        [run] = await scene.begin(engine, "a")
        await scene.world.cancel("a")
        await scene.turn(110)
        with pytest.raises(RunCancelledError):
            await run.result()


async def test_no_hint(scene: Scene) -> None:
    """[132] Without any hint a cancellation is noticed within half a second."""
    async with scene.engine(Silent(scene.world.storage)) as engine:
        [run] = await scene.begin(engine, "a")
        await scene.world.cancel("a")
        await scene.turn(510)
        await scene.steps.until("a is cancelled")
        with pytest.raises(RunCancelledError):
            await run.result()


async def test_hints_that_come_one_after_the_other(scene: Scene) -> None:
    """Hints that name no run have the engine ask no more than ten times a second."""
    tapped = Anonymous(scene.world.storage)
    async with scene.engine(tapped) as engine:
        await scene.begin(engine, "a")
        for _ in range(100):
            await scene.world.cancel("another")
            await scene.turn(10)
        asked = len(tapped.named("check_runs"))

    assert 5 <= asked <= 11


async def test_nothing_is_held(scene: Scene) -> None:
    """An engine that holds no run asks for no signals."""
    tapped = TappedStorage(scene.world.storage)
    async with scene.engine(tapped) as engine:
        [run] = await scene.begin(engine, "a")
        scene.steps.held["a"].set()
        await run.result()
        before = len(tapped.named("check_runs"))
        await scene.turn(500, times=10)

    assert before == len(tapped.named("check_runs"))


async def test_the_storage_fails(scene: Scene) -> None:
    """[120] Where the storage cannot answer, the engine asks again."""
    tapped = TappedStorage(scene.world.storage)
    async with scene.engine(tapped) as engine:
        [run] = await scene.begin(engine, "a")
        tapped.fail("check_runs", 2)
        await scene.world.cancel("a")
        while tapped.failures["check_runs"]:
            await scene.turn(500)
        await scene.turn(500)
        with pytest.raises(RunCancelledError):
            await run.result()


async def test_a_message_for_a_run_that_is_busy(scene: Scene) -> None:
    """[78] An event for a run that is held is delivered at once, while another member of the gather still works."""
    steps = scene.steps

    def answered() -> Flow[str]:
        answer = yield from wait_event("answer", str)
        return (yield from step(steps, answer))

    @workflow
    def flow() -> Flow[Any]:
        return (yield from gather(step(steps, "a"), answered()))

    async with scene.world.engine(flow) as engine:
        run = await engine.enqueue(flow(), run_id="r")
        await steps.until("a begins")
        await scene.world.send("r", "answer", "yes")
        await steps.until("yes ends")
        steps.held["a"].set()
        result = await run.result()

    assert ("a", "yes") == tuple(result)


async def test_a_message_that_nobody_waits_for(scene: Scene) -> None:
    """A message that stays in the mailbox is read once."""
    tapped = Silent(scene.world.storage)

    @workflow(name="flow")
    def waiting(name: str) -> Flow[Any]:
        return (yield from gather(step(scene.steps, name), wait_event("answer")))

    # A long lease: the clock is turned without waiting for heartbeats.
    async with scene.world.engine(waiting, storage=tapped, lease="1d", grace=0) as engine:  # type: ignore[arg-type]
        await engine.enqueue(waiting("a"), run_id="a")
        await scene.steps.until("a begins")
        await scene.world.send("a", "another")
        while len(tapped.named("check_runs")) < 5:
            await scene.turn(500)

    assert ["a"] == tapped.named("get_messages")


async def test_a_hint_while_a_run_parks(scene: Scene) -> None:
    """[82][132] Where a hint that names no run comes while a run parks, the engine looks again once it has: what has
    woken the run meanwhile takes effect at once."""
    tapped = Anonymous(scene.world.storage)

    @workflow
    def napping() -> Flow[None]:
        yield sleep("14d")

    async with scene.world.engine(napping, storage=tapped) as engine:  # type: ignore[arg-type]
        gate = tapped.hold("save_progress")
        run = await engine.enqueue(napping(), run_id="r")
        await gate.arrived.wait()
        # It has just asked, so the next hint is followed up a little later only.
        asked = tapped.done("check_runs")
        await scene.world.cancel("another")
        await asked.wait()
        claimed = tapped.done("claim_runs")
        await scene.world.cancel("r")
        await claimed.wait()
        gate.open()
        with pytest.raises(RunCancelledError):
            await run.result()
