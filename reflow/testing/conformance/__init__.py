"""The storage contract as cases: what any adapter must do, whoever wrote it. No test framework is needed.

Each case is called after a clause of `StorageAdapter`'s docstrings, and its own docstring is the fact that it asserts.
A2 and A3 have no case here: what a table of another version is, or a file that cannot be opened, differs from adapter
to adapter, and so each one needs tests of its own for them.

A case runs on empty data, and is given `another`: a function that makes an adapter on that same data each time it is
called, not initialized yet. Of an adapter for a file or a server that is a second connection, as of a second process.
Most clauses about several callers say something only if there are two; so where two adapters can share data, let them.
An adapter that keeps its data in this process returns itself.

    def fresh():
        path = Path(mkdtemp()) / "data"
        return lambda: MyStorage(path)

    print(await check(fresh))  # a `Report`; `report.broken` is empty when all is well

    @pytest.mark.parametrize("case", cases(), ids=str)  # or, case by case
    async def test_case(case):
        await case(fresh())

Reading order: expectation, words, opening, claiming, writing, families, endings, mailbox, inspection, schedules,
reading, listening, suite.
"""

from reflow.testing.conformance.suite import Broken, Case, Report, cases, check
from reflow.testing.conformance.words import Another

__all__ = ["Another", "Broken", "Case", "Report", "cases", "check"]
