"""A program while it runs: the generators of a workflow, the groups they wait for, and the commands that are open.

Model. The program is a tree. *Frames* are generators in progress: the workflow body, and the branches given to gather
and race. *Groups* are gathers and races in progress. *Open* commands are the leaves: what the engine must perform.
Every node has a parent (a frame, a group, or none for the body) and settles exactly once, with a value or an error:

    open command    settles when it has an outcome, or when it is cancelled
    gather          settles when all its members have: their values, or the first failure
    race            settles with its first member; the others are cancelled and *linger* until they have cleaned up
    frame           settles when its generator returns or raises

A settled child of a frame resumes the generator, which yields the next command or ends; a settled member of a group
may settle the group, or start the next member under `limit`. Cancelling goes down to the leaves; `WorkflowCancelled`
comes back up, thrown at the current yield of each frame on its way, so that clean-up steps may be yielded. A frame
is cancelled once: what it yields after that is clean-up and runs.

Invariants. Between calls nothing is left to do but open commands. Only `settle` and `cancel` move the program on. It
has ended when the body has and nothing lingers.

What can go wrong. The body yields what is not a command, or forgets one: `MisuseError`, raised outside the generator,
where the body cannot swallow it.

Work is done from an agenda, never by recursion, so that neither 10,000 steps in a row nor nesting meets a limit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context
from inspect import GEN_CREATED, getgeneratorstate
from types import GeneratorType
from typing import Any, NamedTuple, assert_never, cast

from reflow._core.command import Command
from reflow._core.definition import Call
from reflow._core.derived import random_at, uuid_at
from reflow._core.forgotten import Forgotten
from reflow._core.groups import Gather, Race, Winner
from reflow._core.location import innermost, location_of
from reflow._core.misuse import discard, explain_raise, explain_return, explain_yield
from reflow._core.nodes import Frame, Group, Node, Open, frame_of
from reflow._core.runs import ContinueAsNew, Continued, Spawn
from reflow._core.steps import Step
from reflow._core.values import NewRandom, NewUuid, Now, Patched
from reflow._core.waits import Sleep, WaitEvent
from reflow.errors import MisuseError, WorkflowCancelled

__all__ = ["Outcome", "Program"]

_MOST_YIELDS_ON_CLOSE = 1_000


class Outcome(NamedTuple):
    """How the body ended: with a value, with the error that it raised, cancelled, or to be continued as `continued`."""

    value: Any
    error: BaseException | None = None
    is_cancelled: bool = False
    continued: Call[Any] | None = None


class Program:
    """The tree of one run.

    `open` holds the commands to be performed, by position and in the order in which they were opened; `opened` and
    `cancelled` collect what became open, and what was cancelled while open, until somebody empties them.

    `stem` is what derived values begin with; `takes_part_in` answers `patched`.
    """

    def __init__(
        self,
        body: GeneratorType[Any, Any, Any],
        context: Context,
        stem: str,
        takes_part_in: Callable[[str], bool],
    ) -> None:
        self.open: dict[str, Open] = {}
        self.opened: list[Open] = []
        self.cancelled: list[str] = []
        self.body = Frame(body, "", None, 0, context)
        self._stem = stem
        self._takes_part_in = takes_part_in
        self._forgotten = Forgotten()
        context.run(self._forgotten.watch)
        self._frames: dict[int, Frame] = {id(self.body): self.body}
        self._held_back: dict[str, Group] = {}
        self._ended: Outcome | None = None
        self._is_cancelled = False
        self._is_continued = False
        self._lingering = 0
        self._agenda: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it has not, clean-up of losers included."""
        return None if self._lingering else self._ended

    @property
    def position(self) -> str | None:
        """The position of the last command that the body has yielded; None before the first."""
        return str(self.body.count - 1) if self.body.count else None

    def start(self) -> None:
        """Run the body up to its first commands."""
        if self._ended is None:
            self._resume(self.body, None, None)
            self._work_off()

    def settle(self, node: Open, value: Any, error: BaseException | None) -> None:
        """Give an open command its outcome, and run the program on as far as that takes it."""
        del self.open[node.position]
        self._settle(node.parent, node.index, value, error)
        if self._agenda:
            self._work_off()

    def cancel(self) -> None:
        """Cancel the body, and all below it. One that was never started ends at once; one that was cancelled before is
        left alone, and one that has ended takes no notice."""
        if self._is_cancelled:
            return
        self._is_cancelled = True
        if getgeneratorstate(self.body.generator) == GEN_CREATED:
            self._resume(self.body, None, WorkflowCancelled())
        else:
            self._cancel(self.body)
            self._work_off()

    def start_early(self, position: str) -> Open | None:
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
        return self.open.get(position)

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
        try:
            yielded = frame.run(frame.send, value) if error is None else frame.run(frame.generator.throw, error)
        except StopIteration as stop:
            self._returned(frame, stop.value)
        except KeyboardInterrupt:
            raise
        except BaseException as raised:
            # Also SystemExit and the like: they end this run, not the engine with all the others.
            self._forgotten.excuse()
            if isinstance(raised, TypeError) and (problem := explain_raise(raised)):
                raise MisuseError(problem, location_of(frame)) from raised
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
        problem = explain_return(value)
        if problem is None and (name := self._forgotten.dropped):
            problem = f"{name!r} was made and never yielded; write `yield` in front of it"
        if problem is None and self._is_continued and not self._is_cancelled and frame is self.body:
            problem = "the body goes on after continue_as_new; let pass what `except BaseException` catches"
        if problem is not None:
            discard(value)
            raise MisuseError(problem, location_of(frame))
        self._end(frame, value, None)

    def _end(self, frame: Frame, value: Any, error: BaseException | None) -> None:
        del self._frames[id(frame)]
        if frame.parent is not None:
            self._later(self._member_settled, frame.parent, frame.index, value, error)
        elif self._is_cancelled and (error is None or isinstance(error, (WorkflowCancelled, Continued))):
            self._ended = Outcome(None, is_cancelled=True)
        elif isinstance(error, Continued):
            self._ended = Outcome(None, continued=error.call)
        else:
            self._ended = Outcome(value, error)

    # ---- opening: from the root down --------------------------------------------------------------------------------

    def _open(self, command: Command[Any], position: str, parent: Frame | Group, index: int) -> None:
        # No case of the match below: that would be slower, and nothing is done as often.
        if isinstance(command, (Step, Sleep, WaitEvent, Now, Call, Spawn)):
            node = Open(command, position, parent, index)
            self.open[position] = node
            self.opened.append(node)
            if isinstance(parent, Frame):
                parent.waits_for = node
            else:
                parent.members[index] = node
            return
        match command:
            case NewUuid():
                self._later(self._settle, parent, index, uuid_at(self._stem, position), None)
            case NewRandom():
                self._later(self._settle, parent, index, random_at(self._stem, position), None)
            case Patched(name=change):
                if isinstance(parent, Frame):
                    # It takes no number, so that what comes after it stays where it was.
                    parent.count -= 1
                self._later(self._settle, parent, index, self._takes_part_in(change), None)
            case ContinueAsNew(call=call):
                if parent is not self.body:
                    problem = "continue_as_new was yielded in a branch or group; only the workflow body can"
                    raise MisuseError(problem, location_of(parent))
                self._is_continued = True
                self._later(self._settle, parent, index, None, Continued(call))
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
                # Once at most: a branch is cancelled by its group, which closes once, and the body by the first cancel.
                # One that has just ended waits for nothing, and is not told any more.
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
