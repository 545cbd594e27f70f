"""Child runs and spawned ones: a call is a command, its run's id follows from the place, and its end comes back."""

import pytest

from reflow._core.command import Flow
from reflow._core.definition import workflow
from reflow._core.derived import child_id, stem_of
from reflow._core.failure import capture
from reflow._core.groups import gather, race
from reflow._core.runs import spawn
from reflow._core.steps import step
from reflow._core.values import new_uuid
from reflow.errors import ConfigError, Failure, MisuseError, RunCancelledError, RunConflictError, RunFailedError
from tests.support.driven import CODEC, Driven, do, work


@workflow
def count(number: int) -> Flow[tuple[int, int]]:
    """A child run."""
    return (yield do("a"))


@workflow(name="send-mail", version=3)
def mail(to: str) -> Flow[None]:
    """A run to be spawned."""
    yield do("a")


def one(make):
    """A body that gives what came of one command, an error included."""
    try:
        return (yield make())
    except Exception as error:
        return error


def ids(driven):
    """The ids of the runs that open commands start."""
    return [driven.replay.run_id_of(node) for node in driven.replay.open.values()]


def test_a_call_is_a_command():
    """A call has the kind of a child and the name of its workflow, and is equal to a call of the same arguments."""
    call = mail("a@b.c")

    assert ("child", "send-mail", None) == (call.kind, call.name, call.run_id)
    assert (True, False) == (call == mail("a@b.c"), call == mail("b@b.c"))


def test_a_child_gives_its_result():
    """A yielded call gives the child's result as the type that its workflow declares, live and on replay."""
    live = Driven(one(lambda: count(1))).complete("0", [1, 2])

    assert [(1, 2)] * 2 == [live.value, Driven(one(lambda: count(1)), live.journal).value]


def test_the_id_of_a_child_follows_from_the_place():
    """Children and spawned runs are called after the run and the position, in branches too; options set another id."""

    def branch():
        yield count(1)

    def body():
        yield new_uuid()
        yield gather(
            count(1),
            spawn(mail("a")),
            branch(),
            count(2).options(run_id="own"),
            spawn(mail("b").options(run_id="other")),
        )

    assert ["run-1:1.0", "run-1:1.1", "run-1:1.2.0", "own", "other"] == ids(Driven(body()))


def test_each_generation_has_ids_of_its_own():
    """After continue_as_new the same positions come again, and give other ids and other derived values."""

    def body():
        yield gather(count((yield new_uuid()).int % 7))

    first, second = Driven(body()), Driven(body(), generation=1)

    assert [["run-1:1.0"], ["run-1+1:1.0"]] == [ids(first), ids(second)]
    assert ("run-1", "run-1+2", "run-1+2:3") == (stem_of("run-1", 0), stem_of("run-1", 2), child_id("run-1+2", "3"))
    assert 2 == len({values(generation) for generation in (0, 1)})


def values(generation):
    """The first derived value of a run."""
    return Driven(one(new_uuid), generation=generation).value


@pytest.mark.parametrize(
    "error",
    [
        RunFailedError(
            "run-1:0", "count", Failure("ValueError", "wrong", "Traceback ...", ("ValueError", "Exception"))
        ),
        RunCancelledError("run-1:0", "count"),
        RunConflictError("own", "another input"),
    ],
    ids=lambda error: error.code,
)
def test_a_child_that_does_not_complete_raises(error):
    """A failed, cancelled or impossible child is raised at the parent's yield, and can be caught there."""
    live = Driven(one(lambda: count(1))).fail("0", error)
    replayed = Driven(one(lambda: count(1)), live.journal)

    for raised in (live.value, replayed.value):
        assert (type(error), str(error), {**vars(error), "raised_at": "0"}) == (type(raised), str(raised), vars(raised))


def test_a_child_that_failed_says_why():
    """The error at the yield tells what the child failed with, and so does a parent that fails with it."""
    cause = capture(KeyError("k"))
    driven = Driven(one(lambda: count(1))).fail("0", RunFailedError("run-1:0", "count", cause))

    assert [True, True, False] == [
        driven.value.is_caused_by(KeyError),
        capture(driven.value).is_caused_by(KeyError),
        driven.value.is_caused_by(ValueError),
    ]


def test_calls_are_members_of_groups():
    """Calls stand in gather and race like any command, and are cancelled like any."""

    def body():
        both = yield gather(count(1), do("a"))
        first = yield race(count(2), count(3))
        return both, first.value

    driven = Driven(body()).complete("0.1", "a").complete("0.0", [1, 2]).complete("1.1", [3, 4])

    assert (((1, 2), "a"), (3, 4)) == driven.value
    assert ["1.0"] == driven.replay.cancelled


def test_a_spawn_gives_the_id():
    """spawn has the name of the workflow and gives the id of the run."""
    driven = Driven(one(lambda: spawn(mail("a"))))
    name = dict(driven.open)

    assert ({"0": "send-mail"}, "run-1:0") == (name, driven.complete("0", "run-1:0").value)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: spawn(mail), "spawn got <workflow 'send-mail' version 3>; call a workflow to make a call"),
        (lambda: spawn(do("a")), "spawn got Step("),
        (lambda: spawn(mail.function("a")), "spawn got a generator of 'mail'; decorate that with @workflow, and call"),
        (lambda: count(1).options(run_id=""), "run_id is ''; write a text that is not empty"),
        (lambda: count(1).options(run_id=None), "run_id is None; write a text that is not empty"),
        (lambda: step(work, count(1)), "a step's argument is the command 'count'; yield it first and pass its result"),
    ],
)
def test_wrong_runs_are_refused_where_they_are_written(make, problem):
    """What is no call, or no id, is a ConfigError when the command is made."""
    with pytest.raises(ConfigError) as caught:
        make()

    assert str(caught.value).startswith(problem)


def test_options_leave_the_call_as_it_was():
    """[3] options() of a call gives a changed copy."""
    call = count(1)

    assert ("own", None, {"number": 1}) == (call.options(run_id="own").run_id, call.run_id, call.arguments)


def test_a_call_on_a_line_of_its_own_is_reported():
    """A call that is made in a body and dropped is reported like any command; one that is spawned is not."""

    def body():
        yield spawn(count(1))
        yield spawn(count(1).options(run_id="own"))
        count(2)
        yield do("a")

    driven = Driven(body()).complete("0", "run-1:0")
    with pytest.raises(MisuseError, match="'count' was made and never yielded before this line"):
        driven.complete("1", "own")


def test_a_call_outside_a_body_is_nobodys_business():
    """A call that is made elsewhere and dropped is an ordinary value."""
    driven = Driven(one(lambda: do("a")))
    count(1)

    assert 5 == driven.complete("0", 5).value


def test_a_stored_result_that_does_not_fit_names_its_place():
    """A child's result that no longer fits the declared type is an error that names run, position and workflow."""
    driven = Driven(one(lambda: count(1)))
    with pytest.raises(Exception, match=r"the recorded outcome of child 'count' at position 0 of run 'run-1'"):
        driven.feed(driven.entry("0", CODEC.encode("text")))
