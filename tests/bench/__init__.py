"""Benchmarks: `python -m tests.bench [NAME ...]`. Not tests: they measure, check their results, and judge nothing."""
