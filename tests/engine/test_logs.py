"""get_logger: lines of a workflow body appear once, and say of which run they are."""

from __future__ import annotations

import logging

import pytest

from reflow import Flow, get_logger, sleep, step, workflow
from tests.support.world import World

log = get_logger("tests.logs")


async def nothing() -> None:
    """A step body."""


@workflow(name="logging")
def logging_flow() -> Flow[None]:
    """Logs at each place."""
    log.info("begins")
    yield step(nothing)
    log.info("goes to %s", "sleep", extra={"mood": "tired"})
    yield sleep("1h")
    log.info("wakes")


@pytest.mark.anyio
async def test_lines_appear_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A body that is replayed after a sleep logs only what is new, and each record has the run id and the workflow."""
    caplog.set_level(logging.INFO, "tests.logs")
    async with world.engine(logging_flow) as engine:
        run = await engine.enqueue(logging_flow(), run_id="run-1")
        await engine.drain()
        world.clock.advance("1h")
        await run.result()

    records = [record for record in caplog.records if record.name == "tests.logs"]

    assert ["begins", "goes to sleep", "wakes"] == [record.getMessage() for record in records]
    assert {("run-1", "logging")} == {(vars(record)["run_id"], vars(record)["workflow"]) for record in records}
    assert "tired" == vars(records[1])["mood"]


def test_outside_a_body_it_is_a_plain_logger(caplog: pytest.LogCaptureFixture) -> None:
    """Elsewhere it logs as the standard library does, with no run."""
    caplog.set_level(logging.WARNING, "tests.logs")
    log.info("too quiet")
    log.warning("loud")
    (record,) = caplog.records

    assert ("loud", None, None) == (record.getMessage(), vars(record)["run_id"], vars(record)["workflow"])
    assert (False, True) == (log.isEnabledFor(logging.INFO), log.isEnabledFor(logging.WARNING))
