"""Lifecycle events as tests need them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from reflow import Failure
from reflow.events import RunFailed, StepCompleted

AT = datetime(2026, 1, 2, tzinfo=UTC)


def completed(value: Any, run_id: str = "r") -> StepCompleted:
    """A step has completed with `value`."""
    return StepCompleted(
        run_id=run_id,
        workflow="signup",
        version=1,
        at=AT,
        position="0",
        step="charge",
        attempt=2,
        duration_us=5,
        value=value,
    )


def failed() -> RunFailed:
    """A run has failed."""
    return RunFailed(
        run_id="r", workflow="signup", version=1, at=AT, duration_us=9, error=Failure("ValueError", "wrong")
    )
