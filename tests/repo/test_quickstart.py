"""The mistakes in docs/quickstart.md are answered with the very sentences that the page shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import reflow
from reflow import ConfigError, MemoryStorage, RunConflictError, RunFailedError
from tests.support.world import World

PAGE = Path(__file__).parents[2] / "docs" / "quickstart.md"


def blocks(language: str, text: str) -> list[str]:
    """The code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


MISTAKES = PAGE.read_text(encoding="utf-8").partition("## Mistakes")[2]
PRELUDE = blocks("python", MISTAKES)[0]
ANSWERED = re.findall(r"^```python\n([^`]*?)^```\n\n```text\n(.*?)\n```$", MISTAKES, re.MULTILINE | re.DOTALL)


def names_of(*codes: str) -> dict[str, Any]:
    """What code blocks define, one after the other."""
    names: dict[str, Any] = {"__name__": "mistakes"}
    for code in codes:
        exec(compile(code, "FILE", "exec"), names)
    return names


def said(message: str) -> str:
    """A message as the page shows it: from the failure on, without the line."""
    return re.sub(r"\(FILE:\d+\)", "(FILE:LINE)", message.partition(" failed: ")[2] or message)


@pytest.mark.parametrize(("code", "shown"), [(c, s) for c, s in ANSWERED if "def wrong" in c])
def test_mistake_is_answered(code: str, shown: str) -> None:
    """[9] Running the mistake gives the error that the page shows."""
    with pytest.raises((RunFailedError, ConfigError)) as caught:
        reflow.run(names_of(PRELUDE, code)["wrong"]("a"), storage=MemoryStorage())
    prefix = "" if isinstance(caught.value, RunFailedError) else f"{type(caught.value).__name__}: "

    assert shown == prefix + said(caught.value.message)


def test_there_are_mistakes() -> None:
    """The page is read as it is meant: most mistakes come with their answer."""
    assert len(ANSWERED) >= 9


def test_changed_input_is_answered() -> None:
    """[109] The same id with another input gives the error that the page shows."""
    storage, wrong = MemoryStorage(), names_of(PRELUDE, "@workflow\ndef good(url: str):\n    yield step(fetch, url)")
    reflow.run(wrong["good"]("a"), storage=storage, run_id="copy-1")
    with pytest.raises(RunConflictError) as caught:
        reflow.run(wrong["good"]("b"), storage=storage, run_id="copy-1")

    assert f"RunConflictError: {caught.value.message}" in blocks("text", MISTAKES)[-2]


@pytest.mark.anyio
async def test_changed_code_is_answered(anyio_backend: str) -> None:
    """The edited workflow, taken up an hour later, fails with the error that the page shows."""
    before, after = (code for code in blocks("python", MISTAKES) if 'name="news"' in code)
    world = World(MemoryStorage())
    await world.settle(names_of(PRELUDE, before)["before"]("a"))
    info = await world.continued(names_of(PRELUDE, after)["after"], after="2h")

    assert info.error is not None
    assert blocks("text", MISTAKES)[-1].rstrip() == said(str(info.error))
