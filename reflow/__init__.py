"""Durable workflows for Python, written as plain generator functions.

A workflow yields commands such as `step(...)`; the engine stores each result before the next step starts, and after a
crash replays the stored results into the generator and goes on where it stopped.

    errors codec events the vocabulary
    _core/              what a run is: commands, journal, replay. Pure: no I/O, no clock, no event loop
    storage/            the contract and its adapters: memory, SQLite, Postgres
    _engine/            claims runs, performs their commands, keeps leases. The only ring that waits

Imports go inward only. Read `_core/__init__.py` first, then `_core/replay.py`, `storage/contract.py` and
`_engine/runner.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reflow._core.command import Command, Flow
from reflow._core.context import is_replaying
from reflow._core.definition import Call, Workflow, workflow
from reflow._core.duration import Duration
from reflow._core.groups import Winner, gather, race
from reflow._core.location import Place
from reflow._core.retry import Retry
from reflow._core.runs import continue_as_new, spawn
from reflow._core.status import RunStatus
from reflow._core.steps import step, transaction
from reflow._core.values import new_random, new_uuid, now, patched
from reflow._core.waits import Event, sleep, sleep_until, wait_event
from reflow._engine.client import Client, Run
from reflow._engine.clock import Clock
from reflow._engine.engine import Engine
from reflow._engine.inspection import EntryInfo, RunInfo, RunPage, RunSummary, ScheduleInfo, Statistics
from reflow._engine.logs import get_logger
from reflow._engine.perform import StepInfo, current_step
from reflow._engine.script import run
from reflow._engine.standing import Standing
from reflow._engine.streams import Stream
from reflow.codec import Codec, JsonCodec, MsgpackCodec
from reflow.errors import (
    ConfigError,
    DuplicateWorkflowError,
    Failure,
    HookError,
    IdempotencyConflictError,
    MisuseError,
    NonDeterminismError,
    PoisonError,
    ReflowError,
    ResultTimeoutError,
    RunCancelledError,
    RunConflictError,
    RunFailedError,
    RunNotFoundError,
    SerializationError,
    StepFailedError,
    StepTimeoutError,
    StorageAccessError,
    StorageError,
    StorageFormatError,
    StorageSchemaError,
    StorageValueError,
    TestRunIncompleteError,
    ValidationError,
    WaitTimeoutError,
    WorkflowCancelled,
    WorkflowNotFoundError,
)
from reflow.events import (
    ErrorHandler,
    Hook,
    LifecycleEvent,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunParked,
    RunResumed,
    RunStarted,
    ScheduleFired,
    StepCompleted,
    StepFailed,
    StepRetrying,
    StepStarted,
)
from reflow.storage import MemoryStorage, SQLiteStorage, StorageAdapter

if TYPE_CHECKING:
    from reflow.storage.postgres import PostgresStorage as PostgresStorage

__version__ = "0.1.0"

__all__ = [
    "Call",
    "Client",
    "Clock",
    "Codec",
    "Command",
    "ConfigError",
    "DuplicateWorkflowError",
    "Duration",
    "Engine",
    "EntryInfo",
    "ErrorHandler",
    "Event",
    "Failure",
    "Flow",
    "Hook",
    "HookError",
    "IdempotencyConflictError",
    "JsonCodec",
    "LifecycleEvent",
    "MemoryStorage",
    "MisuseError",
    "MsgpackCodec",
    "NonDeterminismError",
    "Place",
    "PoisonError",
    "ReflowError",
    "ResultTimeoutError",
    "Retry",
    "Run",
    "RunCancelled",
    "RunCancelledError",
    "RunCompleted",
    "RunConflictError",
    "RunFailed",
    "RunFailedError",
    "RunInfo",
    "RunNotFoundError",
    "RunPage",
    "RunParked",
    "RunResumed",
    "RunStarted",
    "RunStatus",
    "RunSummary",
    "SQLiteStorage",
    "ScheduleFired",
    "ScheduleInfo",
    "SerializationError",
    "Standing",
    "Statistics",
    "StepCompleted",
    "StepFailed",
    "StepFailedError",
    "StepInfo",
    "StepRetrying",
    "StepStarted",
    "StepTimeoutError",
    "StorageAccessError",
    "StorageAdapter",
    "StorageError",
    "StorageFormatError",
    "StorageSchemaError",
    "StorageValueError",
    "Stream",
    "TestRunIncompleteError",
    "ValidationError",
    "WaitTimeoutError",
    "Winner",
    "Workflow",
    "WorkflowCancelled",
    "WorkflowNotFoundError",
    "continue_as_new",
    "current_step",
    "gather",
    "get_logger",
    "is_replaying",
    "new_random",
    "new_uuid",
    "now",
    "patched",
    "race",
    "run",
    "sleep",
    "sleep_until",
    "spawn",
    "step",
    "transaction",
    "wait_event",
    "workflow",
]


def __getattr__(name: str) -> Any:
    """`PostgresStorage` is loaded when it is asked for: it needs psycopg, which not everybody has."""
    if name == "PostgresStorage":
        from reflow.storage.postgres import PostgresStorage

        return PostgresStorage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
