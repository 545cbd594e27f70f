"""The synchronous half of a runner: takes in what happened, feeds it to the replay, and drafts what is to be written.

This is the only place where the workflow's generator runs. It waits for nothing: what takes time is handed to `Bodies`
(steps), or is left open as a *timer* until its time comes or a message arrives.

Every command that stays open has a timer, because timers are what a run leaves behind when it parks: a sleep has its
wake time, a step between two attempts the time of the next, a wait its deadline, a child none (`NEVER`). A command that
has a timer was begun before: after a restart it goes on as what it was, and a child is not started again.

What takes effect together is drafted together: an event is taken in the write that records it; a child starts in the
write that says so; a cancelled command's child is cancelled in the write that follows from it.
"""

from __future__ import annotations

import logging
import random
from typing import Any, assert_never

from reflow._core.definition import Call, Workflow
from reflow._core.digest import digest_of
from reflow._core.duration import from_micros
from reflow._core.failure import capture, capture_for, read_failure
from reflow._core.journal import NEVER, Entry, Journal, Message, MessageKind, Timer, cancel_entry, patch_entry
from reflow._core.nodes import Open
from reflow._core.performed import result_type
from reflow._core.replay import RULES, Replay
from reflow._core.retry import next_delay
from reflow._core.runs import Spawn
from reflow._core.status import RunStatus
from reflow._core.steps import Step
from reflow._core.values import Now
from reflow._core.waits import Sleep, WaitEvent
from reflow._engine.bodies import Arrival, Bodies, Ready
from reflow._engine.clock import Clock
from reflow._engine.draft import Draft
from reflow._engine.mailbox import Mailbox
from reflow._engine.teller import Teller
from reflow.codec import Codec
from reflow.errors import (
    Failure,
    NonDeterminismError,
    RunCancelledError,
    RunConflictError,
    RunFailedError,
    SerializationError,
    StepTimeoutError,
    ValidationError,
    WaitTimeoutError,
)
from reflow.storage.records import Continued, Ending, NewRun, RunRow

__all__ = ["Execution"]

# Of a stored journal, where that is no matter of strictness: looking at each of many would be felt.
_COMPARED = 100

_log = logging.getLogger("reflow")


class Execution:
    """One run, from its claim until it parks or ends."""

    def __init__(
        self,
        row: RunRow,
        workflow: Workflow[..., Any],
        codec: Codec,
        clock: Clock,
        bodies: Bodies,
        teller: Teller,
        *,
        strict: bool = False,
    ) -> None:
        self.row = row
        self.draft = Draft(0)
        self.timers: dict[str, Timer] = {}
        self.mailbox = Mailbox()
        self._workflow = workflow
        self._codec = codec
        self._clock = clock
        self._bodies = bodies
        self._teller = teller
        self._strict = strict
        self._has_warned = False
        self._replay: Replay | None = None
        # The ids of the runs that are open as children.
        self._children: dict[str, str] = {}

    @property
    def replay(self) -> Replay:
        """Where the program stands; there is one once `begin` was called."""
        assert self._replay is not None, "begun first"
        return self._replay

    @property
    def is_over(self) -> bool:
        """Whether the body has ended, and everything it cancelled."""
        return self.replay.outcome is not None

    @property
    def next_due_at(self) -> int:
        """When the next timer is due."""
        return min((timer.due_at for timer in self.timers.values()), default=NEVER)

    @property
    def is_wait_due(self) -> bool:
        """Whether a wait for a message may be over: one that came in time wins, so look for it first."""
        return bool(self.timers and self.mailbox.awaits) and self.next_due_at <= self._clock.now()

    def close(self) -> None:
        """Drop the generators."""
        if self._replay is not None:
            self._replay.close()

    # ---- beginning --------------------------------------------------------------------------------------------------

    def begin(self, journal: Journal | None, *, is_cancelled: bool = False) -> None:
        """Run the body up to its first commands. One that was cancelled before does not run at all."""
        self.close()
        if journal is not None:
            self.draft = Draft(len(journal.entries))
            self.mailbox.put(journal.messages)
        row = self.row
        is_new = journal is None or not (journal.entries or journal.timers)
        generator = self._workflow.start(row.input, self._codec, is_new=is_new)
        self._replay = Replay(
            row.run_id,
            generator,
            self._codec,
            journal,
            workflow=row.workflow,
            generation=row.generation,
            on_other_arguments=self._other_arguments,
            compared=None if self._strict else _COMPARED,
        )
        if is_cancelled:
            self.cancel()
        self._replay.start()
        self.record_marks(self._replay)

    def catch_up(self, most: int) -> None:
        """Feed up to so many stored entries."""
        self.replay.catch_up(most)
        self.record_marks(self.replay)

    def _other_arguments(self, entry: Entry, location: str) -> None:
        """The outcome stands, and that is said once; it may be a sign that the body is not deterministic."""
        if self._strict:
            raise NonDeterminismError(entry.position, str(entry), f"{entry} with other arguments", location)
        if not self._has_warned:
            self._has_warned = True
            _log.warning(
                "run %s: %s at position %s has other arguments than when its outcome was recorded (%s); the outcome "
                "stands",
                self.row.run_id,
                entry,
                entry.position,
                location,
            )

    def take_up(self, timers: list[Timer]) -> None:
        """Go on with the commands that were begun before."""
        replay = self.replay
        for timer in timers:
            replay.check(timer)
            if timer.due_at == NEVER and timer.kind in ("sleep", "step"):
                subject = f"the timer of {timer} at position {timer.position} of run {self.row.run_id!r}"
                raise SerializationError(subject, "it is never due", "$.due_at")
            self.timers[timer.position] = timer
        # In the order in which they were opened: so they wait for events of one name.
        for position, node in replay.open.items():
            if position in self.timers:
                node.digest = digest_of(node.command)
                if isinstance(node.command, WaitEvent):
                    self.mailbox.expect(MessageKind.EVENT, node.command.name, position)
                elif isinstance(node.command, Call):
                    self._expect_child(node)

    def cancel(self) -> None:
        """Deliver the cancellation of the run: it is thrown at the current yield, and recorded as an entry."""
        entry = cancel_entry(self._clock.now())
        self.draft.entries.append(entry)
        self.draft.is_cancel_delivered = True
        self.replay.feed(entry)
        self.record_marks(self.replay)

    # ---- taking in what happened ------------------------------------------------------------------------------------

    def absorb(self) -> None:
        """Feed everything that has an outcome now, until only bodies, later timers and messages to come are left."""
        replay, bodies = self.replay, self._bodies
        while True:
            if replay.cancelled:
                self._forget_cancelled(replay)
            if replay.opened:
                self._meet_opened(replay)
            elif bodies.arrivals:
                arrivals, bodies.arrivals = bodies.arrivals, []
                for arrival in arrivals:
                    self._settle_attempt(replay, arrival)
            elif not (self.timers and (self._deliver(replay) or self._fire_due_timers(replay))):
                break

    def _forget_cancelled(self, replay: Replay) -> None:
        for position in replay.cancelled:
            self._bodies.cancel(position)
            self._settled(position)
            # Also where no timer waits: that of a retry stays stored while the next attempt runs.
            self.draft.timers[position] = None
            if child := self._children.pop(position, None):
                self.draft.cancelled.append(child)
        replay.cancelled.clear()

    def _meet_opened(self, replay: Replay) -> None:
        opened = replay.opened.copy()
        replay.opened.clear()
        for node in opened:
            if replay.open.get(node.position) is node and node.position not in self.timers:
                self._meet(replay, node)

    def _meet(self, replay: Replay, node: Open) -> None:
        command, now = node.command, self._clock.now()
        match command:
            case Step():
                node.digest = digest_of(command)
                self._bodies.ready[node.position] = Ready(node, command, 0, now)
            case Sleep():
                due_at = command.wakes_at(now)
                if due_at <= now:
                    self._record_value(replay, node, None, now)
                else:
                    self._set_timer(node, due_at, now)
            case WaitEvent():
                self.mailbox.expect(MessageKind.EVENT, command.name, node.position)
                self._set_timer(node, NEVER if command.timeout_us is None else now + command.timeout_us, now)
            case Now():
                self._record_value(replay, node, from_micros(now), now)
            case Call():
                self._start_child(replay, node, command, now)
            case Spawn():
                self._spawn(replay, node, command.call, now)
            case _:
                assert_never(command)

    def _deliver(self, replay: Replay) -> bool:
        """Hand over messages that are here to the commands that wait for them."""
        delivered = False
        for position, message in self.mailbox.deliveries():
            node, started_at = replay.open[position], self.timers[position].started_at
            self.draft.consumed.append(message.seq)
            if isinstance(node.command, WaitEvent):
                self._take_event(replay, node, node.command, message, started_at)
            else:
                self._child_ended(replay, node, message, started_at)
            self._forget_cancelled(replay)
            delivered = True
        return delivered

    def _fire_due_timers(self, replay: Replay) -> bool:
        now = self._clock.now()
        due = sorted((timer for timer in self.timers.values() if timer.due_at <= now), key=lambda timer: timer.due_at)
        for timer in due:
            position = timer.position
            if self.timers.get(position) is not timer:
                # Cancelled by what an earlier one of these has set off.
                continue
            node = replay.open[position]
            command = node.command
            if isinstance(command, Step):
                # The stored timer stays until the attempt has an outcome: it carries the count.
                del self.timers[position]
                self._bodies.ready[position] = Ready(node, command, timer.attempts, timer.started_at)
            elif isinstance(command, WaitEvent):
                limit_s = (command.timeout_us or 0) / 1_000_000
                self._record_failure(replay, node, capture(WaitTimeoutError(command.name, limit_s)), timer.started_at)
            else:
                self._record_value(replay, node, None, timer.started_at)
            self._forget_cancelled(replay)
        return bool(due)

    # ---- steps ------------------------------------------------------------------------------------------------------

    def _settle_attempt(self, replay: Replay, arrival: Arrival) -> None:
        node = arrival.node
        if replay.open.get(node.position) is not node:
            # Cancelled while it ran: its late result is dropped.
            return
        settled = len(self.draft.entries)
        if (error := arrival.result.error) is None:
            self._record_value(replay, node, arrival.result.value, arrival.started_at, arrival.attempts)
        else:
            self._settle_failure(replay, node, arrival, error)
        if not self._teller.observers.is_idle:
            self._keep_to_tell(node, arrival.began_at, settled)
        if replay.cancelled:
            self._forget_cancelled(replay)

    def _settle_failure(self, replay: Replay, node: Open, arrival: Arrival, error: BaseException) -> None:
        step = arrival.step
        # What a timeout says is known; captured anew it would say it twice.
        timeout = error.failure if isinstance(error, StepTimeoutError) else None
        delay = next_delay(step.retry, arrival.attempts, error, random.random())
        if delay is None:
            failure = timeout or capture_for(step.raises, error, self._codec)
            self._record_failure(replay, node, failure, arrival.started_at, arrival.attempts)
            return
        last = self._codec.encode(timeout or capture(error))
        self._set_timer(node, self._clock.now() + delay, arrival.started_at, arrival.attempts, last)

    def _keep_to_tell(self, node: Open, began_at: int, settled: int) -> None:
        """The entry of the step, which is number `settled` of the draft; or the timer of its next attempt."""
        if (timer := self.timers.get(node.position)) is not None:
            self._teller.step_retries(timer, began_at)
        else:
            self._teller.step_settled(node, self.draft.entries[settled], began_at)

    # ---- events and other runs --------------------------------------------------------------------------------------

    def _take_event(
        self, replay: Replay, node: Open, command: WaitEvent[Any], message: Message, started_at: int
    ) -> None:
        try:
            value = command.decode(message.payload, self._codec)
        except ValidationError as error:
            self._record_failure(replay, node, capture(error), started_at)
        else:
            self._append(replay, node, False, message.payload, started_at, 1, value)

    def _start_child(self, replay: Replay, node: Open, call: Call[Any], now: int) -> None:
        node.digest = digest_of(call)
        if child := self._new_run(replay, node, call, now, parent=self.row.run_id, at=self._name_of(node)):
            self.draft.started.append(child)
            self._expect_child(node)
            self._set_timer(node, NEVER, now)

    def _spawn(self, replay: Replay, node: Open, call: Call[Any], now: int) -> None:
        node.digest = digest_of(node.command)
        if new := self._new_run(replay, node, call, now):
            self.draft.started.append(new)
            self._record_value(replay, node, new.run_id, now)

    def _new_run(
        self,
        replay: Replay,
        node: Open,
        call: Call[Any],
        now: int,
        *,
        parent: str | None = None,
        at: str | None = None,
    ) -> NewRun | None:
        """The run that `node` starts; where its input is none, that is recorded as the outcome, and there is no run."""
        workflow = call.workflow
        try:
            data = workflow.encode_input(call.arguments, self._codec)
        except (SerializationError, ValidationError) as error:
            self._record_failure(replay, node, capture(error), now)
            return None
        return NewRun(
            run_id=replay.run_id_of(node),
            workflow=workflow.name,
            version=workflow.version,
            rules=RULES,
            input=data,
            due_at=now,
            created_at=now,
            priority=self.row.priority,
            parent=parent,
            parent_position=at,
        )

    def _expect_child(self, node: Open) -> None:
        self.mailbox.expect(MessageKind.CHILD, self._name_of(node), node.position)
        self._children[node.position] = self.replay.run_id_of(node)

    def _name_of(self, node: Open) -> str:
        """Under which a child tells its end: the position; one of an earlier generation must not be heard."""
        generation = self.row.generation
        return f"{generation}/{node.position}" if generation else node.position

    def _child_ended(self, replay: Replay, node: Open, message: Message, started_at: int) -> None:
        child, name = self._children[node.position], node.command.name
        match message.status:
            case RunStatus.COMPLETED:
                self._record_payload(replay, node, message.payload, started_at)
                return
            case RunStatus.FAILED:
                ended_with = read_failure(message.payload, self._codec, f"the error of run {child!r}")
                failure = capture(RunFailedError(child, name, ended_with))
            case RunStatus.CANCELLED:
                failure = capture(RunCancelledError(child, name))
            case _:
                failure = capture(RunConflictError(child, "another input, or another parent"))
        self._record_failure(replay, node, failure, started_at)

    # ---- recording --------------------------------------------------------------------------------------------------

    def _set_timer(
        self, node: Open, due_at: int, started_at: int, attempts: int = 0, failure: bytes | None = None
    ) -> None:
        command = node.command
        timer = Timer(node.position, command.kind, command.name, due_at, attempts, started_at, failure)
        self.timers[node.position] = self.draft.timers[node.position] = timer

    def _settled(self, position: str) -> None:
        """The command there is open no longer."""
        if self.timers.pop(position, None) is not None:
            self.draft.timers[position] = None
            self.mailbox.forget(position)

    def _record_value(self, replay: Replay, node: Open, value: Any, started_at: int, attempts: int = 1) -> None:
        try:
            payload = self._codec.encode(value)
            decoded = self._codec.decode(payload, result_type(node.command))
        except SerializationError as error:
            named = error.about(f"the result of {node} at position {node.position}")
            self._record_failure(replay, node, capture(named), started_at, attempts)
        else:
            self._append(replay, node, False, payload, started_at, attempts, decoded)

    def _record_payload(self, replay: Replay, node: Open, payload: bytes, started_at: int) -> None:
        """A value that is bytes already."""
        try:
            decoded = self._codec.decode(payload, result_type(node.command))
        except SerializationError as error:
            named = error.about(f"the result of {node} at position {node.position}")
            self._record_failure(replay, node, capture(named), started_at)
        else:
            self._append(replay, node, False, payload, started_at, 1, decoded)

    def _record_failure(self, replay: Replay, node: Open, failure: Failure, started_at: int, attempts: int = 1) -> None:
        self._append(replay, node, True, self._codec.encode(failure), started_at, attempts)

    def _append(
        self, replay: Replay, node: Open, failed: bool, payload: bytes, started_at: int, attempts: int, *decoded: Any
    ) -> None:
        command, position = node.command, node.position
        entry = Entry(
            position, command.kind, command.name, failed, payload, attempts, started_at, self._clock.now(), node.digest
        )
        self.draft.entries.append(entry)
        if self.timers:
            self._settled(position)
        if attempts > 1:
            self.draft.timers[position] = None
        if self._children:
            self._children.pop(position, None)
        replay.feed(entry, *decoded)
        if replay.marks:
            self.record_marks(replay)

    def record_marks(self, replay: Replay) -> None:
        """Right behind what led to them."""
        for change in replay.marks:
            self.draft.entries.append(patch_entry(change, self._clock.now()))
        replay.marks.clear()

    # ---- ending -----------------------------------------------------------------------------------------------------

    def parked(self) -> Ending:
        """How the run is left while it only waits."""
        due_at, awaits = self.next_due_at, self.mailbox.awaits
        status = RunStatus.WAITING if awaits else RunStatus.SLEEPING
        return Ending(status, None if due_at == NEVER else due_at, awaits=awaits)

    def ended(self) -> Ending:
        """How the run is left for good, or until it goes on as something else."""
        outcome = self.replay.outcome
        assert outcome is not None, "it is over"
        if outcome.error is not None:
            return self.failed(outcome.error)
        if outcome.is_cancelled:
            return Ending(RunStatus.CANCELLED)
        try:
            if outcome.continued is not None:
                return self._continued(outcome.continued)
            output = self._codec.encode(outcome.value)
            self._codec.decode(output, self._workflow.output_type)
        except SerializationError as error:
            return self.failed(error.about(f"the return value of workflow {self._workflow.name!r}"))
        except Exception as error:
            # A type that the codec does not know, or a codec of the user's that breaks.
            return self.failed(error)
        return Ending(RunStatus.COMPLETED, output=output)

    def _continued(self, call: Call[Any]) -> Ending:
        workflow = call.workflow
        try:
            data = workflow.encode_input(call.arguments, self._codec)
        except (SerializationError, ValidationError) as error:
            return self.failed(error)
        following = Continued(workflow.name, workflow.version, RULES, data)
        return Ending(RunStatus.PENDING, self._clock.now(), continued=following)

    def failed(self, error: BaseException) -> Ending:
        """The run has failed with `error`."""
        position = self._replay.position if self._replay is not None else None
        return Ending(RunStatus.FAILED, error=self._codec.encode(capture(error, position=position)))
