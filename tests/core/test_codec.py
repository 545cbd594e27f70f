"""Codecs: what comes back exactly, what is refused, and where the path in the error points."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflow.codec import Codec, JsonCodec, MsgpackCodec
from reflow.errors import ConfigError, SerializationError

CODECS = [MsgpackCodec(), JsonCodec()]
both = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: type(codec).__name__)


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Word(StrEnum):
    YES = "yes"


@dataclass
class Item:
    name: str
    price: float | None = None
    parts: list[Item] = field(default_factory=list)


class Order(msgspec.Struct):
    items: list[Item]
    paid: bool = False


@attrs.define
class Address:
    street: str
    number: Any


class Point(NamedTuple):
    x: int
    y: float


class Options(TypedDict, total=False):
    limit: int


class Plain:
    """Not data."""


class Unshowable:
    """Not data, and not to be shown either."""

    def __repr__(self):
        raise RuntimeError("no")


@attrs.define
class Private:
    """An attrs class with a private field."""

    name: str
    _count: int = 0


@dataclass
class Checked:
    """Refuses some values, by an error of its own."""

    name: str

    def __post_init__(self):
        if self.name == "bad":
            raise LookupError("no such name")


ROUND_TRIPS = [
    (None, None),
    (True, bool),
    (0, int),
    (2**63 - 1, int),
    (-(2**63), int),
    (-0.0, float),
    (1e308, float),
    ("", str),
    ("null", str),
    ("123", str),
    ("Grüße, 世界 \U0001f680 \x00", str),
    ("x" * 1_000_000, str),
    (b"", bytes),
    (bytes(range(256)), bytes),
    (datetime(2026, 3, 29, 2, 30, 0, 1, tzinfo=UTC), datetime),
    (datetime(2026, 3, 29, 2, 30, tzinfo=timezone(timedelta(hours=5, minutes=45))), datetime),
    (datetime(2026, 3, 29, 2, 30, 0, 999_999), datetime),
    (date(2024, 2, 29), date),
    (time(23, 59, 59, 999_999), time),
    (timedelta(days=-3, microseconds=5), timedelta),
    (UUID(int=2**128 - 1), UUID),
    (Decimal("1.10"), Decimal),
    (Colour.RED, Colour),
    (Level.HIGH, Level),
    (Word.YES, Word),
    ([], list[int]),
    ([1, [2]], list[Any]),
    ((), tuple[int, ...]),
    ((1, "a", None), tuple[int, str, None]),
    ({"a": {"b": [1]}}, dict[str, dict[str, list[int]]]),
    ({1: "x", -2: "y"}, dict[int, str]),
    ({UUID(int=1): 1}, dict[UUID, int]),
    ({1, 2}, set[int]),
    (frozenset({"a"}), frozenset[str]),
    (Item("pen", 1.5, [Item("cap")]), Item),
    (Order([Item("pen")], paid=True), Order),
    (Address("Main", 5), Address),
    (Point(1, 2.0), Point),
    (Options(limit=3), Options),
    ("yes", Literal["yes", "no"]),
    ([Order([]), None], list[Order | None]),
    ({"nested": [(Colour.RED, Decimal("0.1"))]}, dict[str, list[tuple[Colour, Decimal]]]),
]


@both
@pytest.mark.parametrize(("value", "annotation"), ROUND_TRIPS, ids=lambda part: repr(part)[:40])
def test_data_round_trips(codec, value, annotation):
    """[14] A value of an annotated type comes back equal and of the same type."""
    again = codec.decode(codec.encode(value), annotation)

    assert (value, type(value)) == (again, type(again))


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)  # fmt: skip


@both
@given(value=plain)
def test_plain_data_needs_no_annotation(codec, value):
    """[14] None, numbers, text, lists and dicts of text keys come back as they were without any annotation."""
    assert value == codec.decode(codec.encode(value), Any)


@given(value=st.binary())
def test_any_bytes_pass_the_search_for_nonfinite_numbers(value):
    """Bytes that look like a NaN inside msgpack are bytes all the same."""
    codec = MsgpackCodec()
    disguised = [b"\xcb\x7f\xf8" + value, value + b"\xcb\xff\xf0"]

    assert disguised == codec.decode(codec.encode(disguised), Any)


@both
@given(number=st.floats(), padding=st.text(st.characters(exclude_categories=["Cs"])))
def test_exactly_the_finite_numbers_pass(codec, number, padding):
    """[16] A number anywhere inside is accepted when it is finite, and refused with its path when not."""
    value = {"padding": padding, "items": [None, {"price": number}]}
    if math.isfinite(number):
        assert value == codec.decode(codec.encode(value), Any)
    else:
        with pytest.raises(SerializationError) as caught:
            codec.encode(value)

        assert "$.items[1].price" == caught.value.path


NAN = float("nan")


@both
@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        (NAN, "$", "nan is not data; use None, or a Decimal"),
        (float("-inf"), "$", "-inf is not data"),
        ([1, [2, float("inf")]], "$[1][1]", "inf is not data"),
        ((0.0, NAN), "$[1]", "nan is not data"),
        ({NAN}, "$[0]", "nan is not data"),
        ({"a": {"b": NAN}}, "$.a.b", "nan is not data"),
        ({3: NAN}, "$[3]", "nan is not data"),
        ([{NAN: 1}], "$[0].<key nan>", "nan is not data"),
        ([{float("-inf"): 1}], "$[0].<key -inf>", "-inf is not data"),
        (OrderedDict(a=NAN), "$.a", "nan is not data"),
        (Order([Item("a"), Item("b", NAN)]), "$.items[1].price", "nan is not data"),
        (Address("x", NAN), "$.number", "nan is not data"),
        (Point(1, NAN), "$[1]", "nan is not data"),
        (Plain(), "$", "Plain"),
        ([Plain()], "$[0]", "Plain"),
        ({"items": [{}, {"price": Plain()}]}, "$.items[1].price", "Plain"),
        ({"call": test_data_round_trips}, "$.call", "function"),
        ({"call": lambda: None}, "$.call", "function"),
        (Item, "$", "type"),
        (ValueError("x"), "$", "ValueError"),
        (Address("x", Plain()), "$.number", "Plain"),
        (1j, "$", "complex"),
        (iter(()), "$", "tuple_iterator"),
        (["\ud800"], "$[0]", "str"),
    ],
    ids=lambda part: repr(part)[:30],
)
def test_what_is_not_data_is_refused_with_its_path(codec, value, path, reason):
    """[16] NaN, infinities, functions and instances anywhere inside are a SerializationError that says where and
    what."""
    with pytest.raises(SerializationError) as caught:
        codec.encode(value)

    assert (path, True) == (caught.value.path, reason in caught.value.reason)


@both
@pytest.mark.parametrize("which", ["unshowable", "unset"])
def test_what_cannot_be_looked_at_is_refused(codec, which):
    """[16] A key that cannot be shown, and a struct that lacks a value, are refused with their paths too."""
    order = Order([])
    del order.paid
    with pytest.raises(SerializationError) as caught:
        codec.encode([{Unshowable(): NAN} if which == "unshowable" else order])

    assert ("$[0].<key of type Unshowable>" if which == "unshowable" else "$[0].paid") == caught.value.path


def test_a_number_beyond_msgpack_is_refused():
    """A whole number of more than 64 bits has no place in msgpack, and is refused with its path; JSON takes it."""
    with pytest.raises(SerializationError) as caught:
        MsgpackCodec().encode([2**64])

    assert ("$[0]", 2**64) == (caught.value.path, JsonCodec().decode(JsonCodec().encode(2**64), int))


@both
def test_the_first_trouble_is_named(codec):
    """Of several values that are not data, the path is that of the first in reading order."""
    with pytest.raises(SerializationError) as caught:
        codec.encode({"a": [1, NAN], "b": Plain(), "c": NAN})

    assert "$.a[1]" == caught.value.path


@both
def test_what_refers_to_itself_is_refused(codec):
    """A list inside itself has no end, and the error says where it begins again."""
    endless: dict[str, Any] = {"inner": []}
    endless["inner"].append(endless)
    with pytest.raises(SerializationError) as caught:
        codec.encode(endless)

    assert ("$.inner[0]", "refers to itself, so it has no end") == (caught.value.path, caught.value.reason)


@both
def test_what_is_shared_is_not_refused(codec):
    """A value used twice side by side does not refer to itself."""
    shared = [1.5]

    assert [[1.5], [1.5], None] == codec.decode(codec.encode([shared, shared, None]), Any)


@both
def test_what_is_too_deep_is_refused(codec):
    """Nesting beyond what the encoder can follow is an error, not a crash."""
    deep: list[Any] = []
    for _ in range(50_000):
        deep = [deep]
    with pytest.raises(SerializationError) as caught:
        codec.encode(deep)

    assert "is nested more than 500 deep" == caught.value.reason


@both
@pytest.mark.parametrize(
    ("value", "annotation", "path"),
    [
        (1, str, "$"),
        (1, None, "$"),
        (None, int, "$"),
        (1, bool, "$"),
        ([1, "x"], list[int], "$[1]"),
        ((1, 2, 3), tuple[int, int], "$"),
        ({"name": 5}, Item, "$.name"),
        ({}, Item, "$"),
        ({"items": [{"name": "a"}, {"name": None}]}, Order, "$.items[1].name"),
        ("blue", Colour, "$"),
        ("maybe", Literal["yes", "no"], "$"),
        ("soon", datetime, "$"),
        ({"a": "x"}, dict[str, int], "$[...]"),
        ({"a": 1}, dict[int, int], "key in $"),
        ({"x": {"a": 1}}, dict[str, dict[int, int]], "key in $[...]"),
        (1, Plain, "$"),
    ],
    ids=lambda part: repr(part)[:30],
)
def test_data_that_does_not_fit_its_type_is_refused_with_its_path(codec, value, annotation, path):
    """[19] Stored data that no longer fits the annotated type is a SerializationError naming the field, never a
    value."""
    with pytest.raises(SerializationError) as caught:
        codec.decode(codec.encode(value), annotation)

    assert path == caught.value.path


@both
def test_members_that_no_set_can_hold_are_refused(codec):
    """[19] Stored members that a set cannot hold, since they cannot be hashed, are a SerializationError."""
    with pytest.raises(SerializationError) as caught:
        codec.decode(codec.encode([{"a": 1}]), set[Any])

    assert "unhashable" in caught.value.reason


@both
def test_what_a_class_raises_when_it_is_built_is_told(codec):
    """[19] A class that refuses a stored value, by whatever error, is a SerializationError that tells it."""
    with pytest.raises(SerializationError) as caught:
        codec.decode(codec.encode([Checked("good"), {"name": "bad"}]), list[Checked])

    assert "LookupError: no such name" == caught.value.reason


@both
@pytest.mark.parametrize("annotation", [Private, dict[str, list[Private | None]]])
def test_a_field_that_would_be_left_out_is_refused(codec, annotation):
    """[14] A private field of an attrs class, which the encoder leaves out, is a ConfigError and not a lost value."""
    with pytest.raises(ConfigError, match=r"leaves out Private\._count, because of the underscore"):
        codec.decode(codec.encode([]), annotation)


@both
@given(data=st.binary())
def test_any_bytes_are_read_or_refused(codec, data):
    """[19] Corrupt data is a SerializationError or a value of the type asked for, never another exception."""
    try:
        value = codec.decode(data, int)
    except SerializationError:
        return

    assert int is type(value)


@both
def test_truncated_data_is_refused(codec):
    """[19] No proper prefix of what was stored can be read as a whole."""
    data = codec.encode(Order([Item("pen", 1.5)]))
    for length in range(len(data)):
        with pytest.raises(SerializationError):
            codec.decode(data[:length], Order)


@both
def test_a_type_that_cannot_be_read_is_a_config_error(codec):
    """An annotation that no decoder can be made for is the code's fault, and is quoted."""
    with pytest.raises(ConfigError) as caught:
        codec.decode(b"\x01", Item | Point | Order | Address)

    assert "Reflow cannot read values of the annotated type" in str(caught.value)


@both
def test_a_name_that_cannot_be_found_in_a_class_is_a_config_error(codec):
    """A class whose own annotations cannot be resolved is quoted with the name that is missing."""

    @dataclass
    class Local:
        inner: Missing  # noqa: F821

    with pytest.raises(ConfigError) as caught:
        codec.decode(b"\x01", Local)

    assert "'Missing' is not defined" in str(caught.value)


@both
def test_an_annotation_need_not_be_hashable(codec):
    """Metadata in Annotated may be anything."""
    assert 5 == codec.decode(codec.encode(5), Annotated[int, ["a list"]])


@both
def test_a_constraint_in_the_annotation_holds(codec):
    """Constraints in an annotation are checked when the value is read."""
    with pytest.raises(SerializationError):
        codec.decode(codec.encode(-1), Annotated[int, msgspec.Meta(ge=0)])


@both
def test_data_names_no_code(codec):
    """[21] What is stored decides nothing: without an annotation only plain data comes back."""
    again = codec.decode(codec.encode([Item("pen"), Colour.RED, Point(1, 2.0)]), Any)

    assert [{"name": "pen", "price": None, "parts": []}, "red", [1, 2.0]] == again


@both
def test_what_comes_back_is_a_copy(codec):
    """[20] Every reading builds new objects: changing one changes no other."""
    data = codec.encode({"items": []})
    codec.decode(data, Any)["items"].append(1)

    assert {"items": []} == codec.decode(data, Any)


@both
def test_a_codec_satisfies_the_protocol(codec):
    """Both codecs are what the engine takes as a codec."""
    typed: Codec = codec

    assert b"" != typed.encode(None)


def test_about_says_whose_value_it_is():
    """The same reason and path can be said of a step's result or of a workflow's input."""
    error = SerializationError("value", "nan is not data", "$.a").about("the result of step 'f'")

    assert "the result of step 'f': nan is not data (at $.a)" == str(error)
