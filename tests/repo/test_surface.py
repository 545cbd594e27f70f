"""What is public: named, documented, and the same in code and pages."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
import typing
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

import reflow
from reflow import Failure, ReflowError, WorkflowCancelled, errors, testing
from reflow.testing import conformance
from tests.repo.sources import ROOT, modules, tree_of

ERRORS = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, ReflowError)]
PUBLIC = [(package, name) for package in (reflow, testing, conformance) for name in package.__all__]
SAMPLES: dict[Any, Any] = {
    str: "text",
    int: 3,
    float: 2.5,
    tuple[str, ...]: ("a", "b"),
    tuple[str, ...] | None: ("a", "b"),
    Failure: Failure("ValueError", "wrong", bases=("ValueError", "Exception"), causes=(Failure("KeyError", "k"),)),
}


def documentation() -> str:
    """All pages."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").rglob("*.md")))


def in_order(names: list[str]) -> list[str]:
    """Constants, then classes, then the rest, each by alphabet."""
    return sorted(names, key=lambda name: (0 if name.isupper() else 1 if name[0].isupper() else 2, name))


def exported(tree: ast.Module) -> list[str] | None:
    """The `__all__` of a module; None where it has none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return list(ast.literal_eval(node.value))
    return None


def defined(tree: ast.Module) -> Iterator[str]:
    """The public names that a module defines; type variables are nobody's business."""
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                if not re.match(r"(TypeVar|ParamSpec|TypeVarTuple)\(", ast.unparse(value)):
                    yield name


@pytest.mark.parametrize("module", modules())
def test_all_is_what_a_module_defines(module: str):
    """`__all__` lists, in order, the public names that the module defines; a package lists what it passes on."""
    tree = tree_of(modules()[module])
    public = [name for name in dict.fromkeys(defined(tree)) if not name.startswith("_") and not is_case(module, name)]
    names = exported(tree)

    if modules()[module].name == "__init__.py" and names is not None:
        imported = {
            alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
        }
        assert set() == set(names) - imported - set(public)
        assert in_order(names) == names
    else:
        assert in_order(public) == (names or [])


def is_case(module: str, name: str) -> bool:
    """Whether a function is a case of the storage contract: those are found by their names, and are nobody's import."""
    return module.startswith("reflow.testing.conformance.") and re.match(r"[a-z]\d+_", name) is not None


@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_a_public_name_has_a_docstring(package: ModuleType, name: str):
    """Each public name says what it is, and so does each public method of it."""
    thing = getattr(package, name)

    assert [] == list(undocumented(name, thing))


def undocumented(name: str, thing: object) -> Iterator[str]:
    """The name itself and its public methods, where they lack a docstring."""
    if isinstance(thing, type):
        if not vars(thing).get("__doc__"):
            yield name
        for attribute, value in vars(thing).items():
            value = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
            if isinstance(value, (FunctionType, property)) and not attribute.startswith("_") and not value.__doc__:
                yield f"{name}.{attribute}"
    elif isinstance(thing, FunctionType):
        if not thing.__doc__:
            yield name
    elif not has_text_below(name):
        yield name


def has_text_below(name: str) -> bool:
    """Whether an alias or constant of this name has a docstring under its assignment."""
    for path in modules().values():
        body = tree_of(path).body
        for node, following in pairwise(body):
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and name in [ast.unparse(part) for part in targets(node)]:
                return isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
    return False


def targets(node: ast.Assign | ast.AnnAssign) -> list[ast.expr]:
    """What is assigned to."""
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def test_every_public_name_is_in_the_documentation():
    """Each public name is written as code somewhere in the pages."""
    code = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`]+`|```.*?```", documentation(), re.DOTALL))))

    assert [] == [name for _, name in PUBLIC if name not in code]


def test_every_error_is_public():
    """Each error class, and the cancellation, can be imported from `reflow`."""
    assert [] == [cls.__name__ for cls in [*ERRORS, WorkflowCancelled] if cls.__name__ not in reflow.__all__]


def test_every_error_has_a_code_of_its_own():
    """[174] No two error classes share a code."""
    codes = [cls.code for cls in ERRORS]

    assert sorted(set(codes)) == sorted(codes)


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_an_error_survives_pickling(cls: type[ReflowError]):
    """[174] An error that was pickled has the same class, message, code and fields."""
    error = sample(cls)

    copy = pickle.loads(pickle.dumps(error))

    assert (type(error), str(error), error.args, error.code, vars(error)) == (
        type(copy),
        str(copy),
        copy.args,
        copy.code,
        vars(copy),
    )
    assert error.to_dict() == copy.to_dict()


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_an_error_keeps_its_fields(cls: type[ReflowError]):
    """[174] Each argument of an error is a field of its name, and none stands in the message only."""
    arguments = arguments_of(cls)

    assert {} == {name: value for name, value in arguments.items() if getattr(sample(cls), name, None) != value}


def test_every_error_is_in_the_reference():
    """The page of errors has each class with its code."""
    page = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")

    assert [] == [cls.__name__ for cls in ERRORS if f"`{cls.__name__}`" not in page or f"`{cls.code}`" not in page]


def arguments_of(cls: type[ReflowError]) -> dict[str, Any]:
    """Some argument of the right type for each parameter."""
    hints = typing.get_type_hints(cls.__init__, vars(errors))
    return {name: SAMPLES[hints[name]] for name in inspect.signature(cls).parameters}


def sample(cls: type[ReflowError]) -> ReflowError:
    """An error of this class."""
    return cls(**arguments_of(cls))


def test_the_package_is_typed():
    """Type checkers are told that the package has types."""
    assert Path(reflow.__file__).with_name("py.typed").exists()
