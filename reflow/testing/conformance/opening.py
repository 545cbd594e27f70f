"""Clauses A, B and C: initialize, close, create_runs."""

from __future__ import annotations

from reflow import RunStatus, StorageAdapter
from reflow.storage.records import Continued, Ending, Lease, NewRun, RunFilter, RunRow
from reflow.testing.conformance.expectation import expect
from reflow.testing.conformance.words import (
    ALL_BYTES,
    NOT_TEXT,
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
    ids,
    new_run,
    opened,
    progress,
    schedule,
    state,
    timer,
    together,
)

# ---- A: initialize --------------------------------------------------------------------------------------------------


async def a1_initialize_again_keeps_what_is_stored(storage: StorageAdapter, another: Another) -> None:
    """[187] `initialize` may be called again; what is stored stays."""
    row, _ = await create(storage, new_run())

    await storage.initialize()

    expect(row, await storage.get_run("r"))
    await storage.close()


async def a1_several_may_initialize_at_once(storage: StorageAdapter, another: Another) -> None:
    """[187] Several adapters may be initialized on one storage at once, and one adapter several times; all are
    usable."""
    row, _ = await create(storage, new_run())
    others = [another(), another()]

    await together(*(adapter.initialize for adapter in (*others, *others, storage)))

    expect([row] * 3, [await adapter.get_run("r") for adapter in (*others, storage)])
    await together(*(adapter.close for adapter in (*others, *others, storage)))


# ---- B: close -------------------------------------------------------------------------------------------------------


async def b1_open_until_closed_as_often_as_initialized(storage: StorageAdapter, another: Another) -> None:
    """An adapter that was initialized twice goes on after the first `close`."""
    await storage.initialize()
    await storage.close()

    expect(True, (await create(storage, new_run()))[1])


async def b1_closing_too_often_is_fine(storage: StorageAdapter, another: Another) -> None:
    """`close` may be called more often than `initialize`; the adapter can be initialized again afterwards."""
    row, _ = await create(storage, new_run())
    adapter = another()
    await adapter.close()
    async with opened(adapter):
        pass
    await adapter.close()

    async with opened(adapter):
        expect(row, await adapter.get_run("r"))


async def b2_a_new_adapter_finds_everything(storage: StorageAdapter, another: Another) -> None:
    """[188] Runs, entries, timers, messages and schedules are there for an adapter that is made after `close`."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, entries=[entry("0"), entry("1")], timers=[timer("2")]))
    await storage.send_message("r", "a", b"payload", now=NOW)
    await storage.put_schedule(schedule())
    before = await state(storage, "r")
    await storage.close()

    async with opened(another()) as reopened:
        expect((before, [schedule()]), (await state(reopened, "r"), await reopened.get_schedules()))
    await storage.initialize()


# ---- C: create_runs -------------------------------------------------------------------------------------------------


async def c1_a_new_run_is_pending(storage: StorageAdapter, another: Another) -> None:
    """[182] A new run is stored as pending, due when it says, without lease and without executions."""
    new = NewRun("r", "signup", 3, 7, b"in", NOW + 5, NOW, -2, ("b", "a"), "key", "parent", "4.2")

    answer = await create(storage, new)

    expected = RunRow(
        run_id="r",
        workflow="signup",
        version=3,
        rules=7,
        status=RunStatus.PENDING,
        priority=-2,
        due_at=NOW + 5,
        lease_id=None,
        executions=0,
        idle_claims=0,
        generation=0,
        cancel_requested=False,
        cancel_delivered=False,
        last_message=0,
        created_at=NOW,
        updated_at=NOW,
        tags=("b", "a"),
        idempotency_key="key",
        parent="parent",
        parent_position="4.2",
        input=b"in",
        output=None,
        error=None,
    )
    expect((expected, True), answer)
    expect(expected, await storage.get_run("r"))


async def c2_a_known_id_changes_nothing(storage: StorageAdapter, another: Another) -> None:
    """[182] Creating a run whose id is known gives the row that is there, and False; nothing of the new one is kept."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, entries=[entry("0")], ending=Ending(RunStatus.COMPLETED, output=b"o")))
    before = await state(storage, "r")

    answer = await create(storage, new_run(workflow="other", version=9, input=b"other", due_at=1))

    expect((before[0], False), answer)
    expect(before, await state(storage, "r"))


async def c3_one_of_several_creates(storage: StorageAdapter, another: Another) -> None:
    """[182] Of several callers that create one id at once, through two adapters, one is told True and all get its
    row."""
    async with opened(another()) as other:
        runs = [new_run(input=bytes([number])) for number in range(8)]

        answers = await together(
            *(bound(create, adapter, run) for run in runs for adapter in (storage, other)),
        )

        expect([True], [created for _, created in answers if created])
        expect([await storage.get_run("r")] * 16, [row for row, _ in answers])


async def c3_one_of_several_creates_for_a_key(storage: StorageAdapter, another: Another) -> None:
    """Of several callers that create runs with one idempotency key at once, one is told True and all get its row."""
    async with opened(another()) as other:
        runs = [new_run(str(number), idempotency_key="key") for number in range(8)]

        answers = await together(*(bound(create, (storage, other)[number % 2], run) for number, run in enumerate(runs)))

    [created] = [row for row, created in answers if created]
    expect([created] * 8, [row for row, _ in answers])
    expect([created.run_id], ids(await claim(storage)))


async def c4_the_input_comes_back_exactly(storage: StorageAdapter, another: Another) -> None:
    """[182] An input of any bytes comes back byte for byte: none, every value, nothing but zeros, a megabyte."""
    inputs = [b"", ALL_BYTES, b"\0" * 9, ALL_BYTES * 4096]
    for number, content in enumerate(inputs):
        await create(storage, new_run(str(number), input=content))

    expect(inputs, [(await get(storage, str(number))).input for number in range(len(inputs))])


async def c4_tags_come_back_exactly(storage: StorageAdapter, another: Another) -> None:
    """Tags come back as they were given, in this order: any text, also empty, also twice."""
    tags = ("b", "", "a\0b", "a", "é 🦆", '"', "b")

    row, _ = await create(storage, new_run(tags=tags))

    expect([tags, tags], [row.tags, (await get(storage)).tags])
    for tag in tags:
        expect([row], (await storage.list_runs(RunFilter(tags=(tag,)), limit=9)).rows)


async def c5_a_known_key_changes_nothing(storage: StorageAdapter, another: Another) -> None:
    """A run with a known idempotency key is not created; the run that has it comes back with False, though it ended."""
    await end(storage, "other", Ending(RunStatus.COMPLETED))
    row, _ = await create(storage, new_run(idempotency_key="key"))
    await storage.request_cancel("r", now=NOW)
    cancelled = await get(storage)

    answer = await create(storage, new_run("new", idempotency_key="key", input=b"other", tags=("t",)))

    expect((cancelled, False), answer)
    expect(None, await storage.get_run("new"))
    expect("key", row.idempotency_key)


async def c5_keys_are_of_one_workflow(storage: StorageAdapter, another: Another) -> None:
    """The same key counts for each workflow by itself, in whatever version; an empty one is a key, none is none."""
    runs = [
        new_run("1", idempotency_key="key"),
        new_run("2", idempotency_key="key", workflow="v"),
        new_run("3", idempotency_key="key", version=2),
        new_run("4", idempotency_key="KEY"),
        new_run("5", idempotency_key=""),
        new_run("6", idempotency_key=""),
        new_run("7"),
        new_run("8"),
    ]

    answers = await storage.create_runs(runs)

    expected = [("1", True), ("2", True), ("1", False), ("4", True), ("5", True), ("5", False), ("7", True)]
    expect([*expected, ("8", True)], [(row.run_id, created) for row, created in answers])


async def c5_a_known_id_comes_before_a_known_key(storage: StorageAdapter, another: Another) -> None:
    """Where the id is that of one run and the key that of another, the run with the id comes back."""
    await storage.create_runs([new_run("id"), new_run("key", idempotency_key="key")])

    row, created = await create(storage, new_run("id", idempotency_key="key"))

    expect(("id", None, False), (row.run_id, row.idempotency_key, created))


async def c5_a_key_stays_with_the_workflow_it_was_given_for(storage: StorageAdapter, another: Another) -> None:
    """A run that has continued as another workflow is still found by its key under the first, and takes none there."""
    new = new_run(idempotency_key="key", due_at=0)
    await create(storage, new)
    await create(storage, new_run("there", workflow="v", idempotency_key="key"))
    await claim(storage)
    anew = Ending(RunStatus.PENDING, NOW, continued=Continued("v", 1, 1, b""))

    expect(True, await storage.save_progress(progress(Lease("r", "first"), ending=anew)))

    answers = [await create(storage, new_run("new", workflow=name, idempotency_key="key")) for name in ("w", "v")]
    expect(
        [("r", "v", False), ("there", "v", False)], [(row.run_id, row.workflow, created) for row, created in answers]
    )


async def c6_many_are_created_at_once(storage: StorageAdapter, another: Another) -> None:
    """Runs of one call are created in its order, and a run that comes twice in it is created once."""
    known, _ = await create(storage, new_run("known", due_at=NOW - 1))
    runs = [
        new_run("b"),
        new_run("a", idempotency_key="key"),
        new_run("b", input=b"other"),
        new_run("known", input=b"other"),
        new_run("c", idempotency_key="key"),
    ]

    answers = await storage.create_runs(runs)

    a, b = runs[1].row(), runs[0].row()
    expect([(b, True), (a, True), (b, False), (known, False), (a, False)], answers)
    expect(["a", "b", "known"], [row.run_id for row in (await storage.list_runs(RunFilter(), limit=9)).rows])
    expect([], await storage.create_runs([]))


async def c6_an_id_twice_and_a_known_key(storage: StorageAdapter, another: Another) -> None:
    """Where a run is not created because its key is known, the next one of its id in the same call is, with its own
    tags and input."""
    known, _ = await create(storage, new_run("known", idempotency_key="key"))
    second = new_run("x", input=b"second", tags=("second",))

    answers = await storage.create_runs([new_run("x", idempotency_key="key", tags=("first",)), second])

    expect([(known, False), (second.row(), True)], answers)
    expect([second.row()], (await storage.list_runs(RunFilter(tags=("second",)), limit=9)).rows)
    expect([], (await storage.list_runs(RunFilter(tags=("first",)), limit=9)).rows)


async def c6_all_or_none_are_created(storage: StorageAdapter, another: Another) -> None:
    """Where one run of a call cannot be stored, none of them is."""
    for spoilt in (new_run(NOT_TEXT), new_run("s", tags=("\ud800",)), new_run("s", priority=2**64)):
        expect("create_runs", await failing(bound(storage.create_runs, [new_run(), spoilt, new_run("after")])))

    expect([], (await storage.list_runs(RunFilter(), limit=9)).rows)
