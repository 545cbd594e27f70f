"""What all verbs of a client work with: a storage, a codec, a clock, and the workflows where they are known."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from anyio import CancelScope

from reflow._core.definition import Call, Workflow
from reflow._engine.clock import Clock, SystemClock
from reflow._engine.intake import Order, checked_text, take_order
from reflow._engine.registry import Registry
from reflow.codec import Codec, MsgpackCodec
from reflow.errors import ConfigError, RunNotFoundError
from reflow.storage.contract import SharedClock, StorageAdapter
from reflow.storage.records import RunRow

__all__ = ["Access"]


class Access:
    """Access to a storage, by the codec with which its values are written."""

    def __init__(self, storage: StorageAdapter, *, codec: Codec | None = None, clock: Clock | None = None) -> None:
        if isinstance(storage, (str, os.PathLike)):
            raise ConfigError(f"storage is {storage!r}; write SQLiteStorage({os.fspath(storage)!r})")
        self._storage = storage
        self._codec = codec or MsgpackCodec()
        self._clock = clock or SystemClock()
        # Asks the storage for the time, where it has a clock and no other was given.
        self._ask_for_the_time: Callable[[], Awaitable[None]] | None = None
        if isinstance(self._clock, SystemClock) and isinstance(storage, SharedClock):
            self._ask_for_the_time = partial(self._clock.follow, storage.time)
        # The workflows that are known; None where all are taken on trust.
        self._registry: Registry | None = None

    async def _open(self) -> None:
        """Open the storage, and go by its clock, where it has one."""
        await self._storage.initialize()
        if self._ask_for_the_time is None:
            return
        try:
            await self._ask_for_the_time()
        except BaseException:
            with CancelScope(shield=True):
                await self._storage.close()
            raise

    def _take_order(
        self, call: Call[Any] | str, arguments: Mapping[str, Any] | None, version: int | None, verb: str
    ) -> Order:
        return take_order(call, arguments, version, registry=self._registry, codec=self._codec, verb=verb)

    async def _row(self, run_id: str) -> RunRow:
        row = await self._storage.get_run(checked_text(run_id, "run_id"))
        if row is None:
            raise RunNotFoundError(run_id)
        return row

    def _workflow_of(self, row: RunRow) -> Workflow[..., Any] | None:
        return self._registry.find(row.workflow, row.version) if self._registry else None

    def _output_type(self, row: RunRow) -> Any:
        workflow = self._workflow_of(row)
        return workflow.output_type if workflow else Any
