"""Refusals of weights bundles, made where something is wrong and named where the file is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mkd_core.errors import BundleError
from mkd_core.measure.messages import finding, refusal

#: Longest text of a file that is quoted, in characters.
_LONGEST_QUOTE = 200


def refused(code: str, **figures: Any) -> BundleError:
    """The error of a code, without the file's name; texts of the file are made fit to be shown."""
    return refusal(finding(code, **{name: _fit(value) for name, value in figures.items()}), BundleError)


def named(error: BundleError, path: Path) -> BundleError:
    """The same error with the name of the file, in place of an earlier name."""
    assert error.finding is not None
    return refusal(replace(error.finding, figures={**error.finding.figures, "file": _fit(path.name)}), BundleError)


def _fit(value: Any) -> Any:
    """Text without control characters and of a length that can be shown; numbers as they are."""
    if not isinstance(value, str):
        return value
    start = value[: _LONGEST_QUOTE + 1]
    text = start if start.isprintable() else ascii(start)[1:-1]
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…"
