"""A workflow body under replay, with the test in the engine's place: it says how each open command ends."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from reflow._core.digest import digest_of
from reflow._core.failure import capture, capture_for
from reflow._core.journal import Entry, Journal, Timer, cancel_entry, patch_entry
from reflow._core.replay import Replay
from reflow._core.steps import Step, step
from reflow.codec import MsgpackCodec

CODEC = MsgpackCodec()


class Driven:
    """A body that was started; `complete` and `fail` settle one open command each and keep the journal."""

    def __init__(
        self,
        body: Generator[Any, Any, Any],
        journal: Iterable[Entry] = (),
        run_id: str = "run-1",
        *,
        timers: Iterable[Timer] = (),
        **options: Any,
    ) -> None:
        stored = Journal(list(journal), list(timers))
        self.replay = Replay(run_id, body, CODEC, stored, **options)
        self.journal: list[Entry] = []
        with self._closed_on_error():
            self.replay.start()
            while stored.entries and self.replay.catch_up(2):
                pass
        self.journal += stored.entries
        self._record_marks()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.replay.close()

    def feed(self, entry: Entry) -> None:
        """Feed an entry, and keep it where it was accepted."""
        with self._closed_on_error():
            self.replay.feed(entry)
        self.journal.append(entry)
        self._record_marks()

    def _record_marks(self) -> None:
        self.journal += [patch_entry(change, 0) for change in self.replay.marks]
        self.replay.marks.clear()

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        """What start and feed raise ends the run, so an engine drops it."""
        try:
            yield
        except BaseException:
            self.replay.close()
            raise

    def complete(self, position: str, value: Any = None) -> Driven:
        """The command at `position` ends with `value`."""
        self.feed(self.entry(position, CODEC.encode(value)))
        return self

    def fail(self, position: str, error: BaseException) -> Driven:
        """The command at `position` fails with `error`."""
        command = self.replay.open[position].command
        raises = command.raises if isinstance(command, Step) else ()
        self.feed(self.entry(position, CODEC.encode(capture_for(raises, error, CODEC)), failed=True))
        return self

    def cancel(self) -> Driven:
        """The run is cancelled."""
        self.feed(cancel_entry(0))
        return self

    def entry(self, position: str, payload: bytes, *, failed: bool = False) -> Entry:
        """The entry that the command open at `position` gets."""
        command = self.replay.open[position].command
        return Entry(position, command.kind, command.name, failed, payload, 1, 0, 0, digest_of(command))

    @property
    def open(self) -> dict[str, str]:
        """The names of the open commands by position, in the order in which they were opened."""
        return {position: node.command.name for position, node in self.replay.open.items()}

    @property
    def has_ended(self) -> bool:
        """Whether the run has ended."""
        return self.replay.outcome is not None

    @property
    def value(self) -> Any:
        """What the body returned."""
        assert self.replay.outcome is not None, f"not ended, open: {self.open}"
        if self.replay.outcome.error is not None:
            raise self.replay.outcome.error
        return self.replay.outcome.value

    @property
    def error(self) -> BaseException | None:
        """What the body raised."""
        assert self.replay.outcome is not None, f"not ended, open: {self.open}"
        return self.replay.outcome.error


def entry_of(position: str, name: str = "a", value: Any = None, *, kind: str = "step") -> Entry:
    """A completed entry, written by hand."""
    return Entry(position, kind, name, False, CODEC.encode(value), 1, 0, 0)


def failed_entry_of(position: str, error: BaseException, name: str = "a", *, attempts: int = 1) -> Entry:
    """A failed entry, written by hand."""
    return Entry(position, "step", name, True, CODEC.encode(capture(error)), attempts, 0, 0)


def work(*args: Any, **kwargs: Any) -> Any:
    """The function of steps whose bodies nobody runs."""


def do(name: str, **options: Any) -> Step[Any]:
    """A step called `name`."""
    return step(work, name).options(name=name, **options)


def line_of(function: Callable[..., Any], mark: str = "# here") -> str:
    """`file:line` of the line of `function` with `mark` in it."""
    lines, first = inspect.getsourcelines(function)
    number = next(number for number, line in enumerate(lines, first) if mark in line)
    return f"{inspect.getsourcefile(function)}:{number}"
