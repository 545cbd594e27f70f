"""docs/reference/cli.md says what `--help` says."""

from __future__ import annotations

from tests.repo.cli_page import page
from tests.repo.sources import ROOT


def test_cli_page_is_up_to_date() -> None:
    """The page is what `python -m tests.repo.cli_page` prints."""
    assert page() == (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
