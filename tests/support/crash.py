"""Crashes in process: a storage that dies at its n-th verb, before or after carrying it out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from reflow import StorageAdapter
from tests.support.verbs import VERBS


class Crash(BaseException):
    """The process is gone. Nothing may catch it and go on; whoever tries to write meets it again."""


class MortalStorage:
    """Passes verbs on to `storage` until it dies at verb number `dies_at` (from 1), after it if `after` is set.

    From then on every verb raises `Crash`, as if the process had ended there: clean-up code cannot write either.
    """

    def __init__(self, storage: StorageAdapter, dies_at: int, *, after: bool) -> None:
        self.verbs: list[str] = []
        self._storage = storage
        self._dies_at = dies_at
        self._after = after

    @property
    def is_dead(self) -> bool:
        """Whether the crash has happened."""
        return len(self.verbs) >= self._dies_at

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._storage, name)
        return self._mortal(name, attribute) if name in VERBS else attribute

    def _mortal(self, name: str, verb: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.is_dead:
                raise Crash
            self.verbs.append(name)
            if self.is_dead and not self._after:
                raise Crash
            result = await verb(*args, **kwargs)
            if self.is_dead:
                raise Crash
            return result

        return call
