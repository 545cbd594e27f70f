"""docs/reference/lifecycle-events.md, made from the classes and docstrings of `reflow.events`:
`python -m tests.repo.events_page > docs/reference/lifecycle-events.md`."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator

from reflow import events

__all__ = ["page"]

_HEAD = """\
# Lifecycle events

<!-- Generated from reflow/events.py. Write it again with:
     python -m tests.repo.events_page > docs/reference/lifecycle-events.md -->

What [hooks and streams](../how-to/observe.md) are told of runs. All are frozen; `LifecycleEvent` is the union of all of
them. Each can be imported from `reflow`.
"""

_FIELDS = """
## Fields of all

{run}

Those of steps have as well:

{step}

Instants are aware `datetime`s in UTC, durations whole microseconds. An `error` is a `Failure`, an exception as plain
data.
"""


def page() -> str:
    """The page as it has to be."""
    tree = ast.parse(inspect.getsource(events))
    _, order, *notes = (ast.get_docstring(tree) or "").split("\n\n")
    drawing = ["```text", textwrap.dedent(order), "```"]
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    run, step = _told(classes.pop("_OfRun")), _told(classes.pop("_OfStep"))
    fields = _FIELDS.format(run=run, step=step)
    parts = [_HEAD, *drawing, "", "\n\n".join(notes), fields, *map(_section, classes.values())]
    return "\n".join(parts).rstrip() + "\n"


def _section(node: ast.ClassDef) -> str:
    return f"## `{node.name}`\n\n{_told(node)}\n"


def _told(node: ast.ClassDef) -> str:
    said, fields = ast.get_docstring(node) or "", list(_fields(node))
    return "\n".join([said, "", "```python", *fields, "```"]) if fields else said


def _fields(node: ast.ClassDef) -> Iterator[str]:
    # In its own words: `unparse` would choose other quotes than ruff, which formats the page's code.
    source = inspect.getsource(events)
    return (ast.get_source_segment(source, field) or "" for field in node.body if isinstance(field, ast.AnnAssign))


if __name__ == "__main__":
    print(page(), end="")
