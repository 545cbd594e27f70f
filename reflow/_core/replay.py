"""Replay: a generator fed with entries, live and after a crash alike.

Model. The program is a tree. *Frames* are generators in progress: the workflow body, and the branches given to gather
and race. *Groups* are gathers and races in progress. *Open* commands are the leaves: what the engine must perform.
Every node has a parent (a frame, a group, or none for the body) and settles exactly once, with a value or an error:

    open command    settles when an entry is fed to it, or when it is cancelled
    gather          settles when all its members have: their values, or the first failure
    race            settles with its first member; the others are cancelled and *linger* until they have cleaned up
    frame           settles when its generator returns or raises

A settled child of a frame resumes the generator, which yields the next command or ends; a settled member of a group
may settle the group, or start the next member under `limit`. Cancelling goes down to the leaves; `WorkflowCancelled`
comes back up, thrown at the current yield of each frame on its way, so that clean-up steps may be yielded. A frame
is cancelled once: what it yields after that is clean-up and runs.

Invariants. Between calls nothing is left to do but open commands. Only `feed` moves the program on, and everything it
does follows from the code and from the entries fed so far, in order: that is why a replayed prefix puts the program
exactly where it was. The run has ended when the body has and nothing lingers.

What can go wrong. An entry meets no open command, or one of another kind or name: `NonDeterminismError`. The body
yields what is not a command, or forgets one: `MisuseError`. Stored bytes do not fit the type declared now:
`SerializationError`. All are raised by `start` and `feed`, outside the generator, where the body cannot swallow them.

Work is done from an agenda, never by recursion, so that neither 10,000 steps in a row nor nesting meets a limit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextvars import copy_context
from datetime import datetime
from inspect import GEN_CREATED, getgeneratorstate
from types import GeneratorType
from typing import Any, NamedTuple, assert_never, cast

from reflow._core.commands import Command, Gather, NewRandom, NewUuid, Now, Performed, Race, Sleep, Step, Winner
from reflow._core.derived import random_at, uuid_at
from reflow._core.failure import raised_by_step
from reflow._core.forgotten import Forgotten
from reflow._core.journal import Entry, Timer
from reflow._core.misuse import discard, explain_return, explain_yield
from reflow._core.nodes import Frame, Group, Node, Open, frame_of, innermost, location_of
from reflow.codec import Codec
from reflow.errors import ConfigError, Failure, MisuseError, NonDeterminismError, SerializationError, WorkflowCancelled

__all__ = ["RULES", "Outcome", "Replay", "result_type"]

RULES = 1
"""The version of the rules by which journals are replayed, kept with each run: a later Reflow that changes them can
still tell by which ones a run began."""

_UNDECODED: Any = object()
_MOST_YIELDS_ON_CLOSE = 1_000


class Outcome(NamedTuple):
    """How the body ended: with a value, or with the error that it raised."""

    value: Any
    error: BaseException | None


class Replay:
    """One run's program, driven by entries.

    Call `start` once, then `feed` for every entry; after each, `open` holds the commands to be performed, by position
    and in the order in which they were opened, and `outcome` is set once the run has ended. `opened` and `cancelled`
    collect what became open, and what was cancelled while open, until the caller empties them. When a run is dropped
    unfinished, call `close`.
    """

    def __init__(self, run_id: str, generator: Generator[Any, Any, Any], codec: Codec) -> None:
        self.run_id = run_id
        self.open: dict[str, Open] = {}
        self.opened: list[Open] = []
        self.cancelled: list[str] = []
        self._codec = codec
        self._forgotten = Forgotten()
        context = copy_context()
        context.run(self._forgotten.watch)
        # Made by a generator function, so a real generator: its frame tells the line it stands at.
        self._body = Frame(cast("GeneratorType[Any, Any, Any]", generator), "", None, 0, context)
        self._frames: dict[int, Frame] = {id(self._body): self._body}
        self._held_back: dict[str, Group] = {}
        self._ended: Outcome | None = None
        self._lingering = 0
        self._agenda: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    @property
    def outcome(self) -> Outcome | None:
        """How the run ended; None while it has not, clean-up of losers included."""
        return None if self._lingering else self._ended

    @property
    def position(self) -> str | None:
        """The position of the last command that the body has yielded; None before the first."""
        return str(self._body.count - 1) if self._body.count else None

    def start(self) -> None:
        """Run the body up to its first commands."""
        self._resume(self._body, None, None)
        self._work_off()

    def feed(self, entry: Entry, value: Any = _UNDECODED) -> None:
        """Give an outcome to the open command at its position, and run the program on as far as that takes it.

        `value` is the entry's decoded payload, where the caller has it already.
        """
        node = self.open.pop(entry.position, None) or self._started_early(entry.position)
        if node is None:
            raise self._mismatch(entry)
        command = node.command
        if command.kind != entry.kind or command.name != entry.name:
            raise NonDeterminismError(entry.position, str(entry), str(node), location_of(node))
        if entry.failed:
            self._settle(node.parent, node.index, None, self._error_of(command, entry))
        else:
            if value is _UNDECODED:
                # The step first, and no call more than needed: nothing else is done as often.
                type_ = command.body.result_type if isinstance(command, Step) else result_type(command)
                try:
                    value = self._codec.decode(entry.payload, type_)
                except (SerializationError, ConfigError) as error:
                    raise self._unreadable(entry, error) from None
            self._settle(node.parent, node.index, value, None)
        if self._agenda:
            self._work_off()

    def check(self, timer: Timer) -> None:
        """Make sure that a stored timer meets the open command it belongs to."""
        node = self.open.get(timer.position) or self._started_early(timer.position, keep=True)
        if node is None:
            raise self._mismatch(timer)
        if node.command.kind != timer.kind or node.command.name != timer.name:
            raise NonDeterminismError(timer.position, str(timer), str(node), location_of(node))

    def close(self) -> None:
        """Drop the generators of an unfinished run.

        Python runs their `finally` and `with` blocks now. What they yield is not performed: these blocks run for real
        when the run ends. Errors raised in them are dropped for the same reason.
        """
        for frame in reversed(self._frames.values()):
            # Each yield inside `finally` answers one close(); a generator that never stops yielding is given up.
            for _ in range(_MOST_YIELDS_ON_CLOSE):
                if frame.generator.gi_frame is None:
                    break
                try:
                    # From the inside out: one that yields would reach those around it as an error, and stay open.
                    frame.context.run(innermost(frame.generator).close)
                except KeyboardInterrupt:
                    raise
                except BaseException:
                    pass
        self._frames.clear()
        self.open.clear()

    # ---- settling: from the leaves up -------------------------------------------------------------------------------

    def _work_off(self) -> None:
        agenda = self._agenda
        while agenda:
            do, arguments = agenda.popleft()
            do(*arguments)

    def _settle(self, parent: Frame | Group, index: int, value: Any, error: BaseException | None) -> None:
        if isinstance(parent, Frame):
            parent.waits_for = None
            if parent.cancel_due:
                parent.cancel_due = False
                value, error = None, WorkflowCancelled()
            self._resume(parent, value, error)
        else:
            self._member_settled(parent, index, value, error)

    def _member_settled(self, group: Group, index: int, value: Any, error: BaseException | None) -> None:
        group.members.pop(index, None)
        group.active -= 1
        group.remaining -= 1
        if group.won:
            self._lingering -= 1
        elif isinstance(group.command, Race):
            self._race_member_settled(group, index, value, error)
        else:
            self._gather_member_settled(group, group.command, index, value, error)

    def _race_member_settled(self, group: Group, index: int, value: Any, error: BaseException | None) -> None:
        if group.closing:
            if not group.remaining:
                self._later(self._settle, group.parent, group.index, None, group.error)
            return
        self._close_group(group, None)
        group.won = True
        self._lingering += group.remaining
        self._later(self._settle, group.parent, group.index, None if error else Winner(index, value), error)

    def _gather_member_settled(
        self, group: Group, command: Gather[Any], index: int, value: Any, error: BaseException | None
    ) -> None:
        if error is None:
            group.values[index] = value
        elif command.return_exceptions and isinstance(error, Exception):
            group.values[index] = error
        elif not group.closing:
            self._close_group(group, error)
        if not group.remaining:
            self._held_back.pop(group.position, None)
            values = None if group.error else tuple(group.values)
            self._later(self._settle, group.parent, group.index, values, group.error)
        elif not group.closing:
            self._start_members(group)

    def _resume(self, frame: Frame, value: Any, error: BaseException | None) -> None:
        generator = frame.generator
        try:
            if error is None:
                yielded = frame.context.run(generator.send, value)
            else:
                yielded = frame.context.run(generator.throw, error)
        except StopIteration as stop:
            self._returned(frame, stop.value)
        except KeyboardInterrupt:
            raise
        except BaseException as raised:
            # Also SystemExit and the like: they end this run, not the engine with all the others.
            self._forgotten.excuse()
            self._end(frame, None, raised)
        else:
            self._yielded(frame, yielded)

    def _yielded(self, frame: Frame, command: Command[Any]) -> None:
        if not isinstance(command, Command):
            problem = explain_yield(command)
            discard(command)
            raise MisuseError(problem, location_of(frame))
        if name := self._forgotten.dropped:
            problem = f"{name!r} was made and never yielded before this line; write `yield` in front of it"
            raise MisuseError(problem, location_of(frame))
        self._forgotten.made.clear()
        position = f"{frame.prefix}{frame.count}"
        frame.count += 1
        self._open(command, position, frame, 0)

    def _returned(self, frame: Frame, value: Any) -> None:
        problem = explain_return(value) or _explain_command(value)
        if problem is None and (name := self._forgotten.dropped):
            problem = f"{name!r} was made and never yielded; write `yield` in front of it"
        if problem is not None:
            discard(value)
            raise MisuseError(problem, location_of(frame))
        self._end(frame, value, None)

    def _end(self, frame: Frame, value: Any, error: BaseException | None) -> None:
        del self._frames[id(frame)]
        if frame.parent is None:
            self._ended = Outcome(value, error)
        else:
            self._later(self._member_settled, frame.parent, frame.index, value, error)

    # ---- opening: from the root down --------------------------------------------------------------------------------

    def _open(self, command: Command[Any], position: str, parent: Frame | Group, index: int) -> None:
        match command:
            case Step() | Sleep() | Now():
                node = Open(command, position, parent, index)
                self.open[position] = node
                self.opened.append(node)
                if isinstance(parent, Frame):
                    parent.waits_for = node
                else:
                    parent.members[index] = node
            case NewUuid():
                self._later(self._settle, parent, index, uuid_at(self.run_id, position), None)
            case NewRandom():
                self._later(self._settle, parent, index, random_at(self.run_id, position), None)
            case Gather() | Race():
                group = Group(command, position, parent, index)
                if isinstance(parent, Frame):
                    parent.waits_for = group
                else:
                    parent.members[index] = group
                if group.remaining:
                    self._start_members(group)
                else:
                    self._later(self._settle, parent, index, (), None)
            case _:
                raise AssertionError(f"a command of an unknown kind: {command!r}")

    def _start_members(self, group: Group) -> None:
        limit = group.command.limit if isinstance(group.command, Gather) else None
        while group.unstarted and (limit is None or group.active < limit):
            self._start_member(group, group.unstarted.popleft())
        if group.unstarted:
            self._held_back[group.position] = group
        else:
            self._held_back.pop(group.position, None)

    def _start_member(self, group: Group, index: int) -> None:
        group.active += 1
        self._later(self._open_member, group, index)

    def _open_member(self, group: Group, index: int) -> None:
        if group.closing:
            # A sibling that settled at once has closed the group in the meantime.
            self._member_settled(group, index, None, WorkflowCancelled())
            return
        member = group.command.members[index]
        position = f"{group.position}.{index}"
        if isinstance(member, Command):
            self._open(member, position, group, index)
            return
        branch = cast("GeneratorType[Any, Any, Any]", member)
        parent = frame_of(group)
        if getgeneratorstate(branch) != GEN_CREATED:
            problem = f"the branch {branch.__name__!r} has already run; call {branch.__name__}(...) again for a new one"
            raise MisuseError(problem, location_of(parent))
        frame = Frame(branch, f"{position}.", group, index, parent.context.copy())
        group.members[index] = frame
        self._frames[id(frame)] = frame
        self._resume(frame, None, None)

    def _started_early(self, position: str, *, keep: bool = False) -> Open | None:
        """The open command at `position`, in a member that `limit` has held back so far.

        The journal says that it was started, so it was: a smaller limit in new code does not break a run.
        """
        above, *path = position.split(".")
        for index in path:
            group = self._held_back.get(above)
            if group and index.isdecimal() and int(index) in group.unstarted:
                group.unstarted.remove(int(index))
                self._start_member(group, int(index))
                self._work_off()
            above = f"{above}.{index}"
        return self.open.get(position) if keep else self.open.pop(position, None)

    # ---- cancelling: from the root down -----------------------------------------------------------------------------

    def _close_group(self, group: Group, error: BaseException | None) -> None:
        """Start no more members, cancel those under way, and settle with `error` in the end."""
        group.closing = True
        group.error = error
        group.remaining -= len(group.unstarted)
        group.unstarted.clear()
        self._held_back.pop(group.position, None)
        for member in group.members.values():
            self._later(self._cancel, member)

    def _cancel(self, node: Node) -> None:
        match node:
            case Open():
                if self.open.get(node.position) is node:
                    del self.open[node.position]
                    self.cancelled.append(node.position)
                    self._settle(node.parent, node.index, None, WorkflowCancelled())
            case Frame():
                # Once at most: a frame is cancelled by its group, and a group closes once. One that has just ended
                # waits for nothing, and is not told any more.
                node.cancel_due = True
                if node.waits_for is not None:
                    self._later(self._cancel, node.waits_for)
            case Group():
                if not node.closing and node.remaining:
                    self._close_group(node, WorkflowCancelled())
            case _:
                assert_never(node)

    def _later(self, do: Callable[..., None], *arguments: Any) -> None:
        self._agenda.append((do, arguments))

    # ---- reading entries --------------------------------------------------------------------------------------------

    def _error_of(self, command: Performed, entry: Entry) -> BaseException:
        try:
            failure: Failure = self._codec.decode(entry.payload, Failure)
        except (SerializationError, ConfigError) as error:
            raise self._unreadable(entry, error) from None
        raises = command.raises if isinstance(command, Step) else ()
        return raised_by_step(raises, entry.name, entry.position, entry.attempts, failure)

    def _unreadable(self, entry: Entry, error: SerializationError | ConfigError) -> SerializationError | ConfigError:
        """The same error, said of this entry."""
        subject = f"the recorded outcome of {entry} at position {entry.position} of run {self.run_id!r}"
        return error.about(subject) if isinstance(error, SerializationError) else ConfigError(f"{subject}: {error}")

    # ---- saying where -----------------------------------------------------------------------------------------------

    def _mismatch(self, recorded: Entry | Timer) -> NonDeterminismError:
        """An outcome was recorded where the code now has nothing open."""
        if self.open:
            nearest = self._neighbour(recorded.position)
            yielded, location = f"{nearest} at position {nearest.position}", location_of(nearest)
        else:
            body = self._body.generator
            yielded, location = f"the workflow {body.__name__!r} has ended", location_of(self._body)
        return NonDeterminismError(recorded.position, str(recorded), yielded, location)

    def _neighbour(self, position: str) -> Open:
        """The open command that shares most of `position`: the likeliest counterpart."""

        def shared(node: Open) -> int:
            return next(
                (i for i, (a, b) in enumerate(zip(node.position, position, strict=False)) if a != b),
                min(len(node.position), len(position)),
            )

        return max(self.open.values(), key=shared)


def _explain_command(value: object) -> str | None:
    """Why `value`, if it is a command, cannot be returned."""
    if not isinstance(value, Command):
        return None
    made = f"step({value.name}, ...)" if isinstance(value, Step) else f"{value.name}(...)"
    return f"a command was returned; write `return (yield {made})`"


def result_type(command: Performed) -> Any:
    """The type as which the outcome of `command` is read."""
    match command:
        case Step():
            return command.body.result_type
        case Sleep():
            return None
        case Now():
            return datetime
        case _:
            assert_never(command)
