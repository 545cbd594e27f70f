"""Where the journal of an ended run is cut, so that `resume` does again what went wrong, and nothing else.

    a cancelled run         at the cancel entry
    a failed run            at the failed entry from which its error stems
    an error of the code    nowhere: all is kept, and the code has to be mended

What is cut is the entry and everything after it, clean-up included: a journal without an entry in its middle would be
no journal of the program.

An error stems from an entry if it is what was raised at that command's `yield`, or if one of its causes is, explicit
(`raise ... from`), implicit (raised while the other was handled) or a member of an exception group. Nearer ones win
over those behind them; of several side by side it is the one recorded first. What lies behind a command's error is the
command's own affair: a child's positions are those of another run.
"""

from __future__ import annotations

from collections.abc import Sequence

from reflow._core.journal import CANCEL, Entry
from reflow.errors import ConfigError, Failure

__all__ = ["cut_of"]


def cut_of(entries: Sequence[Entry], failure: Failure | None, *, at: str | None = None) -> int:
    """How many of `entries` a resumed run keeps.

    `failure` is how the run failed, None if it was cancelled. `at` is the position of an entry to cut at instead;
    `ConfigError` where there is none.
    """
    kept = len(entries)
    if at is not None:
        if (found := next((index for index, entry in enumerate(entries) if entry.position == at), None)) is None:
            raise ConfigError(f"at is {at!r}; write the position of an entry of this run")
        return found
    if failure is None:
        return next((index for index, entry in enumerate(entries) if entry.kind == CANCEL), kept)
    failed = {entry.position: index for index, entry in enumerate(entries) if entry.failed}
    found = _source(failure, failed)
    return kept if found is None else found


def _source(failure: Failure, failed: dict[str, int]) -> int | None:
    """The index of the failed entry that `failure` stems from."""
    if failure.raised_at is not None:
        return failed.get(failure.raised_at)
    sources = (_source(cause, failed) for cause in failure.causes)
    return min((source for source in sources if source is not None), default=None)
