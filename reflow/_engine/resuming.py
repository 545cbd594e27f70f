"""`resume`: an ended run goes on, with the part of its journal that is still good.

Its children ended for themselves, and a parent that opens a child again is told again how that ended. So what failed is
mended from the inside out: first the child whose failure is cut, and the children that were cancelled along with the
run; then the run. A crash in between leaves the run as it was, and the next `resume` does the rest.
"""

from __future__ import annotations

from reflow._core.cut import cut_of
from reflow._core.failure import read_failure
from reflow._core.journal import Entry
from reflow._core.status import RunStatus
from reflow.codec import Codec
from reflow.errors import RunCancelledError, RunFailedError
from reflow.storage.contract import StorageAdapter
from reflow.storage.records import RunFilter, RunRow

__all__ = ["is_resumable", "resume"]

_CHILDREN_AT_ONCE = 500


def is_resumable(row: RunRow | None) -> bool:
    """Whether the run has ended without a result."""
    return row is not None and row.status in (RunStatus.FAILED, RunStatus.CANCELLED)


async def resume(storage: StorageAdapter, row: RunRow, codec: Codec, now: int, at: str | None = None) -> bool:
    """Let a run go on, with its children; False where it does already, or has since `row` was read: where its journal
    is to be cut was worked out from what somebody else has replaced, and what was recorded since is good."""
    failure = None if row.error is None else read_failure(row.error, codec, f"the error of run {row.run_id!r}")
    journal = await storage.get_journal(row.run_id)
    keep = cut_of(journal.entries, failure, at=at)
    if keep < len(journal.entries):
        cut = journal.entries[keep]
        for child in await _children_of(storage, row.run_id, cut, codec):
            await resume(storage, child, codec, now)
    return await storage.resume_run(
        row.run_id, generation=row.generation, executions=row.executions, keep=keep, now=now
    )


async def _children_of(storage: StorageAdapter, run_id: str, cut: Entry, codec: Codec) -> list[RunRow]:
    """The children that have to go on where the journal of their parent is cut at `cut`."""
    children = await _cancelled_since(storage, run_id, cut.recorded_at)
    if cut.failed and cut.kind == "child":
        what = f"the recorded outcome of {cut} at position {cut.position} of run {run_id!r}"
        failure = read_failure(cut.payload, codec, what)
        if failure.code in (RunFailedError.code, RunCancelledError.code) and failure.args:
            failed = await storage.get_run(failure.args[0])
            if failed is not None and is_resumable(failed) and failed.parent == run_id:
                children.append(failed)
    return list({child.run_id: child for child in children}.values())


async def _cancelled_since(storage: StorageAdapter, run_id: str, instant: int) -> list[RunRow]:
    """The children that ended cancelled at `instant` or later. Losers of a race that the run keeps ended before."""
    filter, cursor = RunFilter(statuses=(RunStatus.CANCELLED,), parent=run_id), None
    children: list[RunRow] = []
    while True:
        page = await storage.list_runs(filter, limit=_CHILDREN_AT_ONCE, cursor=cursor)
        children += [row for row in page.rows if row.updated_at >= instant]
        if (cursor := page.cursor) is None:
            return children
