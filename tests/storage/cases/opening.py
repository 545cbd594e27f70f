"""Clauses A, B and C: initialize, close, create_runs."""

from __future__ import annotations

from reflow import RunStatus, StorageAdapter
from reflow.storage.records import Ending, NewRun, RunRow
from tests.storage.cases.words import (
    ALL_BYTES,
    NOW,
    Another,
    bound,
    create,
    entry,
    get,
    hold,
    new_run,
    opened,
    progress,
    state,
    timer,
    together,
)

# ---- A: initialize --------------------------------------------------------------------------------------------------


async def a1_initialize_again_keeps_what_is_stored(storage: StorageAdapter, another: Another) -> None:
    """`initialize` may be called again; what is stored stays."""
    row, _ = await create(storage, new_run())

    await storage.initialize()

    assert row == await storage.get_run("r")
    await storage.close()


async def a1_several_may_initialize_at_once(storage: StorageAdapter, another: Another) -> None:
    """Several adapters may be initialized on one storage at once, and one adapter several times; all are usable."""
    row, _ = await create(storage, new_run())
    others = [another(), another()]

    await together(*(adapter.initialize for adapter in (*others, *others, storage)))

    assert [row] * 3 == [await adapter.get_run("r") for adapter in (*others, storage)]
    await together(*(adapter.close for adapter in (*others, *others, storage)))


# ---- B: close -------------------------------------------------------------------------------------------------------


async def b1_open_until_closed_as_often_as_initialized(storage: StorageAdapter, another: Another) -> None:
    """An adapter that was initialized twice goes on after the first `close`."""
    await storage.initialize()
    await storage.close()

    assert (await create(storage, new_run()))[1]


async def b1_closing_too_often_is_fine(storage: StorageAdapter, another: Another) -> None:
    """`close` may be called more often than `initialize`; the adapter can be initialized again afterwards."""
    row, _ = await create(storage, new_run())
    adapter = another()
    await adapter.close()
    async with opened(adapter):
        pass
    await adapter.close()

    async with opened(adapter):
        assert row == await adapter.get_run("r")


async def b2_a_new_adapter_finds_everything(storage: StorageAdapter, another: Another) -> None:
    """Runs, entries and timers are there for an adapter that is made after `close`."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, entries=[entry("0"), entry("1")], timers=[timer("2")]))
    before = await state(storage, "r")
    await storage.close()

    async with opened(another()) as reopened:
        assert before == await state(reopened, "r")
    await storage.initialize()


# ---- C: create_runs -------------------------------------------------------------------------------------------------


async def c1_a_new_run_is_pending(storage: StorageAdapter, another: Another) -> None:
    """A new run is stored as pending, due when it says, without lease and without executions."""
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
    assert (expected, True) == answer
    assert expected == await storage.get_run("r")


async def c2_a_known_id_changes_nothing(storage: StorageAdapter, another: Another) -> None:
    """Creating a run whose id is known gives the row that is there, and False; nothing of the new one is kept."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, entries=[entry("0")], ending=Ending(RunStatus.COMPLETED, output=b"o")))
    before = await state(storage, "r")

    answer = await create(storage, new_run(workflow="other", version=9, input=b"other", due_at=1))

    assert (before[0], False) == answer
    assert before == await state(storage, "r")


async def c3_one_of_several_creates(storage: StorageAdapter, another: Another) -> None:
    """Of several callers that create one id at once, through two adapters, one is told True and all get its row."""
    async with opened(another()) as other:
        runs = [new_run(input=bytes([number])) for number in range(8)]

        answers = await together(
            *(bound(create, adapter, run) for run in runs for adapter in (storage, other)),
        )

        assert [True] == [created for _, created in answers if created]
        assert [await storage.get_run("r")] * 16 == [row for row, _ in answers]


async def c4_the_input_comes_back_exactly(storage: StorageAdapter, another: Another) -> None:
    """An input of any bytes comes back byte for byte: none, every value, nothing but zeros, a megabyte."""
    inputs = [b"", ALL_BYTES, b"\0" * 9, ALL_BYTES * 4096]
    for number, content in enumerate(inputs):
        await create(storage, new_run(str(number), input=content))

    assert inputs == [(await get(storage, str(number))).input for number in range(len(inputs))]
