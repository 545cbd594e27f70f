"""Recorded runs in pytest: one test for each transcript of a folder. Idle unless a test asks for it.

    @pytest.mark.transcripts("transcripts")        # a folder beside this file
    def test_what_runs_did_they_would_do_again(transcript):
        assert_replays([signup, import_file], transcript)

A folder without transcripts is an error of that test: a test of nothing always passes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from reflow.testing import Transcript

__all__ = ["pytest_configure", "pytest_generate_tests", "transcript"]


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "transcripts(folder): the test runs with each transcript (*.jsonl) of the folder, which is given from the "
        "folder of the test file, as its argument `transcript`",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each file."""
    marker = metafunc.definition.get_closest_marker("transcripts")
    if marker is None:
        return
    if len(marker.args) != 1 or "transcript" not in metafunc.fixturenames:
        pytest.fail("write @pytest.mark.transcripts('folder') and give the test an argument `transcript`", False)
    folder = metafunc.definition.path.parent / marker.args[0]
    files = sorted(folder.rglob("*.jsonl"))
    if not files:
        # Not here, where it would keep all other tests of the file from running.
        metafunc.parametrize(
            "transcript", [f"there is no transcript (*.jsonl) in {folder}"], indirect=True, ids=["none"]
        )
        return
    names = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
    metafunc.parametrize("transcript", files, indirect=True, ids=names)


@pytest.fixture
def transcript(request: pytest.FixtureRequest) -> Transcript:
    """A transcript of the folder that the marker `transcripts` names."""
    from reflow.testing import Transcript

    file = getattr(request, "param", None)
    if isinstance(file, str):
        pytest.fail(file, False)
    if not isinstance(file, Path):
        pytest.fail("mark this test with @pytest.mark.transcripts('folder')", False)
    return Transcript.parse(file.read_text(encoding="utf-8"))
