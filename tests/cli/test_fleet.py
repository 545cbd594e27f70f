"""`reflow worker --processes`: a parent and its workers, killed for real."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from reflow import RunStatus
from tests.cli.jobs import giving, resting, sticking
from tests.cli.test_worker import enqueue, info
from tests.support.commands import Command, started

pytestmark = pytest.mark.slow

WORDS = ("worker", "jobs:GOOD", "--processes", 3, "--lease", "10m")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that does not exist yet."""
    return tmp_path / "app.db"


def number_after(text: str, line: str) -> int:
    """The number that a line says after a text."""
    match = re.search(rf"{text} (\d+)", line)
    assert match is not None, line
    return int(match[1])


def all_serving(fleet: Command, begun: str = "") -> None:
    """Wait until three workers serve, and one has begun this body."""
    for _ in range(3):
        fleet.until("serving")
    if not any(begun in line for line in fleet.said):
        fleet.until(begun)


def test_signals_stop_all(file: Path) -> None:
    """SIGTERM to the parent drains all workers: their runs are handed back, and the exit code is 0."""
    enqueue(file, resting())

    with started(*WORDS, "--storage", file, "--grace", "0s") as fleet:
        all_serving(fleet, "rest in")
        fleet.send(signal.SIGTERM)
        code, said = fleet.left()

    assert (0, 3, 1) == (code, said.count("stopped: "), said.count("all workers have stopped"))
    assert (RunStatus.PENDING, True) == (info(file, "resting").status, "stopped: 1 runs handed back" in said)


@pytest.mark.parametrize(
    ("number", "end"), [(signal.SIGKILL, "was killed by SIGKILL"), (signal.SIGTERM, "ended with exit code 0")]
)
def test_a_worker_that_ends_is_replaced(file: Path, number: signal.Signals, end: str) -> None:
    """A worker that is killed, or told to stop, is replaced by a new one, and the log says so; the others go on."""
    with started(*WORDS, "--storage", file) as fleet:
        all_serving(fleet)
        victim = number_after("worker 2 has pid", "".join(fleet.said))
        os.kill(victim, number)
        line = fleet.until(end)
        successor = number_after("worker 2 has pid", fleet.until("worker 2 has pid"))
        fleet.until("serving")
        enqueue(file, giving(7))
        doing = number_after("give 7 in", fleet.until("give 7"))
        fleet.send(signal.SIGTERM)
        code, said = fleet.left()

    assert f"worker 2, pid {victim}, {end}; the next one starts in 0.5 s\n" == line.partition("reflow: ")[2]
    assert (0, 4) == (code, said.count("has pid"))
    assert victim not in (successor, doing)


def test_workers_do_not_outlive_the_parent(file: Path) -> None:
    """When the parent is killed, its workers notice, drain and end."""
    enqueue(file, resting())

    with started(*WORDS, "--storage", file, "--grace", "0s") as fleet:
        all_serving(fleet, "rest in")
        fleet.send(signal.SIGKILL)
        code, said = fleet.left()

    assert (-signal.SIGKILL, 3, 3) == (code, said.count("told to stop by the parent"), said.count("stopped: "))
    assert RunStatus.PENDING == info(file, "resting").status


def test_a_signal_to_all_is_one(file: Path) -> None:
    """Where a supervisor sends SIGTERM to the parent and to each worker, all drain, as if the parent alone was told."""
    enqueue(file, resting())

    with started(*WORDS, "--storage", file, "--grace", "0s") as fleet:
        all_serving(fleet, "rest in")
        workers = [number_after("has pid", line) for line in fleet.said if "has pid" in line]
        fleet.send(signal.SIGTERM)
        for worker in workers:
            os.kill(worker, signal.SIGTERM)
        code, said = fleet.left()

    assert (0, 3, 3) == (code, len(workers), said.count("stopped: "))
    assert RunStatus.PENDING == info(file, "resting").status


def test_a_second_signal_kills_all(file: Path) -> None:
    """A second signal to the parent kills workers that still drain; further ones change nothing."""
    enqueue(file, sticking())

    with started(*WORDS, "--storage", file, "--grace", "1h") as fleet:
        all_serving(fleet, "stick in")
        fleet.send(signal.SIGTERM)
        fleet.until("told to stop by the parent: 1 runs in flight")
        code = fleet.killed_by(signal.SIGTERM)
        _, said = fleet.left()

    assert (1, True) == (code, "SIGTERM again: " in said)
    assert RunStatus.RUNNING == info(file, "sticking").status


def test_a_mistake_starts_nobody(file: Path) -> None:
    """A mistake in the command line is told once, by the parent, and no worker is started."""
    with started("worker", "jobs:nothing", "--processes", 3, "--storage", file) as fleet:
        code, said = fleet.left()

    assert (2, 1) == (code, said.count("\n"))
