"""Clauses O, P and Q: list_runs, count_runs, prune."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from reflow import RunStatus, StorageAdapter
from reflow._core.journal import Journal
from reflow.storage.records import Continued, Ending, Lease, RunCount, RunCounts, RunFilter
from reflow.testing.conformance.expectation import expect
from reflow.testing.conformance.words import (
    LEASE_UNTIL,
    NOW,
    Another,
    bound,
    claim,
    create,
    end,
    entry,
    failing,
    get,
    hold,
    new_run,
    park,
    progress,
    resume,
    timer,
)

_ENDED = [RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED]


async def _listed(storage: StorageAdapter, *, limit: int = 100, **filter: Any) -> list[str]:
    """The ids of all runs that a filter names, page by page."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await storage.list_runs(RunFilter(**filter), limit=limit, cursor=cursor)
        expect(page.rows[:limit], page.rows)
        expect(set(), {row.run_id for row in page.rows} & set(found))
        found += [row.run_id for row in page.rows]
        if (cursor := page.cursor) is None:
            return found
        expect(len(page.rows), limit)


# ---- O: list_runs ---------------------------------------------------------------------------------------------------


async def o1_the_newest_comes_first(storage: StorageAdapter, another: Another) -> None:
    """Runs are listed in the opposite order of their creation, also those of one call or of one time."""
    await storage.create_runs([new_run("b"), new_run("a")])
    await create(storage, new_run("c", created_at=NOW + 1))
    await create(storage, new_run("d"))

    expect(["d", "c", "a", "b"], await _listed(storage))


async def o1_rows_are_those_of_get_run(storage: StorageAdapter, another: Another) -> None:
    """A list has whole rows, as they are now."""
    lease = await hold(storage, "a")
    await storage.save_progress(progress(lease, ending=Ending(RunStatus.COMPLETED, output=b"out")))
    await create(storage, new_run("b", tags=("t",), idempotency_key="k", parent="p", parent_position="1"))

    expect([await get(storage, "b"), await get(storage, "a")], (await storage.list_runs(RunFilter(), limit=9)).rows)


async def o2_only_what_fits_is_listed(storage: StorageAdapter, another: Another) -> None:
    """Each part of a filter narrows the list, alone and together: one of the statuses, the workflow, all tags, the
    parent."""
    await storage.create_runs(
        [
            new_run("1"),
            new_run("2", workflow="v", tags=("x",)),
            new_run("3", version=2, tags=("x", "y"), parent="p", parent_position="0"),
            new_run("4", tags=("y",), parent="p", parent_position="1"),
            new_run("5", workflow="v", tags=("y", "x"), parent="q", parent_position="0"),
        ]
    )
    await claim(storage, limit=1)
    await storage.request_cancel("5", now=NOW)

    expected: dict[tuple[tuple[str, Any], ...], str] = {
        (): "54321",
        (("statuses", (RunStatus.RUNNING,)),): "1",
        (("statuses", (RunStatus.CANCELLED, RunStatus.RUNNING, RunStatus.RUNNING)),): "51",
        (("statuses", (RunStatus.FAILED,)),): "",
        (("workflow", "v"),): "52",
        (("workflow", "unknown"),): "",
        (("tags", ("x",)),): "532",
        (("tags", ("y", "x")),): "53",
        (("tags", ("x", "unknown")),): "",
        (("parent", "p"),): "43",
        (("parent", "1"),): "",
        (("statuses", (RunStatus.PENDING,)), ("workflow", "w")): "43",
        (("statuses", (RunStatus.PENDING,)), ("tags", ("x",))): "32",
        (("workflow", "w"), ("tags", ("x", "y")), ("parent", "p"), ("statuses", (RunStatus.PENDING,))): "3",
        (("workflow", "v"), ("parent", "p")): "",
    }
    actual = {filter: "".join(await _listed(storage, **dict(filter))) for filter in expected}
    expect(expected, actual)


async def o3_pages_have_every_run_once(storage: StorageAdapter, another: Another) -> None:
    """Pages of any size that follow each other have all runs once, though all were created at one time."""
    statuses = (RunStatus.PENDING, RunStatus.RUNNING)
    runs = [new_run(str(number), workflow=f"w{number % 3}", tags=("t",)) for number in range(20)]
    await storage.create_runs(runs)
    await claim(storage, workflows=[("w0", 1), ("w1", 1)], limit=7)

    expected = [run.run_id for run in reversed(runs)]
    for limit in (1, 3, 20, 21):
        expect(expected, await _listed(storage, limit=limit))
        expect(expected, await _listed(storage, limit=limit, statuses=statuses))
        expect(expected, await _listed(storage, limit=limit, tags=("t",)))
        expect(expected[2::3], await _listed(storage, limit=limit, workflow="w2"))


async def o3_what_happens_meanwhile_spoils_no_page(storage: StorageAdapter, another: Another) -> None:
    """Runs that are created or change while somebody turns the pages appear on no later page twice, and hide none."""
    await storage.create_runs([new_run(str(number)) for number in range(6)])
    first = await storage.list_runs(RunFilter(), limit=3)
    await storage.create_runs([new_run("new")])
    await claim(storage)

    second = await storage.list_runs(RunFilter(), limit=3, cursor=first.cursor)

    expect(["5", "4", "3", "2", "1", "0"], [row.run_id for row in (*first.rows, *second.rows)])
    expect(None, second.cursor)


async def o3_a_cursor_that_is_none_is_refused(storage: StorageAdapter, another: Another) -> None:
    """A text that no page gave is a StorageError."""
    for cursor in ("", "x", "1.5"):
        expect("list_runs", await failing(bound(storage.list_runs, RunFilter(), limit=1, cursor=cursor)))


async def o3_an_empty_list_is_a_page(storage: StorageAdapter, another: Another) -> None:
    """Where there is nothing to list, the page is empty and the last."""
    expect([], await _listed(storage))
    expect([], await _listed(storage, statuses=(RunStatus.PENDING,)))


# ---- P: count_runs --------------------------------------------------------------------------------------------------


async def p1_runs_are_counted_by_workflow_and_status(storage: StorageAdapter, another: Another) -> None:
    """Each pair of workflow and status is counted over all versions, in order."""
    expect(RunCounts([], None), await storage.count_runs())

    await storage.create_runs([new_run(str(number), workflow="vw"[number % 2], version=number) for number in range(6)])
    await claim(storage, workflows=[("w", 1), ("w", 3)])
    await storage.request_cancel("0", now=NOW)

    expect(
        [
            RunCount("v", RunStatus.CANCELLED, 1),
            RunCount("v", RunStatus.PENDING, 2),
            RunCount("w", RunStatus.PENDING, 1),
            RunCount("w", RunStatus.RUNNING, 2),
        ],
        (await storage.count_runs()).counts,
    )


async def p2_the_first_due_time_is_told(storage: StorageAdapter, another: Another) -> None:
    """The least due time of all runs is told, of whatever workflow, version, priority and status."""
    told: list[int | None] = []
    places = [("", 1, 0), ("w", 1, 0), ("w", 1, -5), ("w", 2, 7), ("a", -1, 0), ("w", 1, 7)]
    for number, (workflow, version, priority) in enumerate(places):
        due_at = NOW - number
        await create(
            storage, new_run(str(number), workflow=workflow, version=version, due_at=due_at, priority=priority)
        )
        await create(storage, new_run(f"{number} later", workflow=workflow, version=version, priority=priority))
        told.append((await storage.count_runs()).next_due_at)
    await claim(storage, now=NOW * 2, workflows=[place[:2] for place in places])
    told.append((await storage.count_runs()).next_due_at)

    expect([*(NOW - number for number in range(len(places))), LEASE_UNTIL], told)


# ---- Q: prune -------------------------------------------------------------------------------------------------------


async def q1_ended_runs_go_with_all_that_is_theirs(storage: StorageAdapter, another: Another) -> None:
    """A pruned run is unknown to every verb; a run of the same id that is created later has nothing of it."""
    lease = await hold(storage)
    await create(storage, new_run("tagged", workflow="v", tags=("a", "b")))
    await storage.send_message("r", "a", b"", now=NOW, message_id="m")
    await storage.save_progress(progress(lease, entries=[entry("0"), entry("1")], ending=Ending(RunStatus.FAILED)))
    await resume(storage, "r", keep=1)
    await claim(storage, "second")
    ending = Ending(RunStatus.COMPLETED)
    await storage.save_progress(progress(Lease("r", "second"), recorded=1, timers=[timer("9")], ending=ending))
    await storage.request_cancel("tagged", now=NOW)

    expect(2, await storage.prune(before=NOW + 1, statuses=_ENDED, limit=9))

    expect(([], []), (await _listed(storage), await _listed(storage, tags=("a",))))
    expect([None, None], [await storage.get_run(run_id) for run_id in ("r", "tagged")])
    await create(storage, new_run())
    expect(Journal([], []), await storage.get_journal("r"))
    expect([], await storage.get_cut_entries("r"))
    expect(True, await storage.send_message("r", "a", b"", now=NOW, message_id="m"))
    expect(1, len(await storage.get_messages("r", after=0)))


async def q1_only_old_runs_of_these_statuses_go(storage: StorageAdapter, another: Another) -> None:
    """What was updated at or after the time, or has another status, stays."""
    for status in _ENDED:
        for offset in (-1, 0, 1):
            await end(storage, f"{status} {offset}", Ending(status), now=NOW + offset)

    counts = [
        await storage.prune(before=NOW, statuses=[RunStatus.FAILED], limit=99),
        await storage.prune(before=NOW, statuses=[], limit=99),
        await storage.prune(before=NOW + 1, statuses=[RunStatus.COMPLETED, RunStatus.FAILED], limit=99),
    ]

    expect([1, 0, 3], counts)
    expected = {"completed 1", "failed 1", "cancelled -1", "cancelled 0", "cancelled 1"}
    expect(expected, set(await _listed(storage)))


async def q1_a_run_that_has_not_ended_never_goes(storage: StorageAdapter, another: Another) -> None:
    """No run that has not ended is pruned, not even when its status is named; nor one that was resumed."""
    await create(storage, new_run("pending"))
    await hold(storage, "running")
    await park(storage, await hold(storage, "sleeping"), status=RunStatus.SLEEPING, due_at=NOW)
    await park(storage, await hold(storage, "waiting"))
    await end(storage, "resumed", Ending(RunStatus.FAILED))
    await resume(storage, "resumed")

    expect(0, await storage.prune(before=NOW * 2, statuses=list(RunStatus), limit=99))
    expect(5, len(await _listed(storage)))


async def q1_the_longest_ended_go_first(storage: StorageAdapter, another: Another) -> None:
    """One call prunes no more than `limit`, and those first that ended first."""
    for run_id, offset in (("b", 2), ("c", 3), ("a", 1), ("d", 4)):
        await end(storage, run_id, Ending(RunStatus.COMPLETED), now=NOW + offset)

    left: list[str] = []
    for limit in (0, 1, 2):
        expect(limit, await storage.prune(before=NOW * 2, statuses=_ENDED, limit=limit))
        left.append("".join(await _listed(storage)))

    expect(["dacb", "dcb", "d"], left)


async def q2_a_family_goes_from_its_youngest(storage: StorageAdapter, another: Another) -> None:
    """A child stays as long as its parent has not ended, and a parent as long as one of its children is there."""
    lease = await hold(storage)
    children = [
        new_run(name, workflow=name, parent="r", parent_position=name) for name in ("kept", "ended", "cancelled")
    ]
    await storage.save_progress(progress(lease, children=children))
    await storage.request_cancel("cancelled", now=NOW)
    await claim(storage, "second", workflows=[("ended", 1)])
    await storage.save_progress(progress(Lease("ended", "second"), ending=Ending(RunStatus.COMPLETED)))
    counts = [await storage.prune(before=NOW * 2, statuses=_ENDED, limit=99)]

    await storage.save_progress(progress(lease, ending=Ending(RunStatus.COMPLETED)))
    counts += [await storage.prune(before=NOW * 2, statuses=_ENDED, limit=99) for _ in range(2)]
    await storage.request_cancel("kept", now=NOW)
    counts += [await storage.prune(before=NOW * 2, statuses=_ENDED, limit=99) for _ in range(3)]

    expect(([0, 2, 0, 1, 1, 0], []), (counts, await _listed(storage)))


async def q3_id_and_key_are_free_again(storage: StorageAdapter, another: Another) -> None:
    """The id and the idempotency key of a pruned run may be used again, even where it had become another workflow."""
    new = new_run(idempotency_key="key")
    await create(storage, replace(new, due_at=0))
    await claim(storage)
    anew = Ending(RunStatus.PENDING, 0, continued=Continued("v", 1, 1, b""))
    await storage.save_progress(progress(Lease("r", "first"), ending=anew))
    await storage.request_cancel("r", now=NOW)
    known = await create(storage, replace(new, run_id="other"))

    await storage.prune(before=NOW * 2, statuses=_ENDED, limit=99)

    answers = [await create(storage, run) for run in (new, replace(new, run_id="other"))]
    expect([("r", False), ("r", True), ("r", False)], [(row.run_id, created) for row, created in (known, *answers)])
