"""What stands between an engine and the world in a simulation: a gate, at which everything waits to be let through.

Verbs of the storage, hints that there is news, step bodies that end, and instants of the clock: each waits at the gate
as a `Ticket`, and nothing happens until whoever keeps the gate picks one. In which order that is, and what goes wrong
on the way, is up to the keeper.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, cast

from anyio import CancelScope, Event

from reflow import StorageAdapter
from reflow.storage.listeners import Wake
from reflow.storage.records import Progress
from reflow.testing.clock import VirtualClock, set_or_due
from reflow.testing.crash import Crash

__all__ = ["Gate", "GatedClock", "Owner", "Ticket", "Verb", "at_the_gate"]


class Owner:
    """An engine, from its start to its end, or whoever else has something at the gate."""

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.is_dead = False

    def __str__(self) -> str:
        return self.name


class Ticket:
    """Something that waits at the gate; `text` says what."""

    def __init__(self, owner: Owner, text: str, due_at: int | None = None) -> None:
        self.owner = owner
        self.text = text
        self.due_at = due_at
        self.passed = Event()

    def let_through(self) -> None:
        """Let it happen."""
        self.passed.set()


class Verb(Ticket):
    """A verb that was called. It is carried out first, and answered then: with a result, or with an error."""

    def __init__(self, owner: Owner, name: str, call: Callable[[], Awaitable[Any]], subject: Any) -> None:
        super().__init__(owner, f"{name} {_told(subject)}".rstrip())
        self.name = name
        self.call = call
        self.subject = subject
        self.is_done = False
        self.result: Any = None
        self.error: BaseException | None = None

    def answer(self) -> Any:
        """What the caller is told."""
        if self.error is not None:
            raise self.error
        return self.result


class _Hint(Ticket):
    """Somebody is to be told that there is news."""

    def __init__(self, owner: Owner, wake: Wake, run_id: str | None) -> None:
        super().__init__(owner, f"hears of news for {run_id or 'anybody'}")
        self.wake = wake
        self.run_id = run_id

    def let_through(self) -> None:
        """Tell."""
        if not self.owner.is_dead:
            self.wake(self.run_id)


class _Timer(Ticket):
    """Somebody waits for an instant, in `scope`."""

    def __init__(self, owner: Owner, due_at: int, scope: CancelScope) -> None:
        super().__init__(owner, "looks at the clock", due_at)
        self.scope = scope

    def let_through(self) -> None:
        """It has come."""
        self.scope.cancel()


class Gate:
    """All that waits."""

    def __init__(self) -> None:
        self._tickets: list[Ticket] = []

    def waiting(self) -> list[Ticket]:
        """In an order that does not depend on who of several came first."""
        return sorted(self._tickets, key=lambda ticket: (ticket.owner.number, ticket.text, ticket.due_at or 0))

    def add(self, ticket: Ticket) -> None:
        """Have it wait; of hints of one kind one is enough."""
        if isinstance(ticket, _Hint) and any(
            isinstance(other, _Hint) and (other.wake, other.run_id) == (ticket.wake, ticket.run_id)
            for other in self._tickets
        ):
            return
        self._tickets.append(ticket)

    def discard(self, ticket: Ticket) -> None:
        """It waits no more."""
        if ticket in self._tickets:
            self._tickets.remove(ticket)

    async def passed(self, ticket: Ticket) -> None:
        """Wait until it is let through."""
        self.add(ticket)
        try:
            await ticket.passed.wait()
        finally:
            self.discard(ticket)

    def kill(self, owner: Owner) -> None:
        """End all that waits for this owner, as its process ends: also what is shielded against being cancelled."""
        owner.is_dead = True
        for ticket in [ticket for ticket in self._tickets if ticket.owner is owner]:
            if isinstance(ticket, Verb):
                ticket.error = Crash()
                ticket.passed.set()
            elif isinstance(ticket, _Hint):
                self.discard(ticket)


def at_the_gate(storage: StorageAdapter, gate: Gate, owner: Owner) -> StorageAdapter:
    """A storage as one owner reaches it: by way of the gate."""
    return cast("StorageAdapter", _GatedStorage(storage, gate, owner))


class _GatedStorage:
    """Has the verbs of the storage behind it."""

    def __init__(self, storage: StorageAdapter, gate: Gate, owner: Owner) -> None:
        self._storage = storage
        self._gate = gate
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._storage, name)
        is_verb = iscoroutinefunction(getattr(StorageAdapter, name, None)) and name not in ("initialize", "close")
        return partial(self._ask, name, attribute) if is_verb else attribute

    async def listen(self, wake: Wake) -> None:
        """Hints wait at the gate too."""

        def hint(run_id: str | None) -> None:
            if not self._owner.is_dead:
                self._gate.add(_Hint(self._owner, wake, run_id))

        await self._storage.listen(hint)

    async def _ask(self, name: str, verb: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        if self._owner.is_dead:
            raise Crash
        asked = Verb(self._owner, name, partial(verb, *args, **kwargs), args[0] if args else None)
        await self._gate.passed(asked)
        return asked.answer()


class GatedClock:
    """The time as one owner sees it: that of the world, and `offset_us` to it."""

    def __init__(self, clock: VirtualClock, gate: Gate, owner: Owner) -> None:
        self.offset_us = 0
        self._clock = clock
        self._gate = gate
        self._owner = owner

    def now(self) -> int:
        """Microseconds since 1970 UTC."""
        return self._clock.now() + self.offset_us

    async def wait(self, event: Event, until: int | None) -> None:
        """Return when `event` is set or `until` has come, and the keeper of the gate says so."""
        await set_or_due(event, until, self.now(), self._timer)

    @contextmanager
    def _timer(self, until: int, scope: CancelScope) -> Generator[None]:
        timer = _Timer(self._owner, until, scope)
        self._gate.add(timer)
        try:
            yield
        finally:
            self._gate.discard(timer)


def _told(subject: Any) -> str:
    match subject:
        case Progress(lease=lease, entries=entries, ending=ending):
            positions = ", ".join(entry.position or entry.kind for entry in entries)
            return f"{lease.run_id} [{positions}]{f' {ending.status}' if ending else ''}"
        case str():
            return subject
        case _:
            return ""
