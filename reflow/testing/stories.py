"""A story: one way in which a run may go, as a value that invariants look at and that reads as a trace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from reprlib import Repr
from typing import Any

from msgspec import Struct

from reflow._core.definition import Call
from reflow._core.status import RunStatus

__all__ = ["Body", "Story", "shown", "shown_call"]

_repr = Repr()
_repr.maxstring = _repr.maxother = 60


class Body(Struct, frozen=True, kw_only=True):
    """A body that ran to its end: of a step, or of a child or spawned run, whose `function` is the workflow.

    It returned `value`, or raised `error` where that is set. It `is_lost` where nobody heard of that: the process died,
    or the command was cancelled, after the body had its effect and before its outcome was recorded.
    """

    function: Any
    name: str
    position: str
    generation: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    value: Any
    error: BaseException | None
    attempt: int
    is_lost: bool

    def __str__(self) -> str:
        call = shown_call(self.name, self.args, self.kwargs)
        return f"{call} gives {shown(self.value)}" if self.error is None else f"{call} raises {shown(self.error)}"


class Story(Struct, frozen=True, kw_only=True):
    """One way in which a run may go, up to some moment.

    `moves` say in words what happened, in order; `bodies` are the bodies that ran to their ends. `status` is completed,
    failed or cancelled where the run has ended; waiting, where nothing that was foreseen lets it go on; running
    otherwise. `result` is what a completed run returned, `error` what a failed one raised. `open` are the commands that
    have no outcome yet.
    """

    call: Call[Any]
    moves: tuple[str, ...]
    bodies: tuple[Body, ...]
    status: RunStatus
    result: Any = None
    error: BaseException | None = None
    open: tuple[str, ...] = ()

    @property
    def has_ended(self) -> bool:
        """Whether the run has ended."""
        return self.status.is_terminal

    def of(self, function: Any) -> tuple[Body, ...]:
        """The bodies of this function, or workflow, in the order in which they ran."""
        return tuple(body for body in self.bodies if body.function is function)

    def count(self, function: Any) -> int:
        """How often this function had its effect: ran and raised nothing, whether anybody heard of it or not."""
        return sum(body.error is None for body in self.of(function))

    def __str__(self) -> str:
        lines = [f"{number:>3}. {move}" for number, move in enumerate(self.moves, 1)]
        return "\n".join([f"{self.call!r}", *lines, f"     {self._end()}"])

    def _end(self) -> str:
        match self.status:
            case RunStatus.COMPLETED:
                return f"The run completes with {shown(self.result)}."
            case RunStatus.FAILED:
                return f"The run fails with {type(self.error).__name__}: {self.error}"
            case RunStatus.CANCELLED:
                return "The run is cancelled."
            case RunStatus.WAITING:
                return f"The run waits for {' and '.join(self.open)}, and nothing comes."
            case _:
                return f"Open: {', '.join(self.open)}."


def shown(value: object) -> str:
    """`value` in a trace, shortened."""
    return _repr.repr(value)


def shown_call(name: str, args: Iterable[object], kwargs: Mapping[str, object]) -> str:
    """A call in a trace."""
    return f"{name}({', '.join([*map(shown, args), *(f'{key}={shown(value)}' for key, value in kwargs.items())])})"
