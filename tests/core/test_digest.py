"""Digests of arguments: equal for equal arguments in every process, none for what is no data."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from reflow._core.command import Flow
from reflow._core.definition import workflow
from reflow._core.digest import digest_of
from reflow._core.runs import spawn
from reflow._core.steps import step
from reflow._core.values import now
from reflow._core.waits import sleep
from reflow.errors import NonDeterminismError
from tests.support.driven import Driven, line_of, work


@dataclass
class User:
    """An argument."""

    name: str
    tags: set[str]


@workflow
def flow(number: int, text: str = "") -> Flow[None]:
    """A run with arguments."""
    yield now()


def test_equal_arguments_have_equal_digests():
    """A digest is eight bytes that follow from the arguments alone, by position and by name."""
    made = [digest_of(step(work, User("a", {"x", "y"}), 5)) for _ in range(2)]

    assert (made[0], 8) == (made[1], len(made[0]))


@pytest.mark.parametrize(
    "other",
    [step(work, 1, "b"), step(work, 1), step(work, "a", 1), step(work, 1, "a", more=None), step(work, 1, text="a")],
    ids=repr,
)
def test_other_arguments_have_other_digests(other):
    """Another value, order, number or name of arguments gives another digest."""
    assert digest_of(step(work, 1, "a")) != digest_of(other)


def test_the_step_itself_does_not_count():
    """Name, options and function are no arguments."""
    assert digest_of(step(work, 1)) == digest_of(step(print, 1).options(name="other", timeout=5))


def test_calls_have_digests():
    """A child and a spawned run have the digest of their arguments, defaults included."""
    same = [flow(1), flow(number=1), flow(1, ""), spawn(flow(1)), flow(1).options(run_id="own")]

    assert (1, True) == (len({digest_of(call) for call in same}), digest_of(flow(2)) != digest_of(flow(1)))


@pytest.mark.parametrize("argument", [object(), print, [lambda: 1], {1: {2: open}}, 1 << 70], ids=repr)
def test_what_is_no_data_has_none(argument):
    """A step may be given any object; where one is no data there is no digest."""
    assert digest_of(step(work, 1, argument)) is None


def test_what_has_no_end_has_none():
    """An argument that refers to itself has no digest either."""
    endless = []
    endless.append(endless)

    assert digest_of(step(work, endless)) is None


def test_other_commands_have_none():
    """Only calls have arguments."""
    assert digest_of(now()) is None


def test_digests_are_the_same_in_every_process():
    """Sets and keys are put in order: the seed of a process's hashes changes nothing."""
    code = "from reflow import step; from reflow._core.digest import digest_of; "
    code += "print(digest_of(step(print, {'a', 'b', 'c'}, {'y': 1, 'x': 2}, k=1)).hex())"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert 1 == len(seen)


def body(amount):
    """A body with two steps."""
    yield step(work, amount)  # here
    yield step(work, object())


def test_changed_arguments_are_told_and_change_nothing():
    """[98] A stored outcome stands whatever the arguments are now; who asks is told of each entry that differs."""
    live = Driven(body(1)).complete("0", "a").complete("1")
    told = []
    for amount in (1, 2):
        again = Driven(
            body(amount), live.journal, on_other_arguments=lambda entry, at: told.append((entry.position, at))
        )
        assert again.has_ended

    assert [("0", line_of(body))] == told
    assert [True, False] == [entry.digest is not None for entry in live.journal]


@pytest.mark.parametrize("other", [lambda: step(work, 1).options(name="renamed"), lambda: sleep(1)])
def test_another_command_has_no_other_arguments(other):
    """Where another command stands now, it is that which is told, and not that its arguments are others."""
    live = Driven(body(1)).complete("0", "a")
    told = []

    def changed():
        yield other()

    with pytest.raises(NonDeterminismError):
        Driven(changed(), live.journal, on_other_arguments=lambda entry, _: told.append(entry))

    assert [] == told


def chain(amount):
    """A body with five steps."""
    for _ in range(5):
        yield step(work, amount)


def test_the_latest_entries_are_compared():
    """[98] Where a journal is long, it is enough to look at the latest entries."""
    live = Driven(chain(1))
    for position in range(5):
        live.complete(f"{position}")

    def seen(compared):
        told = []
        Driven(
            chain(2), live.journal, on_other_arguments=lambda entry, _: told.append(entry.position), compared=compared
        )
        return told

    assert [[], ["3", "4"], ["0", "1", "2", "3", "4"]] == [seen(compared) for compared in (0, 2, 9)]
