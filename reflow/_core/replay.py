"""Replay: a program fed with entries, live and after a crash alike.

A program (program.py) is moved on by outcomes only; a journal has them in the order in which they arrived. Each entry
must meet an open command at its position, of the same kind and name; feeding it may open new ones. That is all there is
to recovery: a replayed prefix puts the program exactly where it was, and what is open then is what must be performed.

Two kinds of entries are for no command. A cancel cancels the workflow body. A mark says that the run takes the new way
through a change of the code; `patched` is answered from the marks, wherever in the journal they stand.

What can go wrong. An entry meets no open command, or one of another kind or name: `NonDeterminismError`. Stored bytes
do not fit the type declared now: `SerializationError`. Both, and what a program does wrong (`MisuseError`), are raised
by `start` and `feed`, outside the generator, where the body cannot swallow them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextvars import copy_context
from types import GeneratorType
from typing import Any, cast

from reflow._core.context import RunContext
from reflow._core.definition import Call
from reflow._core.derived import child_id, stem_of
from reflow._core.digest import digest_of
from reflow._core.failure import raised_by
from reflow._core.journal import CANCEL, PATCHED, Entry, Journal, Timer
from reflow._core.location import location_of
from reflow._core.nodes import Open
from reflow._core.performed import Performed, result_type
from reflow._core.program import Outcome, Program
from reflow._core.runs import Spawn
from reflow._core.steps import Step
from reflow._core.stored import Stored
from reflow.codec import Codec
from reflow.errors import ConfigError, Failure, NonDeterminismError, SerializationError

__all__ = ["RULES", "Replay"]

RULES = 1
"""The version of the rules by which journals are replayed, kept with each run: a later Reflow that changes them can
still tell by which ones a run began."""

_UNDECODED: Any = object()
_NOTHING = Stored(Journal([], []))


class Replay:
    """One run's program, driven by entries.

    Call `start` once, then `catch_up` until all that is stored has been fed, then `feed` for every new entry. After
    each, `open` holds the commands to be performed, by position and in the order in which they were opened, and
    `outcome` is set once the run has ended. `opened` and `cancelled` collect what became open, and what was cancelled
    while open; `marks` the changes that the run takes part in from now on, to be recorded before any other entry. The
    caller empties all three. When a run is dropped unfinished, call `close`.

    `generation` counts how often the run was continued as new. `on_other_arguments` is called with each stored entry
    whose command has other arguments now, and with its `file:line`. Looking costs half as much as feeding, so it can be
    left at the latest `compared` entries.
    """

    def __init__(
        self,
        run_id: str,
        generator: Generator[Any, Any, Any],
        codec: Codec,
        journal: Journal | None = None,
        *,
        workflow: str | None = None,
        generation: int = 0,
        on_other_arguments: Callable[[Entry, str], None] | None = None,
        compared: int | None = None,
    ) -> None:
        self.run_id = run_id
        self.marks: list[str] = []
        self._stem = stem_of(run_id, generation)
        self._codec = codec
        self._stored = Stored(journal) if journal else _NOTHING
        self._on_other_arguments = on_other_arguments
        self._compared_after = 0 if compared is None else len(self._stored.entries) - compared
        self._changes: dict[str, bool] = {}
        # Made by a generator function, so a real generator: its frame tells the line it stands at.
        body = cast("GeneratorType[Any, Any, Any]", generator)
        self._context = RunContext(run_id, workflow or body.__name__, not self._stored.is_empty)
        context = copy_context()
        context.run(self._context.enter)
        self._program = Program(body, context, self._stem, self._takes_part_in)
        self.open = self._program.open
        self.opened = self._program.opened
        self.cancelled = self._program.cancelled

    @property
    def outcome(self) -> Outcome | None:
        """How the run ended; None while it has not, clean-up of losers included."""
        return self._program.outcome

    @property
    def position(self) -> str | None:
        """The position of the last command that the body has yielded; None before the first."""
        return self._program.position

    def run_id_of(self, node: Open) -> str:
        """The id of the run that `node`, a child or a spawn, starts."""
        command = node.command
        call = command.call if isinstance(command, Spawn) else command
        own = call.run_id if isinstance(call, Call) else None
        return own or child_id(self._stem, node.position)

    def start(self) -> None:
        """Run the body up to its first commands."""
        self._program.start()
        if not self._stored.entries:
            self._go_live()

    def catch_up(self, most: int | None = None) -> bool:
        """Feed what is stored, `most` entries at a time; whether some are left. With the last one, the body is where it
        was, and what it does from then on is new."""
        stored = self._stored
        entries = stored.entries
        end = len(entries) if most is None else min(stored.fed + most, len(entries))
        while stored.fed < end:
            entry = entries[stored.fed]
            stored.fed += 1
            if stored.fed > self._compared_after and entry.digest is not None and self._on_other_arguments is not None:
                self._compare_arguments(entry, self._on_other_arguments)
            # What is opened and answered within the journal needs nothing more.
            self.opened.clear()
            self.feed(entry)
        self.opened[:] = self.open.values()
        self.cancelled.clear()
        if end == len(entries):
            self._go_live()
        return end < len(entries)

    def feed(self, entry: Entry, value: Any = _UNDECODED) -> None:
        """Give an outcome to the open command at its position, and run the program on as far as that takes it.

        `value` is the entry's decoded payload, where the caller has it already.
        """
        node = self.open.get(entry.position)
        if node is None:
            if entry.kind == CANCEL:
                return self._program.cancel()
            if entry.kind == PATCHED:
                self._changes.setdefault(entry.name, True)
                return
            if (node := self._program.start_early(entry.position)) is None:
                raise self._mismatch(entry)
        command = node.command
        if command.kind != entry.kind or command.name != entry.name:
            raise NonDeterminismError(entry.position, str(entry), str(node), location_of(node))
        error: BaseException | None = None
        if entry.failed:
            value, error = None, self._error_of(command, entry)
        elif value is _UNDECODED:
            # The step first, and no call more than needed: nothing else is done as often.
            type_ = command.body.result_type if isinstance(command, Step) else result_type(command)
            try:
                value = self._codec.decode(entry.payload, type_)
            except (SerializationError, ConfigError) as unreadable:
                raise self._unreadable(entry, unreadable) from None
        self._program.settle(node, value, error)

    def check(self, timer: Timer) -> None:
        """Make sure that a stored timer meets the open command it belongs to."""
        node = self.open.get(timer.position) or self._program.start_early(timer.position)
        if node is None:
            raise self._mismatch(timer)
        if node.command.kind != timer.kind or node.command.name != timer.name:
            raise NonDeterminismError(timer.position, str(timer), str(node), location_of(node))

    def close(self) -> None:
        """Drop the generators of an unfinished run; what their clean-up blocks yield or raise now is dropped too."""
        self._context.is_replaying = True
        self._program.close()

    def _go_live(self) -> None:
        self._stored = _NOTHING
        self._context.is_replaying = False

    def _takes_part_in(self, change: str) -> bool:
        """Whether the run takes the new way through `change`: decided once, where it is first asked."""
        known = self._changes.get(change)
        if known is None:
            known = change in self._stored.changes
            if not known and not self._stored.goes_on(self.open):
                known = True
                self.marks.append(change)
            self._changes[change] = known
        return known

    # ---- reading entries --------------------------------------------------------------------------------------------

    def _compare_arguments(self, entry: Entry, tell: Callable[[Entry, str], None]) -> None:
        node = self.open.get(entry.position)
        if node is None or (node.command.kind, node.command.name) != (entry.kind, entry.name):
            # No command of another kind or name: the feeding that follows says so, and nothing of it stands.
            return
        if digest_of(node.command) != entry.digest:
            tell(entry, location_of(node))

    def _error_of(self, command: Performed, entry: Entry) -> BaseException:
        try:
            failure: Failure = self._codec.decode(entry.payload, Failure)
            return raised_by(entry, failure, command.raises if isinstance(command, Step) else ())
        except (SerializationError, ConfigError) as error:
            raise self._unreadable(entry, error) from None

    def _unreadable(self, entry: Entry, error: SerializationError | ConfigError) -> SerializationError | ConfigError:
        """The same error, said of this entry."""
        subject = f"the recorded outcome of {entry} at position {entry.position} of run {self.run_id!r}"
        return error.about(subject) if isinstance(error, SerializationError) else ConfigError(f"{subject}: {error}")

    # ---- saying where -----------------------------------------------------------------------------------------------

    def _mismatch(self, recorded: Entry | Timer) -> NonDeterminismError:
        """An outcome was recorded where the code now has nothing open."""
        if self.open:
            nearest, cause = self._neighbour(recorded.position), None
            yielded, location = f"{nearest} at position {nearest.position}", location_of(nearest)
        else:
            body, ended = self._program.body, self._program.outcome
            cause = None if ended is None else ended.error
            how = "ended" if cause is None else f"raised {type(cause).__name__}: {cause}".removesuffix(": ")
            yielded, location = f"the workflow {body.generator.__name__!r} has {how}", location_of(body)
        error = NonDeterminismError(recorded.position, str(recorded), yielded, location)
        error.__cause__ = cause
        return error

    def _neighbour(self, position: str) -> Open:
        """The open command that shares most of `position`: the likeliest counterpart."""

        def shared(node: Open) -> int:
            return next(
                (i for i, (a, b) in enumerate(zip(node.position, position, strict=False)) if a != b),
                min(len(node.position), len(position)),
            )

        return max(self.open.values(), key=shared)
