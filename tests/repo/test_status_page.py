"""docs/reference/status.md says what the transition table says."""

from __future__ import annotations

from pathlib import Path

from tests.repo.status_page import page

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "status.md"


def test_status_page_is_up_to_date() -> None:
    """The page is what `python -m tests.repo.status_page` prints."""
    assert page() == PAGE.read_text(encoding="utf-8")
