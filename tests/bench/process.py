"""Other processes: fresh ones, with nothing in memory but what was imported, that may be killed."""

from __future__ import annotations

import multiprocessing
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, TypeVar

from tests.bench.setting import Setting

T = TypeVar("T")

_context = multiprocessing.get_context("spawn")


class Companion(NamedTuple):
    """A process beside this one, and this end of the pipe between them."""

    process: BaseProcess
    pipe: Connection


@contextmanager
def companion(setting: Setting, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Iterator[Companion]:
    """A process that runs `function(pipe, setting, *arguments)` in an event loop; what is left of it ends with the
    block. If it fails, its traceback is on stderr, and reading from the pipe raises EOFError."""
    here, there = _context.Pipe()
    process = _context.Process(target=_serve, args=(function, there, setting, *arguments))
    process.start()
    there.close()
    try:
        yield Companion(process, here)
    finally:
        process.kill()
        process.join()
        here.close()


def apart(setting: Setting, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """What `function(setting, *arguments)` returns in a process of its own."""
    with companion(setting, _answer, function, *arguments) as other:
        answer: T = other.pipe.recv()
    return answer


def _serve(function: Callable[..., Awaitable[Any]], pipe: Connection, setting: Setting, *arguments: Any) -> None:
    setting.run(function, pipe, setting, *arguments)


async def _answer(pipe: Connection, setting: Setting, function: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
    pipe.send(await function(setting, *arguments))
