"""docs/reference/storage-contract.md, made from the docstrings of the contract and its records:
`python -m tests.repo.contract_page > docs/reference/storage-contract.md`."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from types import ModuleType

from reflow._core import journal
from reflow.storage import contract, records

__all__ = ["page"]

_LONGEST_LINE = 120

_HEAD = """\
# The storage contract

<!-- Generated from reflow/storage/contract.py, reflow/storage/records.py and reflow/_core/journal.py. Write it again
     with: python -m tests.repo.contract_page > docs/reference/storage-contract.md -->
"""

_AFTER_HEAD = """
[Own storage](../how-to/own-storage.md) tells how to write an adapter, and how to run the conformance suite,
`reflow.testing.conformance`, over it. A2 and A3 are tested for each adapter by itself, every other clause by the suite.

## Verbs
"""

_RECORDS = """\
## Records

What the verbs take and give. Instants are whole microseconds since 1970 UTC; values are bytes.
"""


def page() -> str:
    """The page as it has to be."""
    tree = _parsed(contract)
    protocol = next(node for node in tree.body if isinstance(node, ast.ClassDef))
    verbs = [node for node in protocol.body if isinstance(node, ast.AsyncFunctionDef)]
    classes = [node for module in (records, journal) for node in _parsed(module).body if isinstance(node, ast.ClassDef)]
    parts = [_HEAD, *_said(tree), _AFTER_HEAD, *map(_verb, verbs), _RECORDS, *map(_record, classes)]
    return "\n".join(parts).rstrip() + "\n"


def _verb(node: ast.AsyncFunctionDef) -> str:
    arguments = re.sub(r"(?<=\w)=(?=\w)", " = ", ast.unparse(node.args))
    returns = ast.unparse(node.returns or ast.Constant(None))
    signature = f"async def {node.name}({arguments}) -> {returns}: ..."
    if len(signature) > _LONGEST_LINE:
        signature = f"async def {node.name}(\n    {arguments}\n) -> {returns}: ..."
    return "\n".join([f"### `{node.name}`\n", "```python", signature, "```\n", *_said(node), ""])


def _record(node: ast.ClassDef) -> str:
    fields = [
        f"| `{field.target.id}` | `{ast.unparse(field.annotation).replace('|', chr(92) + '|')}` |"
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    ]
    return "\n".join([f"### `{node.name}`\n", _doc(node), "", "| field | type |", "|---|---|", *fields, ""])


def _said(node: ast.Module | ast.AsyncFunctionDef) -> list[str]:
    """A docstring, its numbered clauses as a list."""
    said, *clauses = re.split(r"^([A-Z]\d+)\. ", _doc(node), flags=re.MULTILINE)
    texts = [" ".join(clause.split()) for clause in clauses[1::2]]
    return [said.strip(), "", *(f"- **{number}** {text}" for number, text in zip(clauses[::2], texts, strict=True))]


def _doc(node: ast.Module | ast.ClassDef | ast.AsyncFunctionDef) -> str:
    return textwrap.dedent(ast.get_docstring(node) or "").strip()


def _parsed(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


if __name__ == "__main__":
    print(page(), end="")
