"""Development sessions: `nox` runs lint, types and tests; `nox -s bench` measures, `nox -s crash` breaks things."""

from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True

PYTHONS = ["3.11", "3.12", "3.13"]


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    session.install("ruff~=0.17.0")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict and pyright strict over the package and the expected types."""
    session.install("-e", ".[tests]", "mypy~=2.4", "pyright[nodejs]~=1.1.414")
    session.run("mypy")
    session.run("pyright")


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite. Arguments go to pytest: `nox -s tests -- tests/core`."""
    session.install("-e", ".[tests]")
    session.run("pytest", *session.posargs)


@nox.session(python=PYTHONS, name="tests-all")
def tests_all(session: nox.Session) -> None:
    """The test suite on every supported Python that is installed."""
    session.install("-e", ".[tests]")
    session.run("pytest", *session.posargs)


@nox.session
def crash(session: nox.Session) -> None:
    """The proof of reliability, with tables of faults and of bugs caught: `nox -s crash`, or `nox -s crash -- long`."""
    session.install("-e", ".[tests]")
    is_long = "long" in session.posargs
    arguments = [argument for argument in session.posargs if argument != "long"]
    tests = ["tests/crash", "tests/testing/test_conformance.py::test_a_flaw_is_found"]
    session.run("pytest", *tests, *arguments, env={"REFLOW_CRASH": "long"} if is_long else {})


@nox.session
def postgres(session: nox.Session) -> None:
    """What concerns Postgres, on a version of one's own: `nox -s postgres -- /usr/lib/postgresql/15/bin`, or the DSN of
    a server, where tests use schemas of their own; more arguments go to pytest."""
    session.install("-e", ".[tests]")
    [where, *arguments] = session.posargs or session.error("say which: a folder of programs, or a DSN")
    name = "REFLOW_TEST_PG_BIN" if Path(where).is_dir() else "REFLOW_TEST_PG_DSN"
    tests = ["tests/storage", "tests/engine", "tests/features", "tests/cli/test_copy.py"]
    chosen = ["-k", "postgres or schema or pooled or copy"]
    session.run("pytest", *tests, *chosen, *arguments, env={name: where, "REFLOW_REQUIRE_PG": "1"})


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks. Arguments go to them: `nox -s bench -- chain`."""
    session.install("-e", ".[tests]")
    session.run("python", "-m", "tests.bench", *session.posargs)
