"""Power cuts: what was acknowledged is there, and everything goes on. How that is done: tests/crash/disk/__init__.py.

The short form cuts recordings at some of their operations, the long one at every one, several times: what is lost of
the pending writes is drawn anew each time.
"""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from random import Random

import pytest

from tests.crash.disk import model
from tests.crash.disk.judge import lay_down
from tests.crash.disk.recording import SEED, Cuts, cut, record
from tests.crash.ledger import fired, scaled

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

# SQLite checkpoints the log after 1,000 pages, here never before the file is closed; or all the time.
PAGES = [1_000, 8]
TIMES = range(scaled(1, long=2))


def ends(log: list[model.Record]) -> list[int]:
    """Where to cut a recording: everywhere in the long form."""
    everywhere = range(len(log) + 1)
    return sorted(Random(f"{SEED} {len(log)}").sample(everywhere, scaled(40, long=len(everywhere))))


@pytest.mark.parametrize("pages", PAGES)
@pytest.mark.parametrize("time", TIMES)
async def test_full_durability_survives_power_cuts(tmp_path: Path, anyio_backend: str, pages: int, time: int) -> None:
    """[28] With full durability, wherever the power is cut, every acknowledged run and entry is there unchanged, the
    file is whole, all runs complete with the right results, and no finished body runs again."""
    log = record(tmp_path / f"work{time}", anyio_backend, "full", pages).log

    cuts = await cut(tmp_path, log, ends(log))

    fired("power cut", "durability full: nothing acknowledged is lost", cuts.count)
    assert Cuts(cuts.count) == cuts


@pytest.mark.parametrize("pages", PAGES)
@pytest.mark.parametrize("time", TIMES)
async def test_process_durability_loses_the_end_only(tmp_path: Path, anyio_backend: str, pages: int, time: int) -> None:
    """With process durability a power cut can take back acknowledged steps, and always from the end: the file is
    whole, what is left is what there was at some moment, and all runs complete with the right results."""
    log = record(tmp_path / f"work{time}", anyio_backend, "process", pages).log

    cuts = await cut(tmp_path, log, ends(log))

    fired("power cut", "durability process: acknowledged steps are lost", cuts.lossy)
    fired("power cut", "durability process: nothing acknowledged is lost", cuts.count - cuts.lossy)
    assert cuts.lossy > 0, "a model that loses nothing proves nothing of the other durability"


async def test_power_cuts_in_recovery(tmp_path: Path, anyio_backend: str) -> None:
    """[28] A power cut while a process takes up what the last power cut has left loses nothing either."""
    first = record(tmp_path / "work", anyio_backend, "full", 1_000).log
    dice = Random(SEED)
    for number in range(scaled(2, long=20)):
        files = model.after_a_cut(first[: dice.randint(len(first) // 3, len(first))], dice)
        folder = tmp_path / f"again{number}"
        folder.mkdir()
        lay_down(folder, files)
        second = record(folder, anyio_backend, "full", 1_000).log
        # It begins with what the process found.
        found = list(takewhile(lambda each: isinstance(each, (model.Enqueued, model.Saved)), second))
        begun = [*found, *model.laid_down(files)]
        log = [*begun, *second[len(found) :]]

        cuts = await cut(tmp_path, log, sorted(dice.choices(range(len(begun), len(log) + 1), k=20)))

        fired("power cut", "in the work after a power cut", cuts.count)
        assert Cuts(cuts.count) == cuts


async def test_a_disk_without_syncs_is_found_out(tmp_path: Path, anyio_backend: str) -> None:
    """These tests find what they are there to find: without a single sync, recordings do not survive power cuts."""
    log = record(tmp_path / "work", anyio_backend, "full", 8).log
    log = [record for record in log if not isinstance(record, model.Synced) or record.directory]
    found = 0
    for end in range(len(log) // 2, len(log), len(log) // 20):
        try:
            cuts = await cut(tmp_path, log, [end])
        except Exception:
            found += 1
        else:
            found += cuts.lossy

    assert found > 0
