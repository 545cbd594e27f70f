"""Random payloads: an annotation, and a value that it fits; and values that are no data, with where the trouble is.

Annotations are made of everything that Reflow takes, classes of all kinds included, which are made up on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, IntFlag, StrEnum
from typing import Any, Literal, NamedTuple, Optional, TypedDict, Union
from uuid import UUID

import attrs
import msgspec
from hypothesis import strategies as st

from reflow import Codec, JsonCodec

# ---- shapes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """An annotation, and its values. `hashable` ones may be members of sets and keys; `keyed` ones in JSON too."""

    annotation: Any
    values: st.SearchStrategy[Any] = field(compare=False)
    hashable: bool = False
    keyed: bool = False


class Colour(Enum):
    """An enum of texts."""

    RED = "red"
    NONE = ""


class Level(IntEnum):
    """An enum of numbers."""

    LOW = -1
    HIGH = 2**62


class Word(StrEnum):
    """A StrEnum."""

    YES = "yes"
    NULL = "null"


class Right(IntFlag):
    """Flags."""

    READ = 1
    WRITE = 2


TEXTS = st.text(max_size=8) | st.sampled_from(["null", "true", "1", "NaN", '"nan":', "\x00", "x" * 300])
INTEGERS = st.integers(-(2**63), 2**64 - 1) | st.integers(-3, 3)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_OFFSETS = st.integers(-1_439, 1_439).map(lambda minutes: datetime.min.replace(tzinfo=_zone(minutes)).tzinfo)
_INSTANTS = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=st.none() | st.just(UTC) | _OFFSETS)
PLAIN = st.recursive(
    st.none() | st.booleans() | INTEGERS | FLOATS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def _zone(minutes: int) -> Any:
    return datetime.strptime(f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}{abs(minutes) % 60:02}", "%z").tzinfo


LEAVES = (
    Shape(None, st.none()),
    Shape(Any, PLAIN),
    Shape(bool, st.booleans()),
    Shape(int, INTEGERS, hashable=True, keyed=True),
    Shape(float, FLOATS, hashable=True, keyed=True),
    Shape(str, TEXTS, hashable=True, keyed=True),
    Shape(bytes, st.binary(max_size=9), hashable=True, keyed=True),
    Shape(datetime, _INSTANTS, hashable=True),
    Shape(date, st.dates(), hashable=True, keyed=True),
    Shape(time, st.times(timezones=st.none() | st.just(UTC) | _OFFSETS), hashable=True),
    Shape(timedelta, st.timedeltas(), hashable=True, keyed=True),
    Shape(UUID, st.uuids(), hashable=True, keyed=True),
    Shape(Decimal, st.decimals(allow_nan=False), hashable=True, keyed=True),
    Shape(Colour, st.sampled_from(Colour), hashable=True, keyed=True),
    Shape(Level, st.sampled_from(Level), hashable=True, keyed=True),
    Shape(Word, st.sampled_from(Word), hashable=True, keyed=True),
    Shape(Right, st.sampled_from([Right(0), Right.READ, Right.READ | Right.WRITE])),
    Shape(Literal["a", "null", 3], st.sampled_from(["a", "null", 3])),
    Shape(int | float | str | bool | None, INTEGERS | FLOATS | TEXTS | st.booleans() | st.none()),
)


@st.composite
def shapes(draw: st.DrawFn, codec: Codec, depth: int = 3) -> Shape:
    """A shape that `codec` can store."""
    is_json = isinstance(codec, JsonCodec)
    made = draw(st.sampled_from(["leaf"] * (2 if depth else 1) + [*_MADE] * bool(depth)))
    if made == "leaf":
        return draw(st.sampled_from(LEAVES))
    if made in ("set", "frozenset", "dict"):
        hashables = [leaf for leaf in LEAVES if leaf.hashable and (leaf.keyed or made != "dict" or not is_json)]
        key = draw(st.sampled_from(hashables))
        if made == "dict":
            member = draw(shapes(codec, depth - 1))
            return Shape(
                dict[key.annotation, member.annotation], st.dictionaries(key.values, member.values, max_size=3)
            )
        kind = set if made == "set" else frozenset
        return Shape(kind[key.annotation], st.lists(key.values, max_size=4).map(kind))
    members = [draw(shapes(codec, depth - 1)) for _ in range(draw(st.integers(1, 3)))]
    return _MADE[made](members)


def _list(members: list[Shape]) -> Shape:
    return Shape(list[members[0].annotation], st.lists(members[0].values, max_size=3))  # type: ignore[name-defined]


def _tuple(members: list[Shape]) -> Shape:
    values = st.tuples(*(member.values for member in members))
    return Shape(tuple[tuple(member.annotation for member in members)], values)  # type: ignore[misc]


def _long_tuple(members: list[Shape]) -> Shape:
    return Shape(tuple[members[0].annotation, ...], st.lists(members[0].values, max_size=4).map(tuple))


def _optional(members: list[Shape]) -> Shape:
    [member, *_] = members
    return Shape(Optional[member.annotation], st.none() | member.values)  # noqa: UP045 (None | None is no type)


def _union(members: list[Shape]) -> Shape:
    """Several classes, told apart by a tag."""
    made = [
        msgspec.defstruct(f"Case{index}", [("item", member.annotation)], tag=True, tag_field="kind")
        for index, member in enumerate(members)
    ]
    values = st.one_of([member.values.map(cls) for cls, member in zip(made, members, strict=True)])
    return Shape(Union[tuple(made)], values)  # noqa: UP007


def _class(make: Callable[[dict[str, Any]], Any]) -> Callable[[list[Shape]], Shape]:
    def shape(members: list[Shape]) -> Shape:
        named = dict(zip(("item", "type", "other_thing"), members, strict=False))
        cls = make({name: member.annotation for name, member in named.items()})
        return Shape(cls, st.fixed_dictionaries({name: member.values for name, member in named.items()}).map(
            lambda values: cls(**values)
        ))  # fmt: skip

    return shape


_MADE: dict[str, Any] = {
    "list": _list,
    "tuple": _tuple,
    "long tuple": _long_tuple,
    "optional": _optional,
    "union": _union,
    "set": None,
    "frozenset": None,
    "dict": None,
    "dataclass": _class(lambda hints: make_dataclass("Data", hints.items())),
    "slots": _class(lambda hints: make_dataclass("Slotted", hints.items(), slots=True, frozen=True)),
    "struct": _class(lambda hints: msgspec.defstruct("Struct", list(hints.items()), frozen=True)),
    "renamed": _class(lambda hints: msgspec.defstruct("Renamed", list(hints.items()), rename="camel", gc=False)),
    "array": _class(lambda hints: msgspec.defstruct("Array", list(hints.items()), array_like=True)),
    "attrs": _class(lambda hints: attrs.define(type("Attrs", (), {"__annotations__": hints, "__module__": __name__}))),
    "named tuple": _class(lambda hints: NamedTuple("Named", list(hints.items()))),  # type: ignore[misc]
    "typed dict": _class(lambda hints: TypedDict("Typed", hints)),  # type: ignore[misc,operator]
}


@st.composite
def payloads(draw: st.DrawFn, codec: Codec) -> tuple[Any, Any]:
    """An annotation, and a value that it fits."""
    shape = draw(shapes(codec))
    return shape.annotation, draw(shape.values)


# ---- comparing -------------------------------------------------------------------------------------------------------


def exact(value: Any) -> Any:
    """What a value is, to be compared: types, signs of zeros and places of decimals included. Of an aware datetime the
    instant counts."""
    match value:
        case datetime(tzinfo=zone) if zone is not None:
            return "instant", value.astimezone(UTC).replace(tzinfo=None)
        case time():
            return "time", value.isoformat()
        case float() | Decimal():
            return type(value), str(value)
        case dict():
            return type(value), [(exact(key), exact(member)) for key, member in value.items()]
        case list() | tuple():
            return type(value), [exact(member) for member in value]
        case set() | frozenset():
            return type(value), frozenset(exact(member) for member in value)
        case _:
            names = _fields(value)
            inner = [(name, exact(getattr(value, name))) for name in names] if names else value
            return type(value), inner


def _fields(value: Any) -> list[str]:
    if isinstance(value, msgspec.Struct):
        return [*value.__struct_fields__]
    if is_dataclass(value):
        return [each.name for each in fields(value)]
    return [each.name for each in getattr(type(value), "__attrs_attrs__", ())]


# ---- what is no data -------------------------------------------------------------------------------------------------


class Plain:
    """Not data."""


@dataclass
class Held:
    """A dataclass."""

    before: Any
    item: Any


class HeldToo(msgspec.Struct):
    """A struct."""

    item: Any
    after: Any


@attrs.define
class HeldAsWell:
    """An attrs class."""

    item: Any


class Pair(NamedTuple):
    """A named tuple."""

    before: Any
    item: Any


NONFINITE = st.sampled_from([float("nan"), float("inf"), float("-inf")])
OFFENDERS = st.one_of(
    NONFINITE,
    st.sampled_from([len, lambda: None, Plain, Plain(), object(), 1j, ValueError("x"), "\ud800", iter(()), ..., st]),
)
_FIELDS = st.text("abcdef_", min_size=1, max_size=4)


@st.composite
def offences(draw: st.DrawFn) -> tuple[Any, str]:
    """A value with something inside that is no data, and the path to it."""
    innermost = draw(st.sampled_from(["value"] * 4 + ["key", "member"]))
    if innermost == "value":
        value, path = draw(OFFENDERS), ""
    else:
        number = draw(NONFINITE)
        value, path = ({number: 1}, f".<key {number!r}>") if innermost == "key" else ({number}, "[0]")
    for _ in range(draw(st.integers(0, 6))):
        value, step = draw(_around(value))
        path = step + path
    return value, f"${path}"


@st.composite
def _around(draw: st.DrawFn, item: Any) -> tuple[Any, str]:
    """Something that has `item` inside, and where."""
    before, after = draw(st.lists(PLAIN, max_size=2)), draw(st.lists(PLAIN, max_size=2))
    match draw(st.sampled_from(["list", "tuple", "dict", "numbered", "held", "held too", "held as well", "pair"])):
        case "list":
            return [*before, item, *after], f"[{len(before)}]"
        case "tuple":
            return (*before, item, *after), f"[{len(before)}]"
        case "dict":
            name = draw(_FIELDS)
            return {"0": before, name: item, "1": after}, f".{name}"
        case "numbered":
            number = draw(st.integers(-9, 9))
            return {number: item}, f"[{number}]"
        case "held":
            return Held(before, item), ".item"
        case "held too":
            return HeldToo(item, after), ".item"
        case "held as well":
            return HeldAsWell(item), ".item"
        case _:
            return Pair(before, item), "[1]"
