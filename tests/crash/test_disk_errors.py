"""A disk that fails: no space, I/O errors, at every operation. How that is done: tests/crash/disk/__init__.py.

In the short form the operation that fails is every n-th, in the long one each, half of them on either event loop; of
the reads, which are many, some.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path
from random import Random

import pytest
from msgspec import json

from tests.crash.disk.faults import OPERATIONS, Fault, Seen
from tests.crash.disk.recording import ROOT, SEED, Cuts, cut, record
from tests.crash.ledger import fired, scaled

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

LASTS = ["once", "lasts"]
# How far apart the operations are that fail; where there are few of a kind, each does.
STEPS = {
    "limit": scaled(20, long=2),
    "full": scaled(80, long=2),
    "write": scaled(80, long=2),
    "sync": scaled(16, long=2),
    "read": scaled(600, long=20),
}

# So many operations there are in any case while workflows run.
MOST = {"full": 300, "write": 300, "sync": 40, "read": 80}


def name_of(fault: Fault) -> str:
    """What the table of faults calls it."""
    if fault == "limit":
        return "file size limit"
    return "disk full" if fault == "full" else f"I/O error of a {OPERATIONS[fault]}"


@pytest.mark.parametrize(("fault", "lasts"), [*product(OPERATIONS, LASTS), ("limit", "lasts")])
def test_a_verb_is_done_or_refused(tmp_path: Path, anyio_backend: str, fault: Fault, lasts: str) -> None:
    """[175] Whichever operation of the disk fails, once or for a while: the verb answers StorageError and nothing has
    changed, or it is done; what is stored can be read while writes fail; and when the disk is well, the same storage
    goes on."""
    step = STEPS.get(fault, 1)
    first = 2 if anyio_backend == "trio" and step > 1 else 1
    command = [sys.executable, "-m", "tests.crash.disk.refusals"]
    arguments = [tmp_path, anyio_backend, fault, lasts, first, step]
    done = subprocess.run(
        [*command, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )

    assert (0, "") == (done.returncode, done.stderr)
    seen = json.decode(done.stdout, type=Seen)
    # What the system has refused shows in the verbs only.
    fired(name_of(fault), "in a verb", seen.operations or seen.refusals)
    assert seen.rounds > 0


@pytest.mark.parametrize("fault", MOST)
@pytest.mark.parametrize("lasts", LASTS)
async def test_runs_go_on_when_the_disk_is_well(tmp_path: Path, anyio_backend: str, fault: Fault, lasts: str) -> None:
    """[120] Whichever operation fails, no run does: when the disk is well, the same process finishes all of them, with
    no finished body run again. A power cut at any time before, during or after loses nothing acknowledged."""
    dice = Random(f"{SEED} {fault} {lasts}")
    for number in range(scaled(1, long=12)):
        at = dice.randint(1, MOST[fault])
        folder = tmp_path / str(number)
        recording = record(folder, anyio_backend, "full", 16, fault, at, lasts)
        fired(name_of(fault), "under running workflows", recording.struck)

        cuts = await cut(tmp_path, recording.log, sorted(dice.choices(range(len(recording.log)), k=10)))

        fired("power cut", "in work that met errors of the disk", cuts.count)
        assert (True, Cuts(cuts.count)) == (recording.struck > 0, cuts)
