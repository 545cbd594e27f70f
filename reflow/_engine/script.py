"""`reflow.run`: a durable run from a script, without an event loop in sight."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, TypeVar

import anyio

from reflow._core.definition import Call, Workflow
from reflow._core.misuse import explain_call
from reflow._engine.engine import Engine
from reflow.codec import Codec
from reflow.errors import ConfigError, ReflowError, StorageError
from reflow.storage.contract import StorageAdapter
from reflow.storage.sqlite import SQLiteStorage

__all__ = ["check_no_event_loop", "run"]

R = TypeVar("R")

# Nobody else is about to take over, so a short lease costs nothing; after a kill it is what the next start waits for.
_LEASE = "2s"


def run(
    call: Call[R],
    *,
    storage: str | os.PathLike[str] | StorageAdapter = "reflow.db",
    run_id: str | None = None,
    workflows: Iterable[Workflow[..., Any]] = (),
    codec: Codec | None = None,
    backend: str = "asyncio",
) -> R:
    """Run `call` durably to its end and return the result: started, or resumed where a run `run_id` is unfinished.

    `storage` is the path of a SQLite file, by default `reflow.db` in the current directory, or a storage object. With a
    `run_id` the same line again continues where a crash, a kill or Ctrl-C left off, and returns the stored result when
    the run has completed; without one each call starts a new run. Other unfinished runs of the workflow in the same
    storage go on too, while this one lasts.
    `workflows` are others that it starts, as children or by `spawn`: somebody has to run them.
    `backend` is `"asyncio"` or `"trio"`.

    Raises what `Engine.execute` raises; `ConfigError` when called inside an event loop.
    """
    if not isinstance(call, Call):
        raise ConfigError(explain_call(call, "reflow.run", "import_file(path)"))
    if backend not in ("asyncio", "trio"):
        raise ConfigError(f"backend is {backend!r}; write 'asyncio' or 'trio'")
    check_no_event_loop("reflow.run", "`await engine.execute(...)`")
    known = [call.workflow, *(each for each in workflows if each is not call.workflow)]
    adapter: Any = SQLiteStorage(storage) if isinstance(storage, (str, os.PathLike)) else storage

    async def main() -> R:
        async with Engine(adapter, known, lease=_LEASE, codec=codec) as engine:
            return await engine.execute(call, run_id=run_id)

    try:
        return anyio.run(main, backend=backend)
    except ReflowError as error:
        if isinstance(error, StorageError):
            raise
        # The way here, through engine and event loop, is not what anybody looks for.
        raise error.with_traceback(None)  # noqa: B904
    except KeyboardInterrupt:
        raise KeyboardInterrupt from None
    except BaseExceptionGroup as group:
        # On trio Ctrl-C strikes in whatever task is running, and comes out in a group.
        _, others = group.split(KeyboardInterrupt)
        if others is None:
            raise KeyboardInterrupt from None
        raise


def check_no_event_loop(called: str, instead: str) -> None:
    """Raise `ConfigError` inside an event loop, where `called` cannot start one of its own."""
    try:
        anyio.get_cancelled_exc_class()
    except RuntimeError:
        return
    raise ConfigError(f"{called} was called inside an event loop; write {instead} there")
