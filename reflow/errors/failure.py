"""`Failure`: the plain-data form in which errors are stored."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

from msgspec import Struct

__all__ = ["Failure"]

_ExceptionClass: TypeAlias = type[BaseException]  # inside `Failure`, whose field is called so, `type` is something else


class Failure(Struct, frozen=True, omit_defaults=True):
    """An exception as plain data: what a journal entry and a failed run keep.

    `type` is the class name and `bases` the names of all its classes, itself included: names and not import paths, so
    that moving a module does not change what an old run says. `causes` are the `__cause__` (or `__context__`) and the
    members of an exception group. `args` are kept where the exception is to be rebuilt. `code` is that of a
    `ReflowError`. `position` is the place in the program where the failure was raised, where known; `raised_at` is the
    same, of an error that is the outcome of a command and was raised at its `yield`.
    """

    # Where everybody imports it from.
    __module__ = "reflow.errors"

    type: str
    message: str
    traceback: str = ""
    bases: tuple[str, ...] = ()
    causes: tuple[Failure, ...] = ()
    code: str | None = None
    position: str | None = None
    args: tuple[Any, ...] | None = None
    raised_at: str | None = None

    def is_caused_by(self, cls: _ExceptionClass) -> bool:
        """Whether this failure, or one in its chain of causes, is a `cls`; compared by class name."""
        return cls.__name__ in self.bases or any(cause.is_caused_by(cls) for cause in self.causes)

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type

    @property
    def location(self) -> str | None:
        """Where your code was, `file:line in function`, where known: of a failed step or child run, in its body."""
        inner = self.causes[0].location if self.causes and self.code in ("step_failed", "run_failed") else None
        found = re.search(r'File "(.+)", line (\d+), in (\S+)', self.traceback)
        return inner or (f"{found[1]}:{found[2]} in {found[3]}" if found else None)

    @property
    def full_traceback(self) -> str:
        """`traceback`, behind those of its causes. A group has those of its members in its own."""
        causes = () if "BaseExceptionGroup" in self.bases else self.causes
        told = [text for text in (*(cause.full_traceback for cause in causes), self.traceback) if text]
        return "\nwhich led to:\n\n".join(told)
