"""What fits an annotation comes back as it was, live and on replay; what is no data is refused with its path."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflow import (
    Codec,
    Event,
    Flow,
    RunStatus,
    SerializationError,
    gather,
    sleep,
    step,
    wait_event,
    workflow,
)
from reflow.testing import Sandbox
from tests.crash.ledger import fired
from tests.crash.random_cases import both, law
from tests.support.payloads import exact, offences, payloads

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("patience")]


@both
@law(250, long=10_000)
@given(data=st.data())
def test_what_fits_comes_back(codec: Codec, data: st.DataObject) -> None:
    """[14] A value of any shape that its annotation has comes back equal, and of the same types throughout."""
    annotation, value = data.draw(payloads(codec))
    again = type(codec)().decode(codec.encode(value), annotation)
    fired("random payload", f"through {type(codec).__name__}")

    assert exact(value) == exact(again)


@both
@law(80, long=3_000)
@given(data=st.data(), backend=st.sampled_from(["asyncio", "trio"]))
def test_live_equals_replay(codec: Codec, data: st.DataObject, backend: str) -> None:
    """[13][14][15] As an input, a result, an event, a child's result and an output, the value is what it was: when the
    run sees it first, and when it is replayed."""
    annotation, value = data.draw(payloads(codec))
    seen: list[Any] = []

    async def give(item: Any) -> Any:
        return item

    give.__annotations__ = {"return": annotation}
    event = Event("answer", annotation)

    def child_of(item: Any) -> Flow[Any]:
        yield sleep(1)
        return item

    def parent_of(item: Any) -> Flow[Any]:
        seen.append(item)
        seen.append((yield step(give, item)))
        seen.extend((yield gather(step(give, item), child(item))))
        seen.append((yield wait_event(event)))
        yield sleep("1h")
        return item

    for function in (child_of, parent_of):
        function.__annotations__ = {"item": annotation, "return": Generator[Any, Any, annotation]}
    child, parent = workflow(child_of), workflow(parent_of)

    async def main() -> Any:
        async with Sandbox([child, parent], codec=type(codec)()) as sandbox:
            run = await sandbox.begin(parent(value), run_id="r", events=[(event, value, "30m")])
            finished = await sandbox.finished(run)
            await sandbox.check_determinism()
            return finished.result

    result = anyio.run(main, backend=backend)
    fired("random payload", f"through a run with {type(codec).__name__}")

    # Begun, and replayed after the child, the event and the sleep.
    assert 1 + 3 + 5 + 5 <= len(seen)
    assert [exact(value)] * (len(seen) + 1) == [exact(each) for each in [*seen, result]]


@both
@law(250, long=10_000)
@given(offence=offences())
def test_what_is_no_data_is_refused(codec: Codec, offence: tuple[Any, str]) -> None:
    """[16] NaN, infinities, functions and instances anywhere inside are a SerializationError with the path."""
    value, path = offence
    with pytest.raises(SerializationError) as caught:
        codec.encode(value)
    fired("no data", f"refused by {type(codec).__name__}")

    assert path == caught.value.path


@both
@law(40, long=1_500)
@given(offence=offences(), backend=st.sampled_from(["asyncio", "trio"]))
def test_a_run_is_told_where(codec: Codec, offence: tuple[Any, str], backend: str) -> None:
    """[16][17] A step that gives what is no data fails with an error that names step, position and path, in a run that
    may go on; as a return value it fails the run."""
    value, path = offence

    async def give() -> Any:
        return value

    @workflow
    def flow() -> Flow[Any]:
        given = yield gather(step(give), return_exceptions=True)
        assert [path] == [str(error.failure.message).rpartition(" (at ")[2].removesuffix(")") for error in given]
        yield sleep("1h")
        return value

    async def main() -> Any:
        async with Sandbox([flow], codec=codec) as sandbox:
            return await sandbox.finished(await sandbox.begin(flow(), run_id="r"))

    finished = anyio.run(main, backend=backend)
    fired("no data", f"in a run with {type(codec).__name__}")

    [entry, _] = finished.journal
    assert RunStatus.FAILED is finished.status
    assert entry.error.message.startswith("the result of step 'give' at position 0.0: ")
    assert entry.error.message.endswith(f" (at {path})")
    assert finished.error.message.startswith("the return value of workflow 'flow': ")
    assert finished.error.message.endswith(f" (at {path})")
