"""For tests of yours: the checks and the worlds in which Reflow itself is tested. Nothing of it is loaded by
`import reflow`, and nothing of it needs a test framework.

`run_workflow` runs a workflow on memory and in virtual time, `crash_everywhere` kills it at every point, `record` and
`assert_replays` keep what runs did and hold today's code to it; `Sandbox` is an engine for all else.
`reflow.testing.pytest_plugin` brings recorded runs into pytest.

`reflow.testing.conformance` says whether a storage adapter keeps the contract, clause by clause.
`explore` tries every way in which one workflow can go: outcomes, orders, cancellation, crashes.
`simulate` has a fleet of real engines share a storage, where everything goes wrong that can, as a seed says.
"""

from reflow._core.transcript import Transcript
from reflow.testing.clock import VirtualClock
from reflow.testing.crash import Crash, MortalStorage, crash_everywhere
from reflow.testing.exploring import BadStoryError, Explored, Invariant, explore
from reflow.testing.harness import run_workflow
from reflow.testing.replaying import assert_replays, difference, record
from reflow.testing.sandbox import Finished, Sandbox, SentEvent
from reflow.testing.simulation import Simulated, SimulatedRuns, SimulationError, simulate
from reflow.testing.stories import Body, Story
from reflow.testing.stubs import After, Stubs

__all__ = [
    "After",
    "BadStoryError",
    "Body",
    "Crash",
    "Explored",
    "Finished",
    "Invariant",
    "MortalStorage",
    "Sandbox",
    "SentEvent",
    "Simulated",
    "SimulatedRuns",
    "SimulationError",
    "Story",
    "Stubs",
    "Transcript",
    "VirtualClock",
    "assert_replays",
    "crash_everywhere",
    "difference",
    "explore",
    "record",
    "run_workflow",
    "simulate",
]
