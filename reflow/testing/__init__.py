"""For tests of yours: the checks and the worlds in which Reflow itself is tested. Nothing of it is loaded by
`import reflow`, and nothing of it needs a test framework.

`reflow.testing.conformance` says whether a storage adapter keeps the contract, clause by clause.
`explore` tries every way in which one workflow can go: outcomes, orders, cancellation, crashes.
`simulate` has a fleet of real engines share a storage, where everything goes wrong that can, as a seed says.
"""

from reflow.testing.exploring import BadStoryError, Explored, Invariant, explore
from reflow.testing.simulation import Simulated, SimulatedRuns, SimulationError, simulate
from reflow.testing.stories import Body, Story

__all__ = [
    "BadStoryError",
    "Body",
    "Explored",
    "Invariant",
    "Simulated",
    "SimulatedRuns",
    "SimulationError",
    "Story",
    "explore",
    "simulate",
]
