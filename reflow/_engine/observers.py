"""Hooks and streams: all who look on at the runs of an engine.

They are told one after the other, hooks first, and the run waits until all have been told: an async hook that is slow
holds up its run, and so does a full stream that asks for that; no other. Each is given an event of its own, so that
nothing that one does to it reaches another, or the run.

What a hook raises is reported, and goes no further. Only cancellation from outside comes out, and Ctrl-C.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from inspect import isawaitable
from typing import TypeVar
from weakref import WeakSet

from reflow._core.failure import capture
from reflow._engine.scopes import is_foreign
from reflow._engine.streams import Stream
from reflow.errors import ConfigError, HookError, ReflowError
from reflow.events import ErrorHandler, Hook, LifecycleEvent

__all__ = ["Observers"]

T = TypeVar("T")

_log = logging.getLogger("reflow")


class Observers:
    """The hooks and streams of an engine. While `is_idle`, nobody looks on, and there is no need to tell anything."""

    def __init__(self, hooks: Iterable[Hook] = (), on_error: ErrorHandler | None = None) -> None:
        if callable(hooks) or not isinstance(hooks, Iterable):
            raise ConfigError(f"hooks is {hooks!r}; write a list of functions: hooks=[alert]")
        self._hooks = tuple(hooks)
        for hook in self._hooks:
            if not callable(hook):
                raise ConfigError(f"{hook!r} is no hook; write a function that takes a lifecycle event")
        if on_error is not None and not callable(on_error):
            raise ConfigError(f"on_error is {on_error!r}; write a function that takes an error")
        self._on_error = on_error or _log_error
        # What nobody reads any more need not be told, so it is not kept alive from here.
        self._streams: WeakSet[Stream] = WeakSet()
        self.is_idle = not self._hooks

    def stream(self, buffer: int | None = None) -> Stream:
        """A new stream of what is told from now on. `ConfigError` for a buffer that is no number from 0 up."""
        if buffer is not None and (isinstance(buffer, bool) or not isinstance(buffer, int) or buffer < 0):
            raise ConfigError(f"buffer is {buffer!r}; write a whole number from 0 up, or leave it out")
        stream = Stream(buffer, self._closed)
        self._streams.add(stream)
        self.is_idle = False
        return stream

    async def emit(self, make: Callable[[], LifecycleEvent]) -> None:
        """Tell everybody. `make` is called for each of them, and has to give a new event, with values of its own."""
        for hook in self._hooks:
            if (error := await _raised_by(hook, make)) is not None:
                await self._failed(_name_of(hook), error)
        try:
            # In no loop, whose variable would keep a stream alive while it holds us.
            pauses = [pause for stream in list(self._streams) if (pause := stream.offer(make()))]
        except Exception as error:
            await self._failed("stream", error)
            return
        try:
            for pause in pauses:
                await pause.over()
        finally:
            for pause in pauses:
                pause.withdraw()

    async def report(self, error: ReflowError) -> None:
        """Tell `on_error` of what no run is to feel."""
        if (failure := await _raised_by(self._on_error, lambda: error)) is not None:
            _log.error("on_error raised when it was told: %s", error, exc_info=failure)

    def end(self) -> None:
        """Nothing more will be told: all streams end, and what they hold can still be read."""
        for stream in list(self._streams):
            stream.end()
            self._closed(stream)

    def _closed(self, stream: Stream) -> None:
        self._streams.discard(stream)
        self.is_idle = not (self._hooks or self._streams)

    async def _failed(self, source: str, cause: BaseException) -> None:
        error = HookError(source, str(capture(cause)))
        error.__cause__ = cause
        await self.report(error)


async def _raised_by(tell: Callable[[T], Awaitable[object] | None], make: Callable[[], T]) -> BaseException | None:
    """Tell, wait where that is asked for, and give what was raised; None where nothing was."""
    try:
        told = tell(make())
        if isawaitable(told):
            await told
    except Exception as error:
        return error
    except BaseException as error:
        if isinstance(error, SystemExit) or is_foreign(error):
            return error
        raise
    return None


def _name_of(hook: Hook) -> str:
    return str(getattr(hook, "__qualname__", type(hook).__qualname__))


def _log_error(error: ReflowError) -> None:
    # Of a hook that failed, where it did.
    _log.error("%s", error, exc_info=error.__cause__ if isinstance(error, HookError) else None)
