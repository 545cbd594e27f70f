"""What code in a workflow body can know of its run: the run id, the workflow, and whether it is being replayed."""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["RunContext", "current_run", "is_replaying"]

_current: ContextVar[RunContext | None] = ContextVar("reflow_current_run", default=None)


class RunContext:
    """A run, for the code of its body. `is_replaying` changes as replay goes on, so that nothing has to be set for each
    step."""

    __slots__ = ("is_replaying", "run_id", "workflow")

    def __init__(self, run_id: str, workflow: str, is_replaying: bool) -> None:
        self.run_id = run_id
        self.workflow = workflow
        self.is_replaying = is_replaying

    def enter(self) -> None:
        """Make this the run of the current context."""
        _current.set(self)


def current_run() -> RunContext | None:
    """The run whose body is executed here; None outside a body."""
    return _current.get()


def is_replaying() -> bool:
    """Whether the workflow body that calls this is only brought back to where it was: it has been here before. False
    outside a body.

    For what should happen once and leaves no entry, such as a line in a log (`get_logger` asks by itself). Never decide
    by it what to yield.
    """
    run = _current.get()
    return run is not None and run.is_replaying
