"""The verbs that look at runs."""

from __future__ import annotations

from collections.abc import Iterable

from reflow._core.command import checked_name
from reflow._core.status import RunStatus
from reflow._engine.access import Access
from reflow._engine.inspection import (
    EntryInfo,
    RunInfo,
    RunPage,
    Statistics,
    describe_entry,
    describe_page,
    describe_run,
    describe_statistics,
)
from reflow._engine.intake import checked_statuses, checked_tags, checked_text
from reflow._engine.standing import Standing, standings
from reflow._engine.why import Claimers, find, why
from reflow.errors import ConfigError, WorkflowNotFoundError
from reflow.storage.records import RunFilter

__all__ = ["Inspector"]

_LONGEST_PAGE = 1_000


class Inspector(Access):
    """Says what there is, and what a run waits for; changes nothing."""

    async def get_run(self, run_id: str) -> RunInfo | None:
        """A run and its journal as plain values; None where there is no run of this id."""
        row = await self._storage.get_run(checked_text(run_id, "run_id"))
        if row is None:
            return None
        journal = await self._storage.get_journal(run_id)
        return await describe_run(row, journal, self._output_type(row), self._codec)

    async def get_cut_entries(self, run_id: str) -> tuple[EntryInfo, ...]:
        """What `resume` has taken out of the journal of a run, the first time first."""
        entries = await self._storage.get_cut_entries(checked_text(run_id, "run_id"))
        return tuple(describe_entry(run_id, entry, self._codec) for entry in entries)

    async def list_runs(
        self,
        *,
        status: RunStatus | str | Iterable[RunStatus | str] | None = None,
        workflow: str | None = None,
        tags: Iterable[str] | None = None,
        parent: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> RunPage:
        """Up to `limit` runs, those created last first; `page.cursor` gives the next ones.

        `status` is one or several, of which one has to match; of `tags` all. `parent` is the id of the run whose
        children are meant. Pages that follow each other have each run once, also while others are created.
        """
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= _LONGEST_PAGE:
            raise ConfigError(f"limit is {limit!r}; write a whole number from 1 to {_LONGEST_PAGE}")
        filter = RunFilter(
            statuses=() if status is None else checked_statuses(status, "status"),
            workflow=None if workflow is None else checked_name(workflow, "workflow"),
            tags=() if tags is None else checked_tags(tags),
            parent=None if parent is None else checked_text(parent, "parent"),
        )
        if cursor is not None:
            checked_text(cursor, "cursor")
        return describe_page(await self._storage.list_runs(filter, limit=limit, cursor=cursor), self._codec)

    async def statistics(self) -> Statistics:
        """How many runs there are, and how far behind the workers are."""
        counts = await self._storage.count_runs()
        claimers, tell = self._claimers(""), getattr(self._storage, "statistics", None)
        slots = (claimers.slots_used, claimers.slots_free) if claimers else None
        return describe_statistics(counts, self._clock.now(), slots, tell().commits if tell else None)

    async def why(self, run_id: str) -> str:
        """What a run waits for and until when, or how it ended, in one sentence; with file and line where the code is
        at hand. `RunNotFoundError` where there is no such run."""
        row = await self._row(run_id)
        claimers = self._claimers(row.workflow)
        known = self._registry.names if self._registry else ()
        findings = await find(
            self._storage, row, self._workflow_of(row), claimers, self._codec, self._clock.now(), known
        )
        return why(row, findings, self._codec)

    async def where(self, run_id: str, *, variables: bool = False) -> tuple[Standing, ...]:
        """The commands that a run waits for, each with the lines at which the generators on the way to it stand; with
        `variables`, their local variables as `repr` shows them. Empty before it has got anywhere, and after its end.

        Raises `RunNotFoundError`, `WorkflowNotFoundError` where the code is not at hand (as for every client that is no
        engine), and what replay raises where code and journal no longer agree.
        """
        row = await self._row(run_id)
        if self._registry is None:
            raise WorkflowNotFoundError(row.workflow, None)
        workflow = self._registry.require(row.workflow, row.version)
        if row.status.is_terminal:
            return ()
        journal = await self._storage.get_journal(run_id)
        return await standings(row, journal, workflow, self._codec, variables=variables)

    def _claimers(self, workflow: str) -> Claimers | None:
        """Who here could claim runs of `workflow`."""
        return None
