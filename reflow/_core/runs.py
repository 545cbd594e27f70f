"""Other runs: `spawn` starts one and does not wait, `continue_as_new` goes on as one with an empty journal.

A child run needs no function: yielding a call starts it and gives its result.
"""

from __future__ import annotations

from typing import Any, ClassVar, Never

from reflow._core.command import Command
from reflow._core.definition import Call
from reflow._core.forgotten import noted
from reflow._core.misuse import explain_call
from reflow.errors import ConfigError

__all__ = ["ContinueAsNew", "Continued", "Spawn", "continue_as_new", "spawn"]


class Spawn(Command[str], frozen=True, weakref=True, eq=False):
    """A run to be started; made by `spawn`."""

    kind: ClassVar[str] = "spawn"

    call: Call[Any]

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The name of the workflow."""
        return self.call.workflow.name


class ContinueAsNew(Command[Never], frozen=True, weakref=True, eq=False):
    """The end of this execution, and the start of the next; made by `continue_as_new`."""

    kind: ClassVar[str] = "continue_as_new"

    call: Call[Any]

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The name of the workflow."""
        return self.call.workflow.name


class Continued(BaseException):
    """Thrown at the yield of `continue_as_new`, so that `finally` blocks run; when it leaves the body, the run goes on
    as `call`."""

    def __init__(self, call: Call[Any]) -> None:
        super().__init__(call)
        self.call = call


def spawn(call: Call[Any], /) -> Spawn:
    """A command that starts a run of `call` and gives its id, without waiting for it: the run goes its own way, also
    when the one that spawned it fails or is cancelled.

    Its id follows from that of this run and the place, so there is only one, however often this is replayed;
    `call.options(run_id=...)` sets another. Where a run has that one already, of whatever workflow and input, nothing
    is started and its id is given; a call that is yielded as a child raises `RunConflictError` instead.

    Raises `ConfigError` for what is no call.
    """
    made = Spawn(_checked(call, "spawn"))
    noted(made)
    return made


def continue_as_new(call: Call[Any], /) -> ContinueAsNew:
    """A command that ends this execution and starts the next one as `call`, under the same run id and with an empty
    journal: for loops without end, whose journal would grow for ever. It gives nothing back.

    `finally` blocks of the body run first, and may yield clean-up steps. Only the workflow body can yield it, helpers
    under `yield from` included; a branch cannot.

    Raises `ConfigError` for what is no call, and for a call with a run id of its own.
    """
    if _checked(call, "continue_as_new").run_id is not None:
        raise ConfigError("continue_as_new keeps the id of the run; give it a call without options(run_id=...)")
    made = ContinueAsNew(call)
    noted(made)
    return made


def _checked(call: Call[Any], what: str) -> Call[Any]:
    if not isinstance(call, Call):
        raise ConfigError(explain_call(call, what))
    return call
