"""The cases as values, and a runner for those who have no test framework at hand."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from traceback import format_exception, format_exception_only
from types import ModuleType

from anyio import move_on_after
from msgspec import Struct

from reflow import StorageAdapter
from reflow.testing.conformance import (
    claiming,
    endings,
    families,
    inspection,
    listening,
    mailbox,
    opening,
    reading,
    schedules,
    writing,
)
from reflow.testing.conformance.words import Another, opened

__all__ = ["Broken", "Case", "Report", "cases", "check"]

_MODULES = (opening, claiming, writing, families, endings, mailbox, inspection, schedules, reading, listening)
_LIMIT_S = 30.0


class Case(Struct, frozen=True):
    """One fact that a clause of the contract states, and the function that asserts it.

    `fact` is the docstring of that function. `name` begins with the number of the clause: `d3_oldest_due_first`.
    """

    clause: str
    name: str
    fact: str
    function: Callable[[StorageAdapter, Another], Awaitable[None]]

    def __str__(self) -> str:
        return self.name

    async def __call__(self, another: Another, *, limit_s: float = _LIMIT_S) -> None:
        """Assert it of what `another` makes, adapters on data that is empty; AssertionError where it does not hold, or
        is not decided after `limit_s` seconds. A note on every error tells the clause."""
        try:
            async with opened(another()) as storage:
                with move_on_after(limit_s) as scope:
                    await self.function(storage, another)
                if scope.cancelled_caught:
                    raise AssertionError(f"not done after {limit_s:g} s")
        except Exception as error:
            error.add_note(f"Clause {self.clause}, {self.name}: {self.fact}")
            raise


class Broken(Struct, frozen=True):
    """A case that failed, and what it raised: an AssertionError, or whatever came out of the adapter."""

    case: Case
    error: Exception

    def __str__(self) -> str:
        said = isinstance(self.error, AssertionError)
        text = "".join(format_exception_only(self.error) if said else format_exception(self.error))
        return "\n    ".join([f"{self.case.clause} {self.case.name}", *text.splitlines()])


class Report(Struct, frozen=True):
    """What an adapter keeps of the contract, and what not. As text, it says what is to be done."""

    passed: list[Case]
    broken: list[Broken]

    @property
    def broken_clauses(self) -> list[str]:
        """The numbers of the clauses that are not kept, each once, in the order of the contract."""
        return list(dict.fromkeys(broken.case.clause for broken in self.broken))

    def __str__(self) -> str:
        if not self.broken:
            return "Every case of the storage contract holds."
        head = f"Clauses of the storage contract that do not hold: {', '.join(self.broken_clauses)}"
        return "\n\n".join([head, *map(str, self.broken)])


def cases() -> list[Case]:
    """Every case, in the order of the contract."""
    return [case for module in _MODULES for case in _cases_of(module)]


async def check(fresh: Callable[[], Another], *, limit_s: float = _LIMIT_S) -> Report:
    """Run every case, each on data of its own: `fresh` makes ready a place for it, empty, and returns `another`."""
    report = Report([], [])
    for case in cases():
        try:
            await case(fresh(), limit_s=limit_s)
        except Exception as error:
            report.broken.append(Broken(case, error))
        else:
            report.passed.append(case)
    return report


def _cases_of(module: ModuleType) -> list[Case]:
    found = [(re.match(r"[a-z]\d+(?=_)", name), name, member) for name, member in vars(module).items()]
    return [
        Case(number[0].upper(), name, " ".join((function.__doc__ or "").split()), function)
        for number, name, function in found
        if number and inspect.iscoroutinefunction(function)
    ]
