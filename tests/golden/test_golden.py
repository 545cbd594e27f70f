"""Runs that were recorded once replay for ever. Transcripts are added by `python -m tests.golden`, never edited."""

from __future__ import annotations

from pathlib import Path

import pytest

from reflow import NonDeterminismError
from reflow._core.replay import RULES
from reflow.testing import Transcript, assert_replays
from tests.golden import workflows
from tests.golden.__main__ import CALLS, HERE, recorded

FILES = sorted(Path(__file__).parent.rglob("*.jsonl"))
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")


def load(file: Path) -> Transcript:
    """A transcript that is kept."""
    return Transcript.parse(file.read_text(encoding="utf-8"))


@each_file
def test_a_golden_transcript_replays(file: Path) -> None:
    """[193] What was recorded by an earlier Reflow, today's would do again, and the run ends as it did."""
    assert_replays(workflows.ALL, load(file))


@each_file
def test_a_golden_transcript_is_read_exactly(file: Path) -> None:
    """A transcript that was read is written as the same text."""
    assert file.read_text(encoding="utf-8") == str(load(file))


@each_file
def test_a_golden_transcript_says_by_which_rules(file: Path) -> None:
    """Transcripts stand in the folder of the rules by which they were recorded."""
    assert file.parent.name == f"rules_{load(file).rules}"


@each_file
def test_no_entry_may_be_missing(file: Path) -> None:
    """A transcript whose first outcome was recorded under another name does not replay: the test can fail."""
    lines = file.read_text(encoding="utf-8").split("\n")
    lines[1] = lines[1].replace('"name":"', '"name":"other_', 1)

    with pytest.raises(NonDeterminismError):
        assert_replays(workflows.ALL, Transcript.parse("\n".join(lines)))


@pytest.mark.anyio
@pytest.mark.parametrize("name", CALLS)
async def test_runs_are_recorded_as_ever(anyio_backend: str, name: str) -> None:
    """A run of today leaves the same lines as the golden one; what runs side by side may come in another order."""
    golden, today = load(HERE / f"{name}.jsonl"), await recorded(CALLS[name])

    assert sorted(str(golden).split("\n")) == sorted(str(today).split("\n"))


def test_every_call_has_a_golden_transcript() -> None:
    """There is one for each call, by the rules of today."""
    assert sorted(CALLS) == [file.stem for file in FILES if file.parent.name == f"rules_{RULES}"]
