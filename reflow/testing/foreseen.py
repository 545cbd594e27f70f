"""What may happen to a run: the states in which `explore` meets it, and the moves that are foreseen in each.

What takes time ends at once, or just before the next timer is over; timers are over one after the other, the earliest
first. That tells apart what can be told apart by time, without a number for every moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import Struct

from reflow._core.definition import Call
from reflow._core.derived import child_id, stem_of
from reflow._core.failure import capture, capture_for
from reflow._core.journal import Entry, cancel_entry
from reflow._core.nodes import Open
from reflow._core.performed import result_type
from reflow._core.retry import next_delay
from reflow._core.runs import Spawn
from reflow._core.status import RunStatus
from reflow._core.steps import Step
from reflow._core.waits import Event, WaitEvent
from reflow.codec import Codec
from reflow.errors import ConfigError, RunFailedError, SerializationError, ValidationError, WaitTimeoutError
from reflow.testing.clock import START
from reflow.testing.stories import Body, Story, shown

__all__ = ["RUN_ID", "End", "Foreseen", "Move", "State", "Way", "body_of", "entry_of"]

RUN_ID = "run"
"""The id of every run that is explored."""


class Way(NamedTuple):
    """One of the outcomes of a body: a value, or an error."""

    value: Any
    error: Exception | None = None


class End(NamedTuple):
    """How a run ended."""

    status: RunStatus
    result: Any = None
    error: BaseException | None = None


class State(Struct, frozen=True, kw_only=True):
    """Where a run may be.

    `due` has the instants of timers by position, `attempts` how many a step has used. `open` are the commands without
    an outcome: position, text, and a digest of their arguments. A `flaw` is what the body itself does wrong.
    """

    call: Call[Any]
    crashes: int
    generation: int = 0
    entries: tuple[Entry, ...] = ()
    now: int = START
    due: dict[str, int] = {}
    attempts: dict[str, int] = {}
    is_cancelled: bool = False
    moves: tuple[str, ...] = ()
    bodies: tuple[Body, ...] = ()
    open: tuple[tuple[str, str, bytes | None], ...] = ()
    end: End | None = None
    flaw: str | None = None

    @property
    def key(self) -> object:
        """Equal for states to which the same has happened, and to which the same may happen."""
        return (
            self.generation,
            tuple((entry.position, entry.kind, entry.failed, entry.payload) for entry in self.entries),
            tuple((b.position, b.generation, b.attempt, b.is_lost, id(b.value), id(b.error)) for b in self.bodies),
            tuple(sorted((position, due_at - self.now) for position, due_at in self.due.items())),
            tuple(sorted(self.attempts.items())),
            (self.crashes, self.is_cancelled, self.end is None, self.flaw),
        )

    def story(self, *, can_go_on: bool) -> Story:
        """What has happened so far."""
        status, result, error = self.end or End(RunStatus.RUNNING if can_go_on else RunStatus.WAITING)
        return Story(
            call=self.call,
            moves=self.moves,
            bodies=self.bodies,
            status=status,
            result=result,
            error=error,
            open=tuple(text for _, text, _ in self.open),
        )


class Move(NamedTuple):
    """What may happen: `body` runs, and `entry` is recorded. Without an entry the step is tried again at `retry_at`;
    without that either, the process dies."""

    text: str
    now: int
    entry: Entry | None = None
    body: Body | None = None
    retry_at: int | None = None


class Foreseen:
    """What may come of steps, children and waits; `can_cancel` where the run may be cancelled as well."""

    def __init__(
        self,
        outcomes: Mapping[Any, Sequence[Any]],
        events: Mapping[Event[Any] | str, Sequence[Any]],
        codec: Codec,
        *,
        can_cancel: bool,
    ) -> None:
        self.codec = codec
        # By identity: a function need not be hashable by value, and keeps its identity as long as it is here.
        self._ways = {id(function): (function, [_way(each) for each in ways]) for function, ways in outcomes.items()}
        self._events = {event.name if isinstance(event, Event) else event: each for event, each in events.items()}
        self._can_cancel = can_cancel

    def ways(self, node: Open) -> list[Way]:
        """What may come of a step or a child; of other commands nothing that anybody could miss."""
        command = node.command
        if not isinstance(command, (Step, Call)):
            return []
        _, ways = self._ways.get(id(_function_of(command)), (None, []))
        if not ways:
            raise ConfigError(f"outcomes does not say what may come of {node}; write {{{command.name}: [...]}}")
        for way in ways:
            if way.error is None:
                try:
                    self.codec.decode(self.codec.encode(way.value), result_type(command))
                except SerializationError as error:
                    raise error.about(f"the outcome {way.value!r} of {node}") from None
        return ways

    def moves(self, state: State, nodes: Sequence[Open]) -> Iterator[Move]:
        """What may happen where these commands are open, in an order that is always the same."""
        awaited: set[str] = set()
        for node in nodes:
            match node.command:
                case Step() | Call():
                    for now in _instants(state, node):
                        yield from self._endings(state, node, now)
                case WaitEvent(name=name):
                    # Whoever has waited longest is first.
                    if name not in awaited:
                        for now in _instants(state, node):
                            yield from self._arrivals(state, node, node.command, now)
                    awaited.add(name)
                    yield from self._time_limit(state, node, node.command)
                case _:
                    yield from self._over(state, node)
        if self._can_cancel and not state.is_cancelled:
            yield Move("the run is cancelled", state.now, cancel_entry(state.now))
        if state.crashes:
            for node in nodes:
                if isinstance(node.command, Step):
                    for way in self.ways(node):
                        body = body_of(state, node, way, is_lost=True)
                        yield Move(f"{body}, and the process dies before that is recorded", state.now, None, body)

    def _endings(self, state: State, node: Open, now: int) -> Iterator[Move]:
        for way in self.ways(node):
            command, body = node.command, body_of(state, node, way)
            text = _later(state, now, str(body))
            if way.error is None:
                yield Move(text, now, entry_of(node, self.codec.encode(way.value), now, attempts=body.attempt), body)
                continue
            if isinstance(command, Step):
                # Half of what jitter may make of it: a story is the same each time.
                delay = next_delay(command.retry, body.attempt, way.error, 0.5)
                if delay is not None:
                    yield Move(f"{text}, and will be tried again", now, None, body, now + delay)
                    continue
                failure = capture_for(command.raises, way.error, self.codec)
            else:
                run_id = child_id(stem_of(RUN_ID, state.generation), node.position)
                failure = capture(RunFailedError(run_id, command.name, capture(way.error)))
            payload = self.codec.encode(failure)
            yield Move(text, now, entry_of(node, payload, now, failed=True, attempts=body.attempt), body)

    def _arrivals(self, state: State, node: Open, command: WaitEvent[Any], now: int) -> Iterator[Move]:
        for sent in self._events.get(command.name, ()):
            text, payload = _later(state, now, f"event {command.name!r} brings {shown(sent)}"), self.codec.encode(sent)
            try:
                command.decode(payload, self.codec)
            except ValidationError as error:
                yield Move(text, now, entry_of(node, self.codec.encode(capture(error)), now, failed=True))
            else:
                yield Move(text, now, entry_of(node, payload, now))

    def _time_limit(self, state: State, node: Open, command: WaitEvent[Any]) -> Iterator[Move]:
        due_at = state.due.get(node.position)
        if due_at is not None and due_at == min(state.due.values()):
            error = WaitTimeoutError(command.name, (command.timeout_us or 0) / 1_000_000)
            entry = entry_of(node, self.codec.encode(capture(error)), due_at, failed=True)
            yield Move(_later(state, due_at, f"no event {command.name!r} has come in time"), due_at, entry)

    def _over(self, state: State, node: Open) -> Iterator[Move]:
        due_at = state.due[node.position]
        if due_at == min(state.due.values()):
            yield Move(
                _later(state, due_at, "the sleep is over"), due_at, entry_of(node, self.codec.encode(None), due_at)
            )


def body_of(state: State, node: Open, way: Way, *, is_lost: bool = False) -> Body:
    """The body of an open step, child or spawn, as it ended."""
    command = node.command
    arguments = command.call.arguments if isinstance(command, Spawn) else getattr(command, "arguments", {})
    args, kwargs = (command.args, command.kwargs) if isinstance(command, Step) else ((), arguments)
    return Body(
        function=_function_of(command),
        name=command.name,
        position=node.position,
        generation=state.generation,
        args=args,
        kwargs=kwargs,
        value=way.value,
        error=way.error,
        attempt=state.attempts.get(node.position, 0) + 1,
        is_lost=is_lost,
    )


def entry_of(node: Open, payload: bytes, now: int, *, failed: bool = False, attempts: int = 1) -> Entry:
    """The outcome of an open command."""
    command = node.command
    return Entry(node.position, command.kind, command.name, failed, payload, attempts, now, now)


def _way(outcome: Any) -> Way:
    if isinstance(outcome, type) and issubclass(outcome, Exception):
        outcome = outcome()
    return Way(None, outcome) if isinstance(outcome, Exception) else Way(outcome)


def _function_of(command: object) -> Any:
    if isinstance(command, Step):
        return command.fn
    return getattr(command.call if isinstance(command, Spawn) else command, "workflow", None)


def _instants(state: State, node: Open) -> Iterator[int]:
    """When an open command may end. The next attempt of a step has to be due, and no timer is passed over."""
    own = state.due.get(node.position) if isinstance(node.command, Step) else None
    timers = [due_at for position, due_at in state.due.items() if own is None or position != node.position]
    earliest = max(state.now, own or 0)
    latest = min(timers, default=earliest)
    if earliest <= latest:
        yield earliest
    if earliest < latest:
        yield latest


def _later(state: State, now: int, text: str) -> str:
    passed_s = (now - state.now) / 1_000_000
    return f"after {passed_s:g} s {text}" if passed_s else text
