"""docs/reference/storage-contract.md says what the docstrings of the contract say."""

from __future__ import annotations

import re
from pathlib import Path

from reflow.storage import contract
from tests.repo.contract_page import page

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "storage-contract.md"


def test_contract_page_is_up_to_date() -> None:
    """The page is what `python -m tests.repo.contract_page` prints."""
    assert page() == PAGE.read_text(encoding="utf-8")


def test_contract_page_has_every_clause() -> None:
    """Every numbered clause of the contract is on the page, once."""
    source = Path(contract.__file__).read_text(encoding="utf-8")
    clauses = re.findall(r"^ *([A-Z]\d+)\. ", source, re.MULTILINE)

    assert clauses == re.findall(r"^- \*\*([A-Z]\d+)\*\*", page(), re.MULTILINE)
