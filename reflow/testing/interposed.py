"""A workflow whose steps have something around them, wherever it yields them: in its body, in branches and groups."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import wraps
from types import GeneratorType
from typing import Any

from msgspec.structs import replace

from reflow._core.definition import Workflow
from reflow._core.groups import Gather, Race
from reflow._core.steps import Step

__all__ = ["interposed"]

# Of any values: of a class that is generic, type checkers would ask which.
_STEPS: tuple[type[Any], ...] = (Step,)
_GROUPS: tuple[type[Any], ...] = (Gather, Race)
_BRANCHES: tuple[type[Any], ...] = (GeneratorType,)


def interposed(workflow: Workflow[..., Any], around: Callable[[Step[Any]], Step[Any]]) -> Workflow[..., Any]:
    """The same workflow, of the same name and version, that yields `around(step)` for each step."""

    @wraps(workflow.function)
    def function(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        return (yield from _through(workflow.function(*args, **kwargs), around))

    return Workflow(function, workflow.name, workflow.version)


def _through(body: Generator[Any, Any, Any], around: Callable[[Step[Any]], Step[Any]]) -> Generator[Any, Any, Any]:
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            command = body.send(value) if error is None else body.throw(error)
        except StopIteration as stop:
            return stop.value
        value = error = None
        try:
            value = yield _changed(command, around)
        except GeneratorExit:
            body.close()
            raise
        except BaseException as thrown:
            error = thrown


def _changed(member: Any, around: Callable[[Step[Any]], Step[Any]]) -> Any:
    if isinstance(member, _STEPS):
        return around(member)
    if isinstance(member, _GROUPS):
        return replace(member, members=tuple(_changed(each, around) for each in member.members))
    return _through(member, around) if isinstance(member, _BRANCHES) else member
