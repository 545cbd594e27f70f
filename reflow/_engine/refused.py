"""What a storage cannot keep, however often it is asked, and what is done instead.

Model. A write is refused as a whole, and it is not said for which of its values. Nothing of it is stored; so the runner
goes back to what is, by a replay under the same lease. What bodies have given is all that cannot be had again without
running them again: those outcomes are kept, and each is written by itself before it is fed. The one that is refused
again is replaced by a failure, which the workflow may catch. Every one of them belongs to a command that is open where
the stored journal ends, because no body starts before all that was fed is committed.

What is refused where no body has given anything, or nothing got any further, has no step to blame: it is the return
value, the input of a child or of what follows, an event. Then the run fails with the error of the storage.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from reflow._core.failure import capture
from reflow._core.journal import Entry, Timer
from reflow._core.steps import Step
from reflow._engine.draft import Draft
from reflow.codec import Codec
from reflow.errors import SerializationError, StorageValueError

__all__ = ["Refused", "as_failure"]


class Refused(Struct, eq=False):
    """A write that was refused: the outcomes in it that bodies have given, and the attempts that are to be repeated.

    `recorded` entries were stored before it. It is hopeless where there is nothing to write alone."""

    error: StorageValueError
    recorded: int
    outcomes: list[Entry]
    retries: list[Timer]
    is_hopeless: bool

    @classmethod
    def of(cls, draft: Draft, error: StorageValueError, before: Refused | None) -> Refused:
        """What is kept of `draft`; `before` is what was refused before, if anything was."""
        outcomes = [entry for entry in draft.entries if entry.kind == Step.kind]
        if not outcomes or (before is not None and before.recorded == draft.recorded):
            return cls(error, draft.recorded, [], [], is_hopeless=True)
        retries = [timer for timer in draft.timers.values() if timer is not None and timer.kind == Step.kind]
        return cls(error, draft.recorded, outcomes, retries, is_hopeless=False)


def as_failure(entry: Entry, error: StorageValueError, codec: Codec) -> Entry:
    """The outcome that is recorded instead of one that cannot be stored."""
    subject = f"the result of {entry} at position {entry.position}"
    failure = capture(SerializationError(subject, f"the storage cannot keep it: {error.reason}"))
    return replace(entry, failed=True, payload=codec.encode(failure))
