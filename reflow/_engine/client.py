"""The verbs that need no worker: start runs, look at them, wait for their results."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from anyio.lowlevel import checkpoint

from reflow._core.definition import Call, Workflow
from reflow._core.replay import RULES
from reflow._core.status import RunStatus
from reflow._engine.clock import Clock
from reflow._engine.ends import End, Ends
from reflow._engine.ids import new_id
from reflow._engine.inspection import RunInfo, describe_run
from reflow._engine.registry import Registry
from reflow.codec import Codec
from reflow.errors import (
    ConfigError,
    Failure,
    RunCancelledError,
    RunConflictError,
    RunFailedError,
    RunNotFoundError,
    SerializationError,
)
from reflow.storage.contract import StorageAdapter
from reflow.storage.records import Ending, NewRun, RunRow

__all__ = ["Client", "Run"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

# When to look for an end that comes in another process: soon at first, then less and less often.
_FIRST_POLL_US = 10_000
_LONGEST_POLL_US = 500_000


class Client:
    """Starts and inspects runs in a storage."""

    def __init__(self, storage: StorageAdapter, registry: Registry, codec: Codec, clock: Clock) -> None:
        self._storage = storage
        self._registry = registry
        self._codec = codec
        self._clock = clock

    async def enqueue(self, call: Call[R], *, run_id: str | None = None) -> Run[R]:
        """Store a run of `call`, to be started as soon as a worker is free; returns a handle.

        `run_id` (default: a new unique one) makes this idempotent: where a run with this id, workflow and input exists,
        whatever its status, its handle is returned and nothing is started.

        Raises `WorkflowNotFoundError`, `ValidationError` and `SerializationError` before anything is stored, and
        `RunConflictError` where the id is taken by another workflow or input.
        """
        if not isinstance(call, Call):
            raise ConfigError(f"enqueue got {call!r}; call a workflow to make a call: enqueue(signup(user))")
        if run_id is not None and not _is_storable_text(run_id):
            raise ConfigError(f"run_id is {run_id!r}; write a text that is not empty, in Unicode without surrogates")
        workflow = call.workflow
        self._registry.require(workflow)
        now = self._clock.now()
        new = NewRun(
            run_id=run_id or new_id(now),
            workflow=workflow.name,
            version=workflow.version,
            rules=RULES,
            input=workflow.encode_input(call.arguments, self._codec),
            due_at=now,
            created_at=now,
        )
        # Before the run is there: it may have ended when we come back.
        end = Ends.of(self._storage).end_of(new.run_id)
        [(row, created)] = await self._storage.create_runs([new])
        if not created:
            self._check_same(row, new, workflow)
            if row.status.is_terminal:
                end.look(_ending_of(row))
        return Run(self, row.run_id, row.workflow, workflow.output_type, end)

    async def execute(self, call: Call[R], *, run_id: str | None = None) -> R:
        """Enqueue `call` and wait for its result; errors as of `enqueue` and `Run.result`."""
        return await (await self.enqueue(call, run_id=run_id)).result()

    async def get_run(self, run_id: str) -> RunInfo | None:
        """A run and its journal as plain values; None where there is no run of this id."""
        row = await self._storage.get_run(run_id)
        if row is None:
            return None
        journal = await self._storage.get_journal(run_id)
        return describe_run(row, journal, self._registry.find(row.workflow, row.version), self._codec)

    async def handle(self, run_id: str) -> Run[Any]:
        """The handle of a run whose id came from elsewhere; `RunNotFoundError` where there is none."""
        end = Ends.of(self._storage).end_of(run_id)
        row = await self._storage.get_run(run_id)
        if row is None:
            raise RunNotFoundError(run_id)
        if row.status.is_terminal:
            end.look(_ending_of(row))
        workflow = self._registry.find(row.workflow, row.version)
        return Run(self, run_id, row.workflow, workflow.output_type if workflow else Any, end)

    def _check_same(self, row: RunRow, new: NewRun, workflow: Workflow[..., Any]) -> None:
        if row.workflow != new.workflow:
            raise RunConflictError(row.run_id, f"the workflow {row.workflow!r}")
        if not row.status.is_terminal and self._registry.find(row.workflow, row.version) is None:
            raise RunConflictError(row.run_id, f"version {row.version} of its workflow, unknown to this engine")
        # Compared as values: the order of keys, a parameter added since then, or an encrypting codec may make equal
        # inputs unequal bytes.
        known, given = (self._codec.decode(data, workflow.input_type) for data in (row.input, new.input))
        if known != given:
            raise RunConflictError(row.run_id, "another input")

    async def _wait_for(self, end: End, run_id: str) -> Ending:
        """How the run ended. Signalled where it ends in this process; looked for where it ends elsewhere."""
        look_after_us = 0
        while True:
            ending = end.ending
            if ending is not None and ending.status is RunStatus.COMPLETED:
                if not look_after_us:
                    await checkpoint()
                return ending
            # Taken before we look: what comes meanwhile is not missed.
            news = end.news()
            # A run that has failed may have been resumed since; only a result is final.
            if ending is not None or look_after_us or not self._tells_ends:
                row = await self._storage.get_run(run_id)
                if row is None:
                    raise RunNotFoundError(run_id)
                if row.status.is_terminal:
                    return _ending_of(row)
            look_after_us = min(max(look_after_us * 3 // 2, _FIRST_POLL_US), _LONGEST_POLL_US)
            await self._clock.wait(news, None if self._tells_ends else self._clock.now() + look_after_us)

    @property
    def _tells_ends(self) -> bool:
        """Whether somebody tells of every end, and now and then has everybody who waits look for themselves."""
        return False


def _ending_of(row: RunRow) -> Ending:
    return Ending(row.status, None, row.output, row.error)


def _is_storable_text(value: object) -> bool:
    try:
        return isinstance(value, str) and value.encode() != b""
    except UnicodeEncodeError:
        return False


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

    async def result(self) -> R_co:
        """Wait until the run has ended, in whatever process, and return its output.

        Raises `RunFailedError` or `RunCancelledError` for a run that ended so, `SerializationError` for an output that
        does not fit the type the code now declares.
        """
        client = self._client
        ending = await client._wait_for(self._end, self.run_id)  # pyright: ignore[reportPrivateUsage]
        codec = client._codec  # pyright: ignore[reportPrivateUsage]
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
                raise RunFailedError(self.run_id, self.workflow, codec.decode(ending.error or b"", Failure))

    async def info(self) -> RunInfo:
        """The run and its journal as they are now; `RunNotFoundError` when it is gone."""
        info = await self._client.get_run(self.run_id)
        if info is None:
            raise RunNotFoundError(self.run_id)
        return info
