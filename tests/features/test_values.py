"""Values: what goes in and comes out is data, the same live and on replay."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple, TypedDict
from uuid import UUID

import attrs
import pytest
from msgspec import Struct

from reflow import (
    Flow,
    JsonCodec,
    MsgpackCodec,
    RunStatus,
    gather,
    sleep,
    step,
    workflow,
)
from tests.support.world import World

pytestmark = pytest.mark.anyio


class Colour(Enum):
    """An enum."""

    RED = "red"


@dataclass
class Item:
    """A dataclass."""

    name: str
    price: Decimal
    tags: set[str] = field(default_factory=set)


@dataclass
class Order:
    """A dataclass of dataclasses."""

    number: UUID
    items: list[Item]
    colour: Colour = Colour.RED
    note: str | None = None


class Point(Struct):
    """A struct."""

    x: float
    y: float


class Pair(NamedTuple):
    """A named tuple."""

    first: int
    second: str


class Row(TypedDict):
    """A typed dict."""

    key: str
    value: int


@attrs.define
class Box:
    """An attrs class."""

    size: int


ORDER = Order(UUID(int=7), [Item("nut", Decimal("0.10"), {"a"}), Item("bolt", Decimal("1E+3"))])


async def order() -> Order:
    """A dataclass."""
    return ORDER


async def colour() -> Colour:
    """An enum."""
    return Colour.RED


async def point() -> Point:
    """A struct."""
    return Point(0.1, -1e308)


async def pair() -> Pair:
    """A named tuple."""
    return Pair(1, "b")


async def row() -> Row:
    """A typed dict."""
    return {"key": "k", "value": 2**40}


async def box() -> Box:
    """An attrs class."""
    return Box(3)


async def times() -> tuple[datetime, date, timedelta]:
    """Times."""
    return datetime(2026, 3, 29, 1, 59, 59, 999_999, tzinfo=UTC), date(2024, 2, 29), timedelta(days=-1, microseconds=1)


async def texts() -> list[str]:
    """Texts that look like something else, and one of a megabyte."""
    return ["", "null", "123", "ü€😀\0", "x" * 1_000_000]


async def raw() -> bytes:
    """Bytes."""
    return bytes(range(256))


async def nested() -> dict[int, list[tuple[int, ...] | None]]:
    """Nested."""
    return {1: [(1, 2), None, ()], -(2**63): []}


async def sets() -> frozenset[int]:
    """A set."""
    return frozenset({1, 2})


async def nothing() -> None:
    """None."""


async def decimal() -> Decimal:
    """A decimal."""
    return Decimal("1.10")


STEPS: list[Any] = [order, colour, point, pair, row, box, times, texts, raw, nested, sets, nothing, decimal]


@pytest.mark.parametrize("codec", [MsgpackCodec(), JsonCodec()], ids=["msgpack", "json"])
@pytest.mark.parametrize("fn", STEPS, ids=lambda fn: fn.__name__)
async def test_round_trip(world: World, fn: Any, codec: Any) -> None:
    """[14][15] Every type of data round-trips exactly: the generator receives the same value of the same type live and
    after recovery, alone and in a gather."""
    seen: list[Any] = []

    @workflow
    def flow() -> Flow[None]:
        seen.append((yield step(fn)))
        seen.extend((yield gather(step(fn))))
        yield sleep("1h")

    world.codec = codec
    await _begin_and_continue(world, flow)

    expected = await fn()
    assert [expected] * 4 == seen
    assert [type(expected)] * 4 == [type(value) for value in seen]


async def _begin_and_continue(world: World, flow: Any, after: Any = None) -> None:
    engine = world.engine(flow, codec=world.codec)
    await engine.enqueue(flow(), run_id="r")
    await engine.drain()
    world.clock.advance("1h")
    await world.engine(after or flow, codec=world.codec).drain()


async def test_without_annotation(world: World) -> None:
    """[15] Without a return annotation a tuple is a list and a dataclass a dict: the first time too."""
    seen: list[Any] = []

    async def plain():  # type: ignore[no-untyped-def]
        return (1, Pair(2, "x"), Item("nut", Decimal(1)))

    @workflow
    def flow() -> Flow[None]:
        seen.append((yield step(plain)))
        yield sleep("1h")

    await _begin_and_continue(world, flow)

    assert [[1, [2, "x"], {"name": "nut", "price": "1", "tags": []}]] * 2 == seen


@workflow
def ordered(order: Order, *, count: int = 1, **more: Colour) -> Flow[list[Any]]:
    """Gives back what it got."""
    assert isinstance(order, Order)
    yield step(nothing)
    return [order, count, more]


async def test_inputs_are_converted(world: World) -> None:
    """[13] An input is converted to its annotated types: defaults applied, nested types built."""
    engine = world.engine(ordered)
    plain = {"number": str(UUID(int=7)), "items": [{"name": "nut", "price": "0.10"}]}
    run = await engine.enqueue(ordered(plain, extra="red"))  # type: ignore[arg-type]
    await engine.drain()

    info = await run.info()
    assert RunStatus.COMPLETED == info.status
    assert [1, {"extra": "red"}] == info.output[1:]


async def test_typed_output(world: World) -> None:
    """[110] `await run.result()` gives the output as the annotated type, through another engine's handle too."""

    @workflow
    def flow() -> Flow[tuple[Order, Pair]]:
        yield step(nothing)
        return ORDER, Pair(1, "b")

    engine = world.engine(flow)
    run = await engine.enqueue(flow(), run_id="r")
    await engine.drain()

    expected = (ORDER, Pair(1, "b"))
    assert expected == await run.result()
    assert expected == await (await world.engine(flow).handle("r")).result()
    assert expected == (await run.info()).output
    # Where the workflow is not known, the data itself.
    assert [1, "b"] == (await world.info()).output[1]


async def test_what_is_handed_out_is_a_copy(world: World) -> None:
    """[20] Changing an argument, a result or a `RunInfo` changes nothing stored, and nothing that others see."""
    argument = [1]

    async def give() -> list[int]:
        return argument

    @workflow
    def flow(items: list[int]) -> Flow[list[int]]:
        items.append(2)
        first = yield from step(give)
        first.append(3)
        second = yield from step(give)
        return [*items, 0, *first, 0, *second]

    engine = world.engine(flow)
    run = await engine.enqueue(flow(argument), run_id="r")
    argument.append(9)
    await engine.drain()
    output = await run.result()
    info = await run.info()
    info.input["items"].append(4)
    info.entries[0].value.append(4)
    output.append(4)

    assert [1, 2, 0, 1, 9, 3, 0, 1, 9] == await run.result()
    again = await run.info()
    assert ({"items": [1]}, [1, 9]) == (again.input, again.entries[0].value)


class Sealing:
    """A codec that seals everything, and opens only what it has sealed."""

    def __init__(self) -> None:
        self._inner = MsgpackCodec()

    def encode(self, value: Any) -> bytes:
        return b"sealed" + bytes(255 - byte for byte in self._inner.encode(value))

    def decode(self, data: bytes, type: Any) -> Any:
        assert data.startswith(b"sealed"), data
        return self._inner.decode(bytes(255 - byte for byte in data.removeprefix(b"sealed")), type)


async def test_a_codec_sees_every_value(world: World) -> None:
    """[22] A codec given to the engine sees every stored value: input, results, failures, retries and output."""

    async def fail() -> None:
        raise ValueError("secret")

    @workflow
    def flow(word: str) -> Flow[str]:
        yield step(order)
        try:
            yield step(fail).options(raises=ValueError)
        except ValueError as error:
            yield sleep("1h")
            return f"{word} {error}"
        return ""

    engine = world.engine(flow, codec=Sealing())
    run = await engine.enqueue(flow("secret"), run_id="r")
    await engine.drain()
    world.clock.advance("1h")
    await world.engine(flow, codec=Sealing()).drain()

    row, journal = await world.storage.get_run("r"), await world.storage.get_journal("r")
    assert row is not None
    stored = [row.input, row.output, *(entry.payload for entry in journal.entries)]
    assert "secret secret" == await run.result()
    assert [True] * 5 == [data is not None and data.startswith(b"sealed") for data in stored]
    assert (await run.info()).entries[1].error is not None
