"""The mailbox: messages and who waits for them, oldest first on both sides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflow._core.journal import Message, MessageKind
from reflow._engine.mailbox import Mailbox

EVENT, CHILD = MessageKind.EVENT, MessageKind.CHILD


def message(seq: int, name: str = "a", kind: MessageKind = EVENT) -> Message:
    """One that was sent."""
    return Message(seq, kind, name, b"")


def delivered(mailbox: Mailbox) -> list[tuple[str, int]]:
    """To whom which message goes now."""
    return [(position, message.seq) for position, message in mailbox.deliveries()]


def test_oldest_first():
    """Who has waited longest is given the oldest message; what is left over stays."""
    mailbox = Mailbox()
    for position in ("2", "0", "1"):
        mailbox.expect(EVENT, "a", position)
    mailbox.put([message(1), message(2)])
    first = delivered(mailbox)
    mailbox.put([message(3), message(4)])

    assert ([("2", 1), ("0", 2)], [("1", 3)]) == (first, delivered(mailbox))
    assert (4, message(4), None) == (mailbox.seen, mailbox.take(EVENT, "a"), mailbox.take(EVENT, "a"))


def test_kinds_and_names_are_apart():
    """A child at the position "a" is not the event "a"."""
    mailbox = Mailbox()
    mailbox.expect(CHILD, "a", "0")
    mailbox.expect(EVENT, "b", "1")
    mailbox.put([message(1), message(2, "b", CHILD)])
    before = delivered(mailbox)
    mailbox.put([message(3, "a", CHILD)])

    assert ([], [("0", 3)], ((EVENT, "b"),)) == (before, delivered(mailbox), mailbox.awaits)


def test_what_was_read_before_is_not_taken_again():
    """A message that is read twice, or comes with the journal and once more, is there once."""
    mailbox = Mailbox()
    mailbox.put([message(1), message(2)])
    mailbox.put([message(1), message(2), message(3)])
    mailbox.expect(EVENT, "a", "0")
    mailbox.expect(EVENT, "a", "1")

    assert ([("0", 1), ("1", 2)], message(3)) == (delivered(mailbox), mailbox.take(EVENT, "a"))


class Position(str):
    """One that counts how often it is compared with another."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Position.compared += 1
        return super().__eq__(other)


@pytest.mark.parametrize("names", [1, 1_000])
def test_each_of_many_costs_the_same(names: int):
    """Whoever waits beside a thousand others, for one name or each for one of its own, is found without looking at
    them."""
    mailbox = Mailbox()
    positions = [Position(number) for number in range(1_000)]
    Position.compared = 0
    for number, position in enumerate(positions):
        mailbox.expect(CHILD, str(number % names), position)
    mailbox.put([message(number + 1, str(number % names), CHILD) for number in range(500)])
    given = len(delivered(mailbox))
    for position in reversed(positions):
        mailbox.forget(position)

    assert (500, ()) == (given, mailbox.awaits)
    assert Position.compared < 3_000


def test_who_forgets_is_given_nothing():
    """A position that waits no more is passed over, and awaited is only what somebody waits for."""
    mailbox = Mailbox()
    for position in ("0", "1"):
        mailbox.expect(EVENT, "a", position)
    mailbox.expect(CHILD, "2", "2")
    for position in ("0", "2", "unknown"):
        mailbox.forget(position)
    awaits = mailbox.awaits
    mailbox.put([message(1), message(2)])

    assert (((EVENT, "a"),), [("1", 1)], ()) == (awaits, delivered(mailbox), mailbox.awaits)


def test_a_delivery_may_change_who_waits():
    """What is done with one delivery, to give up another wait or to wait once more, holds for the next."""
    mailbox = Mailbox()
    for position in ("0.0", "0.1", "0.2"):
        mailbox.expect(EVENT, "a", position)
    mailbox.put([message(1), message(2), message(3)])
    taken = []
    for position, given_ in mailbox.deliveries():
        taken.append((position, given_.seq))
        if position == "0.0":
            mailbox.forget("0.1")
            mailbox.expect(EVENT, "a", "1")

    assert [("0.0", 1), ("0.2", 2), ("1", 3)] == taken


NAMES = st.sampled_from("ab")
DEEDS = st.one_of(
    st.tuples(st.just("send"), NAMES),
    st.tuples(st.just("wait"), NAMES),
    st.tuples(st.just("give up"), st.integers(0, 20)),
    st.tuples(st.just("deliver"), st.none()),
)


@given(st.lists(DEEDS, max_size=40))
def test_law(deeds: list[tuple[str, object]]):
    """[80] Whatever comes in whatever order, each name is a queue: the n-th message goes to the n-th of those that wait
    and have not given up, and nobody waits while a message is there."""
    mailbox = Mailbox()
    sent: dict[object, list[int]] = {"a": [], "b": []}
    waiting: dict[object, list[str]] = {"a": [], "b": []}
    for number, (deed, what) in enumerate(deeds, 1):
        if deed == "send":
            mailbox.put([message(number, str(what))])
            sent[what].append(number)
        elif deed == "wait":
            mailbox.expect(EVENT, str(what), str(number))
            waiting[what].append(str(number))
        elif deed == "give up":
            mailbox.forget(str(what))
            for positions in waiting.values():
                if str(what) in positions:
                    positions.remove(str(what))
        else:
            expected = {}
            for name, positions in waiting.items():
                while positions and sent[name]:
                    expected[positions.pop(0)] = sent[name].pop(0)

            assert expected == dict(delivered(mailbox))
        assert {name for name in waiting if waiting[name]} == {name for _, name in mailbox.awaits}
