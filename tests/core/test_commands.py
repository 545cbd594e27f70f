"""Commands: values that say what to do, and what is refused where they are made."""

import functools
import gc
import inspect
import weakref
from collections.abc import Generator
from datetime import UTC, datetime, timedelta

import pytest

from reflow._core.command import Command, Flow
from reflow._core.definition import workflow
from reflow._core.groups import gather, race
from reflow._core.retry import Retry
from reflow._core.steps import step
from reflow._core.values import Now, new_random, new_uuid, now
from reflow._core.waits import Sleep, sleep, sleep_until
from reflow.errors import ConfigError
from tests.support.driven import line_of


def plain(number: int = 0, *, text: str = "") -> list[int]:
    """A step body."""
    return [number]


async def coroutine(number: int = 0) -> str:
    """An async step body."""
    return str(number)


def unannotated(number=0):
    """A step body that says nothing of its result."""


def charge(account: int, cents: int, *, tip: int = 0) -> str:
    """A step body that needs to be told something."""
    return f"{account} {cents} {tip}"


class Service:
    """An object with step bodies."""

    def method(self) -> int:
        return 1

    async def async_method(self) -> int:
        return 1

    @classmethod
    def class_method(cls) -> int:
        return 1

    @staticmethod
    def static_method() -> int:
        return 1

    def __call__(self) -> bool:
        return True


class AsyncCallable:
    """An object that is called like an async function."""

    async def __call__(self) -> bool:
        return True


class Unhashable:
    """A callable that can be no key of a dictionary."""

    __hash__ = None

    def __eq__(self, other):
        return True

    def __call__(self) -> bytes:
        return b""


class Slotted:
    """A callable to which there are no weak references."""

    __slots__ = ()

    def __call__(self) -> bytes:
        return b""


def branch() -> Flow[int]:
    """A branch."""
    return (yield step(plain, 1))


async def async_generator():
    """No step body, and no branch."""
    yield 1


class LooksLikeABranch(Generator):
    """Has the methods of a generator, and no lines of code to tell."""

    def send(self, value):
        raise StopIteration

    def throw(self, *error):
        raise StopIteration


@workflow
def flow() -> Flow[None]:
    """A workflow."""
    yield step(plain, 1)


# ---- step ------------------------------------------------------------------------------------------------------------


def test_a_step_has_a_function_and_its_arguments():
    """A step keeps function and arguments; nothing runs."""
    command = step(plain, 1, text="a")

    assert ("step", plain, (1,), {"text": "a"}) == (command.kind, command.fn, command.args, command.kwargs)


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (plain, ("plain", False, list[int])),
        (coroutine, ("coroutine", True, str)),
        (Service().method, ("method", False, int)),
        (Service().async_method, ("async_method", True, int)),
        (Service.class_method, ("class_method", False, int)),
        (Service.static_method, ("static_method", False, int)),
        (Service(), ("Service", False, bool)),
        (AsyncCallable(), ("AsyncCallable", True, bool)),
        (Unhashable(), ("Unhashable", False, bytes)),
        (Slotted(), ("Slotted", False, bytes)),
        (functools.partial(plain, 1), ("plain", False, list[int])),
        (functools.partial(functools.partial(coroutine), 1), ("coroutine", True, str)),
        (functools.partial(Service().async_method), ("async_method", True, int)),
    ],
    ids=repr,
)
def test_what_a_step_knows_of_its_body(fn, expected):
    """Name, whether it is async, and the type of its result are read from the function under any wrapping."""
    body = step(fn).body

    assert expected == (body.name, body.is_async, body.result_type)


@pytest.mark.parametrize("fn", [unannotated, len, int, [].append, lambda: 1], ids=repr)
def test_without_an_annotation_the_result_is_any_data(fn):
    """A function without a return annotation, a built-in and a class give any data."""
    assert "typing.Any" == str(step(fn).body.result_type)


def test_a_wrapper_is_read_by_what_it_is():
    """A plain function around an async one is a plain function, even where functools.wraps makes it look alike."""

    @functools.wraps(coroutine)
    def wrapper(number):
        return str(number)

    step(coroutine, 1)

    assert [True, False] == [step(fn, 1).body.is_async for fn in (coroutine, wrapper)]


def test_knowing_a_function_keeps_nothing_alive():
    """What a partial or closure carries is free as soon as nobody else needs it."""
    big = Service()
    gone = [weakref.ref(big)]
    for fn in (functools.partial(plain, big), lambda big=big: big, big.method, big):
        step(fn)
    del fn
    del big
    gc.collect()

    assert [None] == [reference() for reference in gone]


@pytest.mark.parametrize(
    ("fn", "problem"),
    [
        (flow, "'flow' is a workflow, not a step; a step is a plain or async function"),
        (branch, "'branch' is a generator function; a branch goes to gather, or `yield from branch(...)`"),
        (async_generator, "'async_generator' is an async generator function; consume it in an `async def`"),
        (5, "step got 5; give it the function and its arguments: step(fn, ...)"),
        (None, "step got None; give it the function and its arguments: step(fn, ...)"),
        (step(plain, 1), "step got Step("),
        (flow(), "step got flow(); give it the function"),
        ("plain", "step got 'plain'; give it the function"),
    ],
    ids=lambda part: repr(part)[:30],
)
def test_what_is_no_function_is_refused(fn, problem):
    """A workflow, a generator function, and what cannot be called are refused where the step is made."""
    with pytest.raises(ConfigError) as caught:
        step(fn)

    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "problem"),
    [
        (charge, (), {}, "missing a required argument: 'account'; it takes (account, cents, *, tip=0)"),
        (charge, (1,), {}, "missing a required argument: 'cents'; it takes (account, cents, *, tip=0)"),
        (charge, (1, 2, 3), {}, "too many positional arguments; it takes (account, cents, *, tip=0)"),
        (charge, (1, 2), {"tipp": 3}, "got an unexpected keyword argument 'tipp'; it takes (account, cents, *, tip=0)"),
        (charge, (1, 2), {"cents": 3}, "multiple values for argument 'cents'; it takes (account, cents, *, tip=0)"),
        (functools.partial(charge, 1), (), {}, "missing a required argument: 'cents'; it takes (account, cents, *"),
        (functools.partial(charge, cents=1), (), {}, "missing a required argument: 'account'"),
        (Service().method, (1,), {}, "too many positional arguments; it takes (self)"),
        (functools.partial(Service().method, 1), (), {}, "too many positional arguments"),
        (Service.method, (), {}, "missing a required argument: 'self'; it takes (self)"),
    ],
    ids=repr,
)
def test_wrong_arguments_of_a_step_are_refused(fn, args, kwargs, problem):
    """Arguments that the function does not take are refused where the step is made: what is missing or too much, what
    it takes, and the line."""
    name = fn.func.__name__ if isinstance(fn, functools.partial) else fn.__name__
    with pytest.raises(ConfigError) as caught:
        step(fn, *args, **kwargs)  # wrong

    assert str(caught.value).startswith(f"step {name!r}: {problem}")
    assert str(caught.value).endswith(f"({line_of(test_wrong_arguments_of_a_step_are_refused, '# wrong')})")


def test_arguments_that_fit_are_accepted_each_time():
    """A function is asked for its parameters in each form in which it is called, and one that did not fit is refused
    the next time too."""
    for _ in range(2):
        step(charge, 1, 2)
        step(charge, 1, cents=2, tip=3)
        step(functools.partial(charge, 1), 2)
        step(Service().method)
        step(Service.method, Service())
        with pytest.raises(ConfigError):
            step(charge, 1)
        with pytest.raises(ConfigError):
            step(functools.partial(charge, 1))


def test_what_a_wrapper_takes_is_its_own():
    """Of a wrapper, what it takes itself counts, not what it says it wraps; and nothing is held against a function that
    sets its own `__signature__`, a class, or what is not written in Python."""

    @functools.wraps(charge)
    def paid(cents):
        return charge(1, cents)

    def signed(cents):
        return charge(1, cents)

    signed.__signature__ = inspect.signature(charge)

    made = [step(paid, 5), step(signed, 5), step(Service, 5), step(len)]

    assert ["charge", "signed", "Service", "len"] == [command.name for command in made]
    with pytest.raises(ConfigError, match=r"missing a required argument: 'cents'; it takes \(cents\)"):
        step(paid)


def test_a_coroutine_is_refused_without_a_second_warning():
    """`step(fetch(url))` is answered with what to write, and Python does not warn of a coroutine never awaited."""
    with pytest.raises(ConfigError) as caught:
        step(coroutine(1))

    assert "give it the function and its arguments: step(coroutine, ...)" in str(caught.value)


def test_options_make_a_changed_copy():
    """[3] options() returns a changed copy and leaves the original as it was."""
    original = step(plain, 1)
    changed = original.options(name="other", retry=Retry(max_attempts=2), timeout="1.5s", raises=ValueError)

    assert [("plain", None, None, ()), ("other", Retry(max_attempts=2), 1_500_000, (ValueError,))] == [
        (command.name, command.retry, command.timeout_us, command.raises) for command in (original, changed)
    ]


def test_options_keep_what_is_not_named():
    """What is not named stays; None takes a retry or a timeout back."""
    command = step(plain, 1).options(name="a", retry=Retry(), timeout=1, raises=(KeyError, ValueError))
    kept, cleared = command.options(name="b"), command.options(retry=None, timeout=None, raises=())

    assert [("b", Retry(), 1_000_000, (KeyError, ValueError)), ("a", None, None, ())] == [
        (changed.name, changed.retry, changed.timeout_us, changed.raises) for changed in (kept, cleared)
    ]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"name": ""}, "name is ''; write a text that is not empty"),
        ({"name": None}, "name is None; write a text that is not empty"),
        ({"retry": 3}, "retry is 3; write Retry(max_attempts=...)"),
        ({"timeout": 0}, "timeout is 0; it must be longer than nothing"),
        ({"timeout": "0s"}, "timeout is '0s'; it must be longer than nothing"),
        ({"timeout": -1}, "timeout is -1; write seconds"),
        ({"timeout": "soon"}, "timeout is 'soon'; write seconds"),
        ({"raises": ValueError("x")}, "raises is ValueError('x'); write an exception class, or a tuple of them"),
        ({"raises": (ValueError, "KeyError")}, "raises is (<class 'ValueError'>, 'KeyError'); write an exception"),
        ({"raises": KeyboardInterrupt}, "raises is <class 'KeyboardInterrupt'>; write an exception class"),
        ({"raises": None}, "raises is None; write an exception class"),
        ({"raises": [ValueError]}, "raises is [<class 'ValueError'>]; write an exception class, or a tuple of them"),
    ],
    ids=str,
)
def test_wrong_options_are_refused_where_they_are_written(options, problem):
    """[11] A wrong option is a ConfigError quoting it, when it is given and not when the step runs."""
    with pytest.raises(ConfigError) as caught:
        step(plain, 1).options(**options)

    assert str(caught.value).startswith(problem)


# ---- the other commands ----------------------------------------------------------------------------------------------

MOMENT = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_a_sleep_has_a_duration_or_a_moment():
    """sleep counts from the moment of arrival, sleep_until ends at its moment whenever the run arrives."""
    assert [90_000_007, 1_767_268_800_000_000] == [
        command.wakes_at(arrived_at=7) for command in (sleep("1m30s"), sleep_until(MOMENT))
    ]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: sleep("soon"), "the duration of sleep is 'soon'; write seconds"),
        (lambda: sleep(-1), "the duration of sleep is -1; write seconds"),
        (lambda: sleep_until(MOMENT.replace(tzinfo=None)), "the moment of sleep_until is datetime.datetime(2026,"),
        (lambda: sleep_until("tomorrow"), "the moment of sleep_until is 'tomorrow'; write an aware datetime"),
        (lambda: sleep_until(timedelta(1)), "the moment of sleep_until is datetime.timedelta(days=1); write an aware"),
        (race, "race() of nothing would never end; give it at least one command"),
        (lambda: gather(limit=0), "limit is 0; write a whole number from 1 up, or None"),
        (lambda: gather(limit=-1), "limit is -1; write a whole number from 1 up, or None"),
        (lambda: gather(limit=True), "limit is True; write a whole number from 1 up, or None"),
        (lambda: gather(limit=1.5), "limit is 1.5; write a whole number from 1 up, or None"),
        (lambda: gather([step(plain, 1)]), "argument 0 of gather is a list; unpack it: gather(*commands)"),
        (lambda: race(now(), (now(),)), "argument 1 of race is a tuple; unpack it: race(*commands)"),
        (lambda: gather(branch), "argument 0 of gather is the function 'branch'; call it: branch(...)"),
        (lambda: gather(plain), "argument 0 of gather is 'plain'; write step(plain, ...)"),
        (lambda: gather(coroutine), "argument 0 of gather is 'coroutine'; write step(coroutine, ...)"),
        (lambda: gather(coroutine(1)), "argument 0 of gather is 'coroutine'; write step(coroutine, ...)"),
        (lambda: gather(now(), None), "argument 1 of gather is of type NoneType; give it commands or branches"),
        (lambda: gather(LooksLikeABranch()), "argument 0 of gather is of type LooksLikeABranch; give"),
        (lambda: race("plain"), "argument 0 of race is of type str; give it commands or branches"),
        (lambda: gather(flow), "argument 0 of gather is the workflow 'flow'; call it: flow(...)"),
        (lambda: gather(async_generator()), "argument 0 of gather is of type async_generator; give"),
    ],
)
def test_wrong_arguments_are_refused_where_they_are_written(make, problem):
    """[10][50][76] What cannot be waited for or performed is a ConfigError that says what to write, when the command is
    made."""
    with pytest.raises(ConfigError) as caught:
        make()

    assert str(caught.value).startswith(problem)


def test_gather_and_race_take_commands_and_branches():
    """Members are kept in argument order."""
    members = (step(plain, 1), branch(), sleep(1), gather(), race(now()))

    assert [members, members] == [gather(*members).members, race(*members).members]


@pytest.mark.parametrize(
    ("command", "kind", "name"),
    [
        (step(plain, 1), "step", "plain"),
        (sleep(1), "sleep", "sleep"),
        (sleep_until(MOMENT), "sleep", "sleep"),
        (now(), "now", "now"),
        (new_uuid(), "new_uuid", "new_uuid"),
        (new_random(), "new_random", "new_random"),
        (gather(), "gather", "gather"),
        (race(now()), "race", "race"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_commands_have_a_kind_and_a_name(command, kind, name):
    """Kind and name are what the journal compares; only steps have names of their own."""
    assert (kind, name, True) == (command.kind, command.name, isinstance(command, Command))


def test_commands_are_immutable():
    """[3] A command cannot be changed."""
    for command in (step(plain, 1), sleep(1), gather(), now()):
        with pytest.raises(AttributeError):
            command.name = "other"


def test_commands_are_equal_to_themselves_only():
    """Two commands that say the same are two commands: each is performed."""
    one, other = Now(), Sleep(1)

    assert [True, False, False] == [one == one, one == Now(), other == Sleep(1)]


def test_yield_from_yields_the_command_itself():
    """`x = yield from command` yields the command and gives what is sent, as `x = yield command` does."""
    command = step(plain, 1)
    generator = iter(command)
    yielded = next(generator)
    with pytest.raises(StopIteration) as stop:
        generator.send("result")

    assert (command, "result") == (yielded, stop.value.value)


def test_a_command_is_no_argument_of_a_step():
    """A command given to a step is refused, with what to do instead."""
    for make in (lambda: step(plain, now()), lambda: step(plain, a=sleep(1))):
        with pytest.raises(ConfigError, match=r"a step's argument is the command '(now|sleep)'; yield it first"):
            make()


def test_a_generator_expression_is_no_branch():
    """A generator expression is not taken for one branch, but refused with what to write."""
    for make in (gather, race):
        with pytest.raises(ConfigError, match=rf"generator expression; unpack it: {make.__name__}\(\*\(\.\.\.\)\)"):
            make(step(plain, number) for number in range(3))
