"""What a workflow body yields or returns by mistake, and the sentence that says what to write instead."""

from __future__ import annotations

import inspect
from collections.abc import Generator
from dis import opmap
from typing import Any

from reflow._core.command import Command, written
from reflow._core.definition import Workflow

__all__ = ["discard", "explain_call", "explain_member", "explain_raise", "explain_return", "explain_yield"]

# A Python without it just has no such advice.
_GET_YIELD_FROM_ITER = opmap.get("GET_YIELD_FROM_ITER")


def explain_yield(value: object) -> str:
    """Why `value` cannot be yielded, and what to write."""
    kind = type(value).__name__
    match value:
        case Generator():
            return f"a generator was yielded; write `yield from {_name(value)}(...)`, or give it to gather or race"
        case Workflow(name=name):
            return f"the workflow {name!r} itself was yielded; call it: `yield {name}(...)`"
        case list() | tuple() | set() | frozenset():
            return f"a {kind} was yielded; write `yield gather(*commands)` to perform several"
        case _ if inspect.iscoroutine(value) and value.__name__ == "sleep":
            return "a coroutine of 'sleep' was yielded; write `yield sleep(...)`, with the `sleep` of Reflow"
        case _ if inspect.iscoroutine(value):
            return f"{_awaitable(value)} was yielded; write `yield step({_name(value)}, ...)`"
        case _ if inspect.isawaitable(value):
            return f"{_awaitable(value)} was yielded; await it inside a step: `yield step(fn, ...)`"
        case _ if inspect.isasyncgen(value):
            return f"an async generator was yielded; consume it inside a step: `yield step({_name(value)}, ...)`"
        case _ if inspect.isgeneratorfunction(value):
            return f"the function {_name(value)!r} was yielded; write `yield from {_name(value)}(...)`"
        case _ if callable(value):
            return f"the function {_name(value)!r} was yielded; write `yield step({_name(value)}, ...)`"
        case None:
            return "None was yielded, by a bare `yield` or a call; write `yield step(fn, ...)`, not `yield fn(...)`"
        case _:
            return f"a value of type {kind} was yielded; write `yield step(fn, ...)`, not `yield fn(...)`"


def explain_raise(error: BaseException) -> str | None:
    """Why a generator cannot go on that raised `error`, and what to write, where a `yield from` was given no command;
    None for any other error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    # The line of Python that raised is the one that makes an iterator of what `yield from` was given.
    if trace is None or trace.tb_frame.f_code.co_code[trace.tb_lasti] != _GET_YIELD_FROM_ITER:
        return None
    return f"`yield from` was given no command ({error}); write `yield from step(fn, ...)`, not `yield from fn(...)`"


def explain_return(value: object) -> str | None:
    """Why `value` cannot be returned, and what to write; None where it can."""
    match value:
        case Generator():
            return f"a generator was returned; write `return (yield from {_name(value)}(...))`"
        case Command(kind=kind, name=name):
            return f"a command was returned; write `return (yield {written(kind, name)})`"
        case _ if inspect.isawaitable(value):
            return f"{_awaitable(value)} was returned; write `return (yield step({_name(value)}, ...))`"
        case _:
            return None


def explain_member(value: object, index: int, group: str) -> str:
    """Why `value` cannot be a member of a gather or race, and what to write."""
    kind = type(value).__name__
    match value:
        case list() | tuple() | set() | frozenset():
            return f"argument {index} of {group} is a {kind}; unpack it: {group}(*commands)"
        case Workflow(name=name):
            return f"argument {index} of {group} is the workflow {name!r}; call it: {name}(...)"
        case _ if inspect.isgeneratorfunction(value):
            return f"argument {index} of {group} is the function {_name(value)!r}; call it: {_name(value)}(...)"
        case _ if callable(value) or inspect.isawaitable(value):
            return f"argument {index} of {group} is {_name(value)!r}; write step({_name(value)}, ...)"
        case _:
            return f"argument {index} of {group} is of type {kind}; give it commands or branches"


def explain_call(value: object, verb: str, example: str = "signup(user)") -> str:
    """Why `value`, which `verb` was given, is no call of a workflow, and what to write."""
    if isinstance(value, Generator) or inspect.isgeneratorfunction(value):
        given = f"{'a generator of ' * isinstance(value, Generator)}{_name(value)!r}; decorate that with @workflow, and"
    else:
        discard(value)
        given = f"{value!r};"
    return f"{verb} got {given} call a workflow to make a call: {verb}({example})"


def discard(value: object) -> None:
    """Close a coroutine that nobody will await, so that Python does not warn about it a second time."""
    if inspect.iscoroutine(value):
        value.close()


def _awaitable(value: object) -> str:
    return f"a coroutine of {_name(value)!r}" if inspect.iscoroutine(value) else "an awaitable"


def _name(value: Any) -> str:
    return getattr(value, "__name__", None) or type(value).__name__
