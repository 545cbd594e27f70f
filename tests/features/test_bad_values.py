"""Values that are no data, or do not fit: refused with the reason and the path, and nothing hangs."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from anyio import fail_after
from msgspec import Struct
from msgspec.structs import replace

from reflow import (
    ConfigError,
    Failure,
    Flow,
    MsgpackCodec,
    RunFailedError,
    RunStatus,
    SerializationError,
    StepFailedError,
    sleep,
    step,
    workflow,
)
from reflow._core.journal import NEVER, Journal
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio


@dataclass
class Item:
    """A dataclass."""

    name: str
    price: Decimal


@dataclass
class Order:
    """A dataclass of dataclasses."""

    items: list[Item]


class Point(Struct):
    """A struct."""

    x: float
    y: float


ORDER = Order([Item("nut", Decimal("0.10")), Item("bolt", Decimal("1E+3"))])


async def nothing() -> None:
    """None."""


async def _begin_and_continue(world: World, flow: Any, after: Any) -> None:
    await world.settle(flow())
    world.clock.advance("1h")
    await world.engine(after).drain()


BAD = [
    (float("nan"), "$", "nan is not data"),
    ({"items": [{}, {"price": float("inf")}]}, "$.items[1].price", "inf is not data"),
    ([1, lambda: 1], "$[1]", "a value of type function"),
    (ORDER.items + [object()], "$[2]", "a value of type object"),  # type: ignore[operator]  # noqa: RUF005
    ({"a": {"b": iter([])}}, "$.a.b", "a value of type list_iterator"),
]


@pytest.mark.parametrize(("value", "path", "reason"), BAD, ids=[path for _, path, _ in BAD])
async def test_a_result_that_is_no_data(world: World, value: Any, path: str, reason: str) -> None:
    """[16][17] A result with NaN, a function or any other instance inside is a `SerializationError` naming path and
    step; entry and run keep the reason, and the run holds no lease."""

    async def give() -> Any:
        return value

    @workflow
    def flow() -> Flow[None]:
        yield step(give).options(name="odd")

    info = await world.settle(flow())

    row = await world.storage.get_run("r")
    [entry] = info.entries
    assert row is not None
    assert info.error is not None
    assert entry.error is not None
    assert (RunStatus.FAILED, None) == (info.status, row.lease_id)
    assert ("SerializationError", "serialization") == (entry.error.type, entry.error.code)
    assert entry.error.message.startswith(f"the result of step 'odd' at position 0: {reason}")
    assert f"(at {path})" in entry.error.message
    assert entry.error.message in info.error.message


async def test_it_may_be_caught(world: World) -> None:
    """[16] A result that is no data is a failure of the step like any other: it may be caught, and is not retried."""
    bodies: list[None] = []

    async def give() -> Any:
        bodies.append(None)
        return object()

    @workflow
    def flow() -> Flow[bool]:
        try:
            yield step(give)
        except StepFailedError as error:
            return error.is_caused_by(SerializationError)
        return False

    info = await world.settle(flow())

    assert (True, 1) == (info.output, len(bodies))


async def test_a_result_that_does_not_fit(world: World) -> None:
    """[19] A result that does not fit the annotation is a `SerializationError` naming step and path, at once and not on
    replay only."""

    async def give() -> list[Item]:
        return [Item("nut", Decimal(1)), {"name": 3}]  # type: ignore[list-item]

    @workflow
    def flow() -> Flow[None]:
        yield step(give)

    info = await world.settle(flow())

    [entry] = info.entries
    assert entry.error is not None
    assert "the result of step 'give' at position 0: Expected `str`, got `int` (at $[1].name)" == entry.error.message
    assert RunStatus.FAILED == info.status


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda: 1, "a value of type function is not data"),
        ("text", "Expected `int`, got `str` (at $)"),
    ],
    ids=["no data", "does not fit"],
)
async def test_a_return_value(world: World, value: Any, message: str) -> None:
    """[18] A return value of the workflow that is no data, or does not fit, fails the run, naming the workflow."""

    @workflow
    def flow() -> Flow[int]:
        yield step(nothing)
        return value  # type: ignore[no-any-return]

    info = await world.settle(flow())

    assert info.error is not None
    assert (RunStatus.FAILED, "SerializationError", None) == (info.status, info.error.type, info.output)
    assert info.error.message.startswith("the return value of workflow 'flow': ")
    assert message in info.error.message


@pytest.mark.parametrize("where", ["step", "workflow"])
async def test_a_type_that_cannot_be_read(world: World, where: str) -> None:
    """A return annotation that no codec can read, such as a union of two dataclasses, fails the run with a ConfigError
    that names the type."""

    async def give() -> Item | Order:
        return ORDER

    @workflow
    def of_the_step() -> Flow[None]:
        yield step(give)

    @workflow
    def of_the_workflow() -> Flow[Item | Order]:
        yield step(nothing)
        return ORDER

    info = await world.settle(of_the_step() if where == "step" else of_the_workflow())

    assert info.error is not None
    assert (RunStatus.FAILED, "ConfigError") == (info.status, info.error.type)
    assert "Order" in info.error.message


async def test_a_stored_value_that_no_longer_fits(world: World) -> None:
    """[19] A stored value that no longer fits a changed type: an error that names run, position, step and field."""

    async def give() -> dict[str, Any]:
        return {"x": 1.0, "y": "high"}

    async def give_typed() -> Point:
        raise AssertionError

    @workflow(name="flow")
    def before() -> Flow[None]:
        yield step(give)
        yield sleep("1h")

    @workflow(name="flow")
    def after() -> Flow[None]:
        yield step(give_typed).options(name="give")
        yield sleep("1h")

    await _begin_and_continue(world, before, after)

    info = await world.info()
    assert info.error is not None
    assert (RunStatus.FAILED, "SerializationError") == (info.status, info.error.type)
    assert (
        "the recorded outcome of step 'give' at position 0 of run 'r': Expected `float`, got `str` (at $.y)"
        == info.error.message
    )


async def test_a_stored_input_that_no_longer_fits(world: World) -> None:
    """[19] A stored input that no longer fits fails the run, naming workflow and field; a new parameter takes its
    default."""

    @workflow(name="flow")
    def before(count: int) -> Flow[None]:
        yield sleep("1h")

    @workflow(name="flow")
    def after(count: str) -> Flow[None]:
        yield sleep("1h")

    @workflow(name="flow")
    def wider(count: int, unit: str = "pieces") -> Flow[str]:
        yield sleep("1h")
        return f"{count} {unit}"

    for run_id in ("narrow", "wide"):
        await world.settle(before(3), run_id=run_id)
    world.clock.advance("1h")
    await world.engine(after, concurrency=1).tick()
    wide = await world.continued(wider, run_id="wide")
    narrow = await world.info("narrow")

    assert narrow.error is not None
    assert "stored input of workflow 'flow': Expected `str`, got `int` (at $.count)" == narrow.error.message
    assert "3 pieces" == wide.output


async def test_an_output_that_no_longer_fits(world: World) -> None:
    """[19] `result()` of a stored output that no longer fits raises `SerializationError` naming run and path."""

    @workflow(name="flow")
    def before() -> Flow[list[str]]:
        yield step(nothing)
        return ["a"]

    @workflow(name="flow")
    def after() -> Flow[list[int]]:
        yield step(nothing)
        return [1]

    await world.settle(before())
    run = await world.engine(after).handle("r")

    with pytest.raises(SerializationError, match=r"the output of run 'r': Expected `int`, got `str` \(at \$\[0\]\)"):
        await run.result()


async def test_a_run_that_cannot_be_read(world: World) -> None:
    """[19] `get_run` of a run whose stored values are damaged says which of them, and of which run."""

    class Damaged(MsgpackCodec):
        def decode(self, data: bytes, type: Any) -> Any:
            return super().decode(data[:-1] if data == b"\xa7damaged" else data, type)

    async def give(value: str) -> str:
        return value

    @workflow
    def flow(value: str) -> Flow[str]:
        yield step(give, value)
        return "fine"

    for run_id, value in (("good", "fine"), ("bad", "damaged")):
        await world.settle(flow(value), run_id=run_id)
    engine = world.engine(flow, codec=Damaged())

    assert await engine.get_run("good") is not None
    with pytest.raises(SerializationError, match="the outcome of step 'give' at position 0 of run 'bad': "):
        await engine.get_run("bad")


async def test_a_codec_that_breaks(world: World) -> None:
    """A codec that raises on an output fails that run; it does not come back for ever."""

    class Breaking(MsgpackCodec):
        def encode(self, value: Any) -> bytes:
            if value == "unspeakable":
                raise ZeroDivisionError
            return super().encode(value)

    @workflow
    def flow() -> Flow[str]:
        yield step(nothing)
        return "unspeakable"

    engine = world.engine(flow, codec=Breaking())
    run = await engine.enqueue(flow())
    await engine.drain()

    with pytest.raises(RunFailedError) as failed:
        await run.result()
    assert failed.value.is_caused_by(ZeroDivisionError)


async def test_a_damaged_error_is_named(world: World) -> None:
    """[19] Where the stored error of a run cannot be read, whoever asks for it is told of which run; so is who asks for
    what lies beyond the calendar."""

    class Damaged(MsgpackCodec):
        def decode(self, data: bytes, type: Any) -> Any:
            return super().decode(data[:-1] if type is Failure else data, type)

    @workflow
    def flow() -> Flow[None]:
        yield step(nothing)
        raise ValueError

    await world.settle(flow())
    engine = world.engine(flow, codec=Damaged())
    run = await engine.handle("r")
    for verb in (run.result, run.info, lambda: engine.resume("r"), lambda: engine.why("r"), engine.list_runs):
        with pytest.raises(SerializationError, match="the error of run 'r': "):
            await verb()
    world.clock.turn_to(2**60)
    await world.engine(flow).enqueue(flow(), run_id="late")
    for verb in (world.engine().list_runs, lambda: world.engine().get_run("late")):
        with pytest.raises(SerializationError, match="an instant of run 'late': it lies beyond the calendar"):
            await verb()


async def test_a_sleep_that_never_ends_is_named(world: World) -> None:
    """[19] A stored sleep that is never due, which none can be, fails its run; it is not tried for ever."""

    class Damaged(TappedStorage):
        async def get_journal(self, run_id: str) -> Journal:
            journal = await self._storage.get_journal(run_id)
            return Journal(journal.entries, [replace(timer, due_at=NEVER) for timer in journal.timers])

    @workflow
    def flow() -> Flow[None]:
        yield sleep("1h")

    await world.settle(flow())
    world.clock.advance("1h")
    with fail_after(5):
        await world.engine(flow, storage=Damaged(world.storage)).drain()

    info = await world.info()
    assert info.error is not None
    assert "the timer of sleep at position 0 of run 'r': it is never due (at $.due_at)" == info.error.message


async def test_a_damaged_recurrence_is_named(world: World) -> None:
    """[19] Where the stored recurrence of a schedule is none, who lists schedules is told which."""

    @workflow
    def flow() -> Flow[None]:
        yield step(nothing)

    await world.engine(flow).schedule(flow(), every="1h", key="hourly")
    [row] = await world.storage.get_schedules()
    await world.storage.put_schedule(replace(row, recurrence="now and then"))

    with pytest.raises(ConfigError, match="schedule 'hourly': 'now and then' is not the text of a recurrence"):
        await world.client().list_schedules()
