"""Where a run stands: its journal is replayed into a scratch copy of the program, which is looked at and dropped.

Nothing is performed, and the body believes that it is replaying, so it logs nothing. What it opens, such as a file, is
closed again at once. Over a long journal others are given their turns.
"""

from __future__ import annotations

from typing import Any

from anyio.lowlevel import checkpoint
from msgspec import Struct

from reflow._core.definition import Call, Workflow
from reflow._core.journal import ENTRIES_AT_ONCE, Journal, describe
from reflow._core.location import Place, stack_of
from reflow._core.nodes import Open
from reflow._core.replay import Replay
from reflow._core.steps import Step
from reflow.codec import Codec
from reflow.storage.records import RunRow

__all__ = ["Standing", "standings"]


class Standing(Struct, frozen=True):
    """A command that a run waits for, and the generators that are suspended on the way to it.

    `places` begin with the workflow body, and end with the helper or branch that has yielded the command. Of a step
    `max_attempts` is set, of a child `run_id`.
    """

    position: str
    kind: str
    name: str
    places: tuple[Place, ...]
    max_attempts: int | None = None
    run_id: str | None = None

    def __str__(self) -> str:
        return describe(self.kind, self.name)


async def standings(
    row: RunRow, journal: Journal, workflow: Workflow[..., Any], codec: Codec, *, variables: bool = False
) -> tuple[Standing, ...]:
    """The commands that are open after all that the journal has, in the order in which they were opened.

    Raises what replay raises where code and journal no longer agree.
    """
    if not (journal.entries or journal.timers):
        # What the body would do first, nobody has seen yet.
        return ()
    generator = workflow.start(row.input, codec)
    replay = Replay(row.run_id, generator, codec, journal, workflow=row.workflow, generation=row.generation)
    try:
        replay.start()
        while replay.catch_up(ENTRIES_AT_ONCE):
            await checkpoint()
        for timer in journal.timers:
            replay.check(timer)
        return tuple(_standing(replay, node, variables) for node in replay.open.values())
    finally:
        replay.close()


def _standing(replay: Replay, node: Open, variables: bool) -> Standing:
    command = node.command
    attempts = run_id = None
    if isinstance(command, Step):
        attempts = command.retry.max_attempts if command.retry else 1
    elif isinstance(command, Call):
        run_id = replay.run_id_of(node)
    places = stack_of(node, variables=variables)
    return Standing(node.position, command.kind, command.name, places, attempts, run_id)
