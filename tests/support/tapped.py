"""A storage with taps: a test can listen to verbs, make them fail, and hold them up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from anyio import Event

from reflow import StorageAdapter, StorageError
from reflow.testing.crash import VERBS


class Gate:
    """Where the next call of a verb waits: `arrived` is set when it is there, `open` lets it go on."""

    def __init__(self) -> None:
        self.arrived = Event()
        self._opened = Event()

    def open(self) -> None:
        """Let the call go on."""
        self._opened.set()

    async def passed(self) -> None:
        """Wait at the gate."""
        self.arrived.set()
        await self._opened.wait()


class TappedStorage:
    """Passes verbs on to `storage`.

    `log` has the verbs in the order in which they returned, with whatever else a test puts there; `calls` has their
    arguments in the order in which they were called.
    """

    def __init__(self, storage: StorageAdapter) -> None:
        self.log: list[str] = []
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.failures: Counter[str] = Counter()
        self._storage = storage
        self._gates: dict[str, Gate] = {}
        self._answers: dict[str, Any] = {}
        self._done: dict[str, Event] = {}

    def fail(self, verb: str, times: int) -> None:
        """The next `times` calls of `verb` raise `StorageError` and do nothing."""
        self.failures[verb] = times

    def hold(self, verb: str) -> Gate:
        """The next call of `verb` waits before it is carried out."""
        self._gates[verb] = Gate()
        return self._gates[verb]

    def hold_answer(self, verb: str) -> Gate:
        """The next call of `verb` waits after it was carried out, before its caller hears of it."""
        self._answers[verb] = Gate()
        return self._answers[verb]

    def done(self, verb: str) -> Event:
        """Set when `verb` has been carried out, or has failed, once more."""
        return self._done.setdefault(verb, Event())

    def named(self, verb: str) -> list[Any]:
        """The first argument of every call of `verb`."""
        return [args[0] for name, args, _ in self.calls if name == verb]

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._storage, name)
        return self._tapped(name, attribute) if name in VERBS else attribute

    def _tapped(self, name: str, verb: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            if gate := self._gates.pop(name, None):
                await gate.passed()
            try:
                if self.failures[name] > 0:
                    self.failures[name] -= 1
                    raise StorageError(name, "it was told to fail")
                result = await verb(*args, **kwargs)
            finally:
                if done := self._done.pop(name, None):
                    done.set()
            self.log.append(name)
            if gate := self._answers.pop(name, None):
                await gate.passed()
            return result

        return call
