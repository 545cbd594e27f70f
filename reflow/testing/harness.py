"""`run_workflow`: a workflow from its call to its end, in a plain test function.

It runs in an event loop of its own, in a `Sandbox`: on memory, in virtual time that jumps over every wait, with stubs
instead of step bodies. All else is as in production: retries, timeouts, groups, children, and every value goes through
bytes. In the end all runs are replayed once, so that code which would not do the same again fails its test.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import datetime
from types import CellType
from typing import Any, TypeVar

import anyio

from reflow import Call, ConfigError, Duration, ReflowError, Workflow
from reflow._core.misuse import explain_call
from reflow._engine.script import check_no_event_loop
from reflow.testing.sandbox import Finished, Sandbox, SentEvent
from reflow.testing.stubs import Stubs

__all__ = ["blocking", "run_workflow", "says_all", "workflows_of"]

R = TypeVar("R")
T = TypeVar("T")


def run_workflow(
    call: Call[R],
    *,
    stubs: Stubs | None = None,
    real: bool = True,
    events: Iterable[SentEvent] = (),
    workflows: Iterable[Workflow[..., Any]] = (),
    start: datetime | None = None,
    limit: Duration = "10000d",
    run_id: str = "test",
    backend: str = "asyncio",
) -> Finished[R]:
    """Run `call` to its end, on memory and in virtual time, and show what came of it: `result`, or `status` and
    `error`; `journal` and `duration`.

    `stubs` say what steps do instead of their bodies; a step without one runs for real, in no virtual time, or, with
    `real=False`, fails the test. `events` are sent to the run. `workflows` are those of its children, as far as the
    module of the workflow does not have them. The clock begins at `start` and goes on for no longer than `limit`.
    `backend` is `"asyncio"` or `"trio"`.

    Raises `ConfigError` where a step ran for real and a stub that no step used is called almost as it is,
    `TestRunIncompleteError` where the run still waits and nothing more can happen, `NonDeterminismError` where
    the code does something else when it is replayed, and what `enqueue` and `send_event` raise.
    """
    __tracebackhide__ = True
    known = workflows_of(call, workflows, "run_workflow")

    async def main() -> Finished[R]:
        async with Sandbox(known, stubs=stubs, real=real, start=start, limit=limit) as sandbox:
            run = await sandbox.begin(call, run_id=run_id, events=events)
            finished = await sandbox.finished(run)
            await sandbox.check_determinism()
            return finished

    return blocking(main, "run_workflow", backend)


def blocking(main: Callable[[], Awaitable[T]], called: str, backend: str) -> T:
    """Run `main` in an event loop of its own."""
    __tracebackhide__ = True
    check_no_event_loop(called, "`async with Sandbox(...) as sandbox`, and `await sandbox.execute(...)`,")
    if backend not in ("asyncio", "trio"):
        raise ConfigError(f"backend is {backend!r}; write 'asyncio' or 'trio'")
    try:
        return anyio.run(main, backend=backend)
    except (ReflowError, AssertionError) as error:
        if not says_all(error):
            raise
        # The way here, through engine and event loop, is not what anybody looks for.
        raise error.with_traceback(None)  # noqa: B904


def says_all(error: BaseException) -> bool:
    """Whether an error was raised by Reflow, and not by what it calls: then where in Reflow says nothing more."""
    innermost = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    return innermost is not None and innermost.tb_frame.f_globals.get("__name__", "").startswith("reflow.")


def workflows_of(call: Call[Any], others: Iterable[Workflow[..., Any]], called: str) -> tuple[Workflow[..., Any], ...]:
    """The workflow of `call`, the `others`, and those that their modules and closures know of by name, each once."""
    if not isinstance(call, Call):
        raise ConfigError(explain_call(call, called))
    found = {(workflow.name, workflow.version): workflow for workflow in (*others, call.workflow)}
    queue = list(found.values())
    while queue:
        for workflow in _named_in(queue.pop()):
            if (key := (workflow.name, workflow.version)) not in found:
                found[key] = workflow
                queue.append(workflow)
    return tuple(found.values())


def _named_in(workflow: Workflow[..., Any]) -> Iterator[Workflow[..., Any]]:
    function = workflow.function
    cells = (cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell))
    for value in (*function.__globals__.values(), *cells):
        if isinstance(value, Workflow):
            yield value


def _is_filled(cell: CellType) -> bool:
    """Whether what the cell stands for was defined already."""
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
