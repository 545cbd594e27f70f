"""Durable workflows for Python, written as plain generator functions."""

__version__ = "0.1.0"
