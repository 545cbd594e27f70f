"""Poison: a run that kills every process that takes it up is parked, and harms no other."""

from __future__ import annotations

import pytest

from reflow import Flow, RunStatus, sleep, step, workflow
from tests.support.bodies import Steps
from tests.support.crash import Crash, MortalStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio

# So often in a row a run may be taken up without getting anywhere.
PATIENCE = 10


class Deadly:
    """Step bodies that kill the process, as often as they are told."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.steps = Steps()
        self.deaths = 0

        @workflow
        def flow(length: int) -> Flow[int]:
            for number in range(length):
                yield step(self.steps, str(number))
            return length

        self.flow = flow

    async def die(self, times: int, results: int = 0) -> None:
        """So many processes in a row die of the run, each before its first result is stored; or after so many."""
        for _ in range(times):
            row = await self.world.storage.get_run("r")
            assert row is not None
            # It dies when it writes what the body that kills it has left: after the claim and, but for the very first
            # one, after reading the journal.
            mortal = MortalStorage(self.world.storage, (3 if row.executions else 2) + results, after=False)
            engine = self.world.engine(self.flow, storage=mortal)  # type: ignore[arg-type]
            with pytest.raises((Crash, BaseExceptionGroup)):
                await engine.drain()
            self.world.clock.advance("1m")


@pytest.fixture
async def deadly(world: World) -> Deadly:
    """A run `r` of three steps."""
    scene = Deadly(world)
    await world.engine(scene.flow).enqueue(scene.flow(3), run_id="r")
    return scene


async def test_it_is_parked(deadly: Deadly) -> None:
    """[44] Work that kills its process ten times in a row without progress is parked as failed, with the reason; it is
    not begun once more."""
    await deadly.die(PATIENCE)
    begun = len(deadly.steps.begun)
    info = await deadly.world.continued(deadly.flow)

    assert info.error is not None
    assert (RunStatus.FAILED, "poison", PATIENCE) == (info.status, info.error.code, begun)
    assert f"was claimed {PATIENCE + 1} times in a row" in info.error.message
    assert begun == len(deadly.steps.begun)


async def test_patience(deadly: Deadly) -> None:
    """[44] A run that has killed nine processes has another chance."""
    await deadly.die(PATIENCE - 1)
    info = await deadly.world.continued(deadly.flow)

    assert (RunStatus.COMPLETED, 3) == (info.status, info.output)


async def test_progress_counts(deadly: Deadly) -> None:
    """[44] Only deaths without progress in between count: each new entry begins the count anew."""
    for _ in range(2):
        await deadly.die(PATIENCE - 1)
        await deadly.die(1, results=1)
    await deadly.die(PATIENCE - 1)
    info = await deadly.world.continued(deadly.flow)

    assert (RunStatus.COMPLETED, 3) == (info.status, info.output)


async def test_other_runs_go_on(deadly: Deadly) -> None:
    """[44] Other runs, also of the same workflow, complete beside the one that is parked."""
    await deadly.die(PATIENCE)
    info = await deadly.world.settle(deadly.flow(2), run_id="other")

    assert (RunStatus.COMPLETED, RunStatus.FAILED) == (info.status, (await deadly.world.info()).status)


async def test_it_can_be_cancelled(deadly: Deadly) -> None:
    """[44][133] A run that kills its processes can be cancelled before it is parked: its step is not begun again."""
    await deadly.die(PATIENCE - 1)
    begun = len(deadly.steps.begun)
    answer = await deadly.world.cancel("r")
    info = await deadly.world.continued(deadly.flow)

    assert (True, RunStatus.CANCELLED, begun) == (answer, info.status, len(deadly.steps.begun))


async def test_engines_that_leave_do_not_count(world: World) -> None:
    """[44][196] A run that is given back again and again, by engines that leave, is no poison."""
    steps = Steps("held")

    @workflow
    def flow() -> Flow[None]:
        yield step(steps, "held")

    await world.engine(flow).enqueue(flow(), run_id="r")
    for number in range(PATIENCE + 2):
        async with world.engine(flow, grace=0):
            while len(steps.begun) <= number:
                await steps.until("held begins")
                await world.info()
    steps.held["held"].set()
    info = await world.continued(flow)

    assert (RunStatus.COMPLETED, PATIENCE + 3) == (info.status, info.executions)


async def test_wake_ups_do_not_count(world: World) -> None:
    """[44] A run that wakes many times and goes back to sleep gets somewhere each time."""

    @workflow
    def flow() -> Flow[None]:
        for _ in range(PATIENCE + 2):
            yield sleep("1h")

    await world.settle(flow())
    for _ in range(PATIENCE + 2):
        info = await world.continued(flow, after="1h")

    assert (RunStatus.COMPLETED, PATIENCE + 3) == (info.status, info.executions)
