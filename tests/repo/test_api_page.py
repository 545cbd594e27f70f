"""docs/reference/api.md shows the signatures that the code has."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

import pytest

import reflow
from reflow import Client, Engine, Run, testing
from reflow.testing import conformance
from tests.repo.sources import ROOT

_PAGE = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
# Shown under the function that makes what has it.
_METHODS = {"options": type(reflow.step(len, "")).options}

REQUIRED = inspect.Parameter.empty


class Shown(NamedTuple):
    """A function of the page, under a heading."""

    heading: str
    function: ast.FunctionDef | ast.AsyncFunctionDef

    def __str__(self) -> str:
        return f"{self.heading}.{self.function.name}"


def shown() -> Iterator[Shown]:
    """Every function in the code of the page."""
    for section in re.split(r"^### ", _PAGE, flags=re.MULTILINE)[1:]:
        heading = re.findall(r"`(\w+)", section)[0]
        for code in re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    yield Shown(heading, node)


def meant(each: Shown) -> Any:
    """What the page speaks of."""
    name = each.function.name
    for package in (reflow, testing, conformance):
        owner = getattr(package, each.heading, None)
        if inspect.isclass(owner) and hasattr(owner, name):
            return getattr(owner, name)
        if hasattr(package, name):
            return getattr(package, name)
    return _METHODS[name]


def of_page(function: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, Any]:
    """The parameters of a function on the page, in order, with their defaults."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = [None] * (len(positional) - len(arguments.defaults))
    pairs = [*zip(positional, [*required, *arguments.defaults], strict=True)]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    stars = [each.arg for each in (arguments.vararg, arguments.kwarg) if each]
    return {argument.arg: value_of(default) for argument, default in pairs} | dict.fromkeys(stars, REQUIRED)


def value_of(default: ast.expr | None) -> Any:
    """A default on the page."""
    return REQUIRED if default is None else eval(ast.unparse(default), {"Any": Any})


def of_code(function: Any) -> dict[str, Any]:
    """Those of a function, in order, with their defaults; as `of_page`."""
    parameters = inspect.signature(function).parameters.values()
    # Where they stand matters for those that are named only.
    in_order = sorted(parameters, key=lambda each: each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD))
    return {each.name: each.default for each in in_order}


@pytest.mark.parametrize("each", list(shown()), ids=str)
def test_a_signature_is_that_of_the_code(each: Shown):
    """Each function of the page has the parameters, in their order, and the defaults that the code has; `...` stands
    for some default. Where the page shows several forms, each parameter is in one of them."""
    expected, written = of_code(meant(each)), of_page(each.function)
    forms = [of_page(other.function) for other in shown() if str(other) == str(each)]

    assert [name for name in expected if name in written] == list(written)
    assert set(expected) == {name for form in forms for name in form}
    if len(forms) == 1:
        assert {name: written[name] if written[name] is not ... else expected[name] for name in written} == expected


def test_the_fields_of_a_class_are_those_of_the_code():
    """A class that the page shows by its fields has them, in their order, with their defaults."""
    classes = [
        node
        for code in re.findall(r"^```python\n(.*?)^```$", _PAGE, re.MULTILINE | re.DOTALL)
        for node in ast.parse(code).body
        if isinstance(node, ast.ClassDef) and any(isinstance(each, ast.AnnAssign) for each in node.body)
    ]

    for each in classes:
        fields = {ast.unparse(f.target): value_of(f.value) for f in each.body if isinstance(f, ast.AnnAssign)}
        assert of_code(getattr(reflow, each.name)) == fields
    assert ["Retry"] == [each.name for each in classes]


def verbs() -> Iterator[tuple[type, str, str]]:
    """The methods in the tables of the page: class, name, and what stands in the brackets."""
    for section in re.split(r"^### ", _PAGE, flags=re.MULTILINE)[1:]:
        owner = {"Engine": Engine, "Client": Client, "Run": Run}.get(re.findall(r"`(\w+)", section)[0])
        if owner is not None:
            for name, arguments in re.findall(r"(?<=`await )(\w+)\(([^`]*?)\)(?= ->|`)", section):
                yield owner, name, arguments


@pytest.mark.parametrize(("owner", "name", "arguments"), list(verbs()))
def test_a_verb_has_its_parameters(owner: type, name: str, arguments: str):
    """Each method in the tables has the parameters of the code, the options of its type included; what goes with the
    name of a workflow instead of a call is said once, above them."""
    if "..." not in arguments:
        names = re.findall(r"(?:^|, )(\w+)", arguments)

        assert names_of(getattr(owner, name)) - {"arguments", "version"} == set(names)


def names_of(function: Any) -> set[str]:
    """The parameters of a method, the options spread out."""
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    options = [get_args(each.annotation)[0] for each in parameters if each.kind is each.VAR_KEYWORD]
    named = {each.name for each in parameters if each.kind is not each.VAR_KEYWORD and each.name != "self"}
    return named.union(*(typed.__optional_keys__ for typed in options))
