"""`explore`: every way in which one workflow can go, to a bound, without an event loop.

Model. A *state* is a journal, the bodies that ran, and the timers that wait. A *move* is what may happen next:

    a step or a child ends     with each of its outcomes; what its `retry` tries again is followed by another attempt
    an event arrives           each that is foreseen
    a timer is over            the earliest: of a sleep, or the time limit of a wait
    the run is cancelled       once
    the process dies           after a body had its effect, and before its outcome was recorded: the body runs again

What is cancelled by a move, such as the loser of a race, may have had its effect before, and may not: there is a state
for each, though for one body at a time. Spawned runs and `now()` take no time, and are no choice.

States are visited breadth first, so the first bad story is one of the shortest. Generators cannot be copied: a state is
entered by replaying its journal into a new one, as a process does that follows one that died here. It has to find what
was left: if it does not, the body depends on something that is not in the journal.

States that have the same journal, bodies and timers are one. Two orders of the same outcomes stay two, since nobody can
look into a generator to see that they make no difference to it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from reflow._core.definition import Call, Workflow
from reflow._core.digest import digest_of
from reflow._core.duration import from_micros
from reflow._core.journal import CANCEL, Entry, Journal, patch_entry
from reflow._core.nodes import Open
from reflow._core.program import Outcome
from reflow._core.replay import Replay
from reflow._core.runs import Spawn
from reflow._core.status import RunStatus
from reflow._core.values import Now
from reflow._core.waits import Event, Sleep, WaitEvent
from reflow.codec import Codec, MsgpackCodec
from reflow.errors import MisuseError, NonDeterminismError, SerializationError
from reflow.testing.foreseen import RUN_ID, End, Foreseen, Move, State, Way, body_of, entry_of
from reflow.testing.stories import Story

__all__ = ["BadStoryError", "Explored", "Invariant", "explore"]

Invariant: TypeAlias = Callable[[Story], bool | None]
"""What must hold of every story: it returns False or raises AssertionError where it does not."""


class Explored(Struct, frozen=True):
    """What was explored, and found to be right: how many states, whether those were all, and in how many of them a run
    is over, by status (`waiting` where nothing that is foreseen lets it go on)."""

    states: int
    is_complete: bool
    endings: dict[RunStatus, int]


class BadStoryError(AssertionError):
    """A story that must not happen, one of the shortest. `states` is how many were looked at."""

    def __init__(self, story: Story, reason: str, states: int) -> None:
        super().__init__(story, reason, states)
        self.story = story
        self.reason = reason
        self.states = states

    def __str__(self) -> str:
        return f"{self.reason}\n{self.story}\n(the shortest of its kind, found after {self.states} states)"


def explore(
    call: Call[Any],
    *,
    outcomes: Mapping[Callable[..., Any] | Workflow[..., Any], Sequence[Any]],
    invariant: Invariant,
    events: Mapping[Event[Any] | str, Sequence[Any]] | None = None,
    cancel: bool = True,
    crashes: int = 1,
    most: int = 10_000,
    codec: Codec | None = None,
) -> Explored:
    """Try every way in which a run of `call` can go, and check `invariant` at every moment of it.

    `outcomes` says of each function that is used as a step, and of each workflow that is used as a child, what may come
    of it: values, and exceptions, as classes or instances. `events` says which payloads may arrive, by `Event` or name.
    With `cancel`, the run may be cancelled at any moment; `crashes` is how often the process may die after a body had
    its effect and before that was recorded. No body is called, and nobody waits.

        def paid_for_what_was_shipped(story: Story) -> bool:
            return not story.has_ended or story.count(charge) - story.count(refund) == story.count(ship)

        explore(
            order(7),
            outcomes={charge: ["receipt", Declined], ship: [None, OutOfStock], refund: [None]},
            invariant=paid_for_what_was_shipped,
        )

    Raises `BadStoryError` with a shortest story of which the invariant does not hold, or in which the body misuses
    commands, or depends on what is not in its journal. Stops after `most` states: then `is_complete` is False. Raises
    `ConfigError` where `outcomes` lacks a step, and `SerializationError` where a value is not of the step's type.
    """
    __tracebackhide__ = True
    search = _Search(Foreseen(outcomes, events or {}, codec or MsgpackCodec(), can_cancel=cancel))
    first = search.first(State(call=call, crashes=crashes))
    queue, known = deque([first]), {first.key}
    endings: Counter[RunStatus] = Counter()
    states = 0
    while queue and states < most:
        state = queue.popleft()
        states += 1
        following = [] if state.end or state.flaw else list(search.following(state))
        story = state.story(can_go_on=bool(following))
        if reason := state.flaw or _objection(invariant, story):
            raise BadStoryError(story, reason, states)
        if not following:
            endings[story.status] += 1
        for each in following:
            if (key := each.key) not in known:
                known.add(key)
                queue.append(each)
    return Explored(states, not queue, dict(endings))


def _objection(invariant: Invariant, story: Story) -> str | None:
    """What the invariant has against a story."""
    name = getattr(invariant, "__name__", repr(invariant))
    try:
        holds = invariant(story)
    except AssertionError as error:
        return f"{name} does not hold: {error}" if str(error) else f"{name} does not hold"
    return f"{name} does not hold" if holds is False else None


class _Search:
    """Says which states follow a state."""

    def __init__(self, foreseen: Foreseen) -> None:
        self._foreseen = foreseen
        self._codec = foreseen.codec

    def first(self, state: State) -> State:
        """The state in which the body has yielded its first commands."""
        replay = self._replay_of(state)
        try:
            replay.start()
            return self._reached(state, replay)
        except MisuseError as error:
            return replace(state, flaw=str(error))
        finally:
            replay.close()

    def following(self, state: State) -> Iterator[State]:
        """The states that may follow, in an order that is always the same."""
        replay = self._replay_of(state)
        try:
            _enter(replay)
            found = _open_commands(replay)
            moves = list(self._foreseen.moves(state, list(replay.open.values())))
        except (NonDeterminismError, MisuseError) as error:
            yield replace(state, flaw=f"replayed, the body does something else than before: {error}")
            return
        finally:
            replay.close()
        if found == state.open:
            for move in moves:
                yield from self._after(state, move)
        else:
            yield replace(state, flaw=_difference(state, found))

    def _after(self, state: State, move: Move) -> Iterator[State]:
        """The states after a move: one, and another for each body that it cancelled and that may have run before."""
        entry, bodies = move.entry, (*state.bodies, move.body) if move.body else state.bodies
        moved = replace(state, now=move.now, bodies=bodies, moves=(*state.moves, move.text))
        if entry is None:
            if move.retry_at is None:
                yield replace(moved, crashes=state.crashes - 1)
            elif move.body:
                position = move.body.position
                attempts = state.attempts | {position: move.body.attempt}
                yield replace(moved, attempts=attempts, due=state.due | {position: move.retry_at})
            return
        moved = replace(moved, entries=(*state.entries, entry), is_cancelled=state.is_cancelled or entry.kind == CANCEL)
        replay = self._replay_of(state)
        try:
            _enter(replay)
            before = dict(replay.open)
            replay.feed(entry)
            gone = [before[position] for position in replay.cancelled if position in before]
            after = self._reached(moved, replay)
        except (NonDeterminismError, MisuseError) as error:
            yield replace(moved, flaw=str(error))
            return
        finally:
            replay.close()
        yield after
        for node in gone:
            for way in self._foreseen.ways(node):
                body = body_of(state, node, way, is_lost=True)
                text = f"{body}, and before that is recorded:"
                bodies = (*state.bodies, body, *after.bodies[len(state.bodies) :])
                yield replace(after, bodies=bodies, moves=(*state.moves, text, *after.moves[len(state.moves) :]))

    def _replay_of(self, state: State) -> Replay:
        workflow = state.call.workflow
        generator = workflow.start(workflow.encode_input(state.call.arguments, self._codec), self._codec)
        journal = Journal(list(state.entries), [])
        return Replay(RUN_ID, generator, self._codec, journal, workflow=workflow.name, generation=state.generation)

    def _reached(self, state: State, replay: Replay) -> State:
        """The state of a body that was moved on: what takes no time has its outcome."""
        now, entries = state.now, list(state.entries)
        bodies, moves = list(state.bodies), list(state.moves)
        while True:
            entries += [patch_entry(change, now) for change in replay.marks]
            replay.marks.clear()
            node = next((node for node in replay.open.values() if _takes_no_time(state, node)), None)
            if node is None:
                break
            entry = self._instant(replay, node, now)
            if isinstance(node.command, Spawn):
                body = body_of(state, node, Way(replay.run_id_of(node)))
                bodies.append(body)
                moves.append(f"spawned: {body}")
            entries.append(entry)
            replay.feed(entry)
        reached = replace(
            state,
            entries=tuple(entries),
            bodies=tuple(bodies),
            moves=tuple(moves),
            due=_timers(state, replay),
            attempts={position: used for position, used in state.attempts.items() if position in replay.open},
            open=_open_commands(replay),
        )
        return self._ended(reached, replay.outcome) if replay.outcome else reached

    def _instant(self, replay: Replay, node: Open, now: int) -> Entry:
        match node.command:
            case Now():
                value: Any = from_micros(now)
            case Spawn():
                value = replay.run_id_of(node)
            case _:
                value = None
        return entry_of(node, self._codec.encode(value), now)

    def _ended(self, state: State, outcome: Outcome) -> State:
        if outcome.error is not None:
            return replace(state, end=End(RunStatus.FAILED, error=outcome.error))
        if outcome.is_cancelled:
            return replace(state, end=End(RunStatus.CANCELLED))
        if (call := outcome.continued) is not None:
            moves = (*state.moves, f"the run continues as {call!r}")
            return self.first(
                replace(
                    state,
                    call=call,
                    generation=state.generation + 1,
                    entries=(),
                    moves=moves,
                    due={},
                    attempts={},
                    open=(),
                )
            )
        workflow = state.call.workflow
        try:
            result = self._codec.decode(self._codec.encode(outcome.value), workflow.output_type)
        except SerializationError as error:
            error = error.about(f"the return value of workflow {workflow.name!r}")
            return replace(state, end=End(RunStatus.FAILED, error=error))
        return replace(state, end=End(RunStatus.COMPLETED, result))


def _enter(replay: Replay) -> None:
    """Bring a new body to where the run is."""
    replay.start()
    replay.catch_up()


def _takes_no_time(state: State, node: Open) -> bool:
    match node.command:
        case Now() | Spawn():
            return True
        case Sleep() as sleep:
            return node.position not in state.due and sleep.wakes_at(state.now) <= state.now
        case _:
            return False


def _timers(state: State, replay: Replay) -> dict[str, int]:
    """What waits for a time: as before, and what has just begun to wait."""
    known = {position for position, _, _ in state.open}
    due = {position: due_at for position, due_at in state.due.items() if position in replay.open}
    for position, node in replay.open.items():
        if position not in known:
            match node.command:
                case Sleep() as sleep:
                    due[position] = sleep.wakes_at(state.now)
                case WaitEvent(timeout_us=int(timeout_us)):
                    due[position] = state.now + timeout_us
                case _:
                    pass
    return due


def _open_commands(replay: Replay) -> tuple[tuple[str, str, bytes | None], ...]:
    return tuple((position, str(node), digest_of(node.command)) for position, node in replay.open.items())


def _difference(state: State, found: tuple[tuple[str, str, bytes | None], ...]) -> str:
    before = [f"{text} at {position}" for position, text, _ in state.open if (position, text, _) not in found]
    after = [f"{text} at {position}" for position, text, _ in found if (position, text, _) not in state.open]
    return (
        "replayed, the body yields something else than before, so it depends on what is not in its journal: "
        f"{', '.join(before) or 'nothing'} became {', '.join(after) or 'nothing'}"
        f"{' with other arguments' if before == after else ''}"
    )
