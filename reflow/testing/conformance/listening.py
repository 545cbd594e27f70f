"""Clauses Y: listen."""

from __future__ import annotations

from functools import partial

from anyio import Event, create_task_group, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from reflow import StorageAdapter
from reflow.testing.conformance.expectation import expect
from reflow.testing.conformance.words import NOW, Another, claim, entry, hold, ids, new_run, opened, progress


async def y1_listeners_are_woken(storage: StorageAdapter, another: Another) -> None:
    """Whoever listens is woken by a run that is stored, through the same adapter or another."""
    async with opened(another()) as other, create_task_group() as tasks:
        for number, creating in enumerate((storage, other)):
            woken = [Event(), Event()]
            for listening, event in zip((storage, other), woken, strict=True):
                tasks.start_soon(listening.listen, partial(_set, event))
            await wait_all_tasks_blocked()
            await creating.create_runs([new_run(str(number))])
            for event in woken:
                await event.wait()
        tasks.cancel_scope.cancel()


async def y1_news_of_a_run_is_told(storage: StorageAdapter, another: Another) -> None:
    """Whoever listens is told that a run is to be cancelled or was sent a message, also where a write of another run
    has cancelled it: by its id, or by None where the adapter does not know."""
    calls: list[str | None] = []
    await storage.create_runs([new_run(run_id, workflow="v") for run_id in ("asked", "theirs", "sent")])
    lease = await hold(storage)

    async def told(run_id: str) -> None:
        while run_id not in calls and None not in calls:
            await checkpoint()
        calls.clear()

    async with create_task_group() as tasks:
        tasks.start_soon(storage.listen, calls.append)
        await wait_all_tasks_blocked()
        calls.clear()
        await storage.save_progress(progress(lease, entries=[entry("0")], cancelled=["theirs"]))
        await told("theirs")
        await storage.request_cancel("asked", now=NOW)
        await told("asked")
        await storage.send_message("sent", "name", b"", now=NOW)
        await told("sent")
        tasks.cancel_scope.cancel()


async def y2_a_claim_because_of_a_hint_finds_the_run(storage: StorageAdapter, another: Another) -> None:
    """A claim that is sent as soon as the hint comes finds the run."""
    hint = Event()
    found: list[str] = []

    async def look() -> None:
        await hint.wait()
        found.extend(ids(await claim(storage)))

    async with create_task_group() as tasks:
        tasks.start_soon(storage.listen, partial(_set, hint))
        tasks.start_soon(look)
        await wait_all_tasks_blocked()
        await storage.create_runs([new_run("r")])
        while not found:
            await checkpoint()
        tasks.cancel_scope.cancel()

    expect(["r"], found)


async def y3_a_cancelled_listener_is_left_alone(storage: StorageAdapter, another: Another) -> None:
    """Who was cancelled is not called any more, and others are."""
    calls: list[str | None] = []
    hint = Event()
    async with create_task_group() as others:
        others.start_soon(storage.listen, partial(_set, hint))
        async with create_task_group() as tasks:
            tasks.start_soon(storage.listen, calls.append)
            await wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        await storage.create_runs([new_run("r")])
        await hint.wait()
        others.cancel_scope.cancel()

    expect([], calls)


def _set(event: Event, run_id: str | None) -> None:
    event.set()
