"""What a body yields or returns by mistake: reported at once, with the line, in a sentence that says what to write."""

from functools import partial

import pytest

from reflow._core.command import Flow
from reflow._core.definition import workflow
from reflow._core.groups import gather, race
from reflow._core.runs import spawn
from reflow._core.steps import step
from reflow._core.values import now, patched
from reflow._core.waits import sleep, wait_event
from reflow.errors import MisuseError
from tests.support.driven import Driven, do, entry_of, line_of


def charge(card: str) -> int:
    """A step body."""
    return len(card)


async def fetch(url: str) -> str:
    """An async step body."""
    return url


def helper() -> Flow[int]:
    """Several commands in sequence."""
    return (yield do("a"))


async def other_sleep():
    """The `sleep` of another library."""


other_sleep.__name__ = "sleep"


async def stream():
    """An async generator."""
    yield 1


class Service:
    """Something that can be called."""

    def __call__(self):
        return 1

    def __await__(self):
        yield


@workflow
def child(number: int) -> Flow[int]:
    """A workflow."""
    return (yield do("a"))


def misused(body):
    """The problem and location reported for a body that misuses its first yield or return."""
    with pytest.raises(MisuseError) as caught:
        Driven(body())
    return caught.value.problem, caught.value.location


YIELDED = [
    (lambda: helper(), "a generator was yielded; write `yield from helper(...)`, or give it to gather or race"),
    (lambda: iter(do("a")), "a generator was yielded; write `yield from __iter__(...)`, or give it to gather or race"),
    (lambda: fetch("u"), "a coroutine of 'fetch' was yielded; write `yield step(fetch, ...)`"),
    (lambda: charge, "the function 'charge' was yielded; write `yield step(charge, ...)`"),
    (lambda: fetch, "the function 'fetch' was yielded; write `yield step(fetch, ...)`"),
    (lambda: helper, "the function 'helper' was yielded; write `yield from helper(...)`"),
    (lambda: [do("a")], "a list was yielded; write `yield gather(*commands)` to perform several"),
    (lambda: (do("a"), do("b")), "a tuple was yielded; write `yield gather(*commands)` to perform several"),
    (lambda: {do("a")}, "a set was yielded; write `yield gather(*commands)` to perform several"),
    (lambda: child, "the workflow 'child' itself was yielded; call it: `yield child(...)`"),
    (lambda: stream(), "an async generator was yielded; consume it inside a step: `yield step(stream, ...)`"),
    (lambda: Service(), "an awaitable was yielded; await it inside a step: `yield step(fn, ...)`"),
    (
        lambda: other_sleep(),
        "a coroutine of 'sleep' was yielded; write `yield sleep(...)`, with the `sleep` of Reflow",
    ),
    (lambda: None, "None was yielded, by a bare `yield` or a call; write `yield step(fn, ...)`, not `yield fn(...)`"),
    (lambda: 5, "a value of type int was yielded; write `yield step(fn, ...)`, not `yield fn(...)`"),
    (lambda: "charge", "a value of type str was yielded; write `yield step(fn, ...)`, not `yield fn(...)`"),
    (lambda: {"a": 1}, "a value of type dict was yielded; write `yield step(fn, ...)`, not `yield fn(...)`"),
    (lambda: range(3), "a value of type range was yielded; write `yield step(fn, ...)`, not `yield fn(...)`"),
    (
        lambda: ValueError("x"),
        "a value of type ValueError was yielded; write `yield step(fn, ...)`, not `yield fn(...)`",
    ),
]


@pytest.mark.parametrize(("make", "problem"), YIELDED, ids=[problem[:40] for _, problem in YIELDED])
def test_what_is_no_command_cannot_be_yielded(make, problem):
    """[9] Anything but a command that is yielded is answered at once: what it was, what to write, and where."""

    def body():
        yield make()  # here

    assert (problem, line_of(body)) == misused(body)


NOT_FROM = [
    (lambda: 5, "'int' object is not iterable"),
    (lambda: None, "'NoneType' object is not iterable"),
    (lambda: stream(), "'async_generator' object is not iterable"),
]


@pytest.mark.parametrize(("make", "said"), NOT_FROM, ids=[said for _, said in NOT_FROM])
def test_what_is_no_command_cannot_be_yielded_from(make, said):
    """[9] A `yield from` that is given the result of a call, and no command, says what to write, with its line, and
    what Python says of it; in a helper too."""

    def helper():
        return (yield from make())  # here

    def body():
        yield from helper()

    expected = f"`yield from` was given no command ({said}); write `yield from step(fn, ...)`, not `yield from fn(...)`"

    assert expected == misused(body)[0]
    assert (expected, line_of(helper)) == misused(helper)


def test_other_type_errors_are_the_bodys_own():
    """A TypeError that a body raises itself, or anything it calls, is its failure."""

    def inner():
        yield from ()
        raise TypeError("'int' object is not iterable")

    def body():
        yield from inner()

    def loop():
        for _ in 5:
            yield

    assert ["TypeError", "TypeError"] == [type(Driven(each()).error).__name__ for each in (body, loop)]


COMMANDS = {
    "step(charge, ...)": lambda: step(charge, "c"),
    "child(...)": lambda: child(1),
    "patched('ask')": lambda: patched("ask"),
    "wait_event('paid')": lambda: wait_event("paid"),
    "now(...)": now,
    "gather(...)": lambda: gather(do("a")),
}


@pytest.mark.parametrize("code", COMMANDS)
def test_a_command_is_neither_true_nor_false(code):
    """`if step(fn):` would always be true; it is answered with what to write, whatever the command."""

    def body():
        if COMMANDS[code]():
            yield do("a")

    assert str(Driven(body()).error).startswith(
        f"{code} is a command and neither true nor false; write `if (yield {code}"
    )


RETURNED = [
    (lambda: helper(), "a generator was returned; write `return (yield from helper(...))`"),
    (lambda: fetch("u"), "a coroutine of 'fetch' was returned; write `return (yield step(fetch, ...))`"),
    (lambda: Service(), "an awaitable was returned; write `return (yield step(Service, ...))`"),
    (lambda: child(1), "a command was returned; write `return (yield child(...))`"),
    (lambda: spawn(child(1)), "a command was returned; write `return (yield spawn(child(...)))`"),
    (lambda: wait_event("paid"), "a command was returned; write `return (yield wait_event('paid'))`"),
    (lambda: patched("a"), "a command was returned; write `return (yield patched('a'))`"),
    (lambda: step(charge, "c"), "a command was returned; write `return (yield step(charge, ...))`"),
    (lambda: sleep(1), "a command was returned; write `return (yield sleep(...))`"),
    (lambda: gather(), "a command was returned; write `return (yield gather(...))`"),
    (lambda: now(), "a command was returned; write `return (yield now(...))`"),
]


@pytest.mark.parametrize(("make", "problem"), RETURNED, ids=[problem[:40] for _, problem in RETURNED])
def test_what_still_has_to_run_cannot_be_returned(make, problem):
    """[9] A generator, coroutine, call or command that is returned is answered at once, with the line of the return."""

    def body():
        if make is None:
            yield
        return make()  # here

    assert (problem, line_of(body)) == misused(body)


@pytest.mark.parametrize("value", [None, 0, [1], {"a": ()}, "text", Exception("x"), object(), charge], ids=repr)
def test_anything_else_can_be_returned(value):
    """Whether a value can be stored is not for replay to say."""

    def body():
        yield do("a")
        return value

    assert value is Driven(body()).complete("0").value


def test_a_misuse_in_a_branch_has_the_line_in_the_branch():
    """[9] What a branch yields or returns by mistake is reported with its line in the branch."""

    def yields():
        yield 5  # here

    def returns():
        yield from ()
        return do("a")  # here

    def outer(branch):
        yield gather(do("b"), race(branch()))

    locations = [misused(partial(outer, branch))[1] for branch in (yields, returns)]

    assert [line_of(yields), line_of(returns)] == locations


def test_a_misuse_in_a_helper_has_the_line_in_the_helper():
    """[9] What a helper yields by mistake is reported with its line in the helper, however deep."""

    def inner():
        yield from do("a")
        yield [do("b")]  # here

    def middle():
        yield from inner()

    def body():
        yield from middle()

    with pytest.raises(MisuseError) as caught:
        Driven(body()).complete("0")

    assert line_of(inner) == caught.value.location


@pytest.mark.parametrize("group", [gather, race])
def test_a_branch_runs_once(group):
    """A branch that was given to a group before is answered with what to write."""

    def body():
        branch = helper()
        yield group(branch)
        yield group(branch)  # here

    with pytest.raises(MisuseError) as caught:
        Driven(body()).complete("0.0.0", 1)

    problem = "the branch 'helper' has already run; call helper(...) again for a new one"

    assert (problem, line_of(body)) == (caught.value.problem, caught.value.location)


def test_a_branch_cannot_stand_twice_in_one_group():
    """The same branch given twice to one gather is answered the same way."""

    def body():
        branch = helper()
        yield gather(branch, branch)  # here

    assert ("the branch 'helper' has already run; call helper(...) again for a new one", line_of(body)) == misused(body)


def test_a_half_used_helper_is_no_branch():
    """A generator that was begun by hand cannot be a branch."""

    def body():
        branch = helper()
        yield next(branch)
        yield gather(branch)

    with pytest.raises(MisuseError) as caught:
        Driven(body()).complete("0")

    assert caught.value.problem.startswith("the branch 'helper' has already run")


def test_a_body_cannot_swallow_it():
    """A misuse is raised outside the generator, so that no `except` in the body catches it."""

    def body():
        try:
            yield 5
        except BaseException:
            yield do("a")

    assert misused(body)[0].startswith("a value of type int was yielded")


def test_a_misuse_after_recorded_steps():
    """A misuse comes up when the code reaches it, live and on replay alike."""

    def body():
        yield do("a")
        yield 5

    with pytest.raises(MisuseError) as live:
        Driven(body()).complete("0")
    with pytest.raises(MisuseError) as replayed:
        Driven(body(), [entry_of("0")])

    assert str(live.value) == str(replayed.value)
