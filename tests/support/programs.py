"""Random workflow programs: plain data trees, a generator that interprets them, and a strategy that makes them.

A tree says what a body does: commands in sequence, groups and branches inside each other, failures caught or not,
clean-up that yields, loops, choices by recorded values. How a step ends stands in the tree as well, and what it gives
follows from its name and position; so a run is determined by its tree and by the order in which outcomes arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Literal, TypeAlias, TypeVar
from zlib import crc32

from hypothesis import strategies as st

from reflow import Flow, workflow
from reflow._core.command import Command
from reflow._core.definition import Call
from reflow._core.groups import Winner, gather, race
from reflow._core.journal import Entry, Timer
from reflow._core.retry import Retry
from reflow._core.runs import Spawn, continue_as_new, spawn
from reflow._core.steps import Step, step
from reflow._core.values import Now, new_random, new_uuid, now, patched
from reflow._core.waits import WaitEvent, sleep, wait_event
from reflow.errors import (
    Failure,
    RunCancelledError,
    RunFailedError,
    ValidationError,
    WaitTimeoutError,
    WorkflowCancelled,
)
from tests.support.driven import Driven, work

T = TypeVar("T")

# ---- the tree --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Do:
    """A step: how it is called, how it ends, whether `raises=` lists what it raises, and with which attempt it ends."""

    name: str
    ends: Literal["well", "badly"] = "well"
    listed: bool = False
    tries: int = 1


@dataclass(frozen=True)
class Ask:
    """A wait for an event, or a child run, and how it ends."""

    kind: Literal["event", "child"]
    ends: Literal["well", "badly", "oddly"] = "well"


@dataclass(frozen=True)
class Simple:
    """A command without arguments that matter."""

    kind: Literal["sleep", "now", "uuid", "random", "spawn", "patched"]


@dataclass(frozen=True)
class All:
    """A gather."""

    members: tuple[Member, ...]
    limit: int | None = None
    return_exceptions: bool = False


@dataclass(frozen=True)
class First:
    """A race."""

    members: tuple[Member, ...]


@dataclass(frozen=True)
class Branch:
    """A member of a group that is a sequence of its own."""

    block: Block


@dataclass(frozen=True)
class Perform:
    """Yield a command, plainly or by `yield from`."""

    command: Doable
    plainly: bool = True


@dataclass(frozen=True)
class Prepare:
    """Make two commands, then yield them one after the other."""

    first: Doable
    second: Doable


@dataclass(frozen=True)
class Guard:
    """A try statement: what it catches and does then, and what it does in any case."""

    block: Block
    catches: Literal["nothing", "errors", "cancellation"] = "nothing"
    handler: Block = ()
    clean_up: Block = ()


@dataclass(frozen=True)
class Repeat:
    """A loop."""

    times: int
    block: Block


@dataclass(frozen=True)
class Choose:
    """An if statement over what was seen last."""

    one: Block
    other: Block


@dataclass(frozen=True)
class Help:
    """A helper generator, by `yield from`."""

    block: Block


@dataclass(frozen=True)
class Patch:
    """A change of the code: an if statement over `patched`. Without a `change`, this is the code before it."""

    change: str | None
    new: Block
    old: Block


@dataclass(frozen=True)
class Leave:
    """A return, an exception of the workflow's own, or going on as new, which only the body may."""

    by: Literal["return", "raise", "continue"]


Doable: TypeAlias = Do | Ask | Simple | All | First
Member: TypeAlias = Do | Ask | Simple | All | First | Branch
Statement: TypeAlias = Perform | Prepare | Guard | Repeat | Choose | Help | Patch | Leave
Block: TypeAlias = tuple[Statement, ...]


def everywhere(part: Any, change: Callable[[Any], Any]) -> Any:
    """The program with `change` made to each of its parts, from the inside out."""
    if isinstance(part, tuple):
        return tuple(everywhere(each, change) for each in part)
    if is_dataclass(part):
        inner = {each.name: everywhere(getattr(part, each.name), change) for each in fields(part)}
        return change(replace(part, **inner))
    return part


# ---- the interpreter -------------------------------------------------------------------------------------------------

_LONGEST = 40


class Own(Exception):
    """An exception of the workflow's own."""


class Declined(Exception):
    """What steps raise."""


@workflow
def errand(ends: str) -> Flow[Any]:
    """A child, which nobody runs: the test says how it ends."""
    yield now()


@dataclass
class Trace:
    """What the frames of a run saw, in order: every value and every exception; and which frames are in progress."""

    seen: list[tuple[str, Any]] = field(default_factory=list)
    alive: set[str] = field(default_factory=set)
    frames: int = 0
    waits: int = 0

    def new_frame(self) -> str:
        """A name for a frame, the same whenever the same frames were made before."""
        self.frames += 1
        return f"frame {self.frames}"

    def new_wait(self) -> float:
        """How many seconds longer the next wait is than others are: no two end together, so it is known which first."""
        self.waits += 1
        return self.waits * 1.000_003


@dataclass
class _Frame:
    """A body or branch in progress. What it does follows from what it saw itself, whatever happens beside it."""

    trace: Trace
    name: str
    seen: list[Any] = field(default_factory=list)

    def see(self, value: Any) -> None:
        self.seen.append(described(value))
        self.trace.seen.append((self.name, self.seen[-1]))

    def run(self, block: Block) -> Generator[Any, Any, bool]:
        """Do what `block` says; True where it returns."""
        for statement in block:
            if len(self.seen) >= _LONGEST:
                return True
            match statement:
                case Perform(command, plainly):
                    made = _made(command, self.trace)
                    self.see((yield made) if plainly else (yield from made))
                case Prepare(first, second):
                    one, other = _made(first, self.trace), _made(second, self.trace)
                    self.see((yield one))
                    self.see((yield other))
                case Help(inner):
                    self.see((yield from self.run(inner)))
                case Leave("raise"):
                    raise Own(len(self.seen))
                case Leave("continue"):
                    yield continue_as_new(errand(repr(self.seen[-1:])))
                case _:
                    if (yield from self.flow(statement)):
                        return True
        return False

    def flow(self, statement: Statement) -> Generator[Any, Any, bool]:
        """Do a statement that holds others; True where it returns."""
        match statement:
            case Guard():
                return (yield from self.guard(statement))
            case Repeat(times, inner):
                for _ in range(times):
                    if (yield from self.run(inner)):
                        return True
                return False
            case Choose(one, other):
                even = crc32(repr(self.seen[-1:]).encode()) % 2
                return (yield from self.run(one if even else other))
            case Patch(change, new, old):
                is_new = change is not None and (yield patched(change))
                return (yield from self.run(new if is_new else old))
            case _:
                return True

    def guard(self, guard: Guard) -> Generator[Any, Any, bool]:
        """Do a try statement; True where it returns."""
        caught: tuple[type[BaseException], ...] = {
            "nothing": (),
            "errors": (Exception,),
            "cancellation": (WorkflowCancelled,),
        }[guard.catches]
        try:
            return (yield from self.run(guard.block))
        except caught as error:
            self.see(error)
            return (yield from self.run(guard.handler))
        finally:
            yield from self.run(guard.clean_up)


def frame_of(block: Block, trace: Trace, name: str) -> Generator[Any, Any, Any]:
    """The body or branch that does what `block` says, and returns what it saw last."""
    frame = _Frame(trace, name)
    trace.alive.add(name)
    try:
        yield from frame.run(block)
        return frame.seen[-1:]
    finally:
        trace.alive.discard(name)


def _made(command: Member, trace: Trace) -> Any:
    match command:
        case Do(name, _, listed, tries):
            retry = Retry(max_attempts=tries, initial_delay=3, jitter=False) if tries > 1 else None
            return step(work, command).options(name=name, raises=Declined if listed else (), retry=retry)
        case Ask("event", ends):
            return wait_event(ends, timeout=5 + trace.new_wait())
        case Ask(_, ends):
            return errand(ends)
        case Simple("sleep"):
            return sleep(60 + trace.new_wait())
        case Simple("now"):
            return now()
        case Simple("uuid"):
            return new_uuid()
        case Simple("spawn"):
            return spawn(errand("well"))
        case Simple("patched"):
            return patched("member")
        case Simple():
            return new_random()
        case All(members, limit, return_exceptions):
            made = [_made(member, trace) for member in members]
            return gather(*made, limit=limit, return_exceptions=return_exceptions)
        case First(members):
            return race(*(_made(member, trace) for member in members))
        case Branch(block):
            return frame_of(block, trace, trace.new_frame())


def described(value: Any) -> Any:
    """`value` as data that can be compared, exceptions and random generators included."""
    match value:
        case BaseException():
            return type(value).__name__, str(value)
        case Random():
            return value.random()
        case Winner(index, inner):
            return "winner", index, described(inner)
        case tuple():
            return tuple(map(described, value))
        case _:
            return value


# ---- running them ----------------------------------------------------------------------------------------------------


CANCEL_EVERY = 32
"""Of so many random choices, one cancels the run."""


class Running(Driven):
    """A program under replay. After each entry, what can be seen of it from outside is consistent, or it fails here."""

    def __init__(self, program: Block, journal: Iterable[Entry] = (), timers: Iterable[Timer] = ()) -> None:
        self.trace = Trace()
        self._open: set[str] = set()
        super().__init__(frame_of(program, self.trace, "body"), journal, timers=timers)
        self._check()

    def feed(self, entry: Entry) -> None:
        """Feed an entry, and look at what that did."""
        super().feed(entry)
        self._check(fed=entry.position)

    def settle(self, position: str) -> None:
        """The command at `position` ends as the tree says. At none, the run is cancelled."""
        if position == "":
            self.cancel()
            return
        command: Command[Any] = self.replay.open[position].command
        what = f"{command.name}@{position}"
        match command:
            case Step(args=[Do(ends="well")]) | WaitEvent(name="well") | Call(arguments={"ends": "well"}):
                self.complete(position, what)
            case Step():
                self.fail(position, Declined(what, 5))
            case WaitEvent(name="badly"):
                self.fail(position, WaitTimeoutError(what, 5.0))
            case WaitEvent():
                self.fail(position, ValidationError(what, "does not fit"))
            case Call(arguments={"ends": "badly"}):
                self.fail(position, RunFailedError(self.started(position), what, Failure("Own", what)))
            case Call():
                self.fail(position, RunCancelledError(self.started(position), what))
            case Spawn():
                self.complete(position, self.started(position))
            case Now():
                self.complete(position, datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=len(self.journal)))
            case _:
                self.complete(position)

    def started(self, position: str) -> str:
        """The id of the run that the command at `position` starts."""
        return self.replay.run_id_of(self.replay.open[position])

    def settle_next(self, pick: int) -> None:
        """The open command that `pick` chooses ends, or the run is cancelled."""
        positions = list(self.replay.open)
        self.settle("" if pick % CANCEL_EVERY == CANCEL_EVERY - 1 else positions[pick % len(positions)])

    def settle_all(self, order: Iterable[int] = ()) -> None:
        """Settle open commands until the run has ended: those that `order` chooses, and then the oldest ones."""
        picks = iter(order)
        while not self.has_ended:
            self.settle_next(next(picks, 0))

    @property
    def result(self) -> Any:
        """How the run ended, as data that can be compared."""
        outcome = self.replay.outcome
        if outcome is None:
            return None
        return described(outcome.value), described(outcome.error), outcome.is_cancelled, repr(outcome.continued)

    @property
    def timers(self) -> list[Timer]:
        """What is stored of open commands: a step whose first attempt is under way has left nothing."""
        nodes = self.replay.open.values()
        return [
            Timer(node.position, node.command.kind, node.command.name, 0, 0, 0)
            for node in nodes
            if not isinstance(node.command, Step)
        ]

    @property
    def view(self) -> Any:
        """All that can be seen of the run at this point: what is open, in order, what was seen, and how it ended."""
        return list(self.open.items()), list(self.trace.seen), self.result

    def _check(self, fed: str | None = None) -> None:
        replay = self.replay
        # Fed may be what was opened in the same step: a member that a limit held back, started by its entry.
        self._open = (self._open | {node.position for node in replay.opened}) - {fed}
        assert self._open >= set(replay.cancelled), "what is cancelled was opened"
        self._open -= set(replay.cancelled)
        replay.opened.clear()
        replay.cancelled.clear()
        assert self._open == set(replay.open), "what is open was opened, and neither fed nor cancelled"
        assert bool(replay.open) != self.has_ended, "a run has ended exactly when nothing is open"
        assert not (self.has_ended and self.trace.alive), "an ended run leaves no frame behind"


# ---- making them -----------------------------------------------------------------------------------------------------

_DEEPEST = 4
_STATEMENTS = ("perform",) * 7 + ("guard",) * 4 + ("prepare", "repeat", "choose", "help", "patch", "leave")
_SINGLE = ("do",) * 4 + ("simple", "ask")
_COMMANDS = _SINGLE + ("all",) * 3 + ("first",) * 2


class _Tape:
    """Choices read off bytes; zeros, the simplest choice, when they are used up. Hypothesis varies and shrinks them."""

    def __init__(self, data: bytes) -> None:
        self._data = iter(data)

    def below(self, end: int) -> int:
        return next(self._data, 0) % end

    def one_of(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def block(self, depth: int, *, may_continue: bool) -> Block:
        return tuple(self.statement(depth, may_continue=may_continue) for _ in range(self.one_of((0, 1, 1, 2, 2, 3))))

    def statement(self, depth: int, *, may_continue: bool) -> Statement:
        def inner(*, is_caught: bool = False) -> Block:
            return self.block(depth - 1, may_continue=may_continue and not is_caught)

        match self.one_of(_STATEMENTS) if depth else "perform":
            case "guard":
                catches = self.one_of(("nothing", "errors", "cancellation"))
                # An error of clean-up that takes the place of `continue_as_new` must not be caught.
                return Guard(inner(is_caught=catches == "errors"), catches, inner(), inner())
            case "prepare":
                return Prepare(self.command(depth), self.command(depth))
            case "repeat":
                return Repeat(self.below(4), inner())
            case "choose":
                return Choose(inner(), inner())
            case "help":
                return Help(inner())
            case "patch":
                return Patch(self.one_of("abc"), inner(), inner())
            case "leave":
                return Leave(self.one_of(("return", "raise", "continue") if may_continue else ("return", "raise")))
            case _:
                return Perform(self.command(depth), plainly=not self.below(2))

    def command(self, depth: int) -> Doable:
        match self.one_of(_COMMANDS if depth else _SINGLE):
            case "simple":
                return Simple(self.one_of(("sleep", "now", "uuid", "random", "spawn", "patched")))
            case "ask":
                return Ask(self.one_of(("event", "child")), self.one_of(("well", "well", "badly", "oddly")))
            case "all":
                return All(self.members(depth), self.one_of((None, None, 1, 2)), bool(self.below(2)))
            case "first":
                return First((self.member(depth), *self.members(depth)))
            case _:
                ends, listed = self.one_of(("well",) * 5 + ("badly",)), bool(self.below(2))
                return Do(self.one_of("abcd"), ends, listed, self.one_of((1,) * 5 + (2, 3)))

    def members(self, depth: int) -> tuple[Member, ...]:
        return tuple(self.member(depth) for _ in range(self.one_of((0, 1, 2, 2, 3, 3, 4))))

    def member(self, depth: int) -> Member:
        return Branch(self.block(depth - 1, may_continue=False)) if self.below(2) else self.command(depth - 1)


@st.composite
def programs(draw: st.DrawFn) -> Block:
    """Programs of a few statements, groups and branches nested in them at will."""
    tape = _Tape(draw(st.binary(min_size=100, max_size=400)))
    return tuple(tape.statement(_DEEPEST, may_continue=True) for _ in range(1 + tape.below(6)))


def orders(*, calm: bool = False) -> st.SearchStrategy[bytes]:
    """Orders of completion: which of the open commands ends next, again and again. Calm ones never cancel the run."""
    return st.binary(max_size=40).map(
        lambda picks: bytes(pick % (CANCEL_EVERY - 1) for pick in picks) if calm else picks
    )
