"""Measurements in steps, for programs that must look at their events meanwhile: generators that yield between short
pieces of work and return the result.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

Result = TypeVar("Result")


def all_at_once(steps: Generator[None, None, Result]) -> Result:
    """Take all steps of a generator without a break and return its value."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
