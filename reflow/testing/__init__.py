"""For tests of yours: the checks and the worlds in which Reflow itself is tested. Nothing of it is loaded by
`import reflow`, and nothing of it needs a test framework.

`reflow.testing.conformance` says whether a storage adapter keeps the contract, clause by clause.
"""
