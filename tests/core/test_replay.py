"""Replay of bodies in sequence: values, failures, positions, dropping a run. Side by side is in test_groups.py."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest

from reflow._core.command import Flow
from reflow._core.derived import random_at, uuid_at
from reflow._core.failure import capture
from reflow._core.groups import gather, race
from reflow._core.journal import Entry, Timer
from reflow._core.replay import RULES, Replay, result_type
from reflow._core.steps import step
from reflow._core.values import new_random, new_uuid, now
from reflow._core.waits import sleep, sleep_until
from reflow.codec import MsgpackCodec
from reflow.errors import (
    ConfigError,
    Failure,
    NonDeterminismError,
    SerializationError,
    StepFailedError,
    StepTimeoutError,
    WorkflowCancelled,
)
from tests.support.driven import CODEC, Driven, do, entry_of, failed_entry_of, work

# ---- a chain ---------------------------------------------------------------------------------------------------------


def chain():
    """Three steps, the last with what the others gave."""
    a = yield do("a")
    b = yield do("b")
    c = yield step(work, a, b).options(name="c")
    return [a, b, c]


def test_a_body_runs_to_its_first_command():
    """Starting a body performs nothing; what it yields first is open."""
    driven = Driven(chain())

    assert ({"0": "a"}, False) == (driven.open, driven.has_ended)


def test_one_command_after_the_other():
    """[6] No command is open before the previous one has its outcome."""
    driven, seen = Driven(chain()), []
    for position in ("0", "1", "2"):
        seen.append(driven.open)
        driven.complete(position, position)

    assert ([{"0": "a"}, {"1": "b"}, {"2": "c"}], ["0", "1", "2"]) == (seen, driven.value)


def test_results_are_local_variables():
    """What a step gave can be an argument of the next."""
    driven = Driven(chain()).complete("0", 1).complete("1", 2)

    assert (1, 2) == driven.replay.open["2"].command.args


def test_a_recorded_journal_puts_the_body_where_it_was():
    """[33] Replaying entries gives the same variables and the same open command as living through them."""
    live = Driven(chain()).complete("0", "x").complete("1", None)
    again = Driven(chain(), live.journal)

    assert (live.open, ("x", None)) == (again.open, again.replay.open["2"].command.args)


def test_replaying_twice_changes_nothing():
    """[32] Two replays of one journal end the same."""
    journal = [entry_of("0", "a", 1), entry_of("1", "b", 2), entry_of("2", "c", 3)]

    assert [[1, 2, 3], [1, 2, 3]] == [Driven(chain(), journal).value for _ in range(2)]


def test_a_body_without_commands_ends_at_once():
    """[7] A body that returns before its first yield has ended after its start."""

    def body():
        return 5
        yield

    assert 5 == Driven(body()).value


def test_no_return_value_is_none():
    """[93] A body that falls off its end gives None."""

    def body():
        yield do("a")

    assert Driven(body()).complete("0", 1).value is None


def test_a_return_ends_the_body_anywhere():
    """[93] `return` completes the run; commands after it are never opened."""

    def body():
        if (yield do("a")):
            return "early"
        yield do("b")

    assert "early" == Driven(body()).complete("0", True).value


def test_a_path_is_taken_by_recorded_values():
    """[90] Branches and loops over recorded values take the same path on replay."""

    def body():
        total, page = 0, 0
        while True:
            items = yield do("page")
            if not items:
                break
            for item in items:
                if item % 2:
                    total += yield do("odd")
            page += 1
        return page, total

    live = Driven(body())
    for position, value in enumerate([[1, 2, 3], 10, 20, [4], []]):
        live.complete(str(position), value)

    assert [(2, 30), (2, 30)] == [live.value, Driven(body(), live.journal).value]


def test_an_exception_of_the_body_is_its_outcome():
    """[92] An exception in the workflow's own code ends the run with it."""

    def body():
        yield do("a")
        raise KeyError("mine")

    error = Driven(body()).complete("0").error

    assert (KeyError, ("mine",)) == (type(error), error.args)


def test_an_exception_before_the_first_command():
    """A body that raises at once has ended with that."""

    def body():
        raise KeyError("k")
        yield

    assert KeyError is type(Driven(body()).error)


def test_program_exits_are_not_outcomes():
    """A KeyboardInterrupt while the body runs is no failure of the run: it goes to whoever drives it."""

    def body():
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        Replay("run-1", body(), CODEC).start()


def test_helpers_share_the_positions_of_the_body():
    """`yield from helper()` counts on in the same sequence."""

    def helper(name):
        first = yield do(name)
        second = yield from do(name)
        return first, second

    def body():
        yield do("a")
        result = yield from helper("h")
        yield do("z")
        return result

    driven = Driven(body()).complete("0").complete("1", 1).complete("2", 2)

    assert {"3": "z"} == driven.open
    assert (1, 2) == driven.complete("3").value


def test_opened_and_cancelled_tell_what_changed():
    """`opened` collects what became open until the caller has taken it."""
    driven = Driven(chain())
    first = [node.position for node in driven.replay.opened]
    driven.replay.opened.clear()
    driven.complete("0")

    assert (["0"], ["1"], []) == (first, [node.position for node in driven.replay.opened], driven.replay.cancelled)


def test_the_position_of_the_body():
    """The position of the last command that the body yielded is known; there is none before the first."""
    driven = Driven(chain())
    before = Replay("run-1", chain(), CODEC).position
    driven.complete("0")

    assert (None, "1") == (before, driven.replay.position)


def test_rules_have_a_version():
    """The version of the replay rules only ever grows; changing it takes a golden journal of the old one."""
    assert 1 == RULES


def test_a_body_has_a_context_of_its_own():
    """Context variables that a body sets stay in its run."""
    variable: ContextVar[str] = ContextVar("variable", default="outside")

    def body(value):
        variable.set(value)
        yield do("a")
        return variable.get()

    one, other = Driven(body("one")), Driven(body("other"))

    assert ["one", "other", "outside"] == [one.complete("0").value, other.complete("0").value, variable.get()]


# ---- values ----------------------------------------------------------------------------------------------------------


class Colour(Enum):
    RED = "red"


@dataclass
class Item:
    name: str
    price: Decimal


class Order(msgspec.Struct):
    items: tuple[Item, ...]
    due: date


class Point(NamedTuple):
    x: int
    y: float


VALUES = [
    (None, None),
    (Item("pen", Decimal("1.10")), Item),
    (Order((Item("pen", Decimal(2)),), date(2026, 1, 1)), Order),
    ((1, "a"), tuple[int, str]),
    (Point(1, 2.5), Point),
    ({1, 2}, set[int]),
    (datetime(2026, 1, 1, tzinfo=UTC), datetime),
    (timedelta(days=1, microseconds=1), timedelta),
    (Decimal("0.10"), Decimal),
    (UUID(int=7), UUID),
    (Colour.RED, Colour),
    (b"\x00\xff", bytes),
    ({Colour.RED: [None, 1]}, dict[Colour, list[int | None]]),
    (0, int),
    ("", str),
    (False, bool),
]


def returning(annotation):
    """A body with one step whose function is annotated to return that."""

    def fn():
        """Not run here."""

    fn.__annotations__["return"] = annotation

    def body():
        return (yield step(fn))

    return body


@pytest.mark.parametrize(("value", "annotation"), VALUES, ids=lambda part: repr(part)[:30])
def test_a_value_arrives_as_the_annotated_type(value, annotation):
    """[15] What a step returned arrives equal and of the annotated type, live and on replay alike."""
    live = Driven(returning(annotation)()).complete("0", value)
    again = Driven(returning(annotation)(), live.journal)

    assert [(value, type(value))] * 2 == [(driven.value, type(driven.value)) for driven in (live, again)]


def test_live_equals_replay_without_an_annotation():
    """[15] Without an annotation a tuple comes back as a list the first time too."""
    live = Driven(returning(Any)()).complete("0", (1, Point(2, 3.0)))

    assert [[1, [2, 3.0]]] * 2 == [live.value, Driven(returning(Any)(), live.journal).value]


def test_a_value_decoded_already_is_not_decoded_again():
    """Whoever feeds an entry may hand over its decoded payload."""
    replay = Replay("run-1", returning(Item)(), CODEC)
    replay.start()
    item = Item("pen", Decimal(1))
    replay.feed(entry_of("0", "fn", item), item)

    assert item is replay.outcome.value


def test_a_value_decoded_already_may_be_none():
    """None is a value as well."""
    replay = Replay("run-1", returning(None)(), CODEC)
    replay.start()
    replay.feed(Entry("0", "step", "fn", False, b"not read", 1, 0, 0), None)

    assert replay.outcome.value is None


def test_every_kind_has_a_result_type():
    """The outcomes of steps, sleeps and clock readings are read as what they give."""
    commands = [step(returning, int), sleep(1), sleep_until(datetime.now(UTC)), now()]

    assert [Any, None, None, datetime] == [result_type(command) for command in commands]


def test_a_value_that_no_longer_fits_is_named():
    """[19] A stored value that does not fit the type of today is an error naming run, position, step and field."""
    entry = entry_of("0", "fn", {"name": "pen", "price": None})
    with pytest.raises(SerializationError) as caught:
        Driven(returning(Item)(), [entry])

    assert ("the recorded outcome of step 'fn' at position 0 of run 'run-1'", "$.price") == (
        caught.value.subject,
        caught.value.path,
    )


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x93\x01", b"\x01\x02"], ids=repr)
def test_corrupt_bytes_are_named(payload, failed):
    """[19] Damaged bytes are an error naming run, position and step, never a wrong value; of a failure as well."""
    with pytest.raises(SerializationError) as caught:
        Driven(returning(int)(), [Entry("0", "step", "fn", failed, payload, 1, 0, 0)])

    assert "the recorded outcome of step 'fn' at position 0 of run 'run-1'" == caught.value.subject


def test_a_type_that_cannot_be_read_is_named():
    """A return annotation that nothing can be read as is an error naming run, position and step as well."""
    with pytest.raises(ConfigError) as caught:
        Driven(returning(Item | Order | Point)(), [entry_of("0", "fn")])

    assert str(caught.value).startswith(
        "the recorded outcome of step 'fn' at position 0 of run 'run-1': Reflow cannot read values of the annotated"
    )


def test_a_wrong_value_cannot_be_swallowed():
    """What does not fit is raised outside the generator, so that no `except` in the body catches it."""

    def fn() -> int: ...

    def body():
        try:
            yield step(fn)
        except BaseException:
            yield do("b")

    with pytest.raises(SerializationError):
        Driven(body(), [entry_of("0", "fn", "text")])


# ---- failures --------------------------------------------------------------------------------------------------------


class Declined(Exception):
    """Listed in raises=."""


def careful(**options):
    """A body that tells what was raised at its yield."""
    try:
        yield do("charge", **options)
    except Exception as error:
        return type(error), str(error)


def test_a_failed_step_raises_at_its_yield():
    """[35][177] A failed step raises StepFailedError at its yield, where the workflow may catch it and go on."""
    live = Driven(careful()).fail("0", Declined("no funds"))
    expected = (StepFailedError, "step 'charge' failed after 1 attempt: Declined: no funds")

    assert [expected, expected] == [live.value, Driven(careful(), live.journal).value]


def test_a_failure_not_caught_ends_the_run():
    """Uncaught, the failure of a step is the outcome of the run, with step, position, attempts and traceback."""
    error = Driven(chain(), [failed_entry_of("0", Declined("no"), attempts=3)]).error

    assert (StepFailedError, "a", "0", 3, "Declined") == (
        type(error),
        error.step,
        error.position,
        error.attempts,
        error.error_type,
    )


def test_a_listed_class_is_raised_as_itself():
    """[178] A class listed in raises= is raised as itself, live and on replay alike."""
    live = Driven(careful(raises=Declined)).fail("0", Declined("no", 5))

    assert [(Declined, "('no', 5)")] * 2 == [live.value, Driven(careful(raises=Declined), live.journal).value]


def test_a_listed_class_that_cannot_be_rebuilt():
    """[178] A listed exception that plain data does not give again is StepFailedError, live and on replay alike."""
    live = Driven(careful(raises=Declined)).fail("0", Declined(object))
    again = Driven(careful(raises=Declined), live.journal)

    assert [StepFailedError, StepFailedError] == [live.value[0], again.value[0]]
    assert live.value == again.value


def test_a_timeout_is_a_failed_step():
    """[45] A timed-out step raises StepTimeoutError, which carries the limit."""

    def body():
        try:
            yield do("slow", timeout=2.5)
        except StepFailedError as error:
            return type(error), error.limit_s

    timeout = StepTimeoutError("slow", "0", 1, Failure(type="TimeoutError", message=""), 2.5)

    assert (StepTimeoutError, 2.5) == Driven(body(), [failed_entry_of("0", timeout, "slow")]).value


def test_compensation_is_steps_in_an_except_block():
    """Commands in an except block are performed and recorded like any other."""

    def body():
        yield do("reserve")
        try:
            yield do("charge")
        except StepFailedError:
            yield do("refund")
            yield do("release")
            raise

    live = Driven(body()).complete("0").fail("1", Declined("no")).complete("2")
    again = Driven(body(), live.journal)

    assert [{"3": "release"}, {"3": "release"}] == [live.open, again.open]
    assert [StepFailedError] * 2 == [type(driven.complete("3").error) for driven in (live, again)]


def test_a_finally_block_runs_when_the_body_ends():
    """Commands in a finally block are performed on the way out."""

    def body():
        try:
            yield do("a")
        finally:
            yield do("clean")
        return 1

    failed = Driven(body()).fail("0", Declined("no")).complete("1")
    completed = Driven(body()).complete("0").complete("1")

    assert (StepFailedError, 1) == (type(failed.error), completed.value)


def test_a_step_may_raise_stop_iteration():
    """An exception that means something to generators is a failure like any other."""
    expected = (StepFailedError, "step 'charge' failed after 1 attempt: StopIteration: 5")

    assert expected == Driven(careful()).fail("0", StopIteration(5)).value


# ---- time, identity, randomness --------------------------------------------------------------------------------------


def test_a_sleep_gives_none():
    """A sleep is open until it gets its entry, and gives None."""

    def body():
        return (yield sleep(5)), (yield sleep_until(datetime(2026, 1, 1, tzinfo=UTC)))

    assert (None, None) == Driven(body(), [entry_of("0", "sleep", kind="sleep")]).complete("1").value


def test_now_gives_what_was_recorded():
    """[100] now() gives the recorded time on every replay."""

    def body():
        return (yield now())

    moment = datetime(2026, 1, 1, tzinfo=UTC)
    live = Driven(body()).complete("0", moment)

    assert [moment, moment] == [live.value, Driven(body(), live.journal).value]


def test_identity_and_randomness_need_no_entry():
    """[100] new_uuid() and new_random() are answered at once from run id and position, and leave no entry."""

    def body():
        return (yield new_uuid()), (yield new_random()).random(), (yield new_uuid())

    driven = Driven(body())

    assert (uuid_at("run-1", "0"), random_at("run-1", "1").random(), uuid_at("run-1", "2")) == driven.value


def test_runs_differ_in_identity_and_randomness():
    """[100] Another run gets other values in the same place."""

    def body():
        return (yield new_uuid())

    assert Driven(body(), run_id="a").value != Driven(body(), run_id="b").value


def test_each_new_random_is_a_stream_of_its_own():
    """Drawing from one generator disturbs no other."""

    def body(draws):
        first: Random = yield new_random()
        for _ in range(draws):
            first.random()
        second: Random = yield new_random()
        return second.random()

    assert Driven(body(0)).value == Driven(body(10)).value


# ---- timers ----------------------------------------------------------------------------------------------------------


def timer_of(position, kind="step", name="a"):
    """A stored timer."""
    return Timer(position, kind, name, due_at=5, attempts=1, started_at=0)


def test_a_timer_that_meets_its_command():
    """The timer of an open command passes the check, which changes nothing."""
    driven = Driven(chain())
    driven.replay.check(timer_of("0"))

    assert {"0": "a"} == driven.open


@pytest.mark.parametrize(
    ("timer", "recorded", "yielded"),
    [
        (timer_of("0", "sleep", "sleep"), "sleep", "step 'a'"),
        (timer_of("0", "step", "z"), "step 'z'", "step 'a'"),
        (timer_of("1"), "step 'a'", "step 'a' at position 0"),
    ],
)
def test_a_timer_that_meets_another_command(timer, recorded, yielded):
    """A timer of a command that is not open any more means that the code has changed."""
    with pytest.raises(NonDeterminismError) as caught:
        Driven(chain()).replay.check(timer)

    assert (timer.position, recorded, yielded) == (caught.value.position, caught.value.recorded, caught.value.yielded)


# ---- dropping a run --------------------------------------------------------------------------------------------------


def test_close_runs_the_finally_blocks():
    """Dropping a suspended run makes Python run its clean-up blocks, innermost branches first."""
    seen = []

    def branch(name):
        try:
            yield do(name)
        finally:
            seen.append(name)

    def body():
        try:
            yield gather(branch("first"), branch("second"))
        finally:
            seen.append("body")

    driven = Driven(body())
    driven.replay.close()

    assert (["second", "first", "body"], {}) == (seen, driven.open)


def test_close_swallows_what_clean_up_yields():
    """What clean-up yields while a run is dropped is not performed; every block is entered all the same."""
    seen = []

    def helper():
        try:
            yield do("inner")
        finally:
            seen.append("helper")
            yield do("one")
            yield gather(do("two"))

    def body():
        try:
            yield from helper()
        finally:
            seen.append("body")
            yield do("three")

    driven = Driven(body())
    driven.replay.close()

    assert (["helper", "body"], {}) == (seen, driven.open)


def test_close_shows_no_error_to_the_body():
    """A helper that yields in its clean-up while a run is dropped is no error in the body around it."""
    seen = []

    def helper():
        try:
            yield do("a")
        finally:
            yield do("clean")

    def body():
        try:
            yield from helper()
        except Exception as error:
            seen.append(error)

    Driven(body()).replay.close()

    assert [] == seen


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("y"), WorkflowCancelled(), StopIteration()], ids=repr)
def test_close_drops_what_clean_up_raises(error):
    """An exception in clean-up of a dropped run means nothing."""

    def body():
        try:
            yield do("a")
        finally:
            raise error

    assert Driven(body()).replay.close() is None


def test_close_gives_up_on_a_body_that_never_stops():
    """A body that yields for ever while it is dropped is given up, not waited for."""
    tries = 0

    def body():
        nonlocal tries
        while tries < 1_500:
            try:
                yield do("a")
            except GeneratorExit:
                tries += 1

    Driven(body()).replay.close()
    given_up, tries = tries, 1_500

    assert 1_000 == given_up


def test_close_may_be_called_at_any_time():
    """A run that was never started, has ended, or was closed before can be closed."""
    unstarted, ended = Replay("run-1", chain(), CODEC), Driven(chain()).complete("0").complete("1").complete("2", 3)
    for replay in (unstarted, ended.replay, ended.replay):
        replay.close()

    assert [None, None, 3] == ended.value


# ---- sizes -----------------------------------------------------------------------------------------------------------


def test_ten_thousand_steps_in_a_row():
    """A chain of 10,000 steps meets no limit, live and on replay."""

    def body():
        total = 0
        for _ in range(10_000):
            total += yield do("a")
        return total

    journal = [entry_of(str(number), "a", 1) for number in range(10_000)]

    assert 10_000 == Driven(body(), journal).value


def test_ten_thousand_answers_without_an_entry():
    """A chain of 10,000 commands that replay answers itself meets no recursion limit."""

    def body():
        last = None
        for _ in range(10_000):
            last = yield new_uuid()
        return last

    assert uuid_at("run-1", "9999") == Driven(body()).value


def test_a_gather_of_a_thousand():
    """A gather of 1,000 steps opens them all, and gives their values in argument order whatever the order of ends."""

    def body():
        return (yield gather(*(do("a") for _ in range(1_000))))

    driven = Driven(body())
    opened = len(driven.open)
    for number in reversed(range(1_000)):
        driven.complete(f"0.{number}", number)

    assert (1_000, tuple(range(1_000))) == (opened, driven.value)


def nested(depth, inner):
    """Groups and branches inside each other, `depth` deep."""
    command = inner
    for level in range(depth):
        if level % 3 == 0:
            command = gather(command)
        elif level % 3 == 1:
            command = race(command)
        else:
            command = gather(wrapped(command))
    return command


def wrapped(command) -> Flow[Any]:
    """A branch of one command."""
    return (yield command)


def test_nesting_two_thousand_deep():
    """Groups and branches nested 2,000 deep open, settle, fail and are cancelled without a recursion error."""

    def body():
        deep = yield nested(2_000, do("a"))
        try:
            yield nested(2_000, do("b"))
        except StepFailedError:
            winner = yield race(do("c"), nested(2_000, do("d")))
            return deep.index, winner.index

    driven = Driven(body())
    for name in ("a", "b"):
        (position,) = driven.open
        driven.complete(position) if name == "a" else driven.fail(position, ValueError("x"))
    positions = {name: position for position, name in driven.open.items()}
    driven.complete(positions["c"])

    assert ((0, 0), [positions["d"]]) == (driven.value, driven.replay.cancelled)


def test_a_deep_run_can_be_dropped():
    """Dropping a run nested 2,000 deep meets no recursion limit."""

    def body():
        yield nested(2_000, do("a"))

    driven = Driven(body())
    driven.replay.close()

    assert {} == driven.open


def test_the_codec_is_the_runs_own():
    """Values and failures are read by the codec the replay was given."""

    class Reversing(MsgpackCodec):
        def decode(self, data, type):
            return super().decode(data[::-1], type)

    replay = Replay("run-1", careful(), Reversing())
    replay.start()
    payload = CODEC.encode(capture(Declined("no")))[::-1]
    replay.feed(Entry("0", "step", "charge", True, payload, 1, 0, 0))

    assert StepFailedError is replay.outcome.value[0]
