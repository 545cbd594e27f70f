"""Why a run does not go on, or how it ended: one sentence for every state.

The storage knows what a run waits for and until when; the code, where it is at hand, knows at which line, and how many
attempts a step has. What keeps a due run waiting is the engine's to know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, NamedTuple

from reflow._core.definition import Workflow
from reflow._core.derived import child_id, stem_of
from reflow._core.duration import from_micros
from reflow._core.failure import read_failure
from reflow._core.journal import NEVER, Journal, MessageKind, Timer
from reflow._core.status import RunStatus
from reflow._engine.standing import Standing, standings
from reflow.codec import Codec
from reflow.storage.contract import StorageAdapter
from reflow.storage.records import RunRow

__all__ = ["Claimers", "Findings", "find", "meant", "why"]

_MOST_WAITS = 3
# How much alike names have to be, where one counts as misspelt.
_ALIKE = 0.75


class Claimers(NamedTuple):
    """Who could claim the run: whether this engine runs, the versions of the workflow that it has, and its slots."""

    is_running: bool
    versions: tuple[int, ...]
    slots_used: int
    slots_free: int


class Findings(NamedTuple):
    """What is known of a run that has not ended. `standings` are by position; so are `children`, the runs that it has
    started and waits for. `unawaited` are the names of the events that it was sent, where it waits for others.
    `claimers` is None for a client, which does not claim. `alike` are workflows that are called almost as that of a run
    which nobody has begun."""

    now: int
    timers: Sequence[Timer] = ()
    standings: Mapping[str, Standing] = {}
    children: Mapping[str, RunRow] = {}
    unawaited: Sequence[str] = ()
    claimers: Claimers | None = None
    alike: Sequence[str] = ()


async def find(
    storage: StorageAdapter,
    row: RunRow,
    workflow: Workflow[..., Any] | None,
    claimers: Claimers | None,
    codec: Codec,
    now: int,
    known: Iterable[str] = (),
) -> Findings:
    """What there is to know of a run; `workflow` is its code, where that is at hand, `known` the names of all of which
    there is code."""
    if row.status.is_terminal or row.executions == 0:
        return Findings(now, claimers=claimers, alike=() if workflow else await _alike(storage, row, known))
    journal = await storage.get_journal(row.run_id)
    found: Mapping[str, Standing] = {}
    if workflow is not None:
        # Code that no longer fits, or breaks, tells nothing; what is stored does.
        with suppress(Exception):
            found = {standing.position: standing for standing in await standings(row, journal, workflow, codec)}
    children: dict[str, RunRow] = {}
    for timer in [timer for timer in journal.timers if timer.kind == "child"][:_MOST_WAITS]:
        standing = found.get(timer.position)
        own = standing.run_id if standing else None
        child = await storage.get_run(own or child_id(stem_of(row.run_id, row.generation), timer.position))
        if child is not None:
            children[timer.position] = child
    return Findings(now, journal.timers, found, children, _unawaited(journal), claimers)


async def _alike(storage: StorageAdapter, row: RunRow, known: Iterable[str]) -> Sequence[str]:
    """What the name of its workflow may have been meant to be, where nobody has ever begun a run of it."""
    if row.status is not RunStatus.PENDING:
        return ()
    counts = (await storage.count_runs()).counts
    begun = {count.workflow for count in counts if count.status is not RunStatus.PENDING}
    return () if row.workflow in begun else meant(row.workflow, begun.union(known))


def meant(name: str, known: Iterable[str]) -> Sequence[str]:
    """Which of the known names a misspelt one may have been meant to be, the likeliest first."""
    return get_close_matches(name, sorted(set(known) - {name}), 1, _ALIKE)


def _unawaited(journal: Journal) -> tuple[str, ...]:
    awaited = {timer.name for timer in journal.timers if timer.kind == "wait_event"}
    sent = dict.fromkeys(message.name for message in journal.messages if message.kind is MessageKind.EVENT)
    return tuple(name for name in sent if name not in awaited) if awaited else ()


def why(row: RunRow, findings: Findings, codec: Codec) -> str:
    """What the run waits for, and until when; or how it ended."""
    sent = ", ".join(map(repr, findings.unawaited[:_MOST_WAITS]))
    more = f" and {rest} more" if (rest := len(findings.unawaited) - _MOST_WAITS) > 0 else ""
    unawaited = f"; it was sent {sent}{more}, which nothing awaits now" if sent else ""
    cancelling = "; its cancellation is requested" if row.cancel_requested else ""
    return f"run {row.run_id!r} of {row.workflow!r} {_predicate(row, findings, codec)}{unawaited}{cancelling}"


def _predicate(row: RunRow, findings: Findings, codec: Codec) -> str:
    match row.status:
        case RunStatus.COMPLETED:
            return f"completed at {_time(row.updated_at)}"
        case RunStatus.CANCELLED:
            return f"was cancelled, which was done at {_time(row.updated_at)}"
        case RunStatus.FAILED:
            failure = read_failure(row.error, codec, f"the error of run {row.run_id!r}")
            place = f" at position {failure.position}" if failure.position else ""
            return f"failed at {_time(row.updated_at)}{place} with {failure}"
        case _:
            return _going_on(row, findings, codec)


def _going_on(row: RunRow, findings: Findings, codec: Codec) -> str:
    is_due = row.due_at is not None and row.due_at <= findings.now
    if row.status is RunStatus.RUNNING:
        if is_due:
            return f"was left under a lease that was over at {_time(row.due_at)}, and {_claim(row, findings)}"
        under_way = _waits(row, findings, codec) or "is being advanced"
        return f"{under_way}, under a lease held until {_time(row.due_at)}"
    if is_due:
        return f"is due since {_time(row.due_at)} and {_claim(row, findings)}"
    if row.status is RunStatus.PENDING:
        return f"{'goes on' if row.executions else 'starts'} at {_time(row.due_at)}"
    until = "" if row.due_at is None else f" until {_time(row.due_at)}"
    return _waits(row, findings, codec) or f"is {row.status}{until}"


def _claim(row: RunRow, findings: Findings) -> str:
    """What a due run waits for."""
    here = findings.claimers
    wanted = f"version {row.version} of {row.workflow!r}"
    hint = f"; was {findings.alike[0]!r} meant?" if findings.alike else ""
    if here is None:
        return f"waits for an engine that has {wanted} and a free slot{hint}"
    if row.version not in here.versions:
        known = f"only version {', '.join(map(str, here.versions))}" if here.versions else "no version of it"
        return f"waits for an engine that has {wanted}: this one has {known}{hint}"
    if not here.is_running:
        return "waits for an engine: this one is not running"
    if not here.slots_free:
        return f"waits for a free slot: all {here.slots_used} of this engine are taken"
    return "will be claimed next"


def _waits(row: RunRow, findings: Findings, codec: Codec) -> str:
    """What it waits for, in words; empty where nothing is known."""
    timers = {timer.position: timer for timer in findings.timers}
    waits = [_wait(timer, findings, codec) for timer in sorted(timers.values(), key=lambda timer: timer.due_at)]
    waits += [
        f"performs {standing}{_at(standing)}"
        for position, standing in findings.standings.items()
        if position not in timers
    ]
    if len(waits) > _MOST_WAITS:
        waits[_MOST_WAITS:] = [f"waits for {len(waits) - _MOST_WAITS} more"]
    return ", and ".join(waits)


def _wait(timer: Timer, findings: Findings, codec: Codec) -> str:
    standing = findings.standings.get(timer.position)
    at = _at(standing)
    if timer.kind == "sleep":
        return f"sleeps until {_time(timer.due_at)}{at}"
    limit = "without limit" if timer.due_at == NEVER else f"until {_time(timer.due_at)}"
    if timer.kind == "child":
        child = findings.children.get(timer.position)
        named = f" {child.run_id!r}, which is {child.status}" if child else ""
        return f"waits for the child run{named or f' of {timer.name!r}'}{at}"
    if timer.kind != "step":
        return f"waits {limit} for {timer.kind.removeprefix('wait_')} {timer.name!r}{at}"
    most = f" of {standing.max_attempts}" if standing else ""
    after = ""
    if timer.failure is not None:
        after = f", after {read_failure(timer.failure, codec, f'the last failure of {timer} at {timer.position}')}"
    return f"waits until {_time(timer.due_at)} for attempt {timer.attempts + 1}{most} of {timer}{after}{at}"


def _at(standing: Standing | None) -> str:
    return f" ({standing.places[-1]})" if standing and standing.places else ""


def _time(instant: int | None) -> str:
    if instant is None or instant == NEVER:
        return "no time"
    try:
        return f"{from_micros(instant):%Y-%m-%d %H:%M:%S} UTC"
    except OverflowError:
        return "a time beyond the calendar"
