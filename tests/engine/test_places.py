"""Places for threads: each is given back once, by who is last to leave it."""

from __future__ import annotations

import threading

import anyio
import pytest
from anyio import CapacityLimiter, Event, from_thread, to_thread

from reflow._engine.places import Place

pytestmark = pytest.mark.anyio


async def test_left_before_the_thread_begins(anyio_backend: str) -> None:
    """What nobody waits for any more does not begin, and its place is free at once."""
    threads, called = CapacityLimiter(1), list[int]()
    async with Place(threads) as place:
        pass
    free = threads.available_tokens
    place.call(called.append, 1)

    assert (1, []) == (free, called)


async def test_left_after_the_thread_has_ended(anyio_backend: str) -> None:
    """What a thread gives is given on, as often as it is called, and the place is free when it is left."""
    threads = CapacityLimiter(1)
    async with Place(threads) as place:
        values = [await to_thread.run_sync(place.call, str, number) for number in range(2)]
        taken = threads.available_tokens

    assert (["0", "1"], 0, 1) == (values, taken, threads.available_tokens)


@pytest.mark.parametrize("is_error", [False, True])
async def test_left_while_the_thread_is_at_work(anyio_backend: str, is_error: bool) -> None:
    """The place of a thread that is left alone is free for the next one as soon as the thread ends, however it does."""
    threads, begun, go = CapacityLimiter(1), Event(), threading.Event()

    def body() -> None:
        from_thread.run_sync(begun.set)
        go.wait()
        if is_error:
            raise ValueError("nobody hears of it")

    async def leave() -> None:
        async with Place(threads) as place:
            await to_thread.run_sync(place.call, body, abandon_on_cancel=True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
        await begun.wait()
        tasks.cancel_scope.cancel()
    taken = threads.available_tokens
    go.set()
    async with Place(threads):
        pass

    assert (0, 1) == (taken, threads.available_tokens)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_event_loop_is_gone(backend: str) -> None:
    """A thread that outlives the event loop gives its place back to nobody, and says nothing of it."""
    begun, go = threading.Event(), threading.Event()

    def body() -> None:
        begun.set()
        go.wait()

    async def main() -> threading.Thread:
        async with Place(CapacityLimiter(1)) as place:
            thread = threading.Thread(target=place.call, args=(body,))
            thread.start()
            # It blocks this event loop too, which has nothing else to do.
            begun.wait()
        return thread

    thread = anyio.run(main, backend=backend)
    go.set()
    thread.join()
