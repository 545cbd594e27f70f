"""Clauses D and E: claim_runs, heartbeat."""

from __future__ import annotations

from msgspec.structs import replace

from reflow import RunStatus, StorageAdapter
from reflow.storage.records import Claimed, Ending, Lease
from reflow.testing.conformance.expectation import expect
from reflow.testing.conformance.words import (
    LEASE_UNTIL,
    LEASE_US,
    NOW,
    Another,
    bound,
    claim,
    create,
    get,
    hold,
    ids,
    new_run,
    opened,
    progress,
    together,
)

# ---- D: claim_runs --------------------------------------------------------------------------------------------------


async def d1_due_means_at_or_before_now(storage: StorageAdapter, another: Another) -> None:
    """A run is claimed when `due_at` is now or earlier, not a microsecond before."""
    for run_id, due_at in (("earlier", NOW - 1), ("now", NOW), ("later", NOW + 1)):
        await create(storage, new_run(run_id, due_at=due_at))

    expect(["earlier", "now"], ids(await claim(storage)))


async def d1_what_is_due_is_claimed_whatever_its_status(storage: StorageAdapter, another: Another) -> None:
    """Pending, sleeping, waiting and running runs are claimed alike once they are due."""
    parked = {"sleeping": RunStatus.SLEEPING, "waiting": RunStatus.WAITING}
    for run_id, status in parked.items():
        lease = await hold(storage, run_id)
        await storage.save_progress(progress(lease, ending=Ending(status, due_at=NOW)))
    await hold(storage, "running", until=NOW)
    await create(storage, new_run("pending"))

    expect(["pending", "running", "sleeping", "waiting"], sorted(ids(await claim(storage, "second"))))


async def d1_a_held_run_is_not_due(storage: StorageAdapter, another: Another) -> None:
    """[115] A run under a lease is claimed by nobody before the lease is over, and by anybody from that moment."""
    await hold(storage)

    expect([], ids(await claim(storage, "early", now=LEASE_UNTIL - 1)))
    expect(["r"], ids(await claim(storage, "second", now=LEASE_UNTIL)))


async def d1_a_run_without_due_time_is_not_claimed(storage: StorageAdapter, another: Another) -> None:
    """A run that has ended, or waits without limit, is never claimed."""
    for status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.WAITING):
        lease = await hold(storage, status.value)
        await storage.save_progress(progress(lease, ending=Ending(status)))

    expect(Claimed([], None), await claim(storage, now=NOW * 2))


async def d2_only_named_workflows_and_versions(storage: StorageAdapter, another: Another) -> None:
    """[101][113] A claim takes runs of the (workflow, version) pairs it names, and no other combination of the two."""
    for workflow in ("a", "b", "c"):
        for version in (1, 2):
            await create(storage, new_run(f"{workflow}{version}", workflow=workflow, version=version))

    claimed = await claim(storage, workflows=[("a", 1), ("b", 2)])

    expect(["a1", "b2"], sorted(ids(claimed)))
    expect([RunStatus.PENDING] * 4, [(await get(storage, run_id)).status for run_id in ("a2", "b1", "c1", "c2")])


async def d2_naming_none_claims_nothing(storage: StorageAdapter, another: Another) -> None:
    """[113] A claim that names no workflow gets nothing and knows of nothing that is due."""
    await create(storage, new_run())

    expect(Claimed([], None), await claim(storage, workflows=[]))


async def d2_any_number_of_workflows_may_be_named(storage: StorageAdapter, another: Another) -> None:
    """A claim may name a thousand workflows, and one of them twice."""
    await create(storage, new_run("first", workflow="w0"))
    await create(storage, new_run("last", workflow="w999", due_at=NOW - 1))
    workflows = [(f"w{number}", 1) for number in (*range(1000), 0)]

    claimed = await claim(storage, workflows=workflows)

    expect([("last", 1), ("first", 1)], [(row.run_id, row.executions) for row in claimed.runs])


async def d3_oldest_due_first(storage: StorageAdapter, another: Another) -> None:
    """[114] Runs come in the order in which they were due, over all named workflows, and `limit` cuts off the
    youngest."""
    for number, offset in enumerate((3, 1, 4, 2, 5)):
        workflow = f"w{number % 2}"
        await create(storage, new_run(f"due {offset}", workflow=workflow, due_at=NOW - 10 + offset))

    expect(["due 1", "due 2", "due 3"], ids(await claim(storage, workflows=[("w0", 1), ("w1", 1)], limit=3)))


async def d3_the_time_matters_and_not_the_age_of_the_run(storage: StorageAdapter, another: Another) -> None:
    """[77] A sleeper that woke first comes before runs that were created before it and became due later."""
    await create(storage, new_run("old", due_at=NOW - 1, created_at=1))
    lease = await hold(storage, "sleeper", due_at=NOW - 9)
    await storage.save_progress(progress(lease, ending=Ending(RunStatus.SLEEPING, due_at=NOW - 5)))

    expect(["sleeper", "old"], ids(await claim(storage, "second")))


async def d3_higher_priorities_first(storage: StorageAdapter, another: Another) -> None:
    """Due runs of a higher priority come first, whatever their workflow and due time; then the oldest due."""
    places = [(0, 9), (5, 1), (-2, 9), (0, 8), (5, 2), (2**63 - 1, 1), (-(2**63), 9)]
    for number, (priority, age) in enumerate(places):
        run = new_run(f"{priority} {age}", workflow=f"w{number % 2}", due_at=NOW - age, priority=priority)
        await create(storage, run)
    workflows = [("w0", 1), ("w1", 1)]

    claimed = [ids(await claim(storage, str(limit), workflows=workflows, limit=limit)) for limit in (2, 3, 9)]

    expect([[f"{2**63 - 1} 1", "5 2"], ["5 1", "0 9", "0 8"], ["-2 9", f"{-(2**63)} 9"]], claimed)


async def d3_who_is_not_due_keeps_nobody_waiting(storage: StorageAdapter, another: Another) -> None:
    """Runs of a high priority that are not due yet, or are held, take no place from lower ones that are due."""
    await storage.create_runs([new_run(f"later {number}", priority=9, due_at=NOW + 1) for number in range(5)])
    await storage.create_runs([new_run("low"), new_run("lower", priority=-1, due_at=NOW - 1)])

    claimed = await claim(storage, limit=2)

    expect((["low", "lower"], NOW + 1), (ids(claimed), claimed.next_due_at))


async def d4_a_claimed_run_is_running_under_the_lease(storage: StorageAdapter, another: Another) -> None:
    """[112] A claim leaves the run running, under its lease, due when the lease is over, with one execution more."""
    row, _ = await create(storage, new_run())

    claimed = await claim(storage, "first")

    expected = replace(
        row,
        status=RunStatus.RUNNING,
        lease_id="first",
        due_at=LEASE_UNTIL,
        executions=1,
        idle_claims=1,
        updated_at=NOW,
    )
    expect([expected], claimed.runs)
    expect(expected, await storage.get_run("r"))


async def d4_a_takeover_replaces_the_lease(storage: StorageAdapter, another: Another) -> None:
    """[115] A run whose lease is over is claimed under the new lease, and its executions are counted on."""
    await hold(storage)

    claimed = await claim(storage, "second", now=LEASE_UNTIL, until=LEASE_UNTIL + LEASE_US)

    expect(
        [("second", LEASE_UNTIL + LEASE_US, 2)], [(row.lease_id, row.due_at, row.executions) for row in claimed.runs]
    )


async def d5_every_run_has_one_claimer(storage: StorageAdapter, another: Another) -> None:
    """[112] However many claim at once, through two adapters, each run is given to exactly one of them."""
    run_ids = [str(number) for number in range(40)]
    for run_id in run_ids:
        await create(storage, new_run(run_id))
    async with opened(another()) as other:
        claims = [
            bound(claim, adapter, f"{name} {number}", limit=3)
            for number in range(10)
            for name, adapter in (("mine", storage), ("other", other))
        ]

        answers = await together(*claims)

    claimed = [row for answer in answers for row in answer.runs]
    expect(sorted(run_ids), sorted(row.run_id for row in claimed))
    expect(claimed, [await get(storage, row.run_id) for row in claimed])


async def d5_a_takeover_has_one_winner(storage: StorageAdapter, another: Another) -> None:
    """[112] Of several claimers of a run whose lease is over, exactly one gets it."""
    await hold(storage)
    async with opened(another()) as other:
        claims = [
            bound(claim, adapter, f"{name} {number}", now=LEASE_UNTIL, until=LEASE_UNTIL + 1)
            for number in range(5)
            for name, adapter in (("mine", storage), ("other", other))
        ]

        answers = await together(*claims)

    winners = [row.lease_id for answer in answers for row in answer.runs]
    expect([(await get(storage)).lease_id], winners)


async def d6_next_due_is_that_of_the_first_one_left(storage: StorageAdapter, another: Another) -> None:
    """`next_due_at` is the least due time of the runs that were left, and None where there are none."""
    expect(None, (await claim(storage)).next_due_at)

    for offset in (30, 10, 20):
        await create(storage, new_run(str(offset), due_at=NOW + offset))

    expect(NOW + 10, (await claim(storage)).next_due_at)
    expect(NOW + 20, (await claim(storage, "second", now=NOW + 10)).next_due_at)


async def d6_next_due_is_in_the_past_when_due_runs_are_left(storage: StorageAdapter, another: Another) -> None:
    """Where `limit` leaves due runs behind, `next_due_at` is the due time of the oldest of them."""
    for number in range(3):
        await create(storage, new_run(str(number), due_at=NOW - 3 + number))

    claims = [await claim(storage, f"limit {limit}", limit=limit) for limit in (0, 1, 2)]

    expect([NOW - 3, NOW - 2, LEASE_UNTIL], [claimed.next_due_at for claimed in claims])


async def d6_next_due_is_over_all_priorities(storage: StorageAdapter, another: Another) -> None:
    """`next_due_at` is the least due time of what was left, whatever its priority."""
    await storage.create_runs([new_run(str(number), priority=number, due_at=NOW + 9 - number) for number in range(3)])
    first = (await claim(storage)).next_due_at
    await storage.create_runs([new_run("due", priority=1), new_run("old", priority=-1, due_at=NOW - 5)])

    claimed = await claim(storage, "second", limit=1)

    expect((NOW + 7, ["due"], NOW - 5), (first, ids(claimed), claimed.next_due_at))


async def d6_next_due_is_of_named_workflows_only(storage: StorageAdapter, another: Another) -> None:
    """Runs of workflows that the claim does not name do not count for `next_due_at`."""
    await create(storage, new_run("named", due_at=NOW + 9))
    await create(storage, new_run("other version", version=2, due_at=NOW + 1))
    await create(storage, new_run("other workflow", workflow="other", due_at=NOW + 1))

    expect(NOW + 9, (await claim(storage)).next_due_at)


async def d6_next_due_counts_the_leases_of_others(storage: StorageAdapter, another: Another) -> None:
    """A run that somebody else holds is next due when that lease is over."""
    await hold(storage, until=NOW + 7)

    expect(Claimed([], NOW + 7), await claim(storage, "second"))


# ---- E: heartbeat ---------------------------------------------------------------------------------------------------


async def e1_a_heartbeat_keeps_the_run(storage: StorageAdapter, another: Another) -> None:
    """A heartbeat moves the end of a held lease, and changes nothing else."""
    lease = await hold(storage)
    row = await get(storage)

    lost = await storage.heartbeat([lease], lease_until=LEASE_UNTIL + LEASE_US)

    expect([], lost)
    expect(replace(row, due_at=LEASE_UNTIL + LEASE_US), await storage.get_run("r"))
    expect([], ids(await claim(storage, "second", now=LEASE_UNTIL)))


async def e1_a_late_heartbeat_keeps_a_run_that_nobody_took(storage: StorageAdapter, another: Another) -> None:
    """A lease whose time is over is kept by a heartbeat as long as no other claim has taken the run."""
    lease = await hold(storage, until=NOW + 1)

    expect([], await storage.heartbeat([lease], lease_until=NOW + 9))
    expect([], ids(await claim(storage, "second", now=NOW + 8)))


async def e2_a_lost_lease_is_told(storage: StorageAdapter, another: Another) -> None:
    """[117] A heartbeat returns the leases that were replaced, ended or never given, and keeps the others."""
    kept = await hold(storage, "kept")
    replaced = await hold(storage, "replaced", until=NOW)
    await claim(storage, "second")
    ended = await hold(storage, "ended")
    await storage.save_progress(progress(ended, ending=Ending(RunStatus.SLEEPING, due_at=NOW + 9)))
    released = await hold(storage, "released", due_at=NOW)
    await storage.save_progress(progress(released, ending=Ending(RunStatus.PENDING, due_at=NOW + 3)))
    lost = [replaced, ended, released, Lease("unknown", "first"), Lease("kept", "foreign")]
    before = [await get(storage, run_id) for run_id in ("replaced", "ended", "released")]

    answer = await storage.heartbeat([kept, *lost], lease_until=NOW * 2)

    expect(lost, answer)
    expect(NOW * 2, (await get(storage, "kept")).due_at)
    expect(before, [await get(storage, run_id) for run_id in ("replaced", "ended", "released")])


async def e2_no_leases_no_losses(storage: StorageAdapter, another: Another) -> None:
    """A heartbeat for no lease at all loses none."""
    expect([], await storage.heartbeat([], lease_until=NOW))
