"""docs/reference/lifecycle-events.md says what the classes of lifecycle events say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec

from reflow import LifecycleEvent
from tests.repo.events_page import page
from tests.support.lifecycle import completed, failed

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "lifecycle-events.md"


def test_events_page_is_up_to_date() -> None:
    """The page is what `python -m tests.repo.events_page` prints."""
    assert page() == PAGE.read_text(encoding="utf-8")


def test_events_page_has_every_class() -> None:
    """Each class of the union has a section, and there are no others."""
    assert sorted(cls.__name__ for cls in get_args(LifecycleEvent)) == sorted(
        re.findall(r"^## `(\w+)`$", page(), re.MULTILINE)
    )


def test_events_are_data() -> None:
    """A lifecycle event can be written as JSON and read again as what it was: its class stands with it."""
    events = [completed([1]), failed()]

    assert events == msgspec.json.decode(msgspec.json.encode(events), type=list[LifecycleEvent])
