"""Real processes whose clock is put on or back, by an hour or a year: that of all, or that of one alone.

The clock is the machine's and a number in a file, which this process changes under the feet of the others.
"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from anyio import create_task_group, fail_after, sleep

from reflow import Client, SQLiteStorage
from tests.crash.fleet import Fleet
from tests.crash.fleet_worker import shared
from tests.crash.ledger import fired, scaled
from tests.crash.nursery import Nursery
from tests.crash.shifted import ShiftedClock
from tests.crash.test_sigkill import finished
from tests.crash.test_sigkill_together import WORKERS, Workload, check_ends, have_all_ended, rows, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.anyio, pytest.mark.usefixtures("patience")]

HOUR_US, YEAR_US = 3_600_000_000, 365 * 24 * 3_600_000_000
JUMPS = {
    "an hour forward": HOUR_US,
    "a year forward": YEAR_US,
    "an hour back": -HOUR_US,
    "a year back": -YEAR_US,
}
COUNT = scaled(16, long=100)


async def test_a_jump_amid_a_step(tmp_path: Path, nursery: Nursery, anyio_backend: str) -> None:
    """[110][115][116] When the clock jumps amid a step, its worker goes on with it, where the clock was put back for as
    long as the step takes, beside a worker that would take it over. When the first is killed, the second does so after
    its lease; and a client that waits since before hears of the result."""
    async with create_task_group() as tasks:
        for number, jump in enumerate(JUMPS):
            folder = tmp_path / str(number)
            folder.mkdir()
            tasks.start_soon(_jump_amid_a_step, Fleet(folder, anyio_backend, nursery), folder / "clock", jump)


async def _jump_amid_a_step(fleet: Fleet, file: Path, jump: str) -> None:
    clock = ShiftedClock.new(file)
    results: dict[str, object] = {}
    before: set[tuple[str, str]] = set()
    again: list[tuple[str, str, int]] = []
    seen = 0

    async def wait(client: Client, run_id: str) -> None:
        results[run_id] = await (await client.handle(run_id)).result()

    async with Client(SQLiteStorage(fleet.database), clock=clock) as client, AsyncExitStack() as stack:
        await client.enqueue(shared(0), run_id="long")
        first = stack.enter_context(fleet.worker(lease="2s", pace_s=1.5, clock=file))
        await _begun(fleet, "long", 1)
        stack.enter_context(fleet.worker(lease="2s", clock=file))
        with fail_after(40):
            async with create_task_group() as tasks:
                tasks.start_soon(wait, client, "long")
                await _begun(fleet, "long", 2)
                clock.put(JUMPS[jump])
                fired("clock jump", f"{jump}, amid a step")
                before, seen = finished(fleet.database), fleet.began_count()
                await client.enqueue(shared(10), run_id="new")
                tasks.start_soon(wait, client, "new")
                await _begun(fleet, "long", 3)
                again = fleet.more_than_once()
                first.kill()
                fired("SIGKILL", "a worker whose clock has jumped")

    assert {"long": 5, "new": 15} == results
    assert set() == before & {(run, position) for run, position, _, _ in fleet.began(seen)}
    # Put on, the clock says that the lease is over: whoever comes first has the run.
    assert [] == again or "forward" in jump
    executions = rows(fleet.database, "select executions from reflow_run where run_id = 'long'")
    assert [(2,)] == executions or "forward" in jump
    assert "Traceback" not in fleet.errors


async def _begun(fleet: Fleet, run_id: str, count: int) -> None:
    """Wait until so many different steps of a run have begun."""
    with fail_after(30):
        while len({position for run, position, *_ in fleet.began() if run == run_id}) < count:  # noqa: ASYNC110
            await sleep(0.01)


@pytest.mark.parametrize("whose", ["all", "one"])
async def test_a_fleet_whose_clocks_jump(tmp_path: Path, nursery: Nursery, anyio_backend: str, whose: str) -> None:
    """[115][116][117] Three workers whose clock jumps on and back, or of which now this one's does and now that one's,
    end all runs as they must: nothing that was stored is lost or runs again, whoever takes whose runs for abandoned."""
    fleet = Fleet(tmp_path, anyio_backend, nursery)
    dice = random.Random(f"{whose} {anyio_backend}")
    files = [tmp_path / f"clock-{number}" for number in range(WORKERS + 1)]
    here, *theirs = [ShiftedClock.new(file) for file in files]
    stored: set[tuple[str, str]] = set()
    repeated: set[tuple[str, str]] = set()
    at_work, furthest = 0, 0

    async with Client(SQLiteStorage(fleet.database), clock=here) as client, AsyncExitStack() as stack:
        workload = Workload(fleet, client, dice)
        for file in files[1:]:
            stack.enter_context(fleet.worker(lease="500ms", pace_s=0.005, clock=file))
        for _ in range(COUNT):
            await workload.disturb()
            await workload.grow()
            before, seen = finished(fleet.database), fleet.began_count()
            clocks = [here, *theirs] if whose == "all" else [dice.choice(theirs)]
            # Home again at the next: whoever strays further and further ahead or behind works less and less.
            jump = dice.choice([jump for jump, far_us in JUMPS.items() if far_us * clocks[0].ahead_us <= 0])
            for clock in clocks:
                clock.put(clock.ahead_us + JUMPS[jump])
                furthest = max(furthest, clock.ahead_us)
            fired("clock jump", f"{jump}, of {'three workers' if whose == 'all' else 'one worker of three'}")
            at_work += fleet.wait_for_bodies(seen + dice.randint(1, 40), limit_s=2)
            stored |= before
            repeated |= before & {(run, position) for run, position, _, _ in fleet.began(seen)}
        # Whatever anybody is to wake for has come.
        for clock in (here, *theirs):
            clock.put(furthest + YEAR_US)
        await workload.finish()
        await wait_until(fleet.database, have_all_ended, limit_s=30)
        ends = [await client.get_run(f"run-{number}") for number in range(workload.count)]

    assert at_work > COUNT // 2, "the jumps hit nobody"
    assert [workload.expected(number) for number in range(workload.count)] == [
        (info.status, info.output) for info in ends if info
    ]
    assert (set(), set()) == (repeated, stored - finished(fleet.database))
    check_ends(fleet.database, workload.count)
    assert [("ok",)] == rows(fleet.database, "pragma quick_check")
