"""`simulate`: a fleet of engines on one storage, in one thread, in which whatever can go wrong does.

Model. The engines are real, and so is the storage. Between them is a gate (faults.py), at which every verb, hint, body
and timer waits. The *keeper* waits until all tasks are blocked, picks one of what waits there, by a generator that is
seeded, and lets it through; so the seed decides what comes in which order, and nothing else does (lockstep.py says how
the event loops take part). What waits long has been delayed. Time stands still, until the keeper turns the clock.

So many *faults* are put in between: a verb fails before or after it was carried out, or is carried out twice; an engine
dies, or leaves; it stands still while others go on, or its clock jumps; the clock of all jumps past their leases. When
there are no more, every run has to end.

Plain `def` bodies are called in the event loop, since nobody can say when a thread ends. Bodies must not wait for
anything outside.

Invariants. promises.py; and those of the caller, when all runs have ended.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import isawaitable
from random import Random
from typing import Any, cast

from anyio import CancelScope, Event, create_task_group
from anyio.abc import TaskGroup
from msgspec import Struct
from msgspec.structs import replace

from reflow import Call, Client, Engine, MemoryStorage, RunInfo, StorageAdapter, StorageError, Workflow, current_step
from reflow import Event as DeclaredEvent
from reflow._core.steps import Step
from reflow.testing.clock import VirtualClock
from reflow.testing.crash import Crash
from reflow.testing.faults import Gate, GatedClock, Owner, Ticket, Verb, at_the_gate
from reflow.testing.harness import says_all
from reflow.testing.interposed import interposed
from reflow.testing.lockstep import AllBlocked, Backend, run_in_lockstep
from reflow.testing.promises import Promises

__all__ = ["Simulated", "SimulatedRuns", "SimulationError", "simulate"]

_LEASE_US = 10_000_000
_LINES_SHOWN = 60
# One in so many times, while something else could happen: the clock is turned; a fault happens to an engine, to a verb.
_CLOCK_ONE_IN = 30
_ENGINE_FAULT_ONE_IN = 50
_VERB_FAULT_ONE_IN = 15
# For so many picks at most an engine stands still, or stays away.
_LONGEST_ABSENCE = 300


class SimulatedRuns(Struct, frozen=True):
    """What there is when all runs of a simulation have ended: the runs by id (`run-0` is that of the first call), and
    for each position how often its body began, by (run id, generation, position)."""

    runs: dict[str, RunInfo]
    began: dict[tuple[str, int, str], int]


class Simulated(Struct, frozen=True):
    """What was simulated: how many seeds, how many times something was let through, and which faults there were."""

    seeds: int
    steps: int
    faults: dict[str, int]


class SimulationError(AssertionError):
    """A promise was broken. `simulate(..., seeds=[seed])` breaks it again; `trace` has what happened until then."""

    def __init__(self, seed: int, reason: str, trace: tuple[str, ...]) -> None:
        super().__init__(seed, reason, trace)
        self.seed = seed
        self.reason = reason
        self.trace = trace

    def __str__(self) -> str:
        left_out = len(self.trace) - _LINES_SHOWN
        lines = [f"... {left_out} lines before", *self.trace[-_LINES_SHOWN:]] if left_out > 0 else self.trace
        return "\n    ".join([f"seed {self.seed}: {self.reason}; seeds=[{self.seed}] repeats it", *lines])


def simulate(
    calls: Sequence[Call[Any]],
    *,
    workflows: Iterable[Workflow[..., Any]] = (),
    events: Iterable[tuple[int, DeclaredEvent[Any] | str, Any]] = (),
    cancels: Iterable[int] = (),
    invariant: Callable[[SimulatedRuns], bool | None] | None = None,
    seeds: Iterable[int] = range(20),
    engines: int = 3,
    faults: int = 8,
    storage: Callable[[], StorageAdapter] = MemoryStorage,
    backend: Backend = "asyncio",
    most: int = 20_000,
) -> Simulated:
    """Run `calls` on so many `engines` that share a storage, once for each seed, with so many `faults` each time.

    `workflows` are those that the calls start as children. `events` are sent to runs by the number of their call, in
    this order, and the runs in `cancels` are cancelled, at some moment. `invariant` is asked when all runs have ended;
    what it returns or raises is as for `explore`. `most` bounds how often something is let through, before a run counts
    as one that never ends. It runs an event loop of its own, so call it from a plain function.

        simulate([transfer(1, 2), transfer(2, 1)], invariant=lambda ended: ended.runs["run-0"].output == "done")

    Raises `SimulationError`, with the seed, where a promise of Reflow is broken or the invariant does not hold.
    """
    __tracebackhide__ = True
    steps, count, happened = 0, 0, Counter[str]()
    known = [*dict.fromkeys([*(call.workflow for call in calls), *workflows])]
    users = _Users(calls, list(events), list(cancels))
    for seed in seeds:
        world = _World(seed, storage(), known, engines)
        try:
            with _errors_of_ours() as errors:
                ended = run_in_lockstep(partial(world.run, users, faults, most), seed, backend)
            if errors:
                raise AssertionError(f"the engine was surprised: {errors[0]}")
            if invariant is not None and invariant(ended) is False:
                raise AssertionError("the invariant does not hold")
        except Exception as raised:
            error = _innermost(raised)
            is_promise = isinstance(error, AssertionError)
            reason, cause = str(error) if is_promise else repr(error), None if is_promise and says_all(error) else error
            raise SimulationError(seed, reason, tuple(world.trace)) from cause
        steps, count = steps + world.steps, count + 1
        happened.update(world.faults)
    return Simulated(count, steps, dict(sorted(happened.items())))


class _Users(Struct, frozen=True):
    """What is asked of the fleet from outside."""

    calls: Sequence[Call[Any]]
    events: Sequence[tuple[int, DeclaredEvent[Any] | str, Any]]
    cancels: Sequence[int]

    async def ask(self, client: Client) -> None:
        """Ask for all of it, side by side, until it was heard."""
        async with create_task_group() as tasks:
            for number, call in enumerate(self.calls):
                tasks.start_soon(self._ask, client, tasks, number, call)

    async def _ask(self, client: Client, tasks: TaskGroup, number: int, call: Call[Any]) -> None:
        run_id = f"run-{number}"
        await _again(lambda: client.enqueue(call, run_id=run_id))
        if number in self.cancels:
            tasks.start_soon(_again, lambda: client.cancel(run_id))
        for which, (to, event, payload) in enumerate(self.events):
            if to == number:
                name = cast("str", event)
                await _again(partial(client.send_event, run_id, name, payload, event_id=f"event-{which}"))


class _Member:
    """An engine of the fleet, while it lives."""

    def __init__(self, world: _World, number: int, life: int) -> None:
        self.owner = Owner(number, f"engine {number}.{life}")
        self.clock = GatedClock(world.clock, world.gate, self.owner)
        self.scope = CancelScope()
        self.leave = Event()
        self.still_until = 0
        self._world = world
        self.engine = Engine(
            at_the_gate(world.storage, world.gate, self.owner),
            [interposed(workflow, self._around) for workflow in world.workflows],
            clock=self.clock,
            lease=_LEASE_US / 1_000_000,
        )

    @property
    def held(self) -> dict[str, str]:
        """The runs that it holds, or believes to hold, and under which lease."""
        leases = self.engine._worker._leases.held  # pyright: ignore[reportPrivateUsage]
        return {lease.run_id: lease.lease_id for lease in leases}

    async def live(self) -> None:
        """Work until it is told to leave, or dies."""
        try:
            with self.scope:
                async with self.engine:
                    await self.leave.wait()
        except* Crash:
            pass
        finally:
            self._world.gone(self)

    def _around(self, step: Step[Any]) -> Step[Any]:
        """A body begins where the engine says so, and what comes of it is heard when the gate lets it through."""

        async def body(*args: Any, **kwargs: Any) -> Any:
            info = current_step()
            lease = self._world.promises.holds(self.owner, info.run_id)
            sure = lease if self.held.get(info.run_id) == lease else None
            self._world.promises.body_begins(info, sure)
            try:
                value = step.fn(*args, **kwargs)
                return await value if isawaitable(value) and step.body.is_async else value
            finally:
                await self._world.gate.passed(
                    Ticket(self.owner, f"ends {step.name} at {info.position} of {info.run_id}")
                )

        return replace(step, fn=body, body=replace(step.body, is_async=True))


class _World:
    """The keeper of the gate, and all that he keeps."""

    def __init__(self, seed: int, storage: StorageAdapter, workflows: list[Workflow[..., Any]], engines: int) -> None:
        self.storage = storage
        self.workflows = workflows
        self.gate = Gate()
        self.promises = Promises(storage)
        self.trace: list[str] = []
        self.faults: Counter[str] = Counter()
        self.clock = VirtualClock()
        self.steps = 0
        self._random = Random(seed)
        self._members: dict[int, _Member] = {}
        # When an engine comes back that has gone.
        self._absent: dict[int, int] = dict.fromkeys(range(1, engines + 1), 0)
        self._lives: Counter[int] = Counter()
        self._user = Owner(0, "user")
        self._users_left = 1
        self._may_be_over = False

    async def run(self, users: _Users, faults: int, most: int, all_blocked: AllBlocked) -> SimulatedRuns:
        """Keep the gate until all runs have ended."""
        await self.storage.initialize()
        clock = GatedClock(self.clock, self.gate, self._user)
        client = Client(at_the_gate(self.storage, self.gate, self._user), clock=clock)

        async def ask() -> None:
            await users.ask(client)
            self._users_left, self._may_be_over = 0, True

        try:
            async with create_task_group() as tasks:
                tasks.start_soon(ask)
                try:
                    while not await self._is_over():
                        if self.steps >= most:
                            raise AssertionError(f"it never ends: {await self._statuses()}")
                        self.steps += 1
                        self._bring_back(tasks)
                        await all_blocked()
                        if self.faults.total() < faults and self._one_in(_ENGINE_FAULT_ONE_IN):
                            self._hit_an_engine()
                            continue
                        await self._let_one_through(may_fail=self.faults.total() < faults)
                finally:
                    for member in list(self._members.values()):
                        self._kill(member)
                    self.gate.kill(self._user)
                    tasks.cancel_scope.cancel()
            return await self._ended()
        finally:
            with CancelScope(shield=True):
                await self.storage.close()

    def gone(self, member: _Member) -> None:
        """An engine has left, or is dead."""
        del self._members[member.owner.number]
        self._absent[member.owner.number] = self.steps + self._random.randrange(_LONGEST_ABSENCE)

    # ---- letting through --------------------------------------------------------------------------------------------

    async def _let_one_through(self, *, may_fail: bool) -> None:
        waiting = [ticket for ticket in self.gate.waiting() if not self._is_still(ticket.owner)]
        ready = [ticket for ticket in waiting if ticket.due_at is None or ticket.due_at <= self._now_of(ticket.owner)]
        if not ready or self._one_in(_CLOCK_ONE_IN):
            await self._turn_clock([ticket for ticket in waiting if ticket not in ready], nothing_else=not ready)
            return
        ticket = self._random.choice(ready)
        if isinstance(ticket, Verb):
            await self._carry_out(ticket, may_fail)
        else:
            self._tell(f"{ticket.owner} {ticket.text}")
            self.gate.discard(ticket)
            ticket.let_through()

    async def _carry_out(self, verb: Verb, may_fail: bool) -> None:
        told = f"{verb.owner} {verb.text}"
        if verb.is_done:
            self._tell(f"{told}: is told")
            verb.let_through()
            return
        fault = self._random.choice(_VERB_FAULTS) if may_fail and self._one_in(_VERB_FAULT_ONE_IN) else None
        if fault is not None:
            self.faults[fault] += 1
        self._tell(f"{told}{f' ({fault})' if fault else ''}")
        if fault == _FAILS:
            verb.error = StorageError(verb.name, "it failed before")
        else:
            for _ in range(2 if fault == _TWICE else 1):
                try:
                    verb.result, verb.error = await verb.call(), None
                except StorageError as error:
                    verb.error = error
                    continue
                await self.promises.carried_out(verb.owner, verb.name, verb.subject, verb.result)
            if fault == _ANSWER_LOST:
                verb.error = StorageError(verb.name, "it failed after")
        verb.is_done = True
        if verb.name in ("save_progress", "request_cancel"):
            self._may_be_over = True
            await self.promises.ended()
        # The answer may take its time.
        if self._one_in(2):
            verb.let_through()

    async def _turn_clock(self, timers: list[Ticket], *, nothing_else: bool) -> None:
        """To the next instant that somebody waits for; past all of them, while nobody holds a run and none is due."""
        instants = [(ticket.due_at or 0) - self._offset_of(ticket.owner) for ticket in timers]
        if nothing_else:
            if not instants:
                # All stand still, or are gone.
                self._absent = dict.fromkeys(self._absent, 0)
                for member in self._members.values():
                    member.still_until = 0
                return
            if not any(member.held for member in self._members.values()) and not self._users_left:
                due_at = (await self.storage.count_runs()).next_due_at
                instants = [max(min(instants), due_at or 0)]
        if instants and min(instants) > self.clock.now():
            self._tell(f"the clock is turned by {(min(instants) - self.clock.now()) / 1_000_000:g} s")
            self.clock.turn_to(min(instants))

    # ---- faults -----------------------------------------------------------------------------------------------------

    def _hit_an_engine(self) -> None:
        members = [self._members[number] for number in sorted(self._members)]
        if not members:
            return
        member, fault = self._random.choice(members), self._random.choice(_ENGINE_FAULTS)
        self.faults[fault] += 1
        self._tell(f"--- {member.owner} {fault}")
        match fault:
            case "dies":
                self._kill(member)
            case "leaves":
                member.leave.set()
            case "stands still":
                member.still_until = self.steps + self._random.randrange(_LONGEST_ABSENCE)
            case "has a clock that jumps":
                member.clock.offset_us += self._random.randrange(-2 * _LEASE_US, 2 * _LEASE_US)
            case _:
                self.clock.turn_to(self.clock.now() + self._random.randrange(2 * _LEASE_US))

    def _kill(self, member: _Member) -> None:
        self.gate.kill(member.owner)
        member.scope.cancel()

    def _bring_back(self, tasks: TaskGroup) -> None:
        for number in sorted(self._absent):
            if number not in self._members and self._absent[number] <= self.steps:
                del self._absent[number]
                self._lives[number] += 1
                member = self._members[number] = _Member(self, number, self._lives[number])
                self._tell(f"--- {member.owner} comes")
                tasks.start_soon(member.live)

    # ---- looking ----------------------------------------------------------------------------------------------------

    def _is_still(self, owner: Owner) -> bool:
        member = self._members.get(owner.number)
        return member is not None and member.owner is owner and member.still_until > self.steps

    def _offset_of(self, owner: Owner) -> int:
        member = self._members.get(owner.number)
        return member.clock.offset_us if member is not None and member.owner is owner else 0

    def _now_of(self, owner: Owner) -> int:
        return self.clock.now() + self._offset_of(owner)

    def _one_in(self, times: int) -> bool:
        return self._random.randrange(times) == 0

    def _tell(self, line: str) -> None:
        self.trace.append(line)

    async def _is_over(self) -> bool:
        if self._users_left or not self._may_be_over:
            return False
        self._may_be_over = False
        return all(count.status.is_terminal for count in (await self.storage.count_runs()).counts)

    async def _statuses(self) -> str:
        counts = (await self.storage.count_runs()).counts
        return ", ".join(f"{count.count} {count.workflow} {count.status}" for count in counts)

    async def _ended(self) -> SimulatedRuns:
        rows = await self.promises.at_the_end()
        engine = Engine(self.storage, self.workflows)
        runs: dict[str, RunInfo] = {}
        for run_id in sorted(rows):
            info = await engine.get_run(run_id)
            assert info is not None, "it is there"
            runs[run_id] = info
        return SimulatedRuns(
            runs, Counter((info.run_id, info.generation, info.position) for info in self.promises.began)
        )


_FAILS = "a verb fails"
_ANSWER_LOST = "an answer is lost"
_TWICE = "a verb is carried out twice"
_VERB_FAULTS = (_FAILS, _ANSWER_LOST, _TWICE)
_ENGINE_FAULTS = ("dies", "leaves", "stands still", "has a clock that jumps", "sees everybody's clock jump")


async def _again(ask: Callable[[], Awaitable[Any]]) -> None:
    """Until the storage does it."""
    while True:
        try:
            await ask()
            return
        except StorageError:
            pass


@contextmanager
def _errors_of_ours() -> Generator[list[str]]:
    """What the engine logs as an error that it has not foreseen; all that it logs besides is nobody's business here."""
    errors: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info:
                errors.append(logging.Formatter().format(record))

    log, handler = logging.getLogger("reflow"), Keeper()
    before = log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield errors
    finally:
        log.removeHandler(handler)
        log.propagate = before


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error
