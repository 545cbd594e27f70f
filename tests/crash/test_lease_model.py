"""The lease protocol as a small model, of which every state is visited.

Two engines, one run of two steps, a storage, and messages that take time. Engines crash, and stand still for any time;
answers get lost. Time is relative: what is left of the lease, and of each engine's trust in it, in ticks; so there are
finitely many states, and the model has all of them.

What must hold. *Once*: each entry is written once, in order. *Done is done*: whoever holds the lease never runs the
body of an entry that is there. *Alone*: an engine that has not stood still begins a body only under the current lease.
*It ends*: from every state the run can end.

Each guard of the protocol can be left out, by name; then something of this does not hold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from tests.crash.ledger import caught

LENGTH = 2  # steps of the run
LEASE = 2  # ticks
TRUST = 1  # ticks: ends before the lease does
MOST_WRITES = 1  # under way at once: more of them do nothing that one cannot
NOBODY = -1

# What the protocol does, and what of it breaks a promise when it is left out.
GUARDS = {
    "a claim waits until the lease is over": "alone",
    "a lease runs out": "it ends",
    "every claim has a new id": "done is done",
    "a claim reads the journal": "done is done",
    "writes name the lease": "done is done",
    "writes say how many entries they follow": "once",
    "trust ends before the lease": "alone",
    "trust counts from when the heartbeat was sent": "alone",
    "a lost lease is not kept": "alone",
}


class Engine(NamedTuple):
    """What one engine knows. `seen` entries are in the journal, for all that it knows; `beat` is how long ago it sent a
    heartbeat that has not been answered, and `kept` whether that found the lease. It `stood_still` since the last
    answer to one."""

    phase: str = "idle"  # idle, ready, body, write
    lease: int = NOBODY
    seen: int = 0
    trust: int = 0
    is_still: bool = False
    stood_still: bool = False
    beat: int = NOBODY
    kept: bool | None = None


class Write(NamedTuple):
    """A write on its way to the storage, from engine `sender` (which may not wait for it any more)."""

    sender: int
    lease: int
    recorded: int


class World(NamedTuple):
    """The run's row and journal, the engines, the writes under way, and what came of the last step."""

    lease: int = NOBODY
    left: int = 0
    journal: tuple[int, ...] = ()
    has_ended: bool = False
    engines: tuple[Engine, ...] = (Engine(), Engine())
    writes: tuple[Write, ...] = ()
    broken: str | None = None

    def having(self, number: int, **changes: object) -> World:
        """With one engine changed."""
        engines = list(self.engines)
        engines[number] = engines[number]._replace(**changes)
        return self._replace(engines=tuple(engines))

    def normal(self) -> World:
        """One for all that differ only in the ids of leases, of which nothing but equality matters."""
        first, second = self.engines
        ids = dict.fromkeys((NOBODY, self.lease, first.lease, second.lease, *(write.lease for write in self.writes)))
        number = {lease: count for count, lease in enumerate(ids, NOBODY)}
        first, second = (engine._replace(lease=number[engine.lease]) for engine in self.engines)
        writes = tuple(Write(write.sender, number[write.lease], write.recorded) for write in self.writes)
        return self._replace(lease=number[self.lease], engines=(first, second), writes=writes)

    def swapped(self) -> World:
        """With the engines in each other's place."""
        writes = tuple(Write(1 - write.sender, write.lease, write.recorded) for write in self.writes)
        return self._replace(engines=self.engines[::-1], writes=writes)


class Protocol:
    """The moves of the model, without one of the guards if it is named."""

    def __init__(self, without: str | None = None) -> None:
        assert without is None or without in GUARDS
        self._without = without

    def following(self, world: World) -> Iterator[tuple[str, World]]:
        """What may happen next."""
        yield from self._tick(world)
        for number, engine in enumerate(world.engines):
            if engine.phase == "idle":
                yield from self._claim(world, number)
                continue
            yield f"{number} crashes", world.having(number, **Engine()._asdict())
            if engine.is_still:
                yield f"{number} goes on", world.having(number, is_still=False)
            else:
                yield f"{number} stands still", world.having(number, is_still=True, stood_still=True)
                yield from self._hold(world, number, engine)
        yield from self._heartbeats(world)
        for write in world.writes:
            yield from self._arrive(world, write)

    def _guards(self, guard: str) -> bool:
        assert guard in GUARDS
        return guard != self._without

    def _tick(self, world: World) -> Iterator[tuple[str, World]]:
        """Time passes; an engine that is awake does not let its trust run out without noticing."""
        if self._guards("trust ends before the lease") and any(
            engine.phase != "idle" and not engine.trust and not engine.is_still for engine in world.engines
        ):
            return
        engines = tuple(
            engine._replace(
                trust=max(engine.trust - 1, 0), beat=min(engine.beat + 1, TRUST) if engine.beat != NOBODY else NOBODY
            )
            for engine in world.engines
        )
        left = max(world.left - 1, 0) if self._guards("a lease runs out") else world.left
        yield "a tick", world._replace(left=left, engines=engines)

    def _claim(self, world: World, number: int) -> Iterator[tuple[str, World]]:
        is_due = not world.left or not self._guards("a claim waits until the lease is over")
        if is_due and not world.has_ended:
            in_use = [world.lease, *(e.lease for e in world.engines), *(w.lease for w in world.writes)]
            lease = max(in_use) + 1 if self._guards("every claim has a new id") else 0
            seen = len(world.journal) if self._guards("a claim reads the journal") else 0
            claimed = Engine("ready", lease, seen, TRUST)._asdict()
            yield f"{number} claims", world._replace(lease=lease, left=LEASE).having(number, **claimed)

    def _hold(self, world: World, number: int, engine: Engine) -> Iterator[tuple[str, World]]:
        """What an engine does that holds the run, or believes so."""
        if engine.beat == NOBODY and engine.trust < TRUST:
            yield f"{number} sends a heartbeat", world.having(number, beat=0, kept=None)
        if not engine.trust and self._guards("trust ends before the lease"):
            yield f"{number} drops the run", world.having(number, **Engine()._asdict())
            return
        match engine.phase:
            case "ready":
                yield f"{number} begins a body", self._begun(world, number, engine)
            case "body":
                yield f"{number} ends a body", world.having(number, phase="write")
            case _:
                write = Write(number, engine.lease, engine.seen)
                if write not in world.writes and len(world.writes) < MOST_WRITES:
                    yield f"{number} writes", world._replace(writes=(*world.writes, write))

    def _begun(self, world: World, number: int, engine: Engine) -> World:
        broken = None
        if world.lease == engine.lease and engine.seen < len(world.journal):
            broken = "done is done"
        elif world.lease != engine.lease and not engine.stood_still:
            broken = "alone"
        return world._replace(broken=broken).having(number, phase="body")

    def _heartbeats(self, world: World) -> Iterator[tuple[str, World]]:
        for number, engine in enumerate(world.engines):
            if engine.beat == NOBODY:
                continue
            if engine.kept is None:
                is_held = world.lease == engine.lease or not self._guards("a lost lease is not kept")
                kept = world.having(number, kept=is_held)
                yield f"the heartbeat of {number} arrives", kept._replace(left=LEASE) if is_held else kept
            elif not engine.is_still:
                yield f"{number} hears of its heartbeat", self._heard(world, number, engine)

    def _heard(self, world: World, number: int, engine: Engine) -> World:
        if not engine.kept:
            return world.having(number, **Engine()._asdict())
        passed = engine.beat if self._guards("trust counts from when the heartbeat was sent") else 0
        trust = max(TRUST - passed, engine.trust)
        return world.having(number, beat=NOBODY, kept=None, trust=trust, stood_still=passed >= TRUST)

    def _arrive(self, world: World, write: Write) -> Iterator[tuple[str, World]]:
        sender = world.engines[write.sender]
        waits = sender.phase == "write" and (sender.lease, sender.seen) == (write.lease, write.recorded)
        text = f"the write of {write.sender} arrives"
        left_behind = world._replace(writes=tuple(each for each in world.writes if each != write))
        yield f"{text} nowhere", left_behind
        if world.lease != write.lease and self._guards("writes name the lease"):
            yield text, left_behind.having(write.sender, **Engine()._asdict()) if waits else left_behind
            return
        recorded = write.recorded == len(world.journal) or not self._guards("writes say how many entries they follow")
        journal = (*world.journal, write.recorded) if recorded else world.journal
        has_ended = len(journal) >= LENGTH
        written = left_behind._replace(
            journal=journal,
            has_ended=has_ended,
            broken=None if journal == tuple(range(len(journal))) else "once",
            **({"lease": NOBODY, "left": 0} if has_ended else {}),
        )
        # The answer may get lost: then the sender writes again.
        yield f"{text}, and its answer gets lost", written
        if waits and not sender.is_still:
            after = Engine() if has_ended else sender._replace(phase="ready", seen=write.recorded + 1)
            yield text, written.having(write.sender, **after._asdict())


class Found(NamedTuple):
    """How many states there are, and what is broken by which moves."""

    states: int
    broken: str | None
    moves: tuple[str, ...] = ()


def visited(following: Callable[[World], Iterator[tuple[str, World]]]) -> Found:
    """Visit all states, breadth first, up to the first that is broken."""
    first = World()
    came_from: dict[World, tuple[World, str] | None] = {first: None}
    leads_to: dict[World, list[World]] = {}
    queue = deque([first])
    while queue:
        world = queue.popleft()
        for move, after in following(world):
            after = after.normal()
            # Engines are alike. (So in a path, the numbers of engines may change places on the way.)
            if (mirrored := after.swapped().normal()) in came_from:
                after = mirrored
            leads_to.setdefault(after, []).append(world)
            if after not in came_from:
                came_from[after] = world, move
                queue.append(after)
                if after.broken:
                    return Found(len(came_from), after.broken, path(after, came_from))
    can_end = {world for world in came_from if world.has_ended}
    queue.extend(can_end)
    while queue:
        for world in leads_to.get(queue.popleft(), ()):
            if world not in can_end:
                can_end.add(world)
                queue.append(world)
    stuck = next((world for world in came_from if world not in can_end), None)
    return Found(len(came_from), stuck and "it ends", path(stuck, came_from) if stuck else ())


def path(world: World, came_from: dict[World, tuple[World, str] | None]) -> tuple[str, ...]:
    """The moves that lead to a state."""
    moves: list[str] = []
    while step := came_from[world]:
        world, move = step
        moves.append(move)
    return tuple(reversed(moves))


@pytest.mark.slow
def test_the_protocol_holds():
    """In every state of the model all four things hold."""
    found = visited(Protocol().following)

    assert (None, ()) == (found.broken, found.moves)
    assert found.states > 10_000


@pytest.mark.parametrize("guard", GUARDS)
def test_every_guard_is_needed(guard: str):
    """Without a guard, something does not hold that it is there for."""
    found = visited(Protocol(without=guard).following)

    assert GUARDS[guard] == found.broken, found.moves
    caught("a guard of the lease protocol is left out", "tests/crash/test_lease_model.py", guard)
