"""`simulate` lets a fleet work while everything goes wrong, and finds what that breaks, always in the same way."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import Any

import pytest
from msgspec.structs import replace

from reflow import Call, Flow, MemoryStorage, RunStatus, gather, sleep, step, wait_event, workflow
from reflow._engine.runner import Runner
from reflow.storage.records import Claimed, Lease, Progress, RunRow, RunSignal
from reflow.testing import Simulated, SimulatedRuns, SimulationError, simulate
from reflow.testing.lockstep import Backend
from tests.repo.sources import ROOT
from tests.support.workflows import fan_out, raced, retried


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """The event loop."""
    return request.param  # type: ignore[no-any-return]


async def give(value: int) -> int:
    """An async body."""
    return value


def double(value: int) -> int:
    """A plain one."""
    return value * 2


@workflow
def leaf(value: int) -> Flow[int]:
    """Two steps and a sleep."""
    first = yield from step(give, value)
    yield sleep("1m")
    second = yield from step(double, first)
    return second


@workflow
def family(value: int) -> Flow[list[int]]:
    """Children, steps beside them, and events that come one after the other."""
    first = yield from leaf(value)
    second, third = yield from gather(leaf(value + 1), step(give, value))
    fourth = yield from wait_event("number", int)
    yield sleep("1h")
    fifth = yield from wait_event("number", int)
    return [first, second, third, *sorted([fourth, fifth])]


EVENTS = [(0, "number", 5), (0, "number", 6)]
FAMILY: dict[str, Any] = {"calls": [family(1), leaf(3)], "workflows": [leaf], "events": EVENTS}


def right(ended: SimulatedRuns) -> None:
    """The runs of the family have the results that they must have."""
    results = [ended.runs[f"run-{number}"].output for number in range(2)]
    assert [[2, 4, 1, 5, 6], 6] == results


def simulated(**options: Any) -> Simulated:
    """The family."""
    return simulate(**({**FAMILY, "invariant": right, "most": 5_000} | options))


# ---- what it does ----------------------------------------------------------------------------------------------------


def test_all_kinds_of_faults_happen(backend: Backend):
    """Over a few seeds every kind of fault is put in, as many in each as were asked for at most, and all runs end."""
    found = simulated(seeds=range(40), faults=8, backend=backend)

    assert 40 == found.seeds
    assert 8 == len(found.faults)
    assert 40 * 4 < sum(found.faults.values()) <= 40 * 8
    assert found.steps > 40 * 50


def test_a_fleet_without_faults(backend: Backend):
    """Without faults, every body begins once."""
    began: list[int] = []

    def note(ended: SimulatedRuns) -> None:
        began.extend(ended.began.values())

    found = simulated(invariant=note, faults=0, engines=1, seeds=range(5), backend=backend)

    assert ({}, {1}) == (found.faults, set(began))


def test_bodies_begin_again_where_an_engine_dies(backend: Backend):
    """With faults, some bodies begin more than once: their first outcome was heard by nobody."""
    began: list[int] = []
    simulated(invariant=lambda ended: began.extend(ended.began.values()), seeds=range(20), backend=backend)

    assert 1 < max(began)


@workflow
def guarded(value: int) -> Flow[int]:
    """Cleans up when it is cancelled."""
    try:
        yield sleep("1h")
        return value
    finally:
        yield step(give, value)


def test_runs_are_cancelled(backend: Backend):
    """A run that is to be cancelled ends so, or before; once it has begun, with its clean-up."""
    statuses: set[RunStatus] = set()

    def note(ended: SimulatedRuns) -> None:
        run = ended.runs["run-0"]
        statuses.add(run.status)
        begun = [entry for entry in run.entries if entry.kind == "sleep"]
        assert run.status is RunStatus.CANCELLED or begun

    simulate([guarded(1)], cancels=[0], invariant=note, seeds=range(40), backend=backend)

    assert {RunStatus.CANCELLED} <= statuses


# ---- always the same -------------------------------------------------------------------------------------------------


def trace_of(seed: int, backend: Backend) -> tuple[str, ...]:
    """What happens in one world."""
    with pytest.raises(SimulationError) as caught:
        simulate(
            [fan_out(3), raced(), retried()], seeds=[seed], invariant=lambda ended: False, engines=4, backend=backend
        )
    return caught.value.trace


def test_a_seed_says_all(backend: Backend):
    """The same seed gives the same world, to the last detail, and another seed another one."""
    first, again = ([trace_of(seed, backend) for seed in range(8)] for _ in range(2))

    assert first == again
    assert 8 == len(set(first))


PRINT_TRACES = "from tests.testing.test_simulation import trace_of; print([trace_of(n, {!r}) for n in range(3)])"


@pytest.mark.slow
def test_a_seed_says_all_in_every_process(backend: Backend):
    """A seed gives the same world in another process, where text has other hashes and objects have other addresses."""
    traces = [
        subprocess.run(
            [sys.executable, "-c", PRINT_TRACES.format(backend)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]

    assert traces[0] == traces[1]
    assert f"{[trace_of(seed, backend) for seed in range(3)]}\n" == traces[0]


def test_nobody_else_feels_the_seed():
    """What is drawn from `random` afterwards is as if there had been no simulation."""
    random.seed(5)
    expected = random.random()
    random.seed(5)
    simulate([raced()], seeds=[1, 2])

    assert expected == random.random()


# ---- what it finds ---------------------------------------------------------------------------------------------------


class Unfenced(MemoryStorage):
    """Takes writes under any lease."""

    def _held(self, lease: Lease) -> Any:
        return self._runs.get(lease.run_id)


class Uncounted(MemoryStorage):
    """Appends what was written before."""

    async def save_progress(self, progress: Progress) -> bool:
        entries = self._runs[progress.lease.run_id].entries
        return await super().save_progress(replace(progress, recorded=len(entries)))


class Greedy(MemoryStorage):
    """Keeps messages that were taken."""

    async def save_progress(self, progress: Progress) -> bool:
        return await super().save_progress(replace(progress, consumed=[]))


class Shared(MemoryStorage):
    """Has one lease id for all claims."""

    async def claim_runs(self, workflows: Any, *, lease_id: str, **options: Any) -> Claimed:
        return await super().claim_runs(workflows, lease_id="the one", **options)


class Timeless(MemoryStorage):
    """Forgets timers."""

    async def save_progress(self, progress: Progress) -> bool:
        return await super().save_progress(replace(progress, timers=[]))


class Lossy(MemoryStorage):
    """Loses the entries of a write now and then."""

    writes = 0

    async def save_progress(self, progress: Progress) -> bool:
        self.writes += 1
        return await super().save_progress(replace(progress, entries=[]) if self.writes % 7 == 0 else progress)


class Silent(MemoryStorage):
    """Tells no parent."""

    def _tell_parent(self, row: RunRow, now: int) -> None:
        pass


class Deaf(MemoryStorage):
    """Does not notice what a run waits for."""

    async def save_progress(self, progress: Progress) -> bool:
        ending = progress.ending and replace(progress.ending, awaits=())
        return await super().save_progress(replace(progress, ending=ending))


class Fickle(MemoryStorage):
    """Forgets which events it was sent."""

    async def send_message(self, run_id: str, name: str, payload: bytes, *, now: int, message_id: Any = None) -> bool:
        return await super().send_message(run_id, name, payload, now=now)


FLAWS: dict[type[MemoryStorage], str] = {
    Unfenced: "one only",
    Uncounted: "kept",
    Greedy: "taken once",
    Shared: "",
    Timeless: "it never ends",
    Lossy: "kept",
    Silent: "it never ends",
    Deaf: "it never ends",
    Fickle: "",
}


@pytest.mark.parametrize("flawed", FLAWS, ids=lambda flawed: flawed.__name__)
def test_a_flawed_storage_is_found(flawed: type[MemoryStorage], backend: Backend):
    """A storage that breaks one clause of its contract is found, and found again by the seed that is told."""
    with pytest.raises(SimulationError) as caught:
        simulated(storage=flawed, seeds=range(300), backend=backend)

    with pytest.raises(SimulationError) as again:
        simulated(storage=flawed, seeds=[caught.value.seed], backend=backend)

    assert caught.value.reason.startswith(FLAWS[flawed])
    assert (caught.value.reason, caught.value.trace) == (again.value.reason, again.value.trace)
    assert f"seeds=[{caught.value.seed}] repeats it" in str(caught.value)


def test_a_flawed_engine_is_found(monkeypatch: pytest.MonkeyPatch, backend: Backend):
    """An engine that takes a stale answer for a new request, and delivers a cancellation twice, is found."""
    signal = Runner.signal

    def forgetful(runner: Runner, news: RunSignal) -> None:
        runner._is_cancelled = False
        signal(runner, news)

    monkeypatch.setattr(Runner, "signal", forgetful)

    with pytest.raises(SimulationError, match="kept: run-0 has two entries at"):
        simulate([guarded(1)], cancels=[0], seeds=range(200), backend=backend)


charged: list[int] = []


async def charge(cents: int) -> int:
    """An effect that nothing makes idempotent."""
    charged.append(cents)
    return cents


@workflow
def paid() -> Flow[int]:
    """One step."""
    return (yield from step(charge, 500))


def test_an_effect_that_is_not_idempotent_is_found():
    """What a body does twice is found by an invariant of the user's."""

    def charged_once(ended: SimulatedRuns) -> None:
        count = len(charged)
        charged.clear()
        if count > 1:
            raise AssertionError(f"charged {count} times")

    charged.clear()
    with pytest.raises(SimulationError, match="charged 2 times"):
        simulate([paid()], invariant=charged_once)


@workflow
def endless() -> Flow[None]:
    """Waits for what nobody sends."""
    yield wait_event("nothing")


def test_a_run_that_never_ends_is_found():
    """A run that waits for ever is told with its status."""
    with pytest.raises(SimulationError, match="it never ends: 1 endless waiting"):
        simulate([endless()], most=500)


@pytest.mark.parametrize("call", [fan_out(2), raced()], ids=["fan_out", "raced"])
def test_more_engines_than_runs(call: Call[Any]):
    """A single run among many engines ends as well."""
    assert 10 == simulate([call], engines=6, seeds=range(10)).seeds
