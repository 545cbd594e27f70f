"""The verbs that need no worker: start runs, talk to them, wait for their results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack, overload

from anyio.lowlevel import checkpoint

from reflow._core.definition import Call, Workflow
from reflow._core.duration import Duration, to_micros
from reflow._core.failure import read_failure
from reflow._core.journal import NEVER
from reflow._core.status import RunStatus
from reflow._core.waits import Event
from reflow._engine.ends import End, Ends
from reflow._engine.inspection import RunInfo
from reflow._engine.inspector import Inspector
from reflow._engine.intake import (
    CommonOptions,
    EnqueueOptions,
    Order,
    check_options,
    check_same,
    checked_statuses,
    checked_tags,
    checked_text,
    new_run,
)
from reflow._engine.resuming import is_resumable, resume
from reflow._engine.schedules import Schedules
from reflow.errors import (
    ConfigError,
    ResultTimeoutError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    SerializationError,
)
from reflow.storage.records import Ending, NewRun, RunRow

__all__ = ["Client", "Run"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

# When to look for an end that comes in another process: soon at first, then less and less often.
_FIRST_POLL_US = 10_000
_LONGEST_POLL_US = 500_000
_PRUNED_AT_ONCE = 500


class Client(Inspector, Schedules):
    """Starts, inspects and steers runs in a storage, without a worker: `async with Client(storage) as client: ...`

    It needs no code of the workflows: they may be named by text, with their arguments as data. An engine somewhere has
    to know them. `codec` has to be that of the engines. Entering opens the storage, leaving closes it.
    """

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._storage.close()

    # ---- starting runs ----------------------------------------------------------------------------------------------

    @overload
    async def enqueue(self, call: Call[R], /, **options: Unpack[EnqueueOptions]) -> Run[R]: ...
    @overload
    async def enqueue(
        self,
        workflow: str,
        arguments: Mapping[str, Any] | None = None,
        /,
        *,
        version: int | None = None,
        **options: Unpack[EnqueueOptions],
    ) -> Run[Any]: ...
    async def enqueue(
        self,
        call: Call[Any] | str,
        arguments: Mapping[str, Any] | None = None,
        /,
        *,
        version: int | None = None,
        **options: Unpack[EnqueueOptions],
    ) -> Run[Any]:
        """Store a run of `call`, to be started as soon as a worker is free; returns a handle.

        Instead of a call, write the name of a workflow and its arguments by name; `version` is by default the latest
        that an engine knows, and 1 for a client. Options:

        `run_id`            default: a new unique one. Where a run with this id, workflow and input exists, whatever its
                            status, its handle is returned and nothing is started
        `idempotency_key`   the same, for a key of yours: it belongs to the workflow, and lives as long as its run
        `delay`             how long it is not started
        `priority`          from -1000 to 1000, 0 as a rule: higher ones are started first
        `tags`              texts by which runs can be listed

        Raises `WorkflowNotFoundError`, `ValidationError`, `SerializationError` and `ConfigError` before anything is
        stored; `IdempotencyConflictError` where the key belongs to another input, `RunConflictError` where the id is
        taken by another workflow or input.
        """
        check_options(options, EnqueueOptions.__optional_keys__, "enqueue")
        order = self._take_order(call, arguments, version, "enqueue")
        [run] = await self._store([order], [new_run(order, self._clock.now(), **options)])
        return run

    @overload
    async def enqueue_many(
        self,
        calls: Iterable[Call[R]],
        /,
        *,
        run_ids: Sequence[str] | None = None,
        idempotency_keys: Sequence[str] | None = None,
        **options: Unpack[CommonOptions],
    ) -> list[Run[R]]: ...
    @overload
    async def enqueue_many(
        self,
        workflow: str,
        arguments: Iterable[Mapping[str, Any]],
        /,
        *,
        version: int | None = None,
        run_ids: Sequence[str] | None = None,
        idempotency_keys: Sequence[str] | None = None,
        **options: Unpack[CommonOptions],
    ) -> list[Run[Any]]: ...
    async def enqueue_many(
        self,
        calls: Iterable[Call[Any]] | str,
        arguments: Iterable[Mapping[str, Any]] | None = None,
        /,
        *,
        version: int | None = None,
        run_ids: Sequence[str] | None = None,
        idempotency_keys: Sequence[str] | None = None,
        **options: Unpack[CommonOptions],
    ) -> list[Run[Any]]:
        """Store many runs in one transaction, all or none; returns their handles in the same order.

        `calls` may be the name of a workflow, with the arguments of each run. `run_ids` and `idempotency_keys` have one
        for each; the other options are those of `enqueue` and hold for all. Raises what `enqueue` raises; where an id
        or key turns out to be taken by something else, the other runs are stored.
        """
        verb = "enqueue_many"
        check_options(options, CommonOptions.__optional_keys__, verb)
        if isinstance(calls, (Call, Workflow)) or not isinstance(calls, Iterable):
            raise ConfigError(f"{verb} got {calls!r}; write a list of calls: {verb}([signup(user), ...])")
        if isinstance(calls, str):
            if isinstance(arguments, Mapping) or not isinstance(arguments, Iterable):
                raise ConfigError(f"arguments is {arguments!r}; write a list of them: {verb}({calls!r}, [{{...}}])")
            orders = [self._take_order(calls, each, version, verb) for each in arguments]
        elif arguments is not None or version is not None:
            raise ConfigError(f"{verb} got calls, which have their arguments and versions; leave the others out")
        else:
            orders = [self._take_order(call, None, None, verb) for call in calls]
        ids = _one_each(run_ids, len(orders), "run_ids")
        keys = _one_each(idempotency_keys, len(orders), "idempotency_keys")
        now = self._clock.now()
        if (tags := options.get("tags")) is not None:
            options["tags"] = checked_tags(tags)  # an iterator would be used up by the first
        runs = [
            new_run(order, now, run_id=run_id, idempotency_key=key, **options)
            for order, run_id, key in zip(orders, ids, keys, strict=True)
        ]
        return await self._store(orders, runs)

    @overload
    async def execute(self, call: Call[R], /, **options: Unpack[EnqueueOptions]) -> R: ...
    @overload
    async def execute(
        self,
        workflow: str,
        arguments: Mapping[str, Any] | None = None,
        /,
        *,
        version: int | None = None,
        **options: Unpack[EnqueueOptions],
    ) -> Any: ...
    async def execute(
        self,
        call: Call[Any] | str,
        arguments: Mapping[str, Any] | None = None,
        /,
        *,
        version: int | None = None,
        **options: Unpack[EnqueueOptions],
    ) -> Any:
        """Enqueue a run and wait for its result; options as of `enqueue`, errors as of `enqueue` and `Run.result`."""
        check_options(options, EnqueueOptions.__optional_keys__, "execute")
        self._check_can_wait()
        order = self._take_order(call, arguments, version, "execute")
        [run] = await self._store([order], [new_run(order, self._clock.now(), **options)])
        return await run.result()

    async def _store(self, orders: Sequence[Order], runs: Sequence[NewRun]) -> list[Run[Any]]:
        ends = self._ends
        # Before the runs are there: they may have ended when we come back.
        waiting = [ends.end_of(new.run_id) for new in runs]
        handles: list[Run[Any]] = []
        for (row, created), order, new, end in zip(
            await self._storage.create_runs(runs) if runs else [], orders, runs, waiting, strict=True
        ):
            if not created:
                check_same(row, new, order, self._registry, self._codec)
                if row.run_id != new.run_id:
                    end = ends.end_of(row.run_id)
                if row.status.is_terminal:
                    end.look(_ending_of(row))
            handles.append(Run(self, row.run_id, row.workflow, order.output_type, end))
        return handles

    # ---- steering runs ----------------------------------------------------------------------------------------------

    async def handle(self, run_id: str) -> Run[Any]:
        """The handle of a run whose id came from elsewhere; `RunNotFoundError` where there is none."""
        end = self._ends.end_of(checked_text(run_id, "run_id"))
        row = await self._row(run_id)
        if row.status.is_terminal:
            end.look(_ending_of(row))
        return Run(self, run_id, row.workflow, self._output_type(row), end)

    @overload
    async def send_event(self, run_id: str, event: Event[T], payload: T, *, event_id: str | None = None) -> bool: ...
    @overload
    async def send_event(
        self, run_id: str, event: str, payload: Any = None, *, event_id: str | None = None
    ) -> bool: ...
    async def send_event(
        self, run_id: str, event: Event[Any] | str, payload: Any = None, *, event_id: str | None = None
    ) -> bool:
        """Send an event to a run, which keeps it until the run waits for it; False where the run is unknown or has
        ended.

        By a declared `Event` the payload is checked here: `ValidationError` where it does not fit. By a bare name the
        run finds out. With an `event_id` the same one is taken once, however often it is sent.
        """
        checked_text(run_id, "run_id")
        if event_id is not None:
            checked_text(event_id, "event_id")
        declared = event if isinstance(event, Event) else Event(event)
        data = declared.encode(payload, self._codec)
        now = self._clock.now()
        return await self._storage.send_message(run_id, declared.name, data, now=now, message_id=event_id)

    async def cancel(self, run_id: str) -> bool:
        """Ask for the cancellation of a run; False, and without effect, where it is unknown or has ended.

        A run that was never started ends at once. In any other `WorkflowCancelled` is raised at the current yield, so
        that it can clean up; then it ends as cancelled. Its children are cancelled with it.
        """
        asked = await self._storage.request_cancel(checked_text(run_id, "run_id"), now=self._clock.now())
        if asked:
            # It may have ended by that alone, and then no worker tells who waits.
            self._ends.end_of(run_id).look()
        return asked

    async def resume(self, run_id: str, *, at: str | None = None) -> bool:
        """Let a failed or cancelled run go on; False, and without effect, for any other, and where somebody else has
        let it go on meanwhile, also when it has failed again since.

        What is in its journal stays, up to the entry from which its error stems (of a cancelled run, up to where it was
        cancelled); what comes after is done again. An error of the workflow's own code takes nothing away: mend the
        code first. `at` is the position of an entry, from which on to do everything again instead.

        Raises `WorkflowNotFoundError` where an engine does not know the workflow, `ConfigError` where there is no entry
        at `at`.
        """
        row = await self._storage.get_run(checked_text(run_id, "run_id"))
        if row is None or not is_resumable(row):
            return False
        if self._registry is not None:
            self._registry.require(row.workflow, row.version)
        return await resume(self._storage, row, self._codec, self._clock.now(), at)

    async def prune(self, *, older_than: Duration, statuses: Iterable[RunStatus | str] | None = None) -> int:
        """Delete runs that ended longer ago than `older_than`, with all that belongs to them; returns how many.

        `statuses` are by default completed, failed and cancelled. A run that has not ended is never deleted, nor is a
        child whose parent has not. It is done in small transactions, so others need not wait long.
        """
        before = self._clock.now() - to_micros(older_than, what="older_than")
        ended = [status for status in RunStatus if status.is_terminal]
        wanted = ended if statuses is None else checked_statuses(statuses, "statuses")
        if alive := [status for status in wanted if status not in ended]:
            raise ConfigError(f"statuses has {alive[0].value!r}; only runs that have ended can be deleted")
        total = 0
        while pruned := await self._storage.prune(before=before, statuses=wanted, limit=_PRUNED_AT_ONCE):
            total += pruned
        return total

    # ---- results ----------------------------------------------------------------------------------------------------

    @property
    def _ends(self) -> Ends:
        """Who waits for the end of a run in this storage."""
        return Ends.of(self._storage)

    @property
    def _tells_ends(self) -> bool:
        """Whether somebody tells of every end, and now and then has everybody who waits look for themselves."""
        return False

    def _check_can_wait(self) -> None:
        """Raise where nobody would ever run what is waited for."""

    async def _wait_for(self, end: End, run_id: str, until: int = NEVER) -> Ending | None:
        """How the run ended; None where it has not by `until`. Signalled where it ends in this process; looked for
        where it ends elsewhere."""
        look_after_us = 0
        while True:
            ending = end.ending
            if ending is not None and ending.status is RunStatus.COMPLETED:
                if not look_after_us:
                    await checkpoint()
                return ending
            # Taken before we look: what comes meanwhile is not missed.
            news = end.news()
            now = self._clock.now()
            # A run that has failed may have been resumed since; only a result is final.
            if ending is not None or look_after_us or now >= until or not self._tells_ends:
                row = await self._storage.get_run(run_id)
                if row is None:
                    raise RunNotFoundError(run_id)
                if row.status.is_terminal:
                    return _ending_of(row)
            if now >= until:
                return None
            look_after_us = min(max(look_after_us * 3 // 2, _FIRST_POLL_US), _LONGEST_POLL_US)
            look_at = until if self._tells_ends else min(until, now + look_after_us)
            await self._clock.wait(news, None if look_at == NEVER else look_at)


def _ending_of(row: RunRow) -> Ending:
    return Ending(row.status, None, row.output, row.error)


def _one_each(texts: Sequence[str] | None, count: int, what: str) -> Iterable[str | None]:
    """`texts`, of which there has to be one for each of `count` runs."""
    if texts is None:
        return repeat(None, count)
    if isinstance(texts, str) or not isinstance(texts, Sequence) or len(texts) != count:
        raise ConfigError(f"{what} is {texts!r}; write a list with one text for each of the {count} calls")
    return texts


class Run(Generic[R_co]):
    """The handle of a run: its id, and a way to wait for its result."""

    def __init__(self, client: Client, run_id: str, workflow: str, output_type: Any, end: End) -> None:
        self.run_id = run_id
        self.workflow = workflow
        self._client = client
        self._output_type = output_type
        self._end = end

    def __repr__(self) -> str:
        return f"<run {self.run_id!r} of {self.workflow!r}>"

    async def result(self, *, timeout: Duration | None = None) -> R_co:  # noqa: ASYNC109 - by the engine's clock
        """Wait until the run has ended, in whatever process, and return its output.

        Raises `RunFailedError` or `RunCancelledError` for a run that ended so, `SerializationError` for an output that
        does not fit the type the code now declares, `ResultTimeoutError` where it has not ended within `timeout`: it
        goes on.
        """
        client = self._client
        codec, clock = client._codec, client._clock  # pyright: ignore[reportPrivateUsage]
        limit_us = None if timeout is None else to_micros(timeout, what="timeout")
        until = NEVER if limit_us is None else clock.now() + limit_us
        ending = await client._wait_for(self._end, self.run_id, until)  # pyright: ignore[reportPrivateUsage]
        if ending is None:
            raise ResultTimeoutError(self.run_id, self.workflow, (limit_us or 0) / 1_000_000)
        match ending.status:
            case RunStatus.COMPLETED:
                try:
                    output: R_co = codec.decode(ending.output or b"", self._output_type)
                except SerializationError as error:
                    raise error.about(f"the output of run {self.run_id!r}") from None
                return output
            case RunStatus.CANCELLED:
                raise RunCancelledError(self.run_id, self.workflow)
            case _:
                failure = read_failure(ending.error, codec, f"the error of run {self.run_id!r}")
                raise RunFailedError(self.run_id, self.workflow, failure)

    async def info(self) -> RunInfo:
        """The run and its journal as they are now; `RunNotFoundError` when it is gone."""
        info = await self._client.get_run(self.run_id)
        if info is None:
            raise RunNotFoundError(self.run_id)
        return info
