"""Where a program stands: `file:line`, and the generators on the way there, for errors and for whoever asks why a run
waits."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import isgenerator
from types import FrameType, GeneratorType
from typing import Any

from msgspec import Struct

from reflow._core.command import Command
from reflow._core.nodes import Frame, Node, frame_of

__all__ = ["Place", "innermost", "location_of", "stack_of"]

# `x = yield from command` stands at the line of the workflow, not at the one in `Command.__iter__`.
_YIELD_FROM_COMMAND = vars(Command)["__iter__"].__code__
_LONGEST_REPR = 200


class Place(Struct, frozen=True):
    """A generator and the line at which it is suspended. `variables` are its local variables as `repr` shows them,
    where they were asked for."""

    file: str
    line: int
    function: str
    variables: dict[str, str] | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


def location_of(node: Node) -> str:
    """`file:line` of the yield at which `node` stands, inside helper generators too; where it has ended, of its return
    or raise."""
    body = frame_of(node)
    *_, generator = _chain(body.generator)
    code, frame = generator.gi_code, generator.gi_frame or body.frame
    return f"{code.co_filename}:{frame.f_lineno if frame else code.co_firstlineno}"


def stack_of(node: Node, *, variables: bool = False) -> tuple[Place, ...]:
    """The places at which the generators above `node` are suspended: the workflow body first, with its helpers under
    `yield from`, then the branches that lead to `node`, with theirs."""
    frames = [frame_of(node)]
    while (group := frames[-1].parent) is not None:
        frames.append(frame_of(group))
    return tuple(place for frame in reversed(frames) for place in _places(frame, variables))


def innermost(generator: GeneratorType[Any, Any, Any]) -> GeneratorType[Any, Any, Any]:
    """The generator that `generator` stands in, by way of `yield from`: itself, a helper, or a helper's helper."""
    while isgenerator(inner := generator.gi_yieldfrom) and inner.gi_frame is not None:
        generator = inner
    return generator


def _chain(generator: GeneratorType[Any, Any, Any]) -> Iterator[GeneratorType[Any, Any, Any]]:
    """`generator` and its helpers, from the outside in."""
    yield generator
    while isgenerator(inner := generator.gi_yieldfrom) and inner.gi_code is not _YIELD_FROM_COMMAND:
        yield (generator := inner)


def _places(body: Frame, variables: bool) -> Iterator[Place]:
    for generator in _chain(body.generator):
        frame: FrameType | None = generator.gi_frame
        if frame is not None:
            code = generator.gi_code
            shown = {name: _shown(value) for name, value in frame.f_locals.items()} if variables else None
            yield Place(code.co_filename, frame.f_lineno, code.co_qualname, shown)


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"<a {type(value).__name__} that cannot be shown>"
    return text if len(text) <= _LONGEST_REPR else f"{text[:_LONGEST_REPR]}..."
