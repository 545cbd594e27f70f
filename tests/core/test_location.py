"""Where a program stands: the generators from the body to an open command, and what is in their variables."""

from reflow._core.groups import gather, race
from reflow._core.location import location_of, stack_of
from tests.support.driven import Driven, do, line_of


class Unshown:
    """Cannot be shown."""

    def __repr__(self):
        raise RuntimeError("no")


def helper(amount):
    """Stands at a command of its own."""
    yield from do("paid")  # here


def branch(name):
    """Stands in its helper."""
    long, odd = "x" * 500, Unshown()
    yield from helper(5)  # branch
    return long, odd


def body(other):
    """Stands at a group."""
    total = [1, 2]
    yield gather(do("a"), race(do("b"), branch("one")))  # body
    return total


def test_the_stack_leads_from_the_body_to_the_command():
    """The places are those of the body, the branches, and their helpers, from the outside in."""
    with Driven(body(1)) as driven:
        stacks = {position: stack_of(node) for position, node in driven.replay.open.items()}

    lines = [line_of(body, "# body"), line_of(branch, "# branch"), line_of(helper)]
    deepest = stacks["0.1.1.0"]

    assert lines == [f"{place.file}:{place.line}" for place in deepest]
    assert ["body", "branch", "helper"] == [place.function for place in deepest]
    assert f"{lines[-1]} in helper" == str(deepest[-1])
    assert [deepest[:1]] * 2 == [stacks["0.0"], stacks["0.1.0"]]


def test_the_innermost_place_is_the_location():
    """The last place of a stack is where the command was yielded."""
    with Driven(body(1)) as driven:
        node = driven.replay.open["0.1.1.0"]
        last = stack_of(node)[-1]

        assert f"{last.file}:{last.line}" == location_of(node)


def test_variables_are_shown_on_request():
    """Local variables are texts, shortened, and one that cannot be shown is said to be so."""
    with Driven(body("b")) as driven:
        node = driven.replay.open["0.1.1.0"]
        plain, shown = stack_of(node), stack_of(node, variables=True)

    assert [None] * 3 == [place.variables for place in plain]
    assert {"other": "'b'", "total": "[1, 2]"} == shown[0].variables
    assert {"name": "'one'", "long": "'" + "x" * 199 + "...", "odd": "<a Unshown that cannot be shown>"} == shown[
        1
    ].variables
    assert {"amount": "5"} == shown[2].variables
